"""A chain, its graph and images, interactions and a head, made by hand; names try to break out of the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pyinterp.chains.chain import Chain, Prediction
from pyinterp.chains.flow import ChainFlow, FlowColumn, FlowEdge, FlowUnit, Response
from pyinterp.heads.audit import Repair, SharedFeature
from pyinterp.heads.head_study import Case, FeatureCard, HeadStudy, PathCurve, Sample, TopAccuracy
from pyinterp.heads.reading import Contribution, Flip
from pyinterp.interactions import Interactions, reconstruct
from pyinterp.knowledge import LayerKnowledge
from pyinterp.models import ImageSet
from pyinterp.models.sites import Site

NASTY = "<script>alert(1)</script>\"'&"
CLASSES = ("a </script><b> cat", "espresso")


def an_image_set(count: int = 2) -> ImageSet:
    """Two different photographs, the second with a nasty name."""
    pixels = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    pixels[0, 0] = torch.arange(64, dtype=torch.uint8)[:, None] * 4
    pixels[-1, 2] = torch.arange(64, dtype=torch.uint8)[None, :] * 4
    names = (*(f"image {i}.png" for i in range(count - 1)), f"{NASTY}.png")
    return ImageSet(pixels.float() / 255, names, pixels)


def a_flow(site: str = "conv1") -> ChainFlow:
    """Two units, a closed layer, two units, one class; 0 and 1 feed 2, 0 feeds 3, 2 and 3 feed the class."""
    steps = torch.arange(16, dtype=torch.uint8).reshape(4, 4) * 17

    def unit(index: int, influence: float) -> FlowUnit:
        picture = torch.full((3, 8, 8), 40 * (index % 6), dtype=torch.uint8)
        return FlowUnit(index, 1.0, influence, picture, (Response(0, steps), Response(1, steps.T)))

    columns = (
        FlowColumn(site, "filter", 8, 3, False, (unit(3, 0.6), unit(5, 0.3))),
        FlowColumn("block.conv2", "filter", 8, 0, True, ()),
        FlowColumn("block.mlp", "neuron", 16, 2, False, (unit(0, 0.7), unit(9, 0.3))),
        FlowColumn("", "class", 2, 1, False, (FlowUnit(0, 1.0, 1.0, None, ()),)),
    )
    edges = (
        FlowEdge((0, 0), (2, 0), 0.7),
        FlowEdge((0, 1), (2, 0), -0.3),
        FlowEdge((0, 0), (2, 1), 1.0),
        FlowEdge((2, 0), (3, 0), 0.6),
        FlowEdge((2, 1), (3, 0), 0.4),
    )
    return ChainFlow(columns, edges, 0.05, 2)


def a_chain(**changes: Any) -> Chain:
    """5 of 32 units on two images, one of which gets another answer; a bypassed layer; fields as in ``changes``."""
    sites = (
        Site("conv1", "filter", 8, "conv", 1),
        Site("block.conv2", "filter", 8, "conv_1", 1),
        Site("block", "layer", 1, "add", 1, skip="add_1"),
        Site("block.mlp", "neuron", 16, "gelu", 2),
    )
    kept = {
        name: torch.zeros(units, dtype=torch.bool)
        for name, units in (("conv1", 8), ("block.conv2", 8), ("block.mlp", 16))
    }
    kept["conv1"][[3, 5, 7]] = True
    kept["block.mlp"][[0, 9]] = True
    chain = Chain(
        model_name="tiny",
        mode="exact",
        sites=sites,
        kept=kept,
        scores={name: mask.float() for name, mask in kept.items()},
        layer_gates={"block": 0.0},
        input_shape=(3, 64, 64),
        architecture={"conv1.weight": (8, 3, 3, 3)},
        weights_digest="0123abcd",
        history={
            "step": [1, 2, 3],
            "seconds": [0.1, 0.2, 0.3],
            "phase": ["soft", "soft", "hard"],
            "kl": [0.5, 0.2, 0.07],
            "agreement": [0.5, 0.5, 0.5],
            "kept": [1.0, 0.5, 0.15625],
            "loss": [3.0, 2.0, 1.0],
        },
        settings={"target_kl": 0.1, "seed": 0, "mode": "exact"},
        fidelity={"images": {"kl": 0.07, "agreement": 0.5}, "held_out": {"kl": 0.4, "agreement": 0.25}},
        baselines={"random": {"kl": 2.5, "agreement": 0.0}, "taylor": {"kl": 1.2, "agreement": 0.5}},
        predictions=(Prediction(0, 0.9, 0, 0.8), Prediction(1, 0.6, 0, 0.55)),
        bound_met=False,
        message="The target was not met: mean KL 0.0700 (bound 0.1), the same top class on 50 % of the images.",
        compact_info={
            "parameters_before": 1000,
            "parameters_after": 100,
            "macs_before": 5000,
            "macs_after": 600,
            "difference": 0.0,
            "time_ratio": 2.5,
        },
    )
    return replace(chain, **changes)


def an_interactions(**changes: Any) -> Interactions:
    """Four quarters of an image: AND of the upper two, OR of the left two, a single player, and one weak effect."""
    and_, or_ = torch.zeros(16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)
    and_[0], and_[0b0011], and_[0b1000], and_[0b1111] = -2, 4, -1, 0.5
    or_[0b0101] = 2
    rows, columns = torch.arange(64)[:, None] // 32, torch.arange(48)[None] // 24
    found = Interactions(
        values=reconstruct(and_, or_),
        and_=and_,
        or_=or_,
        player_names=("upper left", "upper right", NASTY, "lower right"),
        player_map=2 * rows + columns,
        pixels=torch.randint(256, (3, 64, 48), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
        objective=7.5,
        gap=0.0002,
        sigma=0.01,
        target=1,
        class_name="espresso, coffee",
        score="log_odds",
        baseline="zero",
        masking="replace",
        model_name="tiny",
        weights_digest="0123abcd",
        seconds=2.5,
        forwards=16,
        versions={"pyinterp": "0.1.0"},
    )
    return replace(found, **changes)


def a_card(feature: int, samples: tuple[int, ...] = (), **changes: Any) -> FeatureCard:
    """A feature that is largest in ``samples``, by 3, 2.5, ... deviations."""
    values = tuple(3 - i / 2 for i in range(len(samples)))
    nothing = torch.zeros(0, 0, 0), torch.zeros(3, 0, 0, dtype=torch.uint8)
    return replace(FeatureCard(feature, samples, values, *nothing), **changes)


def a_study(**changes: Any) -> HeadStudy:
    """Features 2, 5 and 7 of 9 tell cup, a nasty name and dog apart; one error, of feature 5; one close call."""
    weights = torch.tensor([[0.5, -0.25, 0.0], [0.0, 1.0, 0.125], [0.0, 0.5, 0.0]])
    points = torch.arange(1.0, 5.0).double()
    curve = PathCurve(
        lambdas=1 / points,
        features_per_class=torch.tensor([0.0, 1.0, 5 / 3, 2.5]).double(),
        train_accuracy=torch.tensor([0.4, 0.7, 0.9, 1.0]).double(),
        validation_accuracy=torch.tensor([0.3, 0.6, 0.9, 0.8]).double(),
        kkt=torch.tensor([0.0, 1e-5, 1e-5, 0.3]).double(),
        converged=torch.tensor([True, True, True, False]),
        point=2,
        densest_accuracy=0.8,
    )
    shares = (Contribution(5, 2.0, 0.75, 1.5), Contribution(2, 0.5, -0.5, -0.25))
    wrong = Case(8, 0, 1, 0, 1.3, 0.02, shares, 0.03, Flip((5,), 1, 0, 0), (5, 2))
    near = Case(4, 2, 2, 1, 0.1, 0.1, (), 0.0, Flip((2, 5, 7, 8), 2, 1, 1), ())
    pixels = torch.randint(256, (4, 3, 24, 16), generator=torch.Generator().manual_seed(0))
    found = HeadStudy(
        class_names=("cup", NASTY, "dog"),
        width=9,
        used=torch.tensor([2, 5, 7]),
        weights=weights,
        bias=torch.zeros(3),
        typical=torch.tensor([[1.5, -0.5, 0.0], [0.0, 1.25, 2.0], [-1.0, 0.5, 0.0]]),
        judged=10,
        held_out=True,
        accuracy=0.9,
        class_accuracy=torch.tensor([0.75, 1.0, torch.nan]).double(),
        class_samples=torch.tensor([4, 6, 0]),
        top=(TopAccuracy(1, 0.7, 0.5), TopAccuracy(2, 0.9, 0.3)),
        dense_accuracy=0.92,
        dense_top=(TopAccuracy(1, 0.35, 0.9), TopAccuracy(2, 0.55, 0.85)),
        curve=curve,
        cards=(a_card(2, (0, 4)), a_card(5, (8, 6), lowest=(4,), lowest_values=(-2.5,)), a_card(7)),
        samples=tuple(
            Sample(row, f"{name}.png", label, 1 if row == 8 else label)
            for row, name, label in ((0, "zero", 0), (4, "four", 2), (6, NASTY, 1), (8, "eight", 0))
        ),
        pictures=pixels.to(torch.uint8),
        carded=(0, 1, 2),
        shared=(SharedFeature(5, (1, 2), (1.0, 0.5)),),
        shared_count=3,
        cases=(wrong, near),
        errors=1,
        repairs=(Repair(5, 0, 1, 1, 1, (8,)),),
        repairable=1,
        model_name="tiny",
        classifier_name="fc",
        model_digest="0123abcd",
        origin={
            "lambda": 0.25,
            "alpha": 0.99,
            "kkt": 1e-5,
            "converged": True,
            "grouped": False,
            "samples": 40,
        },
        version="0.1.0",
    )
    return replace(found, **changes)


def a_knowledge(**changes: Any) -> LayerKnowledge:
    """Two images of three parts; ``low`` has an AND that is forgotten, and half of the OR that comes out."""
    effects = torch.zeros(2, 3, 2, 8)
    effects[:, 0, 0, 0b011], effects[:, 0, 1, 0b110] = 3.0, 1.0
    effects[:, 1, 0, 0b011], effects[:, 1, 1, 0b110] = 1.0, 2.0
    effects[:, 2, 1, 0b110] = 2.0
    effects[1] *= 2
    found = LayerKnowledge(
        layers=(f"low {NASTY}", "high", "output"),
        effects=effects,
        values=torch.zeros(2, 3, 8),
        sigma=torch.full((2, 3), 1e-6, dtype=torch.float64),
        gap=torch.full((2, 3), 1e-4, dtype=torch.float64),
        accuracy=torch.tensor([0.4, 0.75, 0.9], dtype=torch.float64),
        labels=torch.tensor([0, 1]),
        image_names=("a.png", "b.png"),
        player_names=("left", "middle", "right"),
        chance=0.25,
        judged=200,
        model_name="tiny",
        versions={"pyinterp": "1"},
    )
    return replace(found, **changes)
