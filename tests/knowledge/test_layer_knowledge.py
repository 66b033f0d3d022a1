"""What a LayerKnowledge tells of effects: against the definitions, on effects made by hand and measured ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyinterp.knowledge import LayerKnowledge

AND, OR = 0, 1
FIRST, SECOND = 0b0011, 0b1100


def test_low_orders_are_those_of_three_parts_at_most(measured: LayerKnowledge) -> None:
    effects = torch.zeros_like(measured.effects)
    effects[:, :, AND, FIRST], effects[:, 1, OR, 0b1111], effects[:, 2, AND, 0b0111] = -1, 3, 2
    found = replace(measured, effects=effects, sigma=torch.zeros_like(measured.sigma))
    assert found.low_orders().value.tolist() == [1, 0.25, 1]
    assert found.low_orders(counts=True).value.tolist() == [1, 0.5, 1]


def test_numbers_are_those_of_the_definitions(measured: LayerKnowledge) -> None:
    """Salience and transfer in plain Python, from the effects."""
    one = measured
    layers, size = len(one.layers), 16
    totals = {name: torch.zeros(6, layers, 2, 5).double() for name in ("overlap", "forget", "new")}
    below = torch.zeros(6, layers, 2, 5)
    for m in range(6):

        def effect(i: int, k: int, s: int, m: int = m) -> float:
            largest = float(one.effects[:, i, :, 1:].abs().max())
            strength, order = float(one.effects[m, i, k, s]), s.bit_count()
            floor = (
                float(one.sigma[m, i]) * 2 ** (order / 2) * (2 * torch.tensor(2.0 * size).log().item()) ** 0.5
            )
            if abs(strength) < 0.05 * largest:
                return 0.0
            if abs(strength) <= floor:
                below[m, i, k, order] += 1
                return 0.0
            return strength

        for i in range(layers):
            for k in (0, 1):
                for s in range(1, size):
                    a, b = effect(i, k, s), effect(layers - 1, k, s)
                    share = (1 if b > 0 else -1) * min(abs(a), abs(b)) if a * b > 0 else 0.0
                    for name, part in (("overlap", share), ("forget", a - share), ("new", b - share)):
                        totals[name][m, i, k, s.bit_count()] += abs(part)
    found = one.transfer()
    for name, total in totals.items():
        torch.testing.assert_close(getattr(found, name), total)
        torch.testing.assert_close(getattr(one, name)().value, total.mean(0))
    assert one.below_floor[:, :-1].sum() == below[:, :-1].sum()


def test_shares_forget_how_sure_a_layer_is(measured: LayerKnowledge) -> None:
    """A layer whose scores are twice as large has the same shares."""
    louder = replace(
        measured,
        effects=measured.effects * torch.tensor([1.0, 2, 1])[:, None, None],
        values=measured.values * torch.tensor([1.0, 2, 1])[:, None],
        sigma=measured.sigma * torch.tensor([1.0, 2, 1]),
        spread=None,
    )
    shares = measured.relative()
    torch.testing.assert_close(louder.relative().effects, shares.effects)
    torch.testing.assert_close(louder.relative().completeness().value, shares.completeness().value)
    assert float((louder.completeness().value - measured.completeness().value).abs().max()) > 1e-3
    sums = shares.effects[..., 1:].abs().sum((2, 3))
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert shares.stability().value[:, 1].tolist() == pytest.approx(
        measured.stability().value[:, 1].tolist(), rel=0.5
    )
    assert shares.is_relative and not measured.is_relative


def test_strengths_are_sorted_image_by_image(measured: LayerKnowledge) -> None:
    shares = []
    for image in measured.effects[:, 1]:
        strengths = sorted((abs(float(one)) for kind in image for one in kind[1:]), reverse=True)
        shares.append([one / strengths[0] for one in strengths])
    wanted = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
    assert measured.sorted_strengths()[1].tolist() == pytest.approx(wanted)


def test_it_is_kept_on_disk(measured: LayerKnowledge, tmp_path: Path) -> None:
    measured.save(tmp_path / "known")
    again = LayerKnowledge.load(tmp_path / "known")
    assert again.layers == measured.layers and again.versions == measured.versions
    assert torch.equal(again.kept, measured.kept) and again.summary() == measured.summary()
    assert torch.equal(again.stability().value.nan_to_num(), measured.stability().value.nan_to_num())
    (tmp_path / "known.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="damaged"):
        LayerKnowledge.load(tmp_path / "known")


def test_interactions_rebuild_the_scores_of_every_layer(measured: LayerKnowledge) -> None:
    from pyinterp.interactions import reconstruct

    rebuilt = reconstruct(measured.effects[:, :, 0].double(), measured.effects[:, :, 1].double())
    spread = (measured.values[..., -1] - measured.values[..., 0]).abs()
    assert ((rebuilt - measured.values).abs().amax(-1) <= 0.04 * spread + 1e-4).all()


def test_what_only_the_less_noisy_layer_can_tell_is_left_out() -> None:
    """Small effects of both layers, and one that is gone; the second layer's floor is far above the small ones."""
    effects = torch.zeros(2, 2, 2, 16)
    effects[:, :, AND, 1:8] = 0.1
    effects[:, 0, OR, SECOND] = 1.0
    names, zeros = tuple("abcd"), torch.zeros(2, 2, dtype=torch.float64)
    found = LayerKnowledge(
        layers=("clear", "noisy"),
        effects=effects,
        values=torch.zeros(2, 2, 16),
        sigma=torch.tensor([[1e-6, 0.1]] * 2, dtype=torch.float64),
        gap=zeros,
        accuracy=torch.full((2,), torch.nan, dtype=torch.float64),
        labels=torch.zeros(2, dtype=torch.int64),
        image_names=("one", "two"),
        player_names=names,
    )
    assert found.salient.sum((2, 3)).tolist() == [[8, 0], [8, 0]]
    parts = found.transfer("next", counts=True)
    assert float(parts.forget.sum()) == 2 and float(parts.overlap.sum()) == float(parts.new.sum()) == 0
    clear = replace(found, sigma=torch.full((2, 2), 1e-6, dtype=torch.float64))
    assert float(clear.transfer("next", counts=True).overlap.sum()) == 14


