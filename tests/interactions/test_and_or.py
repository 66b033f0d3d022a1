"""The sparse split against linear programs, planted effects and the published recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from programs import least_joint_sum, least_sum
from torch import Tensor

from pyinterp.interactions import harsanyi_and, reconstruct, sparse_and_or, sparse_and_or_jointly


def random_games(count: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def planted(n: int, effects: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A game of a few AND and OR effects of at least two players."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(2):
        part = torch.zeros(2**n, dtype=torch.float64)
        subsets = [s for s in range(2**n) if s.bit_count() > 1]
        chosen = torch.randperm(len(subsets), generator=generator)[:effects]
        strength = 1 + torch.rand(effects, dtype=torch.float64, generator=generator)
        part[torch.tensor(subsets, dtype=torch.int64)[chosen]] = (
            strength * torch.randn(effects, generator=generator).sign()
        )
        parts.append(part)
    return reconstruct(*parts), parts[0], parts[1]


@pytest.mark.parametrize("noise", [0.0, 0.04, 0.3])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_the_objective_is_the_least_one(n: int, noise: float) -> None:
    for values in (*random_games(2, n, seed=n), planted(n, min(3, 2**n - n - 1), seed=n)[0]):
        found = sparse_and_or(values, noise)
        least = least_sum(values.numpy(), noise * float((values[-1] - values[0]).abs()))
        assert found.converged
        assert least - 1e-6 <= found.objective <= least * 1.001 + 1e-9
        assert found.objective * (1 - found.gap) <= least + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.04])
def test_the_objective_is_the_least_one_for_nine_players(noise: float) -> None:
    values, _, _ = planted(9, 12)
    values = values + 0.05 * random_games(1, 9)[0]
    found = sparse_and_or(values, noise)
    least = least_sum(values.numpy(), noise * float((values[-1] - values[0]).abs()))
    assert found.converged
    assert least - 1e-6 <= found.objective <= least * 1.001


def test_planted_effects_come_back() -> None:
    values, and_, or_ = planted(8, 6)
    found = sparse_and_or(values, 0.0, tolerance=1e-8)
    torch.testing.assert_close(found.and_, and_, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.or_, or_, atol=1e-5, rtol=0)


@pytest.mark.parametrize("noise", [0.0, 0.04])
def test_every_value_is_matched_within_the_bound(noise: float) -> None:
    values = random_games(6, 6).reshape(2, 3, -1)
    found = sparse_and_or(values, noise)
    torch.testing.assert_close(
        reconstruct(found.and_, found.or_), values + found.residual, atol=1e-12, rtol=0
    )
    bound = noise * (values[..., -1:] - values[..., :1]).abs()
    assert (found.residual.abs() <= bound + 1e-12).all()
    assert (found.residual[..., 0] == 0).all()
    assert (found.primal_residual < 1e-12).all()
    assert torch.equal(found.and_[..., 0], values[..., 0]) and (found.or_[..., 0] == 0).all()
    for name in ("objective", "gap", "primal_residual", "iterations", "converged"):
        assert getattr(found, name).shape == (2, 3)
    sizes = found.and_[..., 1:].abs().sum(-1) + found.or_[..., 1:].abs().sum(-1)
    torch.testing.assert_close(found.objective, sizes)


def test_a_sum_of_players_has_effects_of_single_players_alone() -> None:
    weights = torch.tensor([3.0, -1.0, 0.5, 2.0, -4.0, 1.0], dtype=torch.float64)
    present = torch.arange(64)[:, None] >> torch.arange(6) & 1
    found = sparse_and_or(present.double() @ weights, 0.0, tolerance=1e-6)
    single = 2 ** torch.arange(6)
    torch.testing.assert_close((found.and_ + found.or_)[single], weights, atol=1e-4, rtol=0)
    assert found.objective == pytest.approx(float(weights.abs().sum()), rel=1e-5)


def test_games_do_not_touch_each_other() -> None:
    values = random_games(3, 5) * torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)[:, None]
    together = sparse_and_or(values)
    for i, game in enumerate(values):
        assert torch.equal(sparse_and_or(game).and_, together.and_[i])


def test_the_scale_of_the_values_does_not_matter() -> None:
    values = random_games(1, 6)[0]
    one, other = sparse_and_or(values), sparse_and_or(1e5 * values)
    assert int(one.iterations) == int(other.iterations)
    torch.testing.assert_close(1e5 * one.and_, other.and_)


def test_a_constant_game_has_no_effects() -> None:
    found = sparse_and_or(torch.full((16,), 3.0))
    assert found.objective == 0 and found.gap == 0 and found.converged
    assert found.and_[0] == 3 and (found.and_[1:] == 0).all() and (found.or_ == 0).all()


def test_no_players_at_all() -> None:
    found = sparse_and_or(torch.tensor([2.5]))
    assert found.and_.tolist() == [2.5] and found.objective == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_the_values_is_kept(dtype: torch.dtype) -> None:
    values = random_games(1, 4)[0].to(dtype)
    found = sparse_and_or(values)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.and_.dtype == found.or_.dtype == found.residual.dtype == wanted
    truth = sparse_and_or(values.double())
    torch.testing.assert_close(found.and_.double(), truth.and_, atol=1e-6, rtol=1e-6)


def test_what_is_not_needed_is_zero() -> None:
    values, _, _ = planted(8, 6)
    values = values + 0.02 * random_games(1, 8)[0]
    found = sparse_and_or(values, noise=0.1)
    used = int((found.and_[1:] != 0).sum() + (found.or_[1:] != 0).sum())
    assert found.converged and found.primal_residual == 0
    assert used < 0.5 * 2**8


def test_missing_the_tolerance_is_said() -> None:
    values = random_games(2, 8)
    with pytest.warns(
        UserWarning, match=r"gap of at most 1e-09, got .* in 2 of 2 games. Raise max_iterations"
    ):
        found = sparse_and_or(values, tolerance=1e-9, max_iterations=30)
    assert not found.converged.any() and (found.gap > 1e-9).all()
    bound = 0.04 * (values[:, -1:] - values[:, :1]).abs()
    assert (found.residual.abs() <= bound + 1e-9).all()


def test_the_published_recipe_ends_above() -> None:
    values, _, _ = planted(6, 5)
    recipe = sparse_and_or(values, solver="sgd", learning_rate=1e-3, max_iterations=5000)
    ours = sparse_and_or(values)
    assert ours.objective <= recipe.objective * 1.001
    assert recipe.objective < 0.7 * harsanyi_and(values).abs()[1:].sum()
    torch.testing.assert_close(reconstruct(recipe.and_, recipe.or_), values + recipe.residual)
    assert recipe.primal_residual < 1e-12
    assert recipe.gap.isnan() and not recipe.converged


@pytest.mark.parametrize("private", [0.0, 0.1, 0.7, 1.0])
def test_the_joint_objective_is_the_least_one(private: float) -> None:
    values = random_games(3, 4)
    values[1:] += values[:1]
    found = sparse_and_or_jointly(values, 0.05, private=private)
    bounds = 0.05 * (values[:, -1] - values[:, 0]).abs()
    least = least_joint_sum(values.numpy(), bounds.numpy(), private)
    assert found.converged
    assert least - 1e-6 <= found.objective <= least * 1.001
    torch.testing.assert_close(
        reconstruct(found.and_, found.or_), values + found.residual, atol=1e-12, rtol=0
    )
    assert (found.residual.abs() <= bounds[:, None] + 1e-12).all()


def test_a_joint_split_of_one_game_or_of_private_effects_is_the_plain_one() -> None:
    values = random_games(2, 5)
    plain = sparse_and_or(values, 0.02)
    torch.testing.assert_close(
        sparse_and_or_jointly(values, private=1.0).objective, plain.objective.sum(), rtol=2e-3, atol=0
    )
    torch.testing.assert_close(
        sparse_and_or_jointly(values[:1]).objective, plain.objective[0], rtol=2e-3, atol=0
    )


def test_models_that_share_effects_are_split_alike() -> None:
    shared, _, _ = planted(6, 5)
    values = torch.stack([shared, shared + 0.3 * random_games(1, 6)[0]])
    jointly, alone = sparse_and_or_jointly(values), sparse_and_or(values, 0.02)

    def overlap(found: Tensor) -> float:
        first, second = (set(part.abs().topk(10).indices.tolist()) for part in found[:, 1:])
        return len(first & second) / len(first | second)

    assert overlap(jointly.and_) + overlap(jointly.or_) > overlap(alone.and_) + overlap(alone.or_)


V = torch.zeros(8)
BROKEN = torch.where(torch.arange(8) == 3, torch.nan, V)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"values of shape \(\.\.\., 2\^n\), got \(7,\)", lambda: sparse_and_or(torch.zeros(7))),
        (ValueError, r"at most 20 players, got 21", lambda: sparse_and_or(torch.zeros(2**21))),
        (ValueError, r"noise in \[0, 1\), got 1.5", lambda: sparse_and_or(V, 1.5)),
        (ValueError, r"noise in \[0, 1\), got nan", lambda: sparse_and_or(V, float("nan"))),
        (ValueError, r"noise in \[0, 1\), got -0.1", lambda: sparse_and_or(V, -0.1)),
        (ValueError, r"tolerance >= 0", lambda: sparse_and_or(V, tolerance=-1.0)),
        (ValueError, r"max_iterations >= 1", lambda: sparse_and_or(V, max_iterations=0)),
        (ValueError, r'"splitting" or "sgd", got \'adam\'', lambda: sparse_and_or(V, solver="adam")),  # type: ignore[arg-type]
        (ValueError, r"finite values, got nan for players \{0, 1\}", lambda: sparse_and_or(BROKEN)),
        (TypeError, r"got torch.int64", lambda: sparse_and_or(V.long())),
        (ValueError, r"shape \(models, 2\^n\), got \(8,\)", lambda: sparse_and_or_jointly(V)),
        (ValueError, r"private in \[0, 1\], got 2", lambda: sparse_and_or_jointly(V[None], private=2)),
    ],
)  # fmt: skip
def test_bad_input(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]


def test_a_numpy_oracle_agrees_with_a_game_solved_by_hand() -> None:
    # v = 1 as soon as one of two players is there: one OR effect, where AND alone needs three.
    values = np.array([0.0, 1.0, 1.0, 1.0])
    assert least_sum(values, 0.0) == pytest.approx(1.0)
    assert float(sparse_and_or(torch.from_numpy(values), 0.0).objective) == pytest.approx(1.0, rel=1e-3)
