"""A gated network in two parts: the same answers, the first part once."""

from __future__ import annotations

import pytest
import torch
from networks import randomised
from torch import Tensor, nn

from pyinterp.models.gating import gate_model
from pyinterp.models.graph import trace
from pyinterp.models.prefix import SplitNetwork
from pyinterp.models.sites import Site, find_sites


class Small(nn.Module):
    """A first convolution, and later again the images themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.head(h.mean((2, 3)) * x.mean())  # type: ignore[no-any-return]


class Patches(nn.Module):
    """Patches and positions, then an MLP over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.places = nn.Parameter(torch.randn(4, 8))
        self.wide, self.narrow, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.places
        x = x + self.narrow(torch.relu(self.wide(x)))
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def random_scores(sites: tuple[Site, ...], rows: int) -> list[Tensor]:
    return [torch.rand(rows, site.units).requires_grad_() for site in sites]


@pytest.mark.parametrize("net", [Small, Patches])
@pytest.mark.parametrize("fused", [False, True])
def test_the_parts_answer_as_the_whole(net: type[nn.Module], fused: bool) -> None:
    torch.manual_seed(0)
    traced = trace(randomised(net()), torch.zeros(1, 3, 8, 8))
    gated = gate_model(traced, find_sites(traced), fused)
    split = SplitNetwork(gated.module)
    for images in (torch.randn(3, 3, 8, 8), torch.randn(2, 3, 8, 8)):
        for group in (None, torch.arange(len(images))):
            scores = random_scores(gated.sites, len(images))
            rows = scores if group is not None else [row[0] for row in scores]
            whole, parts = gated.module(images, group, *rows), split(images, group, *rows)
            torch.testing.assert_close(parts, whole)
            wanted = torch.autograd.grad(whole.square().sum(), scores)
            torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), scores), wanted)


@pytest.mark.parametrize("net", [Small, Patches])
def test_what_no_gate_reaches_runs_once_per_set_of_images(net: type[nn.Module]) -> None:
    traced = trace(randomised(net()), torch.zeros(1, 3, 8, 8))
    gated = gate_model(traced, find_sites(traced))
    split = SplitNetwork(gated.module)
    images, others = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    scores = [torch.ones(site.units) for site in gated.sites]
    counts = []
    for batch in (images, images, others, images):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            split(batch, None, *scores)
        counts.append(sum(event.count for event in seen.key_averages() if event.key == "aten::convolution"))
    convolutions = sum(isinstance(module, nn.Conv2d) for module in net().modules())
    assert counts == [convolutions, convolutions - 1, convolutions, convolutions]
