"""Scores: what a game reads off the network's logits for one class."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain

Score = str | Callable[[Tensor], Tensor]

SCORES = ("log_odds", "logit", "probability")


@dataclass(frozen=True)
class Scorer:
    """Logits (B, classes) -> scores (B,), float32 or wider.

    Attributes:
        score: "log_odds": log(p / (1 - p)) of the target class, p its softmax probability, computed from the logits as
            z_y - logsumexp of the others. "logit": z_y. "probability": p. A network with one logit z has the classes 0
            and 1, and its log-odds are z for class 1 and -z for class 0. Or a callable on the logits.
        target: The class.
    """

    score: Score
    target: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the score of one input: () for a number."""
        return ()

    @property
    def name(self) -> str:
        """For people: "log_odds", or the name of the callable."""
        if isinstance(self.score, str):
            return self.score
        return str(getattr(self.score, "__qualname__", type(self.score).__qualname__))

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not isinstance(self.score, str):
            fix = "For example score=lambda logits: logits[:, 1] - logits[:, 0]."
            return checked_scores("score", "row of the logits", self.score(logits), len(logits), fix)
        if logits.shape[1] == 1:
            odds = logits[:, 0] if self.target == 1 else -logits[:, 0]
            return odds.sigmoid() if self.score == "probability" else odds
        own = logits[:, self.target]
        if self.score == "logit":
            return own
        others = torch.cat([logits[:, : self.target], logits[:, self.target + 1 :]], 1)
        odds = own - others.logsumexp(1)
        return odds.sigmoid() if self.score == "probability" else odds

    def fingerprint(self, classes: int, device: torch.device) -> str:
        """What the score gives on fixed logits: tells callables apart that share a name."""
        logits = torch.randn(8, classes, generator=torch.Generator().manual_seed(0)).to(device)
        return f"{self.name} " + " ".join(f"{value:.4g}" for value in self(logits).flatten().tolist())


def make_scorer(where: str, score: Any, target: Any, logits: Tensor) -> Scorer:
    """Check a score and a target against the network's answer on the whole input.

    Args:
        where: Who asks, for errors.
        score: See `Scorer`; one that is made already is taken as it is.
        target: A class, or None for the predicted one.
        logits: (1, classes).

    Raises:
        ValueError: No such score or class, or a callable that does not give one number per row.
        TypeError: The target is no whole number, or the score neither a name nor a callable.
    """
    if isinstance(score, Scorer):
        return score
    if isinstance(score, str):
        if score not in SCORES:
            fix = "Or pass a callable: logits (B, classes) -> (B,)."
            raise ValueError(explain(where, f"one of the scores {', '.join(SCORES)}", repr(score), fix))
    elif not callable(score):
        fix = "For example score=lambda logits: logits[:, 1] - logits[:, 0]."
        raise TypeError(explain(where, "a score by name or a callable", type(score).__name__, fix))
    scorer = Scorer(score, _class(where, target, logits))
    scorer(logits)
    return scorer


def _class(where: str, target: Any, logits: Tensor) -> int:
    count = logits.shape[1]
    if target is None:
        return int(logits[0, 0] > 0) if count == 1 else int(logits[0].argmax())
    try:
        wanted = -1 if isinstance(target, bool) else operator.index(target)
    except TypeError as error:
        fix = "Pass the number of a class, or None for the predicted one."
        raise TypeError(explain(where, "a class as a whole number", repr(target), fix)) from error
    last = max(count - 1, 1)
    if not 0 <= wanted <= last:
        fix = "Pass the number of one of the network's classes, or None for the predicted one."
        raise ValueError(explain(where, f"a target from 0 to {last}", target, fix))
    return wanted


def checked_scores(where: str, each: str, scores: Any, rows: int, fix: str) -> Tensor:
    """Scores (rows,) that somebody's own code gave, float32 or wider.

    Raises:
        ValueError: They are something else.
    """
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (rows,):
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(explain(where, f"a tensor of one number per {each}, ({rows},)", got, fix))
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
