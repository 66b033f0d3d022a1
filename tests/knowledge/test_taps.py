"""What is read off the layers is what they compute, for maps, tokens and vectors, also where it is written over."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyinterp.knowledge.layers import find_layers
from pyinterp.knowledge.taps import ProbedNetwork, TapFeatures, Taps, reduced, reduction
from pyinterp.models import trace
from pyinterp.models.identity import model_digest


def test_reductions_are_means_of_cells() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 6)
    assert torch.equal(reduced(maps, 72), maps.flatten(1))
    quarters = [part.mean((2, 3)) for half in maps.chunk(2, 2) for part in half.chunk(2, 3)]
    torch.testing.assert_close(reduced(maps, 12), torch.stack(quarters, -1).flatten(1))
    torch.testing.assert_close(reduced(maps, 2), maps.mean((2, 3)))
    last = maps[:, :, :, :4].permute(0, 2, 3, 1)
    torch.testing.assert_close(reduced(last, 3), maps[:, :, :, :4].mean((2, 3)))
    tokens = torch.randn(2, 5, 3)
    assert torch.equal(reduced(tokens, 15), tokens.flatten(1))
    torch.testing.assert_close(reduced(tokens, 14), torch.cat([tokens.mean(1), tokens[:, 0]], 1))
    assert reduced(torch.randn(2, 30), 8).shape == (2, 30)


@pytest.mark.parametrize(
    ("shape", "width", "said"),
    [
        ((3, 4, 6), 72, "all of it"),
        ((3, 4, 6), 12, "4 x 6 averaged to 2 x 2"),
        ((3, 4, 6), 11, "mean over the map"),
        ((8, 8, 5), 20, "8 x 8 averaged to 2 x 2"),
        ((5, 3), 14, "mean and first of 5 tokens"),
        ((30,), 8, "all of it"),
    ],
)
def test_reductions_are_told_in_words(shape: tuple[int, ...], width: int, said: str) -> None:
    assert reduction(shape, width) == said


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    ).eval()


def by_hand(net: nn.Sequential, x: Tensor, upto: int) -> Tensor:
    for module in list(net)[:upto]:
        x = torch.relu(x) if isinstance(module, nn.ReLU) else module(x)
    return x


def test_taps_read_each_layer_before_others_write_into_it(net: nn.Sequential) -> None:
    x = torch.randn(4, 3, 8, 8)
    taps = Taps(net, find_layers(net, x, ["0", "2", "4"]), 20)
    with torch.no_grad():
        values, logits = taps.read(x)
        for value, upto in zip(values, (1, 3, 5), strict=True):
            torch.testing.assert_close(value, reduced(by_hand(net, x, upto), 20))
        torch.testing.assert_close(logits, net(x))
    assert tuple(value.shape[1] for value in values) == taps.widths == (16, 20, 5)
    assert not any(module._forward_hooks for module in net.modules())


def test_probes_answer_side_by_side_and_have_a_graph(net: nn.Sequential) -> None:
    """The graph reads the layers off last, and gives the same."""
    x = torch.randn(4, 3, 8, 8)
    taps = Taps(net, find_layers(net, x, ["0", "2"]), 20)
    probes = [nn.Linear(16, 2), nn.Linear(20, 2)]
    network = ProbedNetwork(taps, probes, [2, 0]).eval()
    with torch.no_grad():
        values, logits = taps.read(x)
        wanted = torch.cat([probes[0](values[0]), probes[1](values[1]), logits[:, [2, 0]]], 1)
        torch.testing.assert_close(network(x), wanted)
        torch.testing.assert_close(trace(network, x).module(x), wanted)
    alone = ProbedNetwork(taps, probes, None).eval()
    with torch.no_grad():
        assert alone(x).shape == (4, 4)


def test_other_layers_have_another_digest(net: nn.Sequential) -> None:
    x = torch.randn(2, 3, 8, 8)
    digests = {
        model_digest(TapFeatures(Taps(net, find_layers(net, x, [name]), width), 3))
        for name, width in (("0", 20), ("1", 20), ("1", 40))
    }
    assert len(digests) == 3
