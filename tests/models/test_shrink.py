"""Smaller graphs against their oracle: the gated network itself with zeros at the closed units."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shrink_cases import BLOCKS, assert_close, check, gated_in_float64, images, network, random_kept
from torch import Tensor, nn

from pyinterp.models.count import count
from pyinterp.models.shrink import fold, live_units, shrink


@pytest.mark.parametrize("block", range(len(BLOCKS)), ids=[b.__name__ for b in BLOCKS])  # type: ignore[attr-defined]
def test_every_rule(block: int) -> None:
    generator = torch.Generator().manual_seed(block)
    for fused in (False, True):
        gated = gated_in_float64(network([block, block], act=block % 4), fused=fused)
        for density, grouped in ((0.0, False), (0.15, False), (0.4, False), (0.4, True), (1.0, False)):
            check(gated, random_kept(gated, density, generator), generator, grouped)


@pytest.mark.parametrize("blocks", [[0, 3], [4, 5], [8, 9]])
def test_each_site_closed_alone(blocks: list[int]) -> None:
    """What a closed site leaves behind is constant: it reaches sums, joins and norms as such."""
    generator = torch.Generator().manual_seed(11)
    gated = gated_in_float64(network(blocks, head="pool"))
    for closed in range(len(gated.sites)):
        kept = [torch.full((s.units,), i != closed) for i, s in enumerate(gated.sites)]
        check(gated, kept, generator)


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    blocks=st.lists(st.integers(0, len(BLOCKS) - 1), min_size=2, max_size=4),
    act=st.integers(0, 3),
    head=st.sampled_from(["flatten", "pool"]),
    fused=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_random_networks(blocks: list[int], act: int, head: str, fused: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gated = gated_in_float64(network(blocks, act, head), fused=fused)
    for density in (0.1, 0.5):
        check(gated, random_kept(gated, density, generator), generator)


def test_live_units_are_those_that_change_something() -> None:
    """Brute force: closing a live unit changes the logits, closing all dead ones does not."""
    generator = torch.Generator().manual_seed(3)
    for blocks, head in (([0, 3], "pool"), ([4, 5], "pool"), ([1, 6], "flatten"), ([8, 9], "pool")):
        gated = gated_in_float64(network(blocks, act=2, head=head))
        x = images(gated, generator)
        for density in (0.2, 0.4):
            kept = random_kept(gated, density, generator)
            scores = [
                torch.rand(s.units, generator=generator, dtype=torch.float64) + 0.5 for s in gated.sites
            ]
            rows = [s * k for s, k in zip(scores, kept, strict=True)]
            with torch.no_grad():
                logits = gated.module(x, None, *rows)
                for site, alive in enumerate(live_units(gated, kept)):
                    for unit in kept[site].nonzero().flatten().tolist():
                        closed = [row.clone() for row in rows]
                        closed[site][unit] = 0
                        change = (gated.module(x, None, *closed) - logits).abs().max().item()
                        assert bool(alive[unit]) == (change > 1e-12), (gated.sites[site].name, unit, change)


class TwoConvs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.fc = nn.Conv2d(8, 6, 3, padding=1, stride=2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.relu(y).mean((2, 3)))


def test_counts_by_hand() -> None:
    model = TwoConvs()
    gated = gated_in_float64(model, (3, 8, 8))
    assert [(s.name, s.units) for s in gated.sites] == [("conv1", 8), ("conv2", 6)]
    parameters = sum(p.numel() for p in model.parameters())
    assert count(gated.traced.module, (3, 8, 8)) == (parameters, 64 * 8 * 27 + 16 * 6 * 72 + 6 * 4)
    kept = [torch.arange(8) < 3, torch.arange(6) % 3 == 0]
    small = fold(gated, kept, [k.double() for k in kept])
    # BatchNorm becomes the bias of the first convolution: 3 x (27 + 1), 2 x (27 + 1), 4 x (2 + 1)
    assert count(small, (3, 8, 8)) == (3 * 28 + 2 * 28 + 4 * 3, 64 * 3 * 27 + 16 * 2 * 27 + 2 * 4)
    assert sum(p.numel() for p in small.parameters()) == 3 * 28 + 2 * 28 + 4 * 3


def test_constants_move_into_the_bias() -> None:
    """A closed filter before a depthwise convolution leaves BatchNorm's shift, which the next 1x1 absorbs."""
    gated = gated_in_float64(network([0], head="pool"))
    kept = [torch.ones(s.units, dtype=torch.bool) for s in gated.sites]
    up = next(i for i, s in enumerate(gated.sites) if s.name.endswith("up"))
    kept[up][2:] = False
    small = fold(gated, kept, [k.double() for k in kept])
    shapes = [p.shape for name, p in small.named_parameters() if name.endswith("weight") and p.dim() == 4]
    assert [tuple(s) for s in shapes] == [(6, 3, 3, 3), (2, 6, 1, 1), (2, 1, 3, 3), (6, 2, 1, 1)]
    generator = torch.Generator().manual_seed(0)
    check(gated, kept, generator)


