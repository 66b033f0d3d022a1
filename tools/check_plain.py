"""Use pyinterp where torch is all there is: no torchvision, no timm. Run by check_install.sh."""

from __future__ import annotations

import sys

import torch
from torch import nn

import pyinterp
from pyinterp import models, ops
from pyinterp._extension import build_info, has_kernel


def check_build(kind: str, built_with: str | None) -> None:
    """The kernels are the compiled ones, or the references, and come from the build that is meant."""
    info = build_info()
    assert info["compiled"] == (kind == "compiled"), info
    assert has_kernel("gate", "cpu") == (kind == "compiled"), info
    if built_with is not None:
        assert info["built_with_torch"] == built_with, info
    print(
        f"  kernels: {kind}, built with torch {info.get('built_with_torch')}, running torch {torch.__version__}"
    )


def check_ops() -> None:
    """Both gating ops give what their formulas say in float64, forward and backward.

    No input is negative and no gate is nearly shut or open, so float32 loses no digits to cancellation.
    """
    torch.manual_seed(0)
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    scores = (torch.rand(3) * 0.2).requires_grad_()
    weights = torch.sigmoid(scores.double() / 0.2).view(1, 3, 1, 1)
    one, zero = torch.ones(3), torch.zeros(3)
    for y, expected in (
        (ops.gate(x, scores, 0.2), x.double() * weights),
        (ops.gated_affine(x, one, zero, scores, "relu", 0.2), torch.relu(x.double() * weights)),
    ):
        torch.testing.assert_close(y.double(), expected, rtol=1.3e-6, atol=1e-5)
        found = torch.autograd.grad(y.square().sum(), (x, scores), retain_graph=True)
        wanted = torch.autograd.grad(expected.square().sum(), (x, scores), retain_graph=True)
        torch.testing.assert_close(found, wanted)


def check_chain() -> None:
    """A chain is extracted from a plain module."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    chain = pyinterp.extract_chain(model, torch.randn(4, 3, 16, 16), max_steps=5, progress=False)
    assert 0 <= chain.kept_fraction <= 1


def error_of_loading(name: str) -> str:
    """The message of the ImportError that `models.load(name)` raises; empty when it raises none."""
    try:
        models.load(name)
    except ImportError as error:
        return str(error)
    return ""


def check_missing_packages() -> None:
    """A model of a library that is not there: the error names the library."""
    for name, package in (("torchvision:resnet18", "torchvision"), ("timm:resnet18", "timm")):
        message = error_of_loading(name)
        assert package in message, f"models.load({name!r}): {message or 'no ImportError'}"
        print(f"  models.load({name!r}) says that {package} is missing")


if __name__ == "__main__":
    check_build(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    check_ops()
    check_chain()
    check_missing_packages()
