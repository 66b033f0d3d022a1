"""What a chain must keep: the full network's answer on the images, computed once, and how far a sub-network is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyinterp.errors import explain

SOFTNESS = 0.1
Keep = Sequence[int] | int | Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Objective:
    """The full network's answer on N images, and the measures of a sub-network against it.

    Attributes:
        logits: (N, classes) of the full network, float32 (or float64).
        keep: What is to be kept. None: the distribution over all classes. A list of classes: the distribution over
            these alone. One class: its logit. A callable on the logits, (N, classes) -> (N,) or (N, ...): its value.
    """

    logits: Tensor
    keep: Keep = None

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: Tensor | slice) -> Objective:
        """The objective on some of the images."""
        return Objective(self.logits[rows], self.keep)

    def divergence(self, logits: Tensor) -> Tensor:
        """(N,) distance from the full network's answer.

        KL(p || q) = sum_c p_c (log p_c - log q_c) with p the full network's and q the sub-network's softmax over the
        classes that are kept, in nats. For one logit or a callable: half the squared difference, mean over features.
        """
        if self._is_distribution:
            log_p, log_q = self._log(self.logits), self._log(logits)
            return (log_p.exp() * (log_p - log_q)).sum(1)
        difference = self._value(logits) - self._value(self.logits)
        return 0.5 * difference.square().flatten(1).mean(1)

    def answer(self, logits: Tensor) -> Tensor:
        """(N,) what the full network answers, as one number: log q of its top class, or the value, summed."""
        if not self._is_distribution:
            return self._value(logits).sum(1)
        return self._log(logits).gather(1, self.top[:, None])[:, 0]

    def leads(self, logits: Tensor) -> Tensor:
        """(N,) logit of the full network's top class - best other, among those kept; 0 if there is no distribution."""
        if not self._compares:
            return 0 * logits.sum(1)
        return _lead(self._picked(logits), self.top)

    def shortfall(self, logits: Tensor) -> Tensor:
        """(N,) by how much the full network's top class fails to lead: w softplus((wanted - lead) / w), w = 0.1.

        The wanted lead is half the full network's own, at most 0.2. Smooth, so that images that pull one class up and
        down at once are told apart instead of flipped in turn. 0 everywhere if the answer is no distribution.
        """
        if not self._compares:
            return logits.new_zeros(len(logits))
        wanted = (0.5 * self.leads(self.logits)).clamp(max=0.2)
        return SOFTNESS * softplus((wanted - self.leads(logits)) / SOFTNESS)

    def agrees(self, logits: Tensor) -> Tensor:
        """(N,) bool: the same top class (among those kept) as the full network; true if there is no distribution."""
        if not self._is_distribution:
            return torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        return self._picked(logits).argmax(1) == self.top

    @property
    def top(self) -> Tensor:
        """(N,) position of the full network's top class among those kept."""
        return self._picked(self.logits).argmax(1)

    @property
    def _is_distribution(self) -> bool:
        return self.keep is None or isinstance(self.keep, (list, tuple, range))

    @property
    def _compares(self) -> bool:
        """Whether there are two or more classes to compare."""
        return self._is_distribution and self._picked(self.logits).shape[1] > 1

    def _picked(self, logits: Tensor) -> Tensor:
        return logits if self.keep is None else logits[:, self._classes]

    @cached_property
    def _classes(self) -> Tensor:
        """The classes that are kept, on the device of the logits."""
        return torch.tensor(list(self.keep), device=self.logits.device)  # type: ignore[arg-type]

    def _log(self, logits: Tensor) -> Tensor:
        picked = self._picked(logits)
        return picked.to(torch.promote_types(picked.dtype, torch.float32)).log_softmax(1)

    def _value(self, logits: Tensor) -> Tensor:
        value = self.keep(logits) if callable(self.keep) else logits[:, self.keep]  # type: ignore[index]
        return value.reshape(len(logits), -1)


def check_keep(keep: Keep, logits: Tensor) -> None:
    """Raise unless ``keep`` names classes of the network, or is a callable that can be fitted.

    Args:
        keep: See `Objective`.
        logits: (N, classes) of the full network.
    """
    if keep is None:
        return
    if callable(keep):
        _check_callable(keep, logits)
        return
    classes = logits.shape[1]
    asked: list[Any] = list(keep) if isinstance(keep, (list, tuple, range)) else [keep]
    if isinstance(keep, bool) or not all(isinstance(c, int) for c in asked):
        fix = "Pass class numbers, or a callable on the logits."
        raise ValueError(explain("keep", "whole numbers of classes", repr(keep), fix))
    if len(asked) != 1 or not isinstance(keep, int):
        if len(set(asked)) < max(2, len(asked)):
            fix = "Name each once, or one class as a plain number for its logit."
            raise ValueError(explain("keep", "two or more different classes", asked, fix))
    wrong = [c for c in asked if not 0 <= c < classes]
    if wrong:
        fix = "Count classes from 0."
        raise ValueError(explain("keep", f"classes from 0 to {classes - 1}", wrong, fix))


def _check_callable(keep: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    logits = logits.detach().clone().requires_grad_()
    value, fix = keep(logits), "For example keep=lambda logits: logits[:, 0] - logits[:, 1]."
    rows = len(logits)
    if not isinstance(value, Tensor) or value.dim() < 1 or len(value) != rows:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(explain("keep", f"a callable that gives one row per image, ({rows}, ...)", got, fix))
    if not value.requires_grad or not torch.isfinite(value).all():
        got = "values without a gradient" if not value.requires_grad else "NaN or infinite ones"
        raise ValueError(explain("keep", "a callable with finite values and a gradient", got, fix))


def _lead(logits: Tensor, top: Tensor) -> Tensor:
    """(N,) logit of class ``top`` minus the best other."""
    own = logits.gather(1, top[:, None])[:, 0]
    others = logits.scatter(1, top[:, None], float("-inf")).amax(1)
    return own - others
