"""The gated network at work: fewer units cost less, and answer alike."""

from __future__ import annotations

import torch
from planted import pictures, planted
from torch import Tensor, nn

from pyinterp.chains.engine import Engine
from pyinterp.models.graph import trace
from pyinterp.models.sites import find_sites


class Separable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.narrow, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.deep(torch.relu(self.norm(self.wide(x)))))
        return self.head(self.narrow(x).mean((2, 3)))  # type: ignore[no-any-return]


def engine_of(net: nn.Module) -> Engine:
    traced = trace(net, pictures(1))
    return Engine(traced, [site for site in find_sites(traced) if site.kind != "layer"])


def test_closing_for_good_leaves_the_answer_and_the_slopes() -> None:
    engine, images = engine_of(planted(0.2)), pictures()
    kept = torch.rand(len(engine), generator=torch.Generator().manual_seed(1)) < 0.4
    scores = (torch.rand(len(engine)) * kept).requires_grad_()
    before = engine.logits(scores, images)
    (slopes,) = torch.autograd.grad(before.square().sum(), scores)
    engine.close_all_but(kept, images[:1])
    assert engine.stored.sum() < len(engine)
    after = engine.logits(scores, images)
    (fewer,) = torch.autograd.grad(after.square().sum(), scores)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(fewer[engine.stored], slopes[engine.stored])
    engine.reopen()
    assert engine.stored.all()
    torch.testing.assert_close(engine.logits(scores, images), before)


def test_without_any_gate_left_the_slopes_are_zero() -> None:
    engine, images = engine_of(planted(0.2)), pictures()
    engine.close_all_but(torch.zeros(len(engine), dtype=torch.bool), images[:1])
    scores = torch.zeros(len(engine), requires_grad=True)
    (slopes,) = torch.autograd.grad(engine.logits(scores, images).sum(), scores)
    assert not slopes.any()


def test_a_filter_and_its_depthwise_reader_open_together_and_count_as_two() -> None:
    engine = engine_of(Separable().eval())
    assert engine.leads.tolist() == [True] * 8 + [False] * 12
    assert engine.cost.tolist() == [0.0] * 8 + [2.0] * 8 + [1.0] * 4
    readers = torch.arange(20.0)
    assert engine.tied(readers).tolist() == [*range(8, 16), *range(8, 16), *range(16, 20)]
    assert float(engine.cost.sum()) == len(engine)
