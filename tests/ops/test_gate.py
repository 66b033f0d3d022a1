"""gate against plain torch, against the definition, and against what users get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract import Sample, check_compile, check_op
from gating import SITES, SMALL, TEMPERATURES, gate_of, gates, site_tensors
from torch import Tensor

from pyinterp.ops import gate


def plain(x: Tensor, scores: Tensor, temperature: float | None, dim: int, group: Tensor | None) -> Tensor:
    return x * gates(x, scores, temperature, dim, group)


def brute_force(
    x: np.ndarray, scores: np.ndarray, temperature: float | None, dim: int, group: np.ndarray | None
) -> np.ndarray:
    y = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        y[index] = x[index] * gate_of(index, scores, temperature, dim, group)
    return y


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("shape", "dim", "groups"), SITES)
def test_sites(shape: tuple[int, ...], dim: int, groups: int, temperature: float | None, device: str) -> None:
    x, scores, group = site_tensors(shape, dim, groups)
    check_op(gate, plain, Sample((x, scores, temperature, dim, group), (0, 1)), device)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("shape", "dim", "groups"), SMALL)
def test_small_sites_in_full(
    shape: tuple[int, ...], dim: int, groups: int, temperature: float | None, device: str
) -> None:
    x, scores, group = site_tensors(shape, dim, groups)
    on_device = [t if t is None else t.to(device) for t in (x, scores, group)]
    ops = torch.ops.pyinterp
    raw_args = (*on_device, temperature, dim)
    trained = (on_device[0].clone().requires_grad_(), on_device[1].clone().requires_grad_(), *raw_args[2:])
    raw = [
        (ops.gate.default, raw_args),
        (ops.gate.default, trained),
        (ops.gate_backward.default, (torch.randn_like(on_device[0]), *raw_args, True)),
        (ops.gate_backward.default, (torch.randn_like(on_device[0]), *raw_args, False)),
    ]
    sample = Sample((x, scores, temperature, dim, group), (0, 1))
    check_op(gate, plain, sample, device, brute_force=brute_force, raw=raw)


def test_compiles_with_inductor(device: str) -> None:
    x, scores, _ = site_tensors((2, 3, 4, 4), 1, 0)
    check_compile(gate, Sample((x, scores, 0.5, 1, None), (0, 1)), device, backend="inductor")


def test_open_gates_change_nothing(device: str) -> None:
    x = torch.randn(2, 5, 7, 7, device=device)
    assert torch.equal(gate(x, torch.ones(5, device=device)), x)


def test_closed_gates_are_zero(device: str) -> None:
    x = torch.randn(2, 5, 7, 7, device=device)
    scores = torch.tensor([0.0, 1, 0, 1, 1], device=device)
    y = gate(x, scores)
    assert (y[:, [0, 2]] == 0).all()
    assert torch.equal(gate(x, (scores - 0.5) * 1e9, temperature=0.2), y)


def test_extreme_scores_stay_finite(device: str) -> None:
    scores = torch.tensor([-1e30, -50.0, 0.0, 50.0, 1e30], device=device, requires_grad=True)
    x = torch.ones(3, 5, device=device, requires_grad=True)
    y = gate(x, scores, temperature=0.2)
    torch.testing.assert_close(y[0].cpu(), torch.tensor([0, 0, 0.5, 1, 1]))
    y.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_nan_and_infinity_pass_through(device: str) -> None:
    x = torch.tensor([[1.0, float("nan"), float("inf"), -float("inf"), 2.0]], device=device)
    y = gate(x, torch.full((5,), 0.5, device=device))
    torch.testing.assert_close(y, x * 0.5, equal_nan=True)


def test_groups_equal_separate_calls(device: str) -> None:
    x = torch.randn(6, 4, 5, 5, device=device)
    scores = torch.randn(3, 4, device=device)
    group = torch.tensor([2, 0, 0, 1, 2, 2], device=device)
    y = gate(x, scores, temperature=0.4, group=group)
    for n, row in enumerate(group.tolist()):
        assert torch.equal(y[n : n + 1], gate(x[n : n + 1], scores[row], temperature=0.4))


def test_a_group_without_samples_gets_zero_gradient(device: str) -> None:
    scores = torch.randn(3, 4, device=device, requires_grad=True)
    group = torch.tensor([0, 2], device=device)
    gate(torch.randn(2, 4, 3, 3, device=device), scores, group=group).sum().backward()
    assert scores.grad is not None
    assert (scores.grad[1] == 0).all()
    assert (scores.grad[[0, 2]] != 0).all()


X = torch.zeros(2, 3, 4, 4)
ROW = torch.zeros(3)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"scores of shape \(3,\), got \(4,\)", lambda: gate(X, torch.zeros(4))),
        (ValueError, r"scores of shape \(3,\), got \(2, 3\)", lambda: gate(X, torch.zeros(2, 3))),
        (ValueError, r"dim of a 4-dimensional x, got dim=4", lambda: gate(X, ROW, dim=4)),
        (ValueError, r"finite temperature > 0, got 0", lambda: gate(X, ROW, temperature=0.0)),
        (ValueError, r"finite temperature > 0, got nan", lambda: gate(X, ROW, temperature=float("nan"))),
        (TypeError, r"float32 scores for torch.float32 x, got torch.float64", lambda: gate(X, ROW.double())),
        (TypeError, r"float32 scores for torch.bfloat16 x", lambda: gate(X.bfloat16(), ROW.bfloat16())),
        (TypeError, r"float64 scores for torch.float64 x", lambda: gate(X.double(), ROW)),
        (TypeError, r"float16 or float64 x, got torch.int64", lambda: gate(X.long(), ROW)),
        (ValueError, r"int64 group of shape \(2,\)", lambda: gate(X, ROW[None], group=torch.zeros(3).long())),
        (ValueError, r"int64 group of shape \(2,\)", lambda: gate(X, ROW[None], group=torch.zeros(2))),
        (ValueError, r"scores of shape \(G, 3\)", lambda: gate(X, ROW, group=torch.zeros(2).long())),
        (ValueError, r"dim != 0 with group", lambda: gate(X, ROW[None], dim=0, group=torch.zeros(2).long())),
    ],
)
def test_errors_say_what_was_expected(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]


def test_a_group_outside_the_scores_is_refused() -> None:
    for row in (2, -1):
        with pytest.raises((RuntimeError, IndexError)):
            gate(X, torch.zeros(2, 3), group=torch.tensor([0, row]))
