"""Nobody influences a position outside the reach that the graph gives; and convolutions' reach is no larger either."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared_nets import NETS, PLAYERS, SIZE, net
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from pyinterp.games.reach import find_reach
from pyinterp.models import TracedModel, trace
from pyinterp.models.graph import is_tensor


class Values(Interpreter):
    """Every value of the graph for some images."""

    def __init__(self, traced: TracedModel, images: Tensor) -> None:
        super().__init__(traced.module)
        self.of: dict[Node, Any] = {}
        with torch.no_grad():
            self.run(images)

    def run_node(self, n: Node) -> Any:
        self.of[n] = super().run_node(n)
        return self.of[n]


def changed(traced: TracedModel, players: Tensor, draws: int = 3) -> dict[Node, Tensor]:
    """For every tensor that carries images: which of its entries each player changed, bool (n, *shape)."""
    image = torch.rand(3, SIZE, SIZE, dtype=torch.float64) + 0.5
    count = int(players.max()) + 1
    others = torch.rand(draws, count, 3, SIZE, SIZE, dtype=torch.float64) * 3
    mine = players == torch.arange(count)[:, None, None]
    masked = torch.where(mine[:, None], others, image)
    before = Values(traced, image.expand(count, -1, -1, -1)).of
    found: dict[Node, Tensor] = {}
    for draw in masked:
        after = Values(traced, draw).of
        for node, value in before.items():
            if is_tensor(node) and value.dim() and len(value) == count:
                found[node] = found.get(node, False) | (after[node] != value)
    return found


@pytest.mark.parametrize("players", PLAYERS.values(), ids=PLAYERS.keys())
@pytest.mark.parametrize("name", NETS)
def test_reach_is_never_too_small(name: str, players: Tensor) -> None:
    traced = trace(net(name), torch.zeros(1, 3, SIZE, SIZE, dtype=torch.float64))
    reach = find_reach(traced, players)
    truth = changed(traced, players)
    assert len(reach) > 1 or name == "mlp"
    for node, found in reach.items():
        if not is_tensor(node):
            continue
        here = (
            truth[node].movedim(found.axes, (-2, -1)).reshape(len(found.map), -1, *found.map.shape[1:]).any(1)
        )
        assert not (here & ~found.map).any(), node


@pytest.mark.parametrize("name", ["strides", "dilation", "depthwise", "residual"])
def test_reach_of_convolutions_is_exact(name: str) -> None:
    """With positive weights nothing cancels and no activation closes: who may change a position does."""
    model, players = net(name), PLAYERS["stains"]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        if isinstance(module, nn.ReLU6):
            module.max_val = 1e9
    for parameter in model.parameters():
        parameter.data.abs_().mul_(0.1).add_(1e-3)
    traced = trace(model, torch.zeros(1, 3, SIZE, SIZE, dtype=torch.float64))
    truth = changed(traced, players, draws=1)
    for node, found in find_reach(traced, players).items():
        if node.op == "call_function":
            assert torch.equal(truth[node].any(1), found.map), node


def test_what_has_no_rule_counts_as_mixing_everything() -> None:
    traced = trace(net("excite"), torch.zeros(1, 3, SIZE, SIZE, dtype=torch.float64))
    names = {node.name for node in find_reach(traced, PLAYERS["2x3"])}
    assert {"conv2d", "relu"} <= names
    assert names.isdisjoint({"mean", "sigmoid", "mul", "conv2d_2"})


class ByValue(nn.Module):
    """Scaled by the largest pixel of its images, through an operation on all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x) * x.amax((1, 2, 3), keepdim=True)).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_factor_of_all_positions_reaches_all() -> None:
    traced = trace(ByValue().eval(), torch.zeros(1, 3, SIZE, SIZE))
    names = {node.name for node in find_reach(traced, PLAYERS["2x3"])}
    assert "conv2d" in names and names.isdisjoint({"amax", "mul"})


def test_columns_have_no_positions() -> None:
    traced = trace(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval(), torch.zeros(1, 6))
    assert find_reach(traced, torch.arange(6)) == {}
