"""Student's quantile against its tables, intervals against their coverage."""

from __future__ import annotations

import pytest
import torch

from pyinterp.interactions.intervals import intervals_of, t_quantile


# Two-sided, from the tables of Student's distribution.
@pytest.mark.parametrize(
    ("level", "degrees", "quantile"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.30265),
        (0.95, 3, 3.18245),
        (0.95, 9, 2.26216),
        (0.99, 4, 4.60409),
        (0.5, 5, 0.72669),
        (0.95, 1000, 1.96234),
    ],
)
def test_the_quantile_is_students(level: float, degrees: int, quantile: float) -> None:
    assert t_quantile(level, degrees) == pytest.approx(quantile, rel=2e-5)


def test_the_interval_of_the_mean_covers_it_as_often_as_it_says() -> None:
    draws = 5 + 2 * torch.randn(6, 20_000)
    found = intervals_of(draws, 0.9)
    assert float(((found.low < 5) & (found.high > 5)).double().mean()) == pytest.approx(0.9, abs=0.01)
    torch.testing.assert_close(found.mean, draws.double().mean(0))
    torch.testing.assert_close(found.std, draws.double().std(0))


def test_the_interval_of_draws_holds_most_of_them() -> None:
    draws = torch.arange(101.0)[:, None]
    found = intervals_of(draws, 0.9, "draws")
    assert (float(found.low), float(found.high)) == pytest.approx((5, 95))
    assert (found.level, found.kind) == (0.9, "draws")


def test_wrong_options_are_refused() -> None:
    draws = torch.randn(3, 4)
    with pytest.raises(ValueError, match="at least 2 draws"):
        intervals_of(draws[:1])
    with pytest.raises(ValueError, match=r"a level in \(0, 1\)"):
        intervals_of(draws, 1.0)
    with pytest.raises(ValueError, match='"mean" or "draws"'):
        intervals_of(draws, kind="median")  # type: ignore[arg-type]
