"""extract_chain in its surroundings: callers without gradients, odd models, failures after the search."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from byhand import chain_of, residual
from byhand import pictures as residual_pictures
from planted import pictures, planted
from torch import Tensor, nn

from pyinterp.chains import (
    Chain,
    extract_chain,
    extract_chains,
    measure_baselines,
    measure_flow,
    sufficiency_curve,
)
from pyinterp.chains.responses import response_maps
from pyinterp.models import LoadedModel, load_images, sites
from pyinterp.models.shrink import live_units
from pyinterp.report import write_report

FAST: dict[str, Any] = {"target_kl": 0.05, "max_steps": 40, "progress": False}


def same(first: Chain, second: Chain) -> bool:
    return all(torch.equal(first.scores[name], second.scores[name]) for name in first.scores)


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients_get_the_same(switched_off: type[AbstractContextManager[None]]) -> None:
    net = planted(0.05)
    images = pictures()
    chain = extract_chain(net, images, mode="exact", **FAST)
    shown = load_images(images)
    flow, curve = measure_flow(chain, net, shown), sufficiency_curve(chain, net, images)
    with switched_off():
        images = pictures()
        again = extract_chain(net, images, mode="exact", **FAST)
        assert sufficiency_curve(chain, net, images) == curve
        other = measure_flow(chain, net, load_images(images))
        measured = measure_baselines(chain, net, images)
    assert same(again, chain)
    assert measured == chain.baselines
    assert [edge.share for edge in other.edges] == [edge.share for edge in flow.edges] != []


@pytest.mark.parametrize("broken", ["measure_baselines", "compact_network"])
def test_a_failed_measurement_is_told_and_the_chain_kept(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(f"pyinterp.chains.extract.{broken}", fail)
    chain = extract_chain(planted(), pictures(), **FAST)
    assert chain.bound_met
    assert "could not be measured: out of memory" in chain.message


def test_ctrl_c_while_held_out_images_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyinterp.chains.extract.measure_fidelity", stop)
    chain = extract_chain(planted(), pictures(), held_out=pictures(3, seed=5), **FAST)
    assert chain.interrupted and chain.bound_met and "held_out" not in chain.fidelity


def test_ctrl_c_while_one_of_many_chains_is_measured_ends_the_others_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def stop(*_: object, **__: object) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr("pyinterp.chains.extract.measure_baselines", stop)
    found = extract_chains(planted(), [pictures(), pictures(3, seed=5)], **FAST)
    assert [chain.interrupted for chain in found] == [True, True]
    assert len(calls) == 1


class Cosine(nn.Module):
    """Its features have length 1; where none is left, 0 / 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.head(x / x.norm(dim=1, keepdim=True))


def test_a_chain_that_divides_by_zero_is_told_of() -> None:
    torch.manual_seed(0)
    chain = extract_chain(
        Cosine().eval(), pictures(), target_keep=0.01, mode="exact", max_steps=20, progress=False
    )
    assert chain.bound_met is False
    assert "NaN" in chain.message and "full network does not" in chain.message


class LayersOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3 * 12 * 12, 16), nn.Linear(16, 4)
        self.first, self.second, self.norm = nn.Linear(16, 16), nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1))
        x = x + self.first(self.norm(x))
        x = x + self.second(self.norm(x))
        return self.head(self.norm(x))


def test_a_network_with_layers_alone_is_refused() -> None:
    net = LayersOnly().eval()
    assert {site.kind for site in sites(net, pictures())} == {"layer"}
    for target in ({}, {"target_kl": 0.1}):
        with pytest.raises(ValueError, match=r"expected sites with units, got \d layers only"):
            extract_chain(net, pictures(), progress=False, **target)


@pytest.mark.parametrize("others", [0, 1, 5])
@pytest.mark.parametrize(("rows", "columns"), [(4, 8), (8, 4), (6, 6), (3, 7)])
def test_tokens_lie_in_a_grid_of_the_shape_of_the_images(rows: int, columns: int, others: int) -> None:
    tokens = torch.zeros(2, others + rows * columns, 3)
    tokens[1, others + 2 * columns + 1, 2] = 1  # row 2, column 1
    maps = response_maps(tokens, 2, 3, torch.zeros(2, 3, 8 * rows, 8 * columns))
    assert maps.shape == (2, 3, rows, columns)
    assert maps[1, 2].nonzero().tolist() == [[2, 1]]


def test_a_settled_trial_waits_as_if_it_were_alone() -> None:
    net = planted(0.05)
    batches = [pictures(4), pictures(1, seed=5).repeat(4, 1, 1, 1)]
    options: dict[str, Any] = {"max_steps": 400, "lr": 0.05, "sparsity_weight": 0.002, "progress": False}
    alone = [extract_chain(net, batch, **options) for batch in batches]
    steps = [len(chain.history["step"]) for chain in alone]
    assert max(steps) < 400 and steps[0] != steps[1], "both must settle, and not at once"
    for together, chain in zip(extract_chains(net, batches, **options), alone, strict=True):
        for name, scores in chain.scores.items():
            torch.testing.assert_close(together.scores[name], scores, rtol=1e-4, atol=1e-4)


def test_a_network_without_units_left_has_a_flow_of_classes_alone() -> None:
    net, images = residual(), residual_pictures()
    removed = {site.name: list(range(site.units)) for site in sites(net, images) if site.kind != "layer"}
    chain = chain_of(net, images, {name: units for name, units in removed.items() if name != "stem"})
    only = [site for site in chain.sites if site.name != "stem"]
    parts = {
        field: {k: v for k, v in getattr(chain, field).items() if k != "stem"} for field in ("kept", "scores")
    }
    flow = measure_flow(dataclasses.replace(chain, sites=tuple(only), **parts), net, load_images(images))
    assert not flow.edges
    assert [column.kind for column in flow.columns if column.units] == ["class"]


