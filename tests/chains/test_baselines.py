"""Baselines of a chain's size: scores against derivatives and loops written by hand, and masks of the right size."""

from __future__ import annotations

import pytest
import torch
from byhand import chain_of, pictures, residual
from planted import USED, WIDTH, planted
from planted import pictures as planted_pictures
from torch import Tensor, nn

from pyinterp.chains import attribution
from pyinterp.chains.baselines import BASELINES, baseline_masks, measure_baselines
from pyinterp.chains.evaluate import measure_fidelity
from pyinterp.models.gating import GatedModel, gate_model
from pyinterp.models.graph import trace
from pyinterp.models.sites import find_sites

SIZES = [6, 8, 6, 1]


def gated(net: nn.Module, images: Tensor) -> GatedModel:
    traced = trace(net, images[:1])
    return gate_model(traced, find_sites(traced))


def answer(net: GatedModel, image: Tensor, gates: Tensor, top: int) -> Tensor:
    """log q_top of one image alone."""
    return net.module(image[None], None, *gates.split(SIZES)).log_softmax(1)[0, top]


@pytest.fixture
def example() -> tuple[GatedModel, Tensor, list[int]]:
    net, images = residual().double(), pictures(18).double()
    return gated(net, images), images, net(images).argmax(1).tolist()


def joined(scores: list[Tensor]) -> Tensor:
    return torch.cat([row.double() for row in scores])


def test_magnitude_is_the_sum_of_absolute_weights() -> None:
    net = residual()
    got = attribution.magnitude(gated(net, pictures()))
    for row, conv in zip(got, (net.stem, net.conv1, net.conv2), strict=False):
        for unit in range(len(row)):
            assert float(row[unit]) == pytest.approx(float(conv.weight[unit].detach().abs().sum()), rel=1e-5)
    assert got[3].isnan().all()


def test_activation_is_the_mean_behind_the_activation_function() -> None:
    net, images = residual(), pictures(19)
    got = attribution.activation(gated(net, images), images)
    with torch.no_grad():
        stem = torch.relu(net.norm(net.stem(images)))
        inner = torch.relu(net.norm1(net.conv1(stem)))
        branch = net.conv2(inner)
    for row, value in zip(got, (stem, inner, branch), strict=False):
        torch.testing.assert_close(row, value.abs().mean((0, 2, 3)))


