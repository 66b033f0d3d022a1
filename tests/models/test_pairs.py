"""Filters that a depthwise filter alone reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyinterp.models.gating import gate_model
from pyinterp.models.graph import trace
from pyinterp.models.pairs import depthwise_readers
from pyinterp.models.sites import find_sites


class Separable(nn.Module):
    """conv -> depthwise -> conv, with ``also`` telling who else reads the first conv."""

    def __init__(self, groups: int, also: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=groups)
        self.third = nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 3)
        self.also = also

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.first(x)))
        z = torch.relu(self.second(y))
        if self.also:
            z = z + y
        return self.head(self.third(z).mean((2, 3)))  # type: ignore[no-any-return]


def readers(groups: int, also: bool) -> list[int]:
    traced = trace(Separable(groups, also).eval(), torch.zeros(1, 3, 8, 8))
    sites = [site for site in find_sites(traced) if site.kind != "layer"]
    return depthwise_readers(traced, sites).tolist()


def test_a_depthwise_filter_reads_one_filter() -> None:
    assert readers(4, False) == [4, 5, 6, 7] + [-1] * 9


def test_no_pair_where_others_read_the_filter_or_the_conv_mixes() -> None:
    assert readers(4, True) == [-1] * 13
    assert readers(1, False) == [-1] * 13
    assert readers(2, False) == [-1] * 13


def test_closing_either_of_a_pair_is_closing_both() -> None:
    net = Separable(4, False).eval()
    traced = trace(net, torch.zeros(1, 3, 8, 8))
    sites = [site for site in find_sites(traced) if site.kind != "layer"]

    gated, x = gate_model(traced, sites), torch.randn(2, 3, 8, 8)
    rows = [torch.ones(site.units) for site in sites]
    rows[1][2] = 0
    one = gated.module(x, None, *rows)
    rows[0][2] = 0
    assert torch.equal(one, gated.module(x, None, *rows))
