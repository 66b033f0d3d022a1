"""softmax_residual_: logits become the residuals of the cross entropy in place; the losses come back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.ops._common import LIBRARY, register


def _reference(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    fits = ((labels >= 0) & (labels < logits.shape[1])).all()
    torch._assert_async(fits, "labels must be at least 0 and less than the number of classes")
    one = labels[:, None]
    losses = -logits.log_softmax(1).gather(1, one)[:, 0]
    logits.copy_(logits.softmax(1))
    logits.scatter_add_(1, one, logits.new_full((), -1).expand_as(one))
    if weights is not None:
        logits.mul_(weights[:, None])
        losses.mul_(weights)
    return losses


def _fake(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    return logits.new_empty(logits.shape[:1])


_softmax_residual_ = register(
    "softmax_residual_",
    "(Tensor(a!) logits, Tensor labels, Tensor? weights) -> Tensor",
    _reference,
    _fake,
)


def _tell_autograd(keys: torch._C.DispatchKeySet, logits: Tensor, *args: Any) -> Tensor:
    """Count the change of the logits, so that a backward that has saved them objects."""
    torch.autograd.graph.increment_version(logits)
    with torch._C._AutoDispatchBelowADInplaceOrView():
        losses: Tensor = _softmax_residual_.redispatch(
            keys & torch._C._after_ADInplaceOrView_keyset, logits, *args
        )
    return losses


LIBRARY.impl("softmax_residual_", _tell_autograd, "ADInplaceOrView", with_keyset=True)


def softmax_residual_(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Turn logits into the gradient of their weighted cross entropy, in place, and return the losses.

    Args:
        logits: (N, K) float32 or float64, contiguous. Afterwards row i holds
            ``weights[i] * (softmax(logits[i]) - onehot(labels[i]))``.
        labels: (N,) int64, 0 to K - 1.
        weights: (N,) in the dtype of the logits, or None, which weighs every row by 1.

    Returns:
        (N,) losses ``weights[i] * (logsumexp(logits[i]) - logits[i, labels[i]])``.

    Equivalent to ``cross_entropy(logits, labels, reduction="none") * weights`` and the gradient of its sum, in one
    pass over memory and without a second (N, K) tensor. The result has the same bits for any number of threads. It is
    a solver's step and has no gradient itself.

    Raises:
        ValueError: Shapes or devices do not fit, the logits are not contiguous or need a gradient.
        TypeError: A dtype is none of the above.
        RuntimeError: A label is none of the above (on CUDA an assertion on the device).
    """
    _check(logits, labels, weights)
    losses: Tensor = _softmax_residual_(logits, labels, None if weights is None else weights.detach())
    return losses


def _check(logits: Tensor, labels: Tensor, weights: Tensor | None) -> None:
    where = "softmax_residual_"
    if logits.dtype not in (torch.float32, torch.float64):
        fix = "Convert them, for example with .float()."
        raise TypeError(explain(where, "float32 or float64 logits", logits.dtype, fix))
    if logits.dim() != 2 or logits.shape[1] == 0:
        fix = "Give one row per sample and one column per class."
        raise ValueError(explain(where, "logits of shape (N, K), K >= 1", tuple(logits.shape), fix))
    if not logits.is_contiguous():
        fix = "Pass logits.contiguous(): the result is in that tensor."
        raise ValueError(explain(where, "contiguous logits", f"strides {logits.stride()}", fix))
    if logits.requires_grad:
        fix = "The op overwrites the logits and has no gradient: pass logits.detach()."
        raise ValueError(explain(where, "logits without requires_grad", "requires_grad=True", fix))
    if labels.dtype != torch.int64:
        fix = "Convert them with .long()."
        raise TypeError(explain(where, "int64 labels", labels.dtype, fix))
    if labels.shape != logits.shape[:1]:
        fix = "Give one class per row of the logits."
        raise ValueError(explain(where, f"labels of shape ({logits.shape[0]},)", tuple(labels.shape), fix))
    if weights is not None and weights.dtype != logits.dtype:
        fix = f"Convert them with .to({logits.dtype})."
        raise TypeError(explain(where, f"{logits.dtype} weights", weights.dtype, fix))
    if weights is not None and weights.shape != logits.shape[:1]:
        fix = "Give one weight per row of the logits, or None."
        raise ValueError(explain(where, f"weights of shape ({logits.shape[0]},)", tuple(weights.shape), fix))
    if labels.device != logits.device or (weights is not None and weights.device != logits.device):
        got = ", ".join(str(t.device) for t in (logits, labels, weights) if t is not None)
        fix = "Move labels and weights to the device of the logits."
        raise ValueError(explain(where, "all tensors on one device", got, fix))