def test_completeness_by_order_is_its_definition(measured: LayerKnowledge) -> None:
    parts = measured.transfer()
    overlap, forget, new = (part.mean(0) for part in (parts.overlap, parts.forget, parts.new))
    complete, redundant = measured.completeness(by_order=True), measured.redundancy(by_order=True)
    torch.testing.assert_close(complete.value, overlap / (overlap + new), equal_nan=True)
    torch.testing.assert_close(redundant.value, forget / (overlap + forget), equal_nan=True)
    known = complete.value.isfinite()
    assert known.any() and bool((complete.low[known] <= complete.value[known] + 1e-12).all())


def test_stability_is_right_on_average_for_few_draws() -> None:
    """Effects of mean 3 and deviation 1 over five draws."""
    torch.manual_seed(0)
    seen = 3 + torch.randn(400, 5, 2, 64, dtype=torch.float64)
    spread = torch.stack([seen.mean(1), seen.std(1)], -1)[:, None]
    ones, names = torch.ones(400, 1, dtype=torch.float64), tuple("abcdef")
    found = LayerKnowledge(
        layers=("output",),
        effects=torch.ones(400, 1, 2, 64),
        values=torch.zeros(400, 1, 64),
        sigma=0 * ones,
        gap=0 * ones,
        accuracy=torch.full((1,), torch.nan, dtype=torch.float64),
        labels=torch.zeros(400, dtype=torch.int64),
        image_names=tuple(str(i) for i in range(400)),
        player_names=names,
        spread=spread,
        draws=5,
        input_noise=0.02,
    )
    assert found.stability().value[0, 1:6].tolist() == pytest.approx([3] * 5, abs=0.15)
