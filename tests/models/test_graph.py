"""Taking a network as a graph: its answer, its weights, and what has no graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from networks import randomised, snapshot
from torch import Tensor, nn

from pyinterp.models.graph import TracedModel, logits_of, op_of, trace, with_logits

aten = torch.ops.aten
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A small conv net whose forward is given as a function of (net, x)."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)
        self.drop = nn.Dropout(0.5)
        self.how = forward

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def net(forward: Callable[[Any, Tensor], Any]) -> Net:
    model = randomised(Net(forward))
    assert isinstance(model, Net)
    return model


def plain(self: Any, x: Tensor) -> Tensor:
    answer: Tensor = self.head(self.drop(F.relu(self.norm(self.conv(x)))).mean((2, 3)))
    return answer


def ops(traced: TracedModel) -> list[Any]:
    return [op_of(node) for node in traced.graph.nodes if node.op == "call_function"]


def test_graph_gives_the_answer_for_any_batch_and_shares_the_weights() -> None:
    model = net(plain)
    before = snapshot(model)
    traced = trace(model, IMAGES[:1])
    for count in (1, 2, 5):
        x = torch.randn(count, 3, 8, 8)
        assert torch.equal(traced.module(x), model(x))
    assert (traced.input_shape, traced.classes) == ((3, 8, 8), 5)
    shared = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.dim()}
    assert {tensor.data_ptr() for tensor in traced.module.buffers()} <= shared
    assert not any(tensor.requires_grad for tensor in traced.module.buffers())
    assert snapshot(model) == before


def test_nodes_name_the_modules_and_weights_they_come_from() -> None:
    traced = trace(net(plain), IMAGES)
    conv = next(node for node in traced.graph.nodes if op_of(node) is aten.conv2d)
    assert conv.meta["module"] == "conv"
    assert conv.args[1].meta["weight"] == "conv.weight"
    assert traced.node(conv.name) is conv
    assert aten.dropout not in ops(traced)


def in_place(self: Any, x: Tensor) -> Tensor:
    x = self.conv(x)
    x.add_(1.0)
    x.relu_()
    x += 0.5 * x
    answer: Tensor = self.head(x.mean((2, 3)))
    return answer


def writes_a_slice(self: Any, x: Tensor) -> Tensor:
    mask = x.new_zeros(8, 8)
    mask[2:4, 1:] = 2.0
    mask[5] += 1.0
    y = self.conv(x) * mask
    y[:, 1:3] = 0.25
    answer: Tensor = self.head(y.mean((2, 3)))
    return answer


def changes_slices(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    y[:, :2] *= 0.5
    y[:, 2:4] += 1
    moved = torch.zeros_like(y)
    moved[:, 1:] = y[:, :-1]
    answer: Tensor = self.head(moved.mean((2, 3)))
    return answer


@pytest.mark.parametrize("forward", [in_place, writes_a_slice, changes_slices])
def test_in_place_writes_are_functional_in_the_graph(forward: Callable[[Any, Tensor], Tensor]) -> None:
    model = net(forward)
    traced = trace(model, IMAGES)
    assert torch.equal(traced.module(IMAGES), model(IMAGES))
    assert not any(
        node.target._schema.is_mutable for node in traced.graph.nodes if hasattr(node.target, "_schema")
    )


def test_writes_into_slices_have_slopes() -> None:
    model = net(changes_slices)
    images = IMAGES.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(images).square().sum(), images)
    (slopes,) = torch.autograd.grad(trace(model, IMAGES).module(images).square().sum(), images)
    torch.testing.assert_close(slopes, wanted)


def blocks(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = self.conv(x)
        twice = 2 * y
        with torch.autocast("cpu", enabled=False):
            y = torch.relu(y)
    with torch.autocast("cpu", enabled=False):
        y = y.float() + twice
    answer: Tensor = self.head(y.mean((2, 3)))
    return answer


@torch.no_grad()
def all_without_gradients(self: Any, x: Tensor) -> Tensor:
    return plain(self, x)


@pytest.mark.parametrize("forward", [blocks, all_without_gradients])
def test_blocks_without_gradients_are_part_of_the_graph(forward: Callable[[Any, Tensor], Tensor]) -> None:
    model = net(forward)
    traced = trace(model, IMAGES)
    assert torch.equal(traced.module(IMAGES), model(IMAGES))
    images = IMAGES.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(traced.module(images).sum(), images)
    assert slopes.any()


def test_autocast_in_the_forward_is_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(self, x)

    with pytest.raises(ValueError, match="autocast of its own"):
        trace(net(forward), IMAGES)


class Answer(NamedTuple):
    logits: Tensor
    features: Tensor


class Output:
    def __init__(self, features: Tensor, logits: Tensor) -> None:
        self.features, self.logits = features, logits


def test_logits_among_other_outputs() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        features = self.conv(x).mean((2, 3))
        return {"features": features, "logits": self.head(features)}

    model = net(forward)
    assert torch.equal(trace(model, IMAGES).module(IMAGES), model(IMAGES)["logits"])


@pytest.mark.parametrize(
    "make",
    [
        lambda logits, features: logits,
        lambda logits, features: {"features": features, "logits": logits},
        lambda logits, features: Answer(logits, features),
        lambda logits, features: Output(features, logits),
    ],
    ids=["tensor", "dict", "namedtuple", "object"],
)
def test_other_logits_in_the_same_structure(make: Callable[[Tensor, Tensor], Any]) -> None:
    logits, features = torch.randn(2, 5), torch.randn(2, 6)
    answer = make(torch.zeros(2, 5), features)
    changed = with_logits(answer, logits)
    assert type(changed) is type(answer)
    assert logits_of(changed) is logits
    others = changed if isinstance(changed, dict) else getattr(changed, "__dict__", None) or {}
    assert others.get("features") is None
    assert torch.equal(logits_of(answer), torch.zeros(2, 5))


def test_train_mode_is_refused_with_the_submodule() -> None:
    model = net(plain)
    model.norm.train()
    with pytest.raises(ValueError, match=r"'norm' is in train mode.*model\.eval\(\)"):
        trace(model, IMAGES)


def branches_on_values(self: Any, x: Tensor) -> Tensor:
    if x.sum() > 0:
        x = -x
    return plain(self, x)


def fixes_the_batch(self: Any, x: Tensor) -> Tensor:
    answer: Tensor = self.head(self.conv(x).reshape(2, 6, -1).mean(2))
    return answer


def is_random(self: Any, x: Tensor) -> Tensor:
    return plain(self, x) + torch.rand(5)


def gives_features(self: Any, x: Tensor) -> Tensor:
    answer: Tensor = self.conv(x)
    return answer


def counts_its_calls(self: Any, x: Tensor) -> Tensor:
    self.norm.num_batches_tracked += 1
    return plain(self, x)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (branches_on_values, "does not branch on values"),
        (fixes_the_batch, "any batch size"),
        (is_random, "random"),
        (gives_features, r"logits \(N, classes\)"),
        (counts_its_calls, "changes norm.num_batches_tracked"),
    ],
)
def test_what_has_no_graph_is_said(forward: Callable[[Any, Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(net(forward), IMAGES)


def test_nan_logits_are_refused() -> None:
    model = net(plain)
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="expected finite logits"):
        trace(model, IMAGES)


def test_a_shape_the_model_does_not_take() -> None:
    with pytest.raises(ValueError, match=r"input shape \(2, 4, 8, 8\)"):
        trace(net(plain), torch.zeros(2, 4, 8, 8))
