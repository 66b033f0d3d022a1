"""Strengths, floors, ranks and curves against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from planted_games import AND, CONSTANT, OR, N, effects, scores

from pyinterp.interactions import error_curve, harsanyi_and, noise_floor, strength_by_order
from pyinterp.interactions.metrics import rank
from pyinterp.interactions.subsets import subset_sizes


def test_strengths_are_summed_by_size() -> None:
    both = torch.stack([effects(AND, N), effects(OR, N)])
    assert strength_by_order(both).tolist() == [[0, 0.5, 3, 1, 0, 0], [0, 0.25, 2, 0.25, 0, 0]]


def test_the_rank_is_by_size_without_constants_and_zeros() -> None:
    and_, or_ = effects(AND, N), effects(OR, N)
    and_[0], or_[0] = 100, 100
    # The ties of 0.25 come in the order of their index.
    assert rank(and_, or_).tolist() == [0b00011, 32 + 0b11000, 0b00111, 0b00001, 32 + 0b00001, 32 + 0b10101]


def test_the_curve_is_the_error_of_each_reconstruction() -> None:
    and_, or_ = effects(AND, N), effects(OR, N)
    and_[0] = CONSTANT
    values = scores(AND, OR, N, CONSTANT)
    curve = error_curve(values, and_, or_)
    assert curve.counts == tuple(range(7))
    spread = (values - values[0]).square().mean().sqrt()
    kept_and, kept_or = {}, {}
    for count, position in enumerate([None, *rank(and_, or_).tolist()]):
        if position is not None:
            kept, table, code = (kept_or, OR, position - 32) if position >= 32 else (kept_and, AND, position)
            kept[code] = table[code]
        error = (scores(kept_and, kept_or, N, CONSTANT) - values).square().mean().sqrt() / spread
        assert curve.errors[count] == pytest.approx(float(error), abs=1e-12)
    assert curve.errors[0] == 1 and curve.errors[-1] < 1e-12


def test_the_curve_of_many_effects_thins_out_and_ends_at_all() -> None:
    values = torch.randn(2**10, dtype=torch.float64)
    and_ = harsanyi_and(values)
    curve = error_curve(values, and_, torch.zeros_like(and_))
    assert len(curve.counts) < 100
    assert curve.counts[:33] == tuple(range(33)) and curve.counts[-1] == 1023
    assert curve.errors[-1] < 1e-9
    assert error_curve(values, and_, torch.zeros_like(and_), [1023, 5]).counts == (1023, 5)


def test_the_curve_of_a_constant_game_is_zero() -> None:
    values, none = torch.full((8,), 3.0), torch.zeros(8)
    constant = torch.tensor([3.0, 0, 0, 0, 0, 0, 0, 0])
    assert error_curve(values, constant, none).errors == (0.0,)


def test_counts_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="counts from 0 to 3, got 9"):
        error_curve(scores(AND, {}, N), effects(AND, N), effects({}, N), [1, 9])


def test_the_floor_grows_by_the_root_of_two_per_player() -> None:
    floor = noise_floor(0.1, 6)
    assert floor.tolist() == pytest.approx(
        [0.1 * 2 ** (m / 2) * math.sqrt(2 * math.log(2 * 2**6)) for m in range(7)]
    )
    for sigma in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="sigma >= 0"):
            noise_floor(sigma, 3)


def test_noise_alone_stays_below_the_floor_and_has_the_spread_it_assumes() -> None:
    n, sigma = 10, 0.3
    dense = harsanyi_and(sigma * torch.randn(20, 2**n, dtype=torch.float64))
    sizes = subset_sizes(n)
    for m in range(2, 9):
        assert float(dense[:, sizes == m].std()) == pytest.approx(sigma * 2 ** (m / 2), rel=0.15)
    over = (dense.abs() > noise_floor(sigma, n)[sizes]).double().mean()
    assert over < 1e-3
