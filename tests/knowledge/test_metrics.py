"""Overlap, forget, new, IoU and intervals against slow ones straight from the definitions."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from scipy.stats import binom, norm
from scipy.stats import t as student
from torch import Tensor

from pyinterp.knowledge.metrics import (
    _expanded,
    bootstrap,
    by_order,
    can_tell,
    corrected,
    is_chance,
    jaccard,
    transfer,
)

N = 4


def effects(seed: int, rows: int = 3) -> Tensor:
    torch.manual_seed(seed)
    found = torch.randn(rows, 2, 2**N, dtype=torch.float64)
    return torch.where(torch.rand_like(found) < 0.6, found, 0)


def slow(before: Tensor, after: Tensor, order: int, counts: bool) -> tuple[float, float, float]:
    """(overlap, forget, new) of one type, in plain Python."""
    overlap = forget = new = 0.0
    for code in range(2**N):
        if code.bit_count() != order or order == 0:
            continue
        i, j = float(before[code]), float(after[code])
        if counts:
            i, j = float(i > 0) - float(i < 0), float(j > 0) - float(j < 0)
        share = math.copysign(min(abs(i), abs(j)), j) if i * j > 0 else 0.0
        overlap += abs(share)
        forget += abs(i - share)
        new += abs(j - share)
    return overlap, forget, new


@pytest.mark.parametrize("counts", [False, True])
def test_transfer_is_its_definition(counts: bool) -> None:
    before, after = effects(0), effects(1)
    found = transfer(before, after, counts=counts)
    for row in range(3):
        for kind in range(2):
            for order in range(N + 1):
                wanted = slow(before[row, kind], after[row, kind], order, counts)
                got = [float(one[row, kind, order]) for one in (found.overlap, found.forget, found.new)]
                assert got == pytest.approx(wanted, abs=1e-12)


def test_all_that_there_is_is_shared_or_not() -> None:
    before, after = effects(2), effects(3)
    found = transfer(before, after)
    torch.testing.assert_close(found.overlap + found.forget, by_order(before.abs()))
    torch.testing.assert_close(found.overlap + found.new, by_order(after.abs()))
    same = transfer(before, before)
    assert not same.forget.any() and not same.new.any()
    assert same.completeness.tolist() == [1, 1, 1] and same.redundancy.tolist() == [0, 0, 0]
    opposite = transfer(before, -before)
    assert not opposite.overlap.any() and opposite.redundancy.tolist() == [1, 1, 1]


def test_iou_and_what_chance_makes_of_it() -> None:
    """The expected IoU is the mean over all sets of that size."""
    first, second = torch.zeros(2**N, dtype=torch.bool), torch.zeros(2**N, dtype=torch.bool)
    pairs = [code for code in range(2**N) if code.bit_count() == 2]
    first[pairs[:3]], second[[pairs[2], pairs[3]]] = True, True
    second[0b1111] = True
    iou, expected = jaccard(first, second)
    assert float(iou[2]) == pytest.approx(1 / 4)
    others = [set(some) for some in combinations(pairs, 2)]
    wanted = sum(len(set(pairs[:3]) & one) / len(set(pairs[:3]) | one) for one in others) / len(others)
    assert float(expected[2]) == pytest.approx(wanted)
    assert float(corrected(iou, expected)[2]) == pytest.approx((0.25 - wanted) / (1 - wanted))
    assert math.isnan(float(iou[1])) and math.isnan(float(iou[0]))
    assert math.isnan(float(iou[4]))  # of one subset there is no choice
    assert float(corrected(*jaccard(first, first))[2]) == pytest.approx(1)


def test_unrelated_sets_score_zero_on_average() -> None:
    torch.manual_seed(0)
    first, second = torch.rand(2, 2000, 2**6) < 0.3
    found = corrected(*jaccard(first, second))[:, 3]
    assert abs(float(found.nanmean())) < 4 * float(found.std()) / 2000**0.5


def test_intervals_are_those_of_resampled_means() -> None:
    """Against the normal law, for a mean of many; a constant has no spread; NaN are left out."""
    torch.manual_seed(0)
    values = torch.randn(400, 2, dtype=torch.float64)
    found = bootstrap((values,), lambda mean: mean, draws=4000)
    torch.testing.assert_close(found.value, values.mean(0))
    spread = values.std(0, correction=0) / 20
    torch.testing.assert_close(found.high - found.value, 1.96 * spread, rtol=0.06, atol=0)
    torch.testing.assert_close(found.value - found.low, 1.96 * spread, rtol=0.06, atol=0)
    same = bootstrap((torch.full((5,), 2.0),), lambda mean: mean)
    assert float(same.low) == float(same.high) == 2
    values[::2, 0] = torch.nan
    assert float(bootstrap((values,), lambda mean: mean).value[0]) == pytest.approx(
        float(values[1::2, 0].mean())
    )
    ratio = bootstrap((values[:, 1] + 9, values[:, 1] * 0 + 3), lambda a, b: a / b)
    assert float(ratio.value) == pytest.approx(float(values[:, 1].mean() + 9) / 3)


@pytest.mark.parametrize(("count", "wanted"), [(5, 0.89), (10, 0.93), (30, 0.93)])
def test_intervals_of_few_images_cover_what_they_say(count: int, wanted: float) -> None:
    """Means of normal numbers; without the correction 85 % of 5, 90 % of 10 and 94 % of 30."""
    torch.manual_seed(0)
    values = torch.randn(count, 2000, dtype=torch.float64)
    found = bootstrap((values,), lambda mean: mean)
    inside = float(((found.low < 0) & (found.high > 0)).double().mean())
    assert wanted < inside < 0.97


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30, 1000])
def test_percentiles_are_moved_out_as_students_law_asks(count: int) -> None:
    wanted = norm.cdf(-student.ppf(0.975, count - 1) * (count / (count - 1)) ** 0.5)
    assert _expanded(0.025, count) == pytest.approx(wanted, rel=2e-3, abs=1e-12)


def test_too_few_samples_can_tell_nothing() -> None:
    assert not is_chance(1.0, 0.5, 6) and not can_tell(0.5, 6)  # all right, by chance, one time in 64
    assert not is_chance(1.0, 0.5, 7) and can_tell(0.5, 7)
    assert is_chance(6 / 7, 0.5, 7) and not can_tell(1.0, 100)


@pytest.mark.parametrize(
    ("right", "samples", "chance"), [(9, 20, 0.25), (10, 20, 0.25), (17, 40, 0.25), (3, 90, 0.1)]
)
def test_guessing_is_known_by_the_binomial_law(right: int, samples: int, chance: float) -> None:
    wanted = float(binom.sf(right - 1, samples, chance)) > 0.01
    assert is_chance(right / samples, chance, samples) == wanted


def test_too_few_images_have_no_interval() -> None:
    with pytest.raises(ValueError, match="two images or more, got 1"):
        bootstrap((torch.ones(1),), lambda mean: mean)
    with pytest.raises(ValueError, match="0 < level < 1"):
        bootstrap((torch.ones(3),), lambda mean: mean, level=95)
