"""Fidelity and the questions asked of a chain, against formulas written out and a network whose chain is known."""

from __future__ import annotations

import math

import pytest
import torch
from byhand import chain_of, pictures, residual, without
from planted import USED, WIDTH, planted
from planted import pictures as planted_pictures
from torch import Tensor

from pyinterp.chains.analysis import minimality, necessity, overlap, stability, sufficiency_curve
from pyinterp.chains.evaluate import BATCH, measure_fidelity

REMOVED = {"stem": [1], "conv1": [0, 3, 4], "conv2": [2]}


def kl_by_hand(full: Tensor, chain: Tensor) -> float:
    """mean_x sum_c p_c (log p_c - log q_c), one number at a time."""
    total = 0.0
    for a, b in zip(full.double().tolist(), chain.double().tolist(), strict=True):
        size_a, size_b = math.log(sum(map(math.exp, a))), math.log(sum(map(math.exp, b)))
        total += sum(math.exp(u - size_a) * ((u - size_a) - (v - size_b)) for u, v in zip(a, b, strict=True))
    return total / len(full)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fidelity_is_its_formulas(dtype: torch.dtype) -> None:
    net, images = residual().to(dtype), pictures(BATCH + 3).to(dtype)
    chain = chain_of(net, images, REMOVED, mode="scaled", scores={"conv1": torch.linspace(0.5, 2, 8)})
    labels = torch.arange(len(images)) % 3
    got = chain.evaluate(net, images, labels)
    with torch.no_grad():
        full = net(images)
    answer = without(net, chain, images)
    assert set(got) == {"kl", "agreement", "logit_error", "accuracy", "accuracy_full"}
    assert got["kl"] == pytest.approx(kl_by_hand(full, answer), rel=1e-4)
    assert got["agreement"] == pytest.approx(float((full.argmax(1) == answer.argmax(1)).double().mean()))
    assert got["logit_error"] == pytest.approx(float((full - answer).square().mean()) ** 0.5, rel=1e-4)
    assert got["accuracy"] == pytest.approx(float((answer.argmax(1) == labels).double().mean()))
    assert got["accuracy_full"] == pytest.approx(float((full.argmax(1) == labels).double().mean()))
    assert 0 < got["agreement"] < 1, "an example in which nothing changes shows nothing"


def test_the_whole_network_is_perfectly_faithful() -> None:
    net, images = residual(), pictures()
    got = chain_of(net, images, {}).evaluate(net, images)
    assert got == {"kl": 0.0, "agreement": 1.0, "logit_error": 0.0}


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 3, 8, 9), None, r"images \(N, 3, 9, 9\)"),
        (torch.zeros(0, 3, 9, 9), None, "images"),
        (torch.zeros(3, 9, 9), None, "images"),
        (torch.zeros(2, 3, 9, 9), torch.zeros(3, dtype=torch.long), r"labels \(2,\)"),
        (torch.zeros(2, 3, 9, 9), torch.tensor([0, 99]), "whole numbers from 0 to"),
        (torch.zeros(2, 3, 9, 9), torch.tensor([-1, 0]), "whole numbers from 0 to"),
        (torch.zeros(2, 3, 9, 9), torch.tensor([0.0, 1.0]), "whole numbers from 0 to"),
        (torch.full((2, 3, 9, 9), float("nan")), None, "finite logits"),
    ],
)
def test_other_images_or_labels_are_refused(images: Tensor, labels: Tensor | None, words: str) -> None:
    net = residual()
    chain = chain_of(net, pictures(), {})
    with pytest.raises(ValueError, match=words):
        measure_fidelity(chain.bind(net), chain.gates(), images, labels)


def planted_chain(noise: float = 0.0, spare: int = 0):  # type: ignore[no-untyped-def]
    """The four filters of each conv that carry the answer, and a few spare ones."""
    net, images = planted(noise), planted_pictures()
    gone = list(range(USED + spare, WIDTH))
    return net, images, chain_of(net, images, {"conv1": gone, "conv2": gone})


def test_necessity_of_a_planted_chain() -> None:
    net, images, chain = planted_chain()
    got = necessity(chain, net, images)
    with torch.no_grad():
        full = net(images)
        constant = net.head.bias.expand(len(images), -1)
    assert got["chain"]["kl"] == pytest.approx(kl_by_hand(full, constant), rel=1e-4)
    assert got["random"]["kl"] < got["chain"]["kl"]
    assert necessity(chain, net, images) == got
    spread = {necessity(chain, net, images, seed=seed)["random"]["kl"] for seed in range(4)}
    assert len(spread) > 1


def test_minimality_drops_one_unit_at_a_time() -> None:
    net, images = residual(), pictures(7)
    scores = {"conv1": torch.linspace(0.5, 2, 8)}
    chain = chain_of(net, images, REMOVED, mode="scaled", scores=scores)
    got = minimality(chain, net, images)
    with torch.no_grad():
        full = net(images)
    own = kl_by_hand(full, without(net, chain, images))
    assert set(got) == set(chain.kept)
    for name, mask in chain.kept.items():
        for unit in range(len(mask)):
            if not mask[unit]:
                assert got[name][unit].isnan()
                continue
            smaller = {site: list(gone) for site, gone in REMOVED.items()}
            smaller[name].append(unit)
            other = chain_of(net, images, smaller, mode="scaled", scores=scores)
            expected = kl_by_hand(full, without(net, other, images)) - own
            assert float(got[name][unit]) == pytest.approx(expected, abs=1e-4 * max(1, own))


