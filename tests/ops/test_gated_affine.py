"""gated_affine against BatchNorm, gate and activation as torch computes them, and against the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import Sample, check_compile, check_op
from gating import SITES, SMALL, gate_of, gates, site_tensors
from torch import Tensor

from pyinterp.ops import gated_affine

ACTIVATIONS = {
    "none": lambda z: z,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
}
SCALARS = {
    "none": lambda z: z,
    "relu": lambda z: max(z, 0),
    "relu6": lambda z: min(max(z, 0), 6),
    "silu": lambda z: z / (1 + math.exp(-z)),
    "hardswish": lambda z: z * min(max(z + 3, 0), 6) / 6,
    "gelu": lambda z: z * 0.5 * math.erfc(-z / math.sqrt(2)),
    "gelu_tanh": lambda z: 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
}


def plain(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    act: str,
    temperature: float | None,
    dim: int,
    group: Tensor | None,
) -> Tensor:
    shape = [1] * x.dim()
    shape[dim] = -1
    affine = scale.view(shape) * x + shift.view(shape)
    return ACTIVATIONS[act](gates(x, scores, temperature, dim, group) * affine)


def brute_force(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    scores: np.ndarray,
    act: str,
    temperature: float | None,
    dim: int,
    group: np.ndarray | None,
) -> np.ndarray:
    y = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        affine = float(scale[index[dim]]) * float(x[index]) + float(shift[index[dim]])
        y[index] = SCALARS[act](gate_of(index, scores, temperature, dim, group) * affine)
    return y


def make_sample(shape: tuple[int, ...], dim: int, groups: int, act: str, temperature: float | None) -> Sample:
    x, scores, group = site_tensors(shape, dim, groups)
    channels = shape[dim]
    scale, shift = torch.rand(channels) + 0.5, torch.randn(channels)
    return Sample((2 * x, scale, shift, scores, act, temperature, dim, group), (0, 3))


@pytest.mark.parametrize(("shape", "dim", "groups"), SITES)
def test_sites(shape: tuple[int, ...], dim: int, groups: int, device: str) -> None:
    for act, temperature in (("relu6", None), ("silu", 0.3)):
        check_op(gated_affine, plain, make_sample(shape, dim, groups, act, temperature), device)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations(act: str, device: str) -> None:
    for shape in ((2, 5, 9, 9), (7, 21, 1, 1)):
        for groups, temperature in ((0, None), (2, 0.3)):
            check_op(gated_affine, plain, make_sample(shape, 1, groups, act, temperature), device)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_small_sites_in_full(act: str, device: str) -> None:
    code = list(ACTIVATIONS).index(act)
    shape, dim, groups = SMALL[code % len(SMALL)]
    sample = make_sample(shape, dim, groups, act, 0.5)
    x, scale, shift, scores, _, temperature, _, group = sample.to(device).args
    ops = torch.ops.pyinterp
    raw_args = (scale, shift, scores, group, code, temperature, dim)
    grad = torch.randn_like(x)
    raw = [
        (ops.gated_affine.default, (x.clone().requires_grad_(), *raw_args)),
        (ops.gated_affine_backward.default, (grad, x, *raw_args, True)),
        (ops.gated_affine_backward.default, (grad, x, *raw_args, False)),
    ]
    check_op(gated_affine, plain, sample, device, brute_force=brute_force, raw=raw)


def test_compiles_with_inductor(device: str) -> None:
    check_compile(gated_affine, make_sample((2, 3, 4, 4), 1, 0, "silu", None), device, backend="inductor")


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_wide_range_of_inputs(act: str, device: str) -> None:
    """From deep in the tails to far beyond overflow of exp, the error is that of torch's float32 at most."""
    x = torch.cat([torch.linspace(-40, 40, 4001), torch.tensor([-1e4, 1e4])]).reshape(1, 1, -1).to(device)
    one, zero = torch.ones(1, device=device), torch.zeros(1, device=device)
    sample = Sample((x, one, zero, one, act, None, 1, None), (0,))
    truth = sample.to(device, torch.float64).run(plain)
    torchs = sample.run(plain)
    for got, other, wanted in zip(sample.run(gated_affine), torchs, truth, strict=True):
        assert got.isfinite().all()
        allowed = (other.double() - wanted).abs() + 4e-7 * (1 + wanted.abs())
        assert ((got.double() - wanted).abs() <= allowed).all()


def test_equals_batch_norm_in_eval_mode(device: str) -> None:
    torch.manual_seed(3)
    norm = torch.nn.BatchNorm2d(6).to(device).eval()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.copy_(torch.randn(6))
        norm.running_var.copy_(torch.rand(6) + 0.1)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        x = torch.randn(4, 6, 8, 8, device=device)
        scores = torch.rand(6, device=device)
        wanted = F.relu6(norm(x) * scores.view(1, 6, 1, 1))
        torch.testing.assert_close(gated_affine(x, scale, shift, scores, "relu6"), wanted)


def test_scale_and_shift_get_no_gradient(device: str) -> None:
    x = torch.randn(2, 3, 4, device=device)
    scale, shift, scores = (torch.rand(3, device=device, requires_grad=True) for _ in range(3))
    gated_affine(x, scale, shift, scores).sum().backward()
    assert scale.grad is None
    assert shift.grad is None
    assert scores.grad is not None


X = torch.zeros(2, 3, 4, 4)
ROW = torch.zeros(3)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"act in .*'gelu_tanh'\), got 'tanh'", lambda: gated_affine(X, ROW, ROW, ROW, "tanh")),
        (
            ValueError,
            r"shape \(3,\), got \(4,\) and \(3,\)",
            lambda: gated_affine(X, torch.zeros(4), ROW, ROW),
        ),
        (ValueError, r"shape \(3,\), got \(1, 3\)", lambda: gated_affine(X, ROW[None], ROW[None], ROW)),
        (TypeError, r"float32 scale and shift", lambda: gated_affine(X, ROW.double(), ROW, ROW)),
        (ValueError, r"scores of shape \(3,\)", lambda: gated_affine(X, ROW, ROW, torch.zeros(2))),
    ],
)
def test_errors_say_what_was_expected(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]