def test_inside_apply_the_model_is_not_traced() -> None:
    net, images = residual(), residual_pictures()
    chain = chain_of(net, images, {"stem": [1]})
    with (
        chain.apply(net),
        pytest.raises(ValueError, match="one that a chain is applied to"),
    ):
        chain.evaluate(net, images)
    with pytest.raises(ValueError, match=r"what torch.compile gives"):
        sites(torch.compile(net), images)  # type: ignore[arg-type]


def test_a_bfloat16_network_is_compacted() -> None:
    chain = extract_chain(planted(0.05).bfloat16(), pictures(), target_keep=0.3, max_steps=40, progress=False)
    assert chain.compact_info["parameters_after"] < chain.compact_info["parameters_before"]
    assert not chain.message


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = planted()
        self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, float("-inf")]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + self.mask.exp()  # type: ignore[operator]


def test_an_infinite_mask_is_no_broken_weight() -> None:
    assert extract_chain(Masked().eval(), pictures(), **FAST).bound_met


@dataclasses.dataclass
class Answer:
    logits: Tensor


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = planted()

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.net(x))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": [1, 1, 2]}, "two or more different classes"),
        ({"seed": 2**63}, r"seed from 0 to 2\^63 - 1"),
        ({"seed": -1}, r"seed from 0 to 2\^63 - 1"),
        ({"seed": True}, "seed an integer, got True"),
        ({"seed": "3"}, "seed an integer, got '3'"),
        ({"progress": "yes"}, "progress True, False, None or a callable"),
        ({"sites": 5}, "sites as a list"),
        ({"lr": 0.01}, "lr without a target only"),
        ({"layer_weight": 2.0}, "layer_weight without a target only"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        extract_chain(planted(), pictures(), **FAST | options)


def test_what_is_taken_besides_plain_types() -> None:
    chain = extract_chain(planted(), load_images(pictures()), **FAST)
    numpy_bound: Any = np.float32(0.05)
    assert extract_chain(planted(), pictures(), **FAST | {"target_kl": numpy_bound}).bound_met
    labels: Any = [0, 1, 2, 3, 0, 1]
    assert "accuracy" in chain.evaluate(planted(), pictures(), labels)
    assert chain == chain and chain != Chain(**vars(chain))  # chains are compared by identity


def test_what_does_not_fit_a_chain(tmp_path: Path) -> None:
    net, images = planted(), pictures()
    chain = extract_chain(net, images, **FAST)
    with pytest.raises(ValueError, match=r"images in torch.float32, as the network, got torch.float64"):
        chain.evaluate(net, images.double())
    for measure in (chain.evaluate, lambda *given: sufficiency_curve(chain, *given)):
        with pytest.raises(TypeError, match=r"images.tensor"):
            measure(net, load_images(images))  # type: ignore[operator]
    loaded: Any = LoadedModel("planted", net, None, (), (3, 12, 12))  # type: ignore[arg-type]
    for use in (chain.bind, chain.compact, chain.evaluate, lambda model, _: sites(model)):
        with pytest.raises(
            TypeError, match=r"expected a torch.nn.Module, got LoadedModel. Pass the module itself"
        ):
            use(loaded) if use == chain.bind else use(loaded, images)
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 12, 12\)"):
        chain.compact(net, images[:, :, :8])
    with pytest.raises(TypeError, match="expected an ImageSet"):
        measure_flow(chain, net, images)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an ImageSet"):
        write_report(chain, tmp_path / "report.html", images=images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ends in the name of files"):
        chain.save(f"{tmp_path}/")
    with pytest.raises(OSError, match="make the folder"):
        chain.save(tmp_path / "none" / "chain")
    with pytest.raises(ValueError, match="Wrap it in a module that returns the logits"):
        extract_chain(Wrapped().eval(), images, **FAST)


def test_models_that_can_not_be_searched() -> None:
    with pytest.raises(TypeError, match=r"Pass its \.module"):
        extract_chain(nn.DataParallel(planted()).eval(), pictures(), **FAST)
    with pytest.raises(ValueError, match="one on the meta device"):
        extract_chain(planted().to("meta"), pictures(), **FAST)
    with torch.inference_mode():
        net = planted()
    with pytest.raises(ValueError, match="inference tensors"):
        extract_chain(net, pictures(), **FAST)


class Noted(nn.Module):
    """A module with a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = planted()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def get_extra_state(self) -> dict[str, int]:
        return {"epoch": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def test_state_that_is_no_tensor_is_left_alone() -> None:
    net = Noted().eval()
    chain = extract_chain(net, pictures(), **FAST)
    assert set(chain.architecture) == set(dict(net.named_parameters()) | dict(net.named_buffers()))
    assert repr(chain).startswith("<Chain of Noted (scaled): ") and len(repr(chain)) < 150


def test_ctrl_c_right_after_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def interrupted(*given: Any) -> list[Tensor]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return live_units(*given)

    monkeypatch.setattr("pyinterp.chains.extract.live_units", interrupted)
    chain = extract_chain(planted(), pictures(), **FAST)
    assert chain.interrupted and chain.bound_met


def test_a_plain_network_is_not_cut() -> None:
    torch.manual_seed(0)
    layers = [part for i in range(5) for part in (nn.Conv2d(8 if i else 3, 8, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    chain = extract_chain(net, pictures(), mode="exact", target_keep=0.15, max_steps=100, progress=False)
    assert chain.bound_met
    assert all(mask.any() for mask in chain.kept.values())
