"""The chain's graph against the definition, written out by hand for a small network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyinterp.chains.chain import Chain, describe, digest
from pyinterp.chains.flow import ChainFlow
from pyinterp.chains.visual import measure_flow
from pyinterp.models import ImageSet, trace
from pyinterp.models.sites import find_sites

KEPT_A, KEPT_B = [0, 1, 3, 4], [0, 1, 2, 4]


class Net(nn.Module):
    """conv a - relu - conv b (stride 2) - relu - mean - linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 5, 3, padding=1, stride=2)
        self.last = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


@pytest.fixture
def case() -> tuple[Net, Chain, ImageSet]:
    torch.manual_seed(0)
    net = Net().eval()
    kept = {"a": torch.zeros(6, dtype=torch.bool), "b": torch.zeros(5, dtype=torch.bool)}
    kept["a"][KEPT_A] = True
    kept["b"][KEPT_B] = True
    scores = {name: torch.rand(len(mask)) + 0.5 for name, mask in kept.items()}
    x = torch.randn(4, 3, 12, 12)
    pixels = torch.arange(4 * 3 * 12 * 12).reshape(4, 3, 12, 12).remainder(256).to(torch.uint8)
    chain = Chain(
        model_name="net",
        mode="scaled",
        sites=tuple(find_sites(trace(net, x))),
        kept=kept,
        scores=scores,
        layer_gates={},
        input_shape=(3, 12, 12),
        architecture=describe(net),
        weights_digest=digest(net),
    )
    return net, chain, ImageSet(x, ("a", "b", "c", "d"), pixels)


def by_hand(
    net: Net, chain: Chain, x: Tensor
) -> tuple[Tensor, Tensor, dict[tuple[int, int], float], dict[int, dict[int, float]]]:
    """Influence of the units of a and b, edges a -> b, edges b -> class, straight from the definition."""
    with torch.enable_grad():
        va = (net.a(x) * chain.gate_values("a")[:, None, None]).detach().requires_grad_()
        vb = net.b(F.relu(va)) * chain.gate_values("b")[:, None, None]
        vb.retain_grad()
        logits = net.last(F.relu(vb).mean((2, 3)))
        top = logits.argmax(1)
        (logits.gather(1, top[:, None])[:, 0] - logits.mean(1)).sum().backward()
    ga, gb = va.grad, vb.grad
    assert ga is not None and gb is not None
    influence_a = (ga * va).sum((2, 3)).abs().mean(0).detach()
    influence_b = (gb * vb).sum((2, 3)).abs().mean(0).detach()
    parts: dict[tuple[int, int], Tensor] = {}
    for j in KEPT_B:
        for i in range(6):
            alone = F.conv2d(
                F.relu(va[:, i : i + 1]), net.b.weight[j : j + 1, i : i + 1], padding=1, stride=2
            )
            parts[i, j] = (gb[:, j : j + 1] * alone * chain.gate_values("b")[j]).sum((1, 2, 3)).detach()
    edges = {}
    for j in KEPT_B:
        whole = sum(parts[i, j].abs().mean() for i in range(6))
        edges |= {
            (i, j): float(parts[i, j].sum().sign() * parts[i, j].abs().mean() / whole) for i in range(6)
        }
    into_class: dict[int, dict[int, float]] = {}
    centred = net.last.weight - net.last.weight.mean(0)
    for c in top.unique().tolist():
        puts = centred[c] * F.relu(vb[top == c]).mean((2, 3))
        size = puts.abs().mean(0)
        into_class[c] = dict(enumerate((puts.sum(0).sign() * size / size.sum()).tolist()))
    return influence_a, influence_b, edges, into_class


def edges_of(flow: ChainFlow, source: int, target: int) -> dict[tuple[int, int], float]:
    units = [column.units for column in flow.columns]
    return {
        (units[source][e.source[1]].index, units[target][e.target[1]].index): e.share
        for e in flow.edges
        if (e.source[0], e.target[0]) == (source, target)
    }