def test_minimality_with_more_images_than_a_batch() -> None:
    net, images = residual(), pictures(BATCH + 5)
    chain = chain_of(net, images, REMOVED)
    got = minimality(chain, net, images)["conv2"]
    other = chain_of(net, images, REMOVED | {"conv2": [2, 4]})
    expected = other.evaluate(net, images)["kl"] - chain.evaluate(net, images)["kl"]
    assert float(got[4]) == pytest.approx(expected, abs=1e-4)


def test_spare_units_of_a_planted_chain_are_found() -> None:
    net, images, chain = planted_chain(spare=3)
    for values in minimality(chain, net, images).values():
        assert (values[:USED] > 1e-4).all()
        assert values[USED : USED + 3].abs().max() < 1e-6


def test_sufficiency_of_an_exact_chain_takes_the_units_that_matter_first() -> None:
    net, images, chain = planted_chain(spare=4)
    curve = sufficiency_curve(chain, net, images, (0.0, 0.5, 1.0))
    with torch.no_grad():
        full = net(images)
        nothing = net.head.bias.expand(len(images), -1)
    assert curve.kl[0] == pytest.approx(kl_by_hand(full, nothing), rel=1e-4)
    assert curve.kl[1] == pytest.approx(0, abs=1e-6), "half of the units are spare, and come last"
    assert curve.agreement[1:] == (1.0, 1.0)
    assert curve.area == pytest.approx((curve.agreement[0] + 3) / 4)


def test_sufficiency_of_a_scaled_chain_goes_by_score() -> None:
    net, images = residual(), pictures()
    ranks = torch.arange(20.0) + 1  # all units of the three convs, one score each
    scores = {"stem": ranks[0::3][:6], "conv1": ranks[:8] + 0.1, "conv2": ranks[1::3][:6] + 0.2}
    chain = chain_of(net, images, REMOVED, mode="scaled", scores=scores, layer_gates={"add": 0.5})
    curve = sufficiency_curve(chain, net, images, (0.2, 0.5, 1.0))
    with torch.no_grad():
        full = net(images)
    largest = sorted((float(v) for row in chain.scores.values() for v in row), reverse=True)
    for share, kl in zip(curve.ratios, curve.kl, strict=True):
        least = largest[math.ceil(share * chain.kept_count) - 1]
        gone = {name: (row < least).nonzero().flatten().tolist() for name, row in chain.scores.items()}
        part = chain_of(net, images, gone, mode="scaled", scores=dict(chain.scores), layer_gates={"add": 0.5})
        assert kl == pytest.approx(kl_by_hand(full, without(net, part, images)), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("ratios", [(0.5,), (0.5, 0.2), (0.0, 1.5), (-0.1, 1.0), (0.5, 0.5)])
def test_ratios_out_of_order_are_refused(ratios: tuple[float, ...]) -> None:
    net, images = residual(), pictures()
    with pytest.raises(ValueError, match="ascending"):
        sufficiency_curve(chain_of(net, images, {}), net, images, ratios)


def test_overlap_and_stability_by_counting() -> None:
    net, images = residual(), pictures()
    first = chain_of(net, images, {"stem": [0, 1, 2], "conv1": range(8), "conv2": range(6)})  # type: ignore[dict-item]
    second = chain_of(net, images, {"stem": [2, 3, 4], "conv1": range(8), "conv2": range(6)})  # type: ignore[dict-item]
    assert overlap(first, second) == pytest.approx(1 / 5)  # {3, 4, 5} and {0, 1, 5}
    assert overlap(first, first) == 1.0
    got = stability([first, second, first])
    assert got["iou"] == pytest.approx((1 / 5 + 1 + 1 / 5) / 3)
    assert got["random"] == pytest.approx(1.5 / 4.5)  # 3 * 3 / 6 expected in common


def test_chance_overlap_is_that_of_random_choices() -> None:
    net, images = residual(), pictures()
    generator = torch.Generator().manual_seed(0)

    def choice() -> dict[str, list[int]]:
        return {
            name: torch.randperm(size, generator=generator)[: size // 2].tolist()
            for name, size in (("stem", 6), ("conv1", 8), ("conv2", 6))
        }

    base = chain_of(net, images, choice())
    masks = [choice() for _ in range(300)]
    chains = [base.__class__(**{**vars(base), "kept": _masks(base.kept, mask)}) for mask in masks]
    drawn = sum(overlap(a, b) for a, b in zip(chains[::2], chains[1::2], strict=True)) / 150
    assert stability([base, base])["random"] == pytest.approx(drawn, abs=0.03)


def _masks(like: dict[str, Tensor], removed: dict[str, list[int]]) -> dict[str, Tensor]:
    masks = {name: torch.ones_like(mask) for name, mask in like.items()}
    for name, units in removed.items():
        masks[name][units] = False
    return masks


def test_chains_of_other_networks_have_no_overlap() -> None:
    one = chain_of(residual(), pictures(), {})
    _, _, other = planted_chain()
    with pytest.raises(ValueError, match="'stem' with 6 units, got missing"):
        overlap(one, other)
    with pytest.raises(ValueError, match="two or more chains"):
        stability([one])
