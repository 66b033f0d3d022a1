"""softmax_residual_ against torch's own cross entropy, the definition, and what users get wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import (
    Sample,
    check_brute_force,
    check_compile,
    check_cuda,
    check_determinism,
    check_registration,
    check_values,
)
from torch import Tensor

from pyinterp.ops import softmax_residual_

# Rows and classes: below, at and beyond the lanes of every instruction set, and of the warps of every kernel.
SHAPES = [(1, 1), (5, 1), (7, 2), (33, 3), (19, 7), (16, 8), (40, 10), (3, 15), (17, 16), (9, 17), (2, 33)]
SHAPES += [(6, 100), (3, 129), (2, 513), (2, 1000), (1, 3001), (0, 5)]
OP = torch.ops.pyinterp.softmax_residual_.default


def residuals(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The residuals, and the losses as a last column."""
    logits = logits.clone()
    losses = softmax_residual_(logits, labels, weights)
    return torch.cat([logits, losses[:, None]], 1)


def plain(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The cross entropy of torch and its gradient by autograd."""
    with torch.enable_grad():
        leaf = logits.clone().requires_grad_()
        losses = F.cross_entropy(leaf, labels, reduction="none")
        if weights is not None:
            losses = losses * weights
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return torch.cat([gradient, losses.detach()[:, None]], 1)


def brute_force(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    out = np.zeros((len(logits), logits.shape[1] + 1))
    for i, row in enumerate(logits):
        weight = 1.0 if weights is None else float(weights[i])
        total = math.fsum(math.exp(float(x)) for x in row)
        for j, x in enumerate(row):
            out[i, j] = weight * (math.exp(float(x)) / total - (j == labels[i]))
        out[i, -1] = weight * (math.log(total) - float(row[labels[i]]))
    return out


def arguments(rows: int, classes: int, weighed: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    weights = torch.rand(rows) if weighed else None
    return torch.randn(rows, classes) * 3, torch.randint(0, classes, (rows,)), weights


@pytest.mark.parametrize("weighed", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, int], weighed: bool, device: str) -> None:
    sample = Sample(arguments(*shape, weighed), ())
    check_values(residuals, plain, sample, device)
    if shape[1] > 1:  # one class alone: all zero but for the rounding of the brute force
        check_brute_force(residuals, brute_force, sample, device)
    check_determinism(residuals, sample, device)
    if device == "cuda":
        check_cuda(residuals, sample)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 4), (2, 20), (0, 5)], ids=str)
def test_registration_and_compilation(shape: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    logits, labels, weights = Sample(arguments(*shape)).to(device, dtype).args
    check_registration([(OP, (logits, labels, weights)), (OP, (logits.clone(), labels, None))])
    check_compile(residuals, Sample((logits, labels, weights), ()), device)


def test_compiles_with_inductor(device: str) -> None:
    check_compile(residuals, Sample(arguments(6, 10), ()), device, backend="inductor")


@pytest.mark.parametrize("classes", [2, 10, 50, 700])
def test_every_number_is_accurate(classes: int, device: str) -> None:
    """Not only the largest: each probability to a few units of float32, over the whole range of exp."""
    logits = torch.randn(200, classes).mul_(10).to(device)
    labels = torch.randint(0, classes, (200,), device=device)
    truth = logits.double().softmax(1)
    got = logits.clone()
    softmax_residual_(got, labels)
    others = torch.ones_like(got, dtype=torch.bool).scatter_(1, labels[:, None], False)
    far = (logits.amax(1, keepdim=True) - logits).double()  # its rounding costs as many units of exp
    error = ((got - truth).abs() / (truth * (4 + far / 2)))[others & (truth > 1e-35)]
    assert error.max() < 1.2e-7


@pytest.mark.parametrize("classes", [2, 5, 40, 2500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits_are_stable(dtype: torch.dtype, classes: int, device: str) -> None:
    for shift in (-1e4, 1e4, 3e38):
        logits = torch.zeros(3, classes, dtype=dtype, device=device) + shift
        logits[:, 1] = shift / 2 if shift > 1e30 else shift - 500
        labels = torch.tensor([0, 1, 0], device=device)
        wanted = plain(logits.double(), labels, None)
        got = residuals(logits, labels, None)
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [3, 40])
def test_infinities_and_nans_are_those_of_torch(classes: int, device: str) -> None:
    logits = torch.randn(5, classes, device=device)
    logits[0, 1] = -math.inf
    logits[1, 1] = math.nan
    logits[2, 0] = math.inf
    logits[3, :] = -math.inf
    labels = torch.tensor([0, 0, 1, 2, 1], device=device)
    wanted = plain(logits, labels, None)
    got = residuals(logits, labels, None)
    assert torch.equal(got.isnan()[:, :classes], wanted.isnan()[:, :classes])
    torch.testing.assert_close(got[[0, 4]], wanted[[0, 4]])
    assert residuals(logits[:1], labels[4:], None)[0, -1] == math.inf


def test_labels_and_weights_may_be_strided(device: str) -> None:
    logits, labels, weights = Sample(arguments(11, 6)).to(device).args
    strided = torch.stack([labels, labels], 1)[:, 0], torch.stack([weights, weights], 1)[:, 0]
    assert torch.equal(residuals(logits, *strided), residuals(logits, labels, weights))
    every = torch.ones(1, device=device).expand(11)
    assert torch.equal(residuals(logits, labels, every), residuals(logits, labels, None))


def test_it_works_in_place_and_says_so_to_autograd(device: str) -> None:
    leaf = torch.randn(4, 3, device=device, requires_grad=True)
    logits = leaf.exp()
    loss = logits.sum()
    labels = torch.zeros(4, dtype=torch.int64, device=device)
    data = logits.detach()
    address = data.data_ptr()
    softmax_residual_(data, labels)
    assert data.data_ptr() == address
    torch.testing.assert_close(data.sum(1), torch.zeros(4, device=device), rtol=0, atol=1e-6)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():
        softmax_residual_(torch.randn(4, 3, device=device), labels)


def test_a_wrong_label_changes_nothing() -> None:
    for label in (-1, 4):
        logits = torch.randn(3, 4)
        before = logits.clone()
        with pytest.raises(RuntimeError, match="labels must be"):
            softmax_residual_(logits, torch.tensor([0, label, 1]))
        assert torch.equal(logits, before)


X, Y, W = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), torch.ones(3)


@pytest.mark.parametrize(
    ("error", "words", "args"),
    [
        (TypeError, "float32 or float64 logits, got torch.float16", (X.half(), Y)),
        (ValueError, r"shape \(N, K\), K >= 1, got \(4,\)", (X[0], Y)),
        (ValueError, r"shape \(N, K\), K >= 1, got \(3, 0\)", (X[:, :0], Y)),
        (ValueError, r"contiguous logits, got strides \(1, 3\)", (torch.zeros(4, 3).T, Y)),
        (ValueError, "without requires_grad", (X.clone().requires_grad_(), Y)),
        (TypeError, "int64 labels, got torch.int32", (X, Y.int())),
        (ValueError, r"labels of shape \(3,\), got \(2,\)", (X, Y[:2])),
        (TypeError, "torch.float32 weights, got torch.float64", (X, Y, W.double())),
        (ValueError, r"weights of shape \(3,\), got \(3, 1\)", (X, Y, W[:, None])),
        (ValueError, "one device, got cpu, meta", (X, Y.to("meta"))),
        (ValueError, "one device, got cpu, cpu, meta", (X, Y, W.to("meta"))),
    ],
)
def test_bad_input(error: type[Exception], words: str, args: tuple[Tensor, ...]) -> None:
    with pytest.raises(error, match=words):
        softmax_residual_(*args)