def test_influence_and_edges_are_the_definition(case: tuple[Net, Chain, ImageSet]) -> None:
    net, chain, images = case
    flow = measure_flow(chain, net, images, least_share=0.0)
    influence_a, influence_b, edges, into_class = by_hand(net, chain, images.tensor)
    for column, wanted, kept in zip(flow.columns, (influence_a, influence_b), (KEPT_A, KEPT_B), strict=False):
        assert sorted(unit.index for unit in column.units) == kept
        assert [unit.influence for unit in column.units] == sorted(
            (unit.influence for unit in column.units), reverse=True
        )
        for unit in column.units:
            assert unit.influence == pytest.approx(float(wanted[unit.index] / wanted.sum()), rel=1e-4)
            assert unit.score == pytest.approx(float(chain.scores[column.site][unit.index]))
    found = edges_of(flow, 0, 1)
    assert set(found) == {(i, j) for i in KEPT_A for j in KEPT_B}
    for key, share in found.items():
        assert share == pytest.approx(edges[key], rel=1e-3, abs=1e-6)
    for (i, c), share in edges_of(flow, 1, 2).items():
        assert share == pytest.approx(into_class[c][i], rel=1e-3, abs=1e-6)
    assert {c for _, c in edges_of(flow, 1, 2)} == set(into_class)


def test_small_shares_are_left_out_and_columns_are_capped(case: tuple[Net, Chain, ImageSet]) -> None:
    net, chain, images = case
    every = measure_flow(chain, net, images, least_share=0.0)
    some = measure_flow(chain, net, images, units=2, least_share=0.2, examples=1)
    assert [len(column.units) for column in some.columns[:2]] == [2, 2]
    assert [column.kept for column in some.columns[:2]] == [4, 4]
    strong = {key for key, share in edges_of(every, 0, 1).items() if abs(share) >= 0.2}
    shown = [{unit.index for unit in column.units} for column in some.columns]
    assert set(edges_of(some, 0, 1)) == {(i, j) for i, j in strong if i in shown[0] and j in shown[1]}
    assert all(len(unit.responses) == 1 for column in some.columns[:2] for unit in column.units)


def test_pictures_and_maps_show_where_a_unit_responds(case: tuple[Net, Chain, ImageSet]) -> None:
    net, chain, images = case
    # The first filter sees one bright pixel of one image and nothing else.
    x = torch.zeros(4, 3, 48, 48)
    x[2, 0, 40, 9] = 5.0
    with torch.no_grad():
        net.a.weight[0] = 0
        net.a.weight[0, 0, 1, 1] = 1.0
        net.a.bias[0] = 0.0
    pixels = torch.zeros(4, 3, 48, 48, dtype=torch.uint8)
    pixels[2, :, 40, 9] = 255
    chain = replace(chain, input_shape=(3, 48, 48))
    flow = measure_flow(chain, net, ImageSet(x, images.names, pixels), examples=2)
    unit = next(unit for unit in flow.columns[0].units if unit.index == 0)
    assert unit.responses[0].image == 2
    assert unit.picture is not None
    assert unit.picture.shape == (3, 36, 36)
    assert int((unit.picture == 255).sum()) == 3
    lit = (unit.responses[0].map == 255).nonzero()
    assert lit.tolist() == [[40 * 28 // 48, 9 * 28 // 48]]
    assert int(unit.responses[0].map.sum()) == 255


def test_a_chain_with_a_closed_site_answers_alike_and_has_no_edges(
    case: tuple[Net, Chain, ImageSet],
) -> None:
    net, chain, images = case
    chain.kept["b"][:] = False
    flow = measure_flow(chain, net, images)
    assert [column.kept for column in flow.columns] == [4, 0, 1]
    assert flow.columns[1].skipped
    assert flow.edges == ()


def test_nothing_is_left_behind(case: tuple[Net, Chain, ImageSet]) -> None:
    net, chain, images = case
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure_flow(chain, net, images)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("wrong", [{"units": 0}, {"examples": 0}, {"max_images": 0}])
def test_counts_below_one_are_refused(case: tuple[Net, Chain, ImageSet], wrong: dict[str, int]) -> None:
    net, chain, images = case
    with pytest.raises(ValueError, match="at least one of each"):
        measure_flow(chain, net, images, **wrong)
