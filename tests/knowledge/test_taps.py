"""What is read off the layers is what they compute, for maps, tokens and vectors, also where it is written over."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyinterp.knowledge.layers import Layer, find_layers
from pyinterp.knowledge.taps import ProbedNetwork, TapFeatures, Taps, reduced, reduction
from pyinterp.models import trace
from pyinterp.models.identity import model_digest


def layer(shape: tuple[int, ...], channels_last: bool = False) -> Layer:
    return Layer("layer", shape, True, channels_last)


def short(value: Tensor, width: int, channels_last: bool = False) -> Tensor:
    return reduced(value, layer(tuple(value.shape[1:]), channels_last), width)


def test_reductions_are_means_of_cells() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 6)
    assert torch.equal(short(maps, 72), maps.flatten(1))
    quarters = [part.mean((2, 3)) for half in maps.chunk(2, 2) for part in half.chunk(2, 3)]
    torch.testing.assert_close(short(maps, 12), torch.stack(quarters, -1).flatten(1))
    torch.testing.assert_close(short(maps, 2), maps.mean((2, 3)))
    last = maps[:, :, :, :4].permute(0, 2, 3, 1)
    torch.testing.assert_close(short(last, 3, True), maps[:, :, :, :4].mean((2, 3)))
    tokens = torch.randn(2, 5, 3)
    assert torch.equal(short(tokens, 15), tokens.flatten(1))
    torch.testing.assert_close(short(tokens, 14), torch.cat([tokens.mean(1), tokens[:, 0]], 1))
    assert short(torch.randn(2, 30), 8).shape == (2, 30)


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
    assert reduction(layer(shape, shape == (8, 8, 5)), width) == said


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
            torch.testing.assert_close(value, short(by_hand(net, x, upto), 20))
        torch.testing.assert_close(logits, net(x))
    assert tuple(value.shape[1] for value in values) == taps.widths == (16, 20, 5)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("late", [False, True])
def test_what_is_read_whole_is_read_before_it_is_written_over(late: bool) -> None:
    """By an activation, and by a sum with a shortcut; also in the graph."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.inner, self.fc = nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 3)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.flat(x)
            y = self.inner(x)
            y += x
            return self.fc(self.act(y))

    torch.manual_seed(0)
    net, x = Residual().eval(), torch.randn(4, 2, 4)
    taps = Taps(net, find_layers(net, x, ["inner"]), 1024)
    network = ProbedNetwork(taps, [nn.Linear(8, 3)], None).eval()
    with torch.no_grad():
        wanted = net.inner(x.flatten(1))
        torch.testing.assert_close(taps.read(x)[0][0], wanted)
        answer = trace(network, x).module(x) if late else network(x)
        torch.testing.assert_close(answer, network.probes[0](wanted))


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
