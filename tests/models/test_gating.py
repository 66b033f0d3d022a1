"""Gates in small networks against forwards written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import randomised
from torch import Tensor, nn

from pyinterp.models.gating import GatedModel, gate_model
from pyinterp.models.graph import op_of, trace
from pyinterp.models.sites import Site, find_sites

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Modules by name, and a forward(net, x, s) in which s[name] are the scores of a site; empty: the user's model."""

    def __init__(
        self, forward: Callable[[Any, Tensor, dict[str, Tensor]], Tensor], **modules: nn.Module | nn.Parameter
    ) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.by_hand = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.by_hand(self, x, {})


def gated(net: nn.Module, fused: bool = False) -> GatedModel:
    traced = trace(randomised(net), torch.zeros(1, 3, 8, 8, dtype=next(net.parameters()).dtype))
    return gate_model(traced, find_sites(traced), fused)


def random_scores(found: tuple[Site, ...], rows: int | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = () if rows is None else (rows,)
    return [torch.empty(*shape, site.units).uniform_(-0.5, 1.5, generator=generator) for site in found]


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def gate(s: dict[str, Tensor], name: str, value: Tensor) -> Tensor:
    """``value`` (N, C, ...) or (N, ..., C) times the scores of a site; itself in the user's model."""
    if name not in s:
        return value
    return s[name].view(-1, *[1] * (value.dim() - 2 if value.dim() == 4 else 0)) * value


def plain(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    h = F.relu(gate(s, "one", self.one(x)))
    after = F.relu(gate(s, "two", self.norm(self.two(h))))
    h = s["two.layer"] * after + (1 - s["two.layer"]) * h if s else after
    answer: Tensor = self.head(gate(s, "up", torch.tanh(self.up(h.mean((2, 3))))))
    return answer


def residual(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    h = F.relu(gate(s, "one", self.one(x)))
    h = F.relu(h + gate(s, "two.layer", gate(s, "two", self.norm(self.two(h)))))
    answer: Tensor = self.head(gate(s, "up", F.gelu(self.up(h.mean((2, 3))))))
    return answer


def attention(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    t = self.embed(x).flatten(2).transpose(1, 2)
    q, k, v = self.qkv(t).reshape(t.shape[0], 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
    # Sites of code outside any module are called after their nodes.
    heads, layer, mlp_layer = [s[name] for name in s if name != "up"] or [1.0] * 3
    merged = (q @ k.transpose(-2, -1)).softmax(-1) @ v
    merged = merged * heads[:, None, None] if isinstance(heads, Tensor) else merged
    branch = self.proj(merged.transpose(1, 2).reshape(t.shape[0], 4, 8))
    t = t + (layer * branch if s else branch)
    branch = self.down(gate(s, "up", F.gelu(self.up(t))))
    t = t + (mlp_layer * branch if s else branch)
    answer: Tensor = self.head(t.mean(1))
    return answer


CONVS = {"one": lambda: conv(3, 6), "two": lambda: conv(6, 6), "norm": lambda: nn.BatchNorm2d(6)}
TOKENS = {
    "embed": lambda: nn.Conv2d(3, 8, 4, 4),
    "qkv": lambda: nn.Linear(8, 24),
    "proj": lambda: nn.Linear(8, 8),
}
NETS = {
    "plain": lambda: Net(
        plain, **{n: m() for n, m in CONVS.items()}, up=nn.Linear(6, 9), head=nn.Linear(9, 4)
    ),
    "residual": lambda: Net(
        residual, **{n: m() for n, m in CONVS.items()}, up=nn.Linear(6, 9), head=nn.Linear(9, 4)
    ),
    "attention": lambda: Net(
        attention,
        **{n: m() for n, m in TOKENS.items()},
        up=nn.Linear(8, 9),
        down=nn.Linear(9, 8),
        head=nn.Linear(8, 4),
    ),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("fused", [False, True])
def test_any_scores_give_the_formula(name: str, fused: bool) -> None:
    net = NETS[name]()
    model = gated(net, fused)
    scores = random_scores(model.sites)
    expected = net.by_hand(
        net, IMAGES, {site.name: row for site, row in zip(model.sites, scores, strict=True)}
    )
    assert {site.kind for site in model.sites} >= ({"head"} if name == "attention" else {"filter"}) | {
        "layer",
        "neuron",
    }
    torch.testing.assert_close(model.module(IMAGES, None, *scores), expected)
    assert not torch.allclose(expected, net(IMAGES), atol=1e-2)


@pytest.mark.parametrize("name", NETS)
def test_rows_of_scores_are_separate_runs(name: str) -> None:
    model = gated(NETS[name]())
    rows, group = random_scores(model.sites, rows=4), torch.tensor([3, 0, 3])
    alone = [
        model.module(IMAGES[i : i + 1], None, *[row[g] for row in rows]) for i, g in enumerate(group.tolist())
    ]
    torch.testing.assert_close(model.module(IMAGES, group, *rows), torch.cat(alone))


def test_gradients_of_the_scores_alone() -> None:
    net = NETS["residual"]().double()
    model = gated(net)
    scores = [score.double().requires_grad_() for score in random_scores(model.sites)]
    assert torch.autograd.gradcheck(lambda *s: model.module(IMAGES[:1].double(), None, *s), scores)
    model.module(IMAGES.double(), None, *scores).sum().backward()
    assert all(parameter.grad is None for parameter in net.parameters())


ACTIVATIONS: list[tuple[nn.Module, int]] = [
    (nn.ReLU(), 1), (nn.ReLU6(), 1), (nn.SiLU(), 1), (nn.Hardswish(), 1), (nn.GELU(), 1), (nn.GELU("tanh"), 1),
    (nn.Tanh(), 2), (nn.Hardtanh(0, 4), 2), (nn.Identity(), 1),
]  # fmt: skip


@pytest.mark.parametrize(("act", "operations"), ACTIVATIONS, ids=lambda value: str(value))
@pytest.mark.parametrize("affine", [True, False])
def test_fused_gates_are_norm_gate_and_activation(act: nn.Module, operations: int, affine: bool) -> None:
    net = nn.Sequential(conv(3, 6), nn.BatchNorm2d(6, affine=affine), act, nn.Flatten(), nn.Linear(384, 4))
    model, fused = gated(net), gated(net, fused=True)
    scores = [score * 4 for score in random_scores(model.sites)]
    torch.testing.assert_close(fused.module(IMAGES, None, *scores), model.module(IMAGES, None, *scores))
    # conv, [act], flatten, linear and the fused operation itself.
    calls = [op_of(node) for node in fused.module.graph.nodes if node.op == "call_function"]
    assert len(calls) == 3 + operations
    assert torch.ops.pyinterp.gated_affine in calls


def test_a_norm_read_by_more_than_its_activation_is_fused_without_it() -> None:
    def forward(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
        x = self.norm(self.one(x))
        answer: Tensor = self.head(torch.cat([F.relu(x), x], 1).mean((2, 3)))
        return answer

    net = Net(forward, one=conv(3, 6), norm=nn.BatchNorm2d(6), head=nn.Linear(12, 4))
    model, fused = gated(net), gated(net, fused=True)
    scores = random_scores(model.sites)
    torch.testing.assert_close(fused.module(IMAGES, None, *scores), model.module(IMAGES, None, *scores))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype, fused: bool) -> None:
    net = NETS["plain"]().to(dtype)
    model = gated(net, fused)
    ones = [
        torch.ones(site.units, dtype=torch.float64 if dtype == torch.float64 else None)
        for site in model.sites
    ]
    images = IMAGES.to(dtype)
    answer = model.module(images, None, *ones)
    assert answer.dtype == dtype
    torch.testing.assert_close(answer, net(images), atol=0.05 if dtype == torch.bfloat16 else 1e-12, rtol=0)


def token_first(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    t = self.embed(x).flatten(2).permute(2, 0, 1)
    t = t + self.attention(t, t, t, need_weights=True)[0]
    t = t + self.down(F.relu(self.up(t)))
    answer: Tensor = self.head(t.mean(0))
    return answer


def windows(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    t = self.embed(x).permute(0, 2, 3, 1).reshape(-1, 2, 8)
    t = t + self.attention(t, t, t)[0]
    t = t + self.down(F.relu(self.up(t)))
    answer: Tensor = self.head(t.reshape(-1, 4, 8).mean(1))
    return answer


@pytest.mark.parametrize("forward", [token_first, windows])
def test_rows_follow_the_samples_where_the_batch_axis_moved(
    forward: Callable[[Any, Tensor, dict[str, Tensor]], Tensor],
) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=forward is windows)
    maps = {"up": nn.Linear(8, 9), "down": nn.Linear(9, 8), "head": nn.Linear(8, 4)}
    model = gated(Net(forward, embed=nn.Conv2d(3, 8, 4, 4), attention=attention, **maps))
    assert [site.kind for site in model.sites] == ["head", "layer", "neuron", "layer"]
    rows, group = random_scores(model.sites, rows=2), torch.tensor([1, 0, 1])
    alone = [
        model.module(IMAGES[i : i + 1], None, *[row[g] for row in rows]) for i, g in enumerate(group.tolist())
    ]
    torch.testing.assert_close(model.module(IMAGES, group, *rows), torch.cat(alone))


def split_by_sizes(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    few, many = torch.split(F.relu(self.one(x)), [2, 4], 1)
    answer: Tensor = self.head(torch.cat([few, F.relu(self.two(many)).view_as(many)], 1).mean((2, 3)))
    return answer


def unfolded_and_sorted(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    columns = F.unfold(F.relu(self.one(x)), 2, stride=2).transpose(1, 2)
    highest = (
        F.relu(self.two(columns.view(x.shape[0], 4, 4, 24).permute(0, 3, 1, 2))).flatten(2).sort(-1).values
    )
    answer: Tensor = self.head(highest[..., -2:].mean(-1))
    return answer


def folded(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
    parts = x.view(-1, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 4, 4)
    each = F.relu(self.two(F.relu(self.norm(self.one(parts))))).mean((2, 3))
    answer: Tensor = self.head(each.view(-1, 4, 4).mean(1))
    return answer


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("forward", "width"), [(split_by_sizes, 4), (unfolded_and_sorted, 24), (folded, 6)])
def test_rows_follow_the_samples_through_odd_operations(
    forward: Callable[[Any, Tensor, dict[str, Tensor]], Tensor], width: int, fused: bool
) -> None:
    maps = {"one": conv(3, 6), "norm": nn.BatchNorm2d(6), "two": conv(width, 4, 1)}
    model = gated(Net(forward, **maps, head=nn.Linear(6 if forward is split_by_sizes else 4, 5)), fused)
    assert len(model.sites) == 2
    rows, group = random_scores(model.sites, rows=2), torch.tensor([1, 0, 1])
    alone = [
        model.module(IMAGES[i : i + 1], None, *[row[g] for row in rows]) for i, g in enumerate(group.tolist())
    ]
    torch.testing.assert_close(model.module(IMAGES, group, *rows), torch.cat(alone))


def test_where_samples_cannot_be_told_apart_only_one_trial_runs() -> None:
    def forward(self: Any, x: Tensor, s: dict[str, Tensor]) -> Tensor:
        hidden = F.relu(self.up(torch.einsum("nchw->hnc", x)))
        answer: Tensor = self.down(hidden).mean(0)
        return answer

    model = gated(Net(forward, up=nn.Linear(3, 5), down=nn.Linear(5, 4)))
    assert torch.equal(model.module(IMAGES, None, torch.ones(5)), model.traced.module(IMAGES))
    with pytest.raises(ValueError, match="the axis of the images can be followed"):
        model.module(IMAGES, torch.zeros(3, dtype=torch.int64), torch.ones(1, 5))


def test_some_of_the_sites() -> None:
    traced = trace(randomised(NETS["residual"]()), IMAGES)
    chosen = [site for site in find_sites(traced) if site.kind == "layer"]
    model = gate_model(traced, chosen)
    assert model.sites == tuple(chosen)
    assert torch.equal(model.module(IMAGES, None, torch.ones(1)), traced.module(IMAGES))


def test_sites_that_do_not_fit_are_refused() -> None:
    traced = trace(randomised(NETS["plain"]()), IMAGES)
    with pytest.raises(ValueError, match="at least one site, got none"):
        gate_model(traced, [])
    with pytest.raises(ValueError, match="'elsewhere' of another"):
        gate_model(traced, [Site("elsewhere", "filter", 6, "conv2d_17", 1)])


def test_weights_are_shared_and_the_traced_graph_is_left_alone() -> None:
    traced = trace(randomised(NETS["residual"]()), IMAGES)
    before = str(traced.graph)
    model = gate_model(traced, find_sites(traced))
    assert str(traced.graph) == before
    shared = {tensor.data_ptr() for tensor in traced.module.buffers()}
    assert {tensor.data_ptr() for tensor in model.module.buffers()} <= shared
