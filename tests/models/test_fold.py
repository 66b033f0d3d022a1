"""Norms inside convolutions: the same answers, with fewer operations, and nothing of the model changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pyinterp.models.fold import fold
from pyinterp.models.graph import op_of, trace

aten = torch.ops.aten


def seasoned(net: nn.Module) -> nn.Module:
    """Norms as training leaves them."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2)
            if module.affine:
                module.weight.data.normal_()
                module.bias.data.normal_()
    return net.eval()


def operations(module: GraphModule) -> list[Any]:
    return [op_of(node) for node in module.graph.nodes if node.op == "call_function"]


def folded(net: nn.Module, x: Tensor) -> GraphModule:
    module = trace(net, x).module
    fold(module)
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "conv", [{}, {"bias": False}, {"groups": 4}, {"padding": "same"}, {"stride": 2, "dilation": 2}]
)
@pytest.mark.parametrize("norm", [{}, {"affine": False}, {"eps": 0.1}])
def test_a_norm_goes_into_the_convolution_before_it(conv: Any, norm: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(4, 8, 3, **conv), nn.BatchNorm2d(8, **norm), nn.ReLU6())
    net = seasoned(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))).to(dtype)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(5, 4, 9, 9, dtype=dtype)
    module = folded(net, x)
    kept = x.clone()
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    with torch.inference_mode():
        torch.testing.assert_close(module(x), net(x), **close)
    assert torch.equal(x, kept)
    found = operations(module)
    assert aten.batch_norm not in found and aten.hardtanh not in found and aten.hardtanh_ in found
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


class Shared(nn.Module):
    """Nothing here may be folded: values with a second reader, and a weight that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.norm, self.second = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.relu())
        z = self.second(nn.functional.conv2d(x, self.other.weight * 2, self.other.bias))
        return (y.relu() + self.norm(y) + z).mean((2, 3))


def test_what_something_else_reads_stays() -> None:
    torch.manual_seed(0)
    net, x = seasoned(Shared()), torch.randn(4, 3, 7, 7)
    module = folded(net, x)
    with torch.inference_mode():
        torch.testing.assert_close(module(x), net(x), rtol=1e-5, atol=1e-5)
    found = operations(module)
    assert found.count(aten.batch_norm) == 2 and found.count(aten.relu) == 2 and aten.relu_ not in found


def test_weights_are_stored_as_the_images_are() -> None:
    net, x = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()),
        torch.randn(2, 3, 6, 6),
    )
    module = folded(net.eval(), x)
    stored = [
        value for name, value in module.named_buffers() if name.startswith("folded") and value.dim() == 4
    ]
    assert len(stored) == 2
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in stored)