def test_activation_and_magnitude_of_attention_heads_and_neurons() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1).eval()
    images = torch.randn(2, 3, 32, 32)
    net = gated(model, images)
    seen: dict[str, Tensor] = {}
    block = model.blocks[0]
    block.attn.proj.register_forward_pre_hook(lambda module, args: seen.update(head=args[0]))
    block.mlp.fc2.register_forward_pre_hook(lambda module, args: seen.update(neuron=args[0]))
    with torch.no_grad():
        model(images)
    by_kind = {
        site.kind: (value, size)
        for site, value, size in zip(
            net.sites, attribution.activation(net, images), attribution.magnitude(net), strict=True
        )
    }
    heads = seen["head"].abs().unflatten(-1, (3, 64)).mean((0, 1, 3))
    torch.testing.assert_close(by_kind["head"][0], heads, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(by_kind["neuron"][0], seen["neuron"].abs().mean((0, 1)), rtol=1e-3, atol=1e-5)
    columns = block.attn.proj.weight.detach().abs().unflatten(1, (3, 64)).sum((0, 2))
    torch.testing.assert_close(by_kind["head"][1], columns)
    torch.testing.assert_close(by_kind["neuron"][1], block.mlp.fc1.weight.detach().abs().sum(1))


def test_taylor_is_the_derivative_by_each_gate(example: tuple[GatedModel, Tensor, list[int]]) -> None:
    net, images, tops = example
    gates = torch.linspace(0.4, 1.6, sum(SIZES), dtype=torch.float64)
    gates[3] = 0
    step, expected = 1e-6, torch.zeros_like(gates)
    with torch.no_grad():
        for image, top in zip(images, tops, strict=True):
            for unit in range(len(gates)):
                nudge = torch.zeros_like(gates)
                nudge[unit] = step
                slope = answer(net, image, gates + nudge, top) - answer(net, image, gates - nudge, top)
                expected[unit] += (slope / (2 * step) * gates[unit]).abs() / len(images)
    got = joined(attribution.taylor(net, images, gates.split(SIZES)))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
    assert got[3] == 0


def test_integrated_gradients_are_the_integral(example: tuple[GatedModel, Tensor, list[int]]) -> None:
    net, images, tops = example
    images, tops = images[:4], tops[:4]
    expected = torch.zeros(sum(SIZES), dtype=torch.float64)
    for image, top in zip(images, tops, strict=True):
        integral = torch.zeros_like(expected)
        for k in range(5):
            gates = torch.full_like(expected, (k + 0.5) / 5)
            gates[-1] = 1
            gates.requires_grad_()
            integral += torch.autograd.grad(answer(net, image, gates, top), gates)[0] / 5
        expected += integral.abs() / len(images)
    got = joined(attribution.integrated_gradients(net, images, steps=5))
    torch.testing.assert_close(got[:-1], expected[:-1])


def test_cdrp_is_its_loop_for_each_image_alone(example: tuple[GatedModel, Tensor, list[int]]) -> None:
    net, images, tops = example
    expected, steps = torch.zeros(sum(SIZES), dtype=torch.float64), 12
    for image, top in zip(images, tops, strict=True):
        gates = [torch.ones(size, dtype=torch.float64, requires_grad=True) for size in SIZES[:-1]]
        layer = torch.ones(1, dtype=torch.float64)
        with torch.no_grad():
            p = net.traced.module(image[None]).softmax(1)
        descent = torch.optim.SGD(gates, lr=0.1, momentum=0.9)
        best, least = None, float("inf")
        for step in range(steps + 1):
            logits = net.module(image[None], None, *gates, layer)
            loss = -(p * logits.log_softmax(1)).sum() + 0.05 * sum(row.abs().sum() for row in gates)
            if int(logits.argmax()) == top and loss.item() < least:
                best, least = torch.cat([row.detach().clone() for row in gates]), loss.item()
            if step < steps:
                descent.zero_grad()
                loss.backward()
                descent.step()
                with torch.no_grad():
                    for row in gates:
                        row.clamp_(0, 5)
        assert best is not None
        expected[:-1] += best / len(images)
    got = joined(attribution.cdrp(net, images, steps))
    torch.testing.assert_close(got[:-1], expected[:-1], rtol=1e-6, atol=1e-8)
    assert (got[:-1] - 1).abs().max() > 0.1, "gates that never move show nothing"


@pytest.mark.parametrize("name", BASELINES)
def test_masks_have_the_sizes_asked_for(name: str, example: tuple[GatedModel, Tensor, list[int]]) -> None:
    net, images, _ = example
    counts = [0, 3, 6, 1]
    masks = baseline_masks(name, net, images, counts, steps=2)
    assert [int(mask.sum()) for mask in masks] == counts
    again = baseline_masks(name, net, images, counts, steps=2)
    assert all(torch.equal(a, b) for a, b in zip(masks, again, strict=True))


def test_the_largest_scores_are_kept_and_chance_has_a_seed() -> None:
    net, images = residual(), pictures()
    network = gated(net, images)
    mask = baseline_masks("magnitude", network, images, [2, 3, 1, 1])[1]
    sums = net.conv1.weight.detach().abs().sum((1, 2, 3))
    assert float(sums[mask].min()) > float(sums[~mask].max())
    drawn = {
        tuple(baseline_masks("random", network, images, [3, 4, 3, 1], seed=i)[1].tolist()) for i in range(5)
    }
    assert len(drawn) > 1


@pytest.mark.parametrize("name", ["taylor", "integrated_gradients"])
def test_those_that_look_at_the_answer_find_a_planted_chain(name: str) -> None:
    net, images = planted(), planted_pictures()
    chain = chain_of(net, images, {layer: list(range(USED, WIDTH)) for layer in ("conv1", "conv2")})
    bound = chain.bind(net)
    counts = [USED if site.kind != "layer" else 1 for site in bound.sites]
    for site, mask in zip(bound.sites, baseline_masks(name, bound, images, counts), strict=True):
        if site.kind == "filter":
            assert mask[:USED].all(), f"{name} keeps filters of {site.name} that nobody reads"
    measured = measure_baselines(chain, bound, images, names=[name, "magnitude"])
    assert measured[name]["kl"] == pytest.approx(0, abs=1e-6)
    assert measured["magnitude"]["kl"] > 0.01


def test_measured_at_the_size_of_the_chain_with_its_closed_layers() -> None:
    net, images = residual(), pictures()
    chain = chain_of(net, images, {"stem": [0, 2], "conv1": [1, 3, 5, 7]}, layer_gates={"add": 0.0})
    bound = chain.bind(net)
    measured = measure_baselines(chain, bound, images, steps=3)
    assert tuple(measured) == BASELINES
    masks = baseline_masks("taylor", bound, images, [4, 4, 6, 0])
    expected = measure_fidelity(bound, [mask.float() for mask in masks], images)
    assert measured["taylor"] == {"kl": expected["kl"], "agreement": expected["agreement"]}


def test_a_site_that_is_whole_or_empty_is_the_chains_own() -> None:
    net, images = residual(), pictures()
    chain = chain_of(net, images, {"conv2": list(range(6))})
    measured = measure_baselines(chain, chain.bind(net), images, steps=2)
    own = chain.evaluate(net, images)
    assert all(row == {"kl": own["kl"], "agreement": own["agreement"]} for row in measured.values())


def test_no_weight_gets_a_gradient() -> None:
    net, images = residual(), pictures()
    chain = chain_of(net, images, {"conv1": [0, 1]})
    measure_baselines(chain, chain.bind(net), images, steps=2)
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize(
    ("name", "counts", "words"),
    [
        ("lottery", [1, 1, 1, 1], "one of random, magnitude"),
        ("random", [1, 1, 1], "sites of"),
        ("random", [7, 1, 1, 1], "at most its units"),
        ("random", [-1, 1, 1, 1], "at most its units"),
    ],
)
def test_bad_input_is_one_clear_error(name: str, counts: list[int], words: str) -> None:
    net, images = residual(), pictures()
    with pytest.raises(ValueError, match=words):
        baseline_masks(name, gated(net, images), images, counts)