def test_nothing_kept_is_a_constant() -> None:
    gated = gated_in_float64(network([0, 3]))
    kept = [torch.zeros(s.units, dtype=torch.bool) for s in gated.sites]
    scores = [k.double() for k in kept]
    small = fold(gated, kept, scores)
    x = images(gated, torch.Generator().manual_seed(0))
    assert_close(small(x), gated.module(x, None, *scores))
    assert count(small, gated.traced.input_shape) == (5, 0)
    assert all(len(stored) == 0 for stored in shrink(gated, kept).stored)


def test_scores_of_one_are_copied_exactly() -> None:
    """Without BatchNorm nothing is folded: the kept weights are bit for bit the model's."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )
    gated = gated_in_float64(model)
    kept = [torch.arange(8) % 2 == 0, torch.arange(4) < 3]
    small = dict(fold(gated, kept, [k.double() for k in kept]).named_parameters())
    assert torch.equal(small["2__weight"].float(), model[2].weight[:3][:, ::2])
    assert torch.equal(small["2__bias"].float(), model[2].bias[:3])


def test_folded_network_is_an_ordinary_module(tmp_path: Path) -> None:
    gated = gated_in_float64(network([0, 9], head="pool"))
    gated.module.float()
    generator = torch.Generator().manual_seed(5)
    kept = random_kept(gated, 0.5, generator)
    small = fold(gated, kept, [torch.rand(s.units, generator=generator) for s in gated.sites])
    x = images(gated, generator).float()
    batch = ({0: torch.export.Dim("batch", min=1)},)
    exported = torch.export.export(small, (x,), dynamic_shapes=batch, strict=False)
    assert torch.equal(exported.module()(x[:2]), small(x[:2]))
    assert not any("pyinterp" in str(node.target) for node in small.graph.nodes)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    other = fold(gated, kept, [torch.zeros(s.units) + 1 for s in gated.sites])
    assert not torch.equal(other(x), small(x))
    other.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    assert torch.equal(other(x), small(x))
    assert all(not p.requires_grad for p in small.parameters())


def test_the_gated_network_is_left_alone() -> None:
    gated = gated_in_float64(network([0, 3]))
    before = {name: value.clone() for name, value in gated.module.state_dict().items()}
    code = gated.module.code
    generator = torch.Generator().manual_seed(6)
    kept = random_kept(gated, 0.4, generator)
    shrink(gated, kept), fold(gated, kept, [torch.full((s.units,), 0.7) for s in gated.sites])
    assert gated.module.code == code
    assert all(torch.equal(value, before[name]) for name, value in gated.module.state_dict().items())


def test_rows_that_do_not_fit_are_refused() -> None:
    gated = gated_in_float64(network([0]))
    kept = [torch.ones(s.units, dtype=torch.bool) for s in gated.sites]
    with pytest.raises(ValueError, match="one row per site"):
        shrink(gated, kept[1:])
    with pytest.raises(ValueError, match="one row per site"):
        live_units(gated, [torch.ones(3, dtype=torch.bool), *kept[1:]])
    with pytest.raises(ValueError, match="one row per site"):
        fold(gated, kept, [torch.ones(2) for _ in kept])
