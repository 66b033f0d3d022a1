"""Every architecture: its units, all gates open, one gate closed, many trials at once, and the model left alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pyinterp.models.gating import GatedModel, gate_model
from pyinterp.models.graph import logits_of, trace
from pyinterp.models.hooks import replaced_forward
from pyinterp.models.sites import find_sites, ungated

pytest.importorskip("torchvision")
pytest.importorskip("timm")
pytest.importorskip("transformers")

from architectures import NETWORKS
from networks import Network, randomised, snapshot


class Case:
    """One network with everything made from it once."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.model = randomised(network.build())
        self.before = snapshot(self.model)
        self.images = torch.randn(
            2, 3, network.size, network.size, generator=torch.Generator().manual_seed(1)
        )
        self.traced = trace(self.model, self.images)
        self.sites = find_sites(self.traced)
        self.gated = gate_model(self.traced, self.sites)
        normed = any(site.node.startswith("batch_norm") for site in self.sites)
        self.fused = gate_model(self.traced, self.sites, fused=True) if normed else self.gated
        self.logits = self.answer()
        self.fused_tolerance = 4 * self.rounding(self.logits) if normed else 0.0

    @torch.no_grad()
    def answer(self) -> Tensor:
        """What the user's model says, with whatever the test has hooked onto it."""
        return logits_of(self.model(self.images))

    @torch.no_grad()
    def rounding(self, answer: Tensor, *scores: Tensor, group: Tensor | None = None) -> float:
        """How far float32 took an answer from that in float64: random deep networks amplify it."""
        exact = copy.deepcopy(self.gated.module if scores else self.traced.module).double()
        gates = (group, *(score.double() for score in scores)) if scores else ()
        return max(self.difference(answer, exact(self.images.double(), *gates)), 1e-6)

    @torch.no_grad()
    def gate(
        self, scores: list[Tensor], group: Tensor | None = None, gated: GatedModel | None = None
    ) -> Tensor:
        answer: Tensor = (gated or self.gated).module(self.images, group, *scores)
        return answer

    def open_scores(self) -> list[Tensor]:
        return [torch.ones(site.units) for site in self.sites]

    def difference(self, answer: Tensor, expected: Tensor) -> float:
        return ((answer - expected).abs().max() / self.logits.abs().max()).item()

    def closed(self, kind: str, count: int) -> Iterator[tuple[list[Tensor], Tensor, str]]:
        """Scores with one unit closed and the answer with that unit zeroed by hand, for units that have an effect."""
        draw = random.Random(f"{self.network.name} {kind}")
        places = [i for i, site in enumerate(self.sites) if site.kind == kind]
        for _ in range(20):
            i = draw.choice(places)
            name, unit = self.sites[i].name, draw.randrange(self.sites[i].units)
            with self.network.closed[kind](self.model, name, unit):
                expected = self.answer()
            if self.difference(expected, self.logits) > 1e-5:
                scores = self.open_scores()
                scores[i][unit] = 0
                yield scores, expected, f"{name} {unit}"
                count -= 1
            if not count:
                return
        raise AssertionError(f"hardly any {kind} of {self.network.name} has an effect")


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.name)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    threads = torch.get_num_threads()
    yield Case(request.param)
    assert torch.get_num_threads() == threads


def test_units_of_the_architecture(case: Case) -> None:
    kinds = sorted({site.kind for site in case.sites})
    found = {
        kind: (
            sum(site.kind == kind for site in case.sites),
            sum(site.units for site in case.sites if site.kind == kind),
        )
        for kind in kinds
    }
    assert found == case.network.units
    assert len({site.name for site in case.sites}) == len(case.sites)
    reasons = dict(ungated(case.traced))
    assert "its outputs are the logits" in reasons.values()
    assert not reasons.keys() & {site.name for site in case.sites if site.kind in ("filter", "neuron")}


def test_weights_are_those_of_the_model(case: Case) -> None:
    parameters = dict(case.model.named_parameters())
    for site in case.sites:
        assert (site.weight is None) == (site.kind == "layer")
        if site.weight is not None:
            width = parameters[site.weight].shape[1 if site.kind == "head" else 0]
            assert width == site.units * site.inner


def test_open_gates_give_the_logits_bit_for_bit(case: Case) -> None:
    with torch.no_grad():
        assert torch.equal(case.gate(case.open_scores()), case.traced.module(case.images))
    assert case.difference(case.traced.module(case.images), case.logits) < 1e-5
    if case.fused is not case.gated:
        assert (
            case.difference(case.gate(case.open_scores(), gated=case.fused), case.logits)
            < case.fused_tolerance
        )


def test_one_closed_gate_is_that_unit_zeroed_by_hand(case: Case) -> None:
    assert case.network.closed.keys() == case.network.units.keys()
    for kind in case.network.closed:
        for scores, expected, which in case.closed(kind, 2):
            assert case.difference(case.gate(scores), expected) < 2e-6, which
            if case.fused is not case.gated:
                assert (
                    case.difference(case.gate(scores, gated=case.fused), expected) < case.fused_tolerance
                ), which


def test_trials_in_one_batch_are_separate_runs(case: Case) -> None:
    draw = torch.Generator().manual_seed(2)
    rows = [torch.empty(2, site.units).uniform_(0.5, 1.5, generator=draw) for site in case.sites]
    group = torch.tensor([1, 0])
    alone = [case.gate([row[g] for row in rows]) for g in (0, 1)]
    expected = torch.stack([alone[g][i] for i, g in enumerate(group.tolist())])
    assert case.difference(alone[0], alone[1]) > 1e-3
    assert case.difference(case.gate(rows, group), expected) < 1e-5
    if case.fused is not case.gated:
        tolerance = 4 * case.rounding(expected, *rows, group=group)
        assert case.difference(case.gate(rows, group, case.fused), expected) < tolerance


def test_the_model_is_left_as_it_was(case: Case) -> None:
    scores = [score.requires_grad_() for score in case.open_scores()]
    case.gated.module(case.images[:1], None, *scores).square().sum().backward()
    assert all(score.grad is not None and score.grad.isfinite().all() for score in scores)

    def fail(images: Tensor) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replaced_forward(case.model, fail):
        case.model(case.images)
    short = [torch.ones(7)] * len(scores)
    with pytest.raises((ValueError, RuntimeError), match="scores"):
        with replaced_forward(case.model, lambda images: case.gate(short)):
            case.model(case.images)
    with torch.no_grad(), replaced_forward(case.model, lambda images: case.gate(scores)):
        assert torch.equal(logits_of(case.model(case.images)), case.traced.module(case.images))
    after = snapshot(case.model)
    # Only the by-hand oracle wrote to the weights (nn.MultiheadAttention's projection), and put them back.
    assert after.keys() == case.before.keys()
    assert [key for key in after if after[key] != case.before[key]] == []
    assert torch.equal(case.answer(), case.logits)
