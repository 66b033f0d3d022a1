"""The losses of a linear head: what they give for a chunk of rows, and what is known of them in closed form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyinterp import ops

FAMILIES = ("multinomial", "binary", "gaussian")


class Multinomial:
    """Cross-entropy of a softmax over K rows, none of them a reference: loss_i = logsumexp(z_i) - z_i[y_i].

    ``curvature`` bounds the second derivative along every direction of the logits (Böhning, 1992). ``shifts`` says
    that the loss stays the same if all logits of a row move by the same.
    """

    curvature = 0.5
    quadratic = False
    shifts = True

    def __init__(self, labels: Tensor) -> None:
        self.outputs = int(labels.max()) + 1

    def residual_(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Turn logits (N, K) into the derivatives of the loss by them; the losses (N,)."""
        return ops.softmax_residual_(logits, labels, weights)

    def answer_(self, logits: Tensor) -> Tensor:
        """Turn logits (N, K) into probabilities."""
        return logits.sub_(logits.logsumexp(1, keepdim=True)).exp_()

    def curve_(self, change: Tensor, answer: Tensor) -> Tensor:
        """Turn a change (N, K) of the logits into that of the derivatives: p (c - <p, c>)."""
        return change.sub_((answer * change).sum(1, keepdim=True)).mul_(answer)

    def spread(self, answer: Tensor) -> Tensor:
        """The second derivatives (N, K) by single logits: p (1 - p)."""
        return answer * (1 - answer)

    def start(self, labels: Tensor, weights: Tensor) -> Tensor:
        """The biases (K,) that are best with weights of zero: log of the classes' shares."""
        counts = torch.zeros(self.outputs, dtype=torch.float64).index_add_(0, labels, weights)
        return (counts / counts.sum()).log()

    def at_start(self, labels: Tensor, bias: Tensor) -> Tensor:
        """The derivatives (N, K) of unweighted losses at weights of zero."""
        return torch.softmax(bias, 0) - F.one_hot(labels, self.outputs)

    def predict(self, logits: Tensor) -> Tensor:
        """The class (N,) of each row of logits."""
        return logits.argmax(-1)


class Binary:
    """Cross-entropy of a sigmoid of one row z, labels 0 and 1: loss_i = log(1 + exp(z_i)) - y_i z_i."""

    curvature = 0.25
    quadratic = False
    shifts = False
    outputs = 1

    def residual_(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        target = labels[:, None].to(logits.dtype)
        losses = (F.softplus(logits) - target * logits)[:, 0]
        logits.sigmoid_().sub_(target)
        if weights is not None:
            logits.mul_(weights[:, None])
            losses = losses * weights
        return losses

    def answer_(self, logits: Tensor) -> Tensor:
        return logits.sigmoid_()

    def curve_(self, change: Tensor, answer: Tensor) -> Tensor:
        return change.mul_(self.spread(answer))

    def spread(self, answer: Tensor) -> Tensor:
        return answer * (1 - answer)

    def start(self, labels: Tensor, weights: Tensor) -> Tensor:
        return torch.logit((weights * labels).sum(0, keepdim=True) / weights.sum())

    def at_start(self, labels: Tensor, bias: Tensor) -> Tensor:
        return torch.sigmoid(bias) - labels[:, None]

    def predict(self, logits: Tensor) -> Tensor:
        return (logits[..., 0] > 0).long()


class Gaussian:
    """Least squares for one row per target: loss_i = 1/2 sum_k (z_ik - y_ik)^2, a sum over the targets."""

    curvature = 1.0
    quadratic = True
    shifts = False

    def __init__(self, labels: Tensor) -> None:
        self.outputs = labels.shape[1]

    def residual_(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        logits.sub_(labels)
        losses = logits.square().sum(1) / 2
        if weights is not None:
            logits.mul_(weights[:, None])
            losses = losses * weights
        return losses

    def answer_(self, logits: Tensor) -> Tensor:
        return logits

    def curve_(self, change: Tensor, answer: Tensor) -> Tensor:
        return change

    def spread(self, answer: Tensor) -> Tensor:
        return torch.ones_like(answer)

    def start(self, labels: Tensor, weights: Tensor) -> Tensor:
        return (weights[:, None] * labels).sum(0) / weights.sum()

    def at_start(self, labels: Tensor, bias: Tensor) -> Tensor:
        return bias - labels

    def predict(self, logits: Tensor) -> Tensor:
        return logits


Family = Multinomial | Binary | Gaussian


def family_of(name: str, labels: Tensor) -> Family:
    """The family called ``name`` for labels that fit it."""
    if name == "binary":
        return Binary()
    return Multinomial(labels) if name == "multinomial" else Gaussian(labels)
