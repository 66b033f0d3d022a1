"""``Interactions``: the AND and OR effects of one input, with their error bars and what was measured about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions.files import load_interactions, save_interactions
from pyinterp.interactions.harsanyi import harsanyi_and, reconstruct
from pyinterp.interactions.intervals import IntervalKind, Intervals, intervals_of
from pyinterp.interactions.metrics import (
    ErrorCurve,
    error_curve,
    noise_floor,
    rank,
    strength_by_order,
)
from pyinterp.interactions.subsets import players_in, subset_sizes

Kind = Literal["AND", "OR"]
KINDS: tuple[Kind, Kind] = ("AND", "OR")


@dataclass(frozen=True)
class Effect:
    """One interaction.

    Attributes:
        kind: "AND": present when all its players are; "OR": when at least one is.
        players: Their names.
        members: Their numbers, ascending.
        strength: What it adds to the score when it is present; may be negative.
        below_floor: Noise alone would make one as large at this order.
        interval: (low, high) over the draws of input noise, at 95 %; None without draws.
    """

    kind: Kind
    players: tuple[str, ...]
    members: tuple[int, ...]
    strength: float
    below_floor: bool
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        words = f"{self.kind}({'; '.join(self.players)}) {self.strength:+.3g}"
        if self.interval:
            words += f" [{self.interval[0]:+.3g}, {self.interval[1]:+.3g}]"
        return words + (" (below the noise floor)" if self.below_floor else "")


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """The AND and OR interactions of n parts ("players") of one input, whose sum is the score of every subset.

    v(T) = constant + sum over non-empty S inside T of I_and(S) + sum over S that meet T of I_or(S), up to ``residual``.
    Bit i of a subset's index says that player i is present. All tensors are on the CPU.

    Attributes:
        values: (2^n,) v(S), the score of every subset.
        and_: (2^n,) AND effects; entry 0 is the constant.
        or_: (2^n,) OR effects; entry 0 is 0.
        player_names: n names.
        player_map: int64, the player of each position of the input: (H, W) of an image, (L,) of a sentence, (D,) of
            columns; -1 is always kept, -2 always masked. None where only scores were given.
        pixels: (3, H, W) uint8, the image for people to look at; None if it was no image.
        noise: The bound of the residual, as a share of |v(N) - v(empty)|.
        objective: Sum of |I| over non-empty subsets, what the split has made small.
        gap: Duality gap relative to ``objective``: no split is smaller by more than this share. NaN: not known.
        converged: Whether the solver has reached its tolerance.
        iterations: Of the solver; 0 where it was not asked.
        primal_residual: By how much the solver's residual exceeds its bound: rounding alone.
        sigma: Standard deviation of the numerical error of one score, measured; None if it was not.
        draws: (k, 2, 2^n) AND and OR effects under k draws of input noise; None without.
        input_noise: Standard deviation of that noise, in the units of the preprocessed input.
        target: Index of the class whose score it is; None where only scores were given.
        class_name: Its name; "" if none is known.
        score: Which score: "log_odds", "logit", "probability", or the name of a callable.
        baseline: What masked parts were replaced by.
        masking: "replace", or "drop" where absent tokens were removed.
        model_name: For people: what loads the model, or its class.
        weights_digest: SHA-256 of the model's weights.
        seconds: Time of the evaluation and the solver.
        forwards: Masked inputs evaluated.
        versions: Of pyinterp and torch at that time.
    """

    values: Tensor
    and_: Tensor
    or_: Tensor
    player_names: tuple[str, ...]
    player_map: Tensor | None = None
    pixels: Tensor | None = None
    noise: float = 0.04
    objective: float = 0.0
    gap: float = 0.0
    converged: bool = True
    iterations: int = 0
    primal_residual: float = 0.0
    sigma: float | None = None
    draws: Tensor | None = None
    input_noise: float = 0.0
    target: int | None = None
    class_name: str = ""
    score: str = ""
    baseline: str = ""
    masking: str = ""
    model_name: str = ""
    weights_digest: str = ""
    seconds: float = 0.0
    forwards: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of players."""
        return len(self.player_names)

    @property
    def dense_and(self) -> Tensor:
        """(2^n,) the Harsanyi dividends of the scores: what AND effects alone are, without the split."""
        return harsanyi_and(self.values)

    @property
    def residual(self) -> Tensor:
        """(2^n,) float64: reconstruction minus score of every subset."""
        return self.reconstruct() - self.values.double()

    @property
    def floor(self) -> Tensor | None:
        """(n+1,) float64: how large noise alone makes an effect of each order (`noise_floor`); None without sigma."""
        return None if self.sigma is None else noise_floor(self.sigma, self.n)

    @property
    def below_floor(self) -> Tensor:
        """(2, 2^n) bool: AND and OR effects, not zero, that noise alone would make as large."""
        strengths = torch.stack([self.and_, self.or_]).abs().double()
        floor = self.floor
        if floor is None:
            return torch.zeros_like(strengths, dtype=torch.bool)
        return (strengths > 0) & (strengths <= floor[subset_sizes(self.n)])

    def top(self, k: int) -> list[Effect]:
        """The k strongest effects, the strongest first; the constant is none of them."""
        if k < 0:
            raise ValueError(explain("top", "k >= 0", k, "Ask for one effect or more."))
        return self._effects(rank(self.and_, self.or_)[:k])

    def salient(
        self,
        *,
        threshold: float | None = None,
        top: int | None = None,
        explained: float | None = None,
        scale: float | None = None,
    ) -> list[Effect]:
        """The effects that count, the strongest first, by one of three conventions.

        Args:
            threshold: Those with |I| >= threshold * scale. The default, at 0.05.
            top: The k strongest.
            explained: The fewest that hold this share of the sum of all |I|.
            scale: What ``threshold`` is a share of; by default the largest |I| here. To compare inputs or layers as
                Cheng et al. (2024) do, pass the largest over all of them.

        Raises:
            ValueError: More than one convention, or a number out of range.
        """
        asked = {"threshold": threshold, "top": top, "explained": explained}
        given = [name for name, value in asked.items() if value is not None]
        if len(given) > 1:
            fix = "Choose one of them."
            raise ValueError(explain("salient", "threshold, top or explained", " and ".join(given), fix))
        if top is not None:
            return self.top(top)
        ranked = rank(self.and_, self.or_)
        strengths = self.sorted_strengths()
        if explained is not None:
            _need(0 <= explained <= 1, "explained from 0 to 1", explained)
            missing = strengths.sum() - strengths.cumsum(0)
            enough = (1 - explained) * float(strengths.sum()) * (1 + 1e-12)
            return self._effects(ranked[: int((missing > enough).sum()) + 1] if explained else ranked[:0])
        share = 0.05 if threshold is None else threshold
        _need(0 <= share <= 1, "threshold from 0 to 1", share)
        _need(scale is None or scale > 0, "scale > 0", scale)
        largest = float(strengths[0]) if len(strengths) else 0.0
        return self._effects(ranked[strengths >= share * (largest if scale is None else scale)])

    def sorted_strengths(self) -> Tensor:
        """(m,) float64: |I| of all m effects that are not zero, the largest first; without the constant."""
        return torch.cat([self.and_, self.or_]).abs().double()[rank(self.and_, self.or_)]

    def strength_by_order(self) -> dict[Kind, Tensor]:
        """For "AND" and "OR", (n+1,) float64: the sum of |I| over the subsets of each size; 0 at order 0."""
        sums = strength_by_order(torch.stack([self.and_, self.or_]))
        sums[:, 0] = 0
        return {"AND": sums[0], "OR": sums[1]}

    def error_curve(self, counts: Sequence[int] | None = None) -> ErrorCurve:
        """How well the k strongest effects rebuild all scores; see `pyinterp.interactions.error_curve`."""
        return error_curve(self.values, self.and_, self.or_, counts)

    def reconstruct(self, keep: int | Sequence[Effect] | None = None) -> Tensor:
        """(2^n,) float64: the score of every subset as the effects give it.

        Args:
            keep: Only the constant and this many of the strongest effects, or these; None keeps all.
        """
        parts = torch.stack([self.and_, self.or_]).double()
        if keep is None:
            return reconstruct(parts[0], parts[1])
        effects = self.top(keep) if isinstance(keep, int) else keep
        kept = torch.zeros_like(parts, dtype=torch.bool)
        kept[0, 0] = kept[1, 0] = True
        for effect in effects:
            kept[KINDS.index(effect.kind), sum(1 << member for member in effect.members)] = True
        parts = parts * kept
        return reconstruct(parts[0], parts[1])

    def merge_first_order(self) -> Interactions:
        """With the OR effect of each single player added to its AND effect.

        For one player AND and OR are the same function, so that the scores stay what they are, the sum of strengths
        does not grow, and nothing but chance has divided the two. ``gap`` is that of the new objective.
        """
        single = subset_sizes(self.n) == 1
        parts = torch.stack([self.and_, self.or_])
        draws = self.draws if self.draws is None else _merged(self.draws, single)
        merged = _merged(parts[None], single)[0]
        return self._with(merged[0], merged[1], draws)

    def and_only(self) -> Interactions:
        """With AND effects alone, the Harsanyi dividends of the scores: no split, no residual, and no draws.

        ``gap`` says by what share of their sum of strengths that of the sparsest split may be smaller.
        """
        dense = self.dense_and
        return replace(self._with(dense, torch.zeros_like(dense), None), noise=0.0, input_noise=0.0)

    def subtract_empty(self) -> Interactions:
        """With v(empty) taken from every score and from the constant, so that the empty input scores 0."""
        empty = self.values[0]
        and_ = self.and_.clone()
        and_[0] -= empty
        return replace(self, values=self.values - empty, and_=and_)

    def intervals(self, level: float = 0.95, kind: IntervalKind = "mean") -> Intervals:
        """Confidence intervals of all effects over the draws of input noise.

        Args:
            level: Coverage.
            kind: "mean": Student's t interval of the mean over draws; "draws": between the percentiles of the draws.

        Raises:
            ValueError: There are no draws, or fewer than two.
        """
        if self.draws is None:
            fix = "Pass draws=10 to extract_interactions."
            raise ValueError(explain("intervals", "draws of input noise", "none", fix))
        return intervals_of(self.draws, level, kind)

    def summary(self) -> str:
        """The interactions in a few lines of words and numbers."""
        found = self.salient()
        total = 2 * (2**self.n - 1)
        whose = f" of {self.class_name or f'class {self.target}'}" if self.target is not None else ""
        where = f" in {self.model_name}" if self.model_name else ""
        lines = [
            f"Interactions{whose}{where}: {len(found):,} of {total:,} are salient (5 % of the largest), n = {self.n}.",
            *(f"  {effect}" for effect in found[:5]),
            f"v(all) = {float(self.values[-1]):.4g}, v(none) = {float(self.values[0]):.4g}; the salient ones rebuild "
            f"all {2**self.n:,} scores with a relative error of {self.error_curve([len(found)]).errors[0]:.3g}.",
        ]
        if math.isnan(self.gap):
            lines.append(f"Sum of |I|: {self.objective:.5g}; how much less is possible is not known.")
        else:
            lines.append(
                f"Sum of |I|: {self.objective:.5g}; no split has one that is more than {100 * self.gap:.2g} % smaller."
            )
        if not self.converged:
            lines.append("The solver has not converged: a sparser split may exist.")
        below = sum(effect.below_floor for effect in found)
        if self.sigma is None:
            lines.append("The numerical noise of the scores was not measured.")
        else:
            lines.append(
                f"Noise of a score: {self.sigma:.2g}; {below} of the salient ones are below its floor."
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.summary().splitlines()[0].removesuffix('.')}>"

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.safetensors`` (tensors) and ``path.json`` (everything else); never pickle.

        Raises:
            OSError: It could not be written (a full disk); older files of that name are still whole then.
        """
        save_interactions(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Interactions:
        """Read what `save` wrote.

        Raises:
            ValueError: The files are not whole interactions.
        """
        return load_interactions(path)

    def _with(self, and_: Tensor, or_: Tensor, draws: Tensor | None) -> Interactions:
        """With other effects of the same scores."""
        objective = float(and_[1:].abs().double().sum() + or_[1:].abs().double().sum())
        gap = 1 - self.objective * (1 - self.gap) / objective if objective else self.gap
        gap = 0.0 if gap < 0 else gap  # by rounding alone
        return replace(self, and_=and_, or_=or_, draws=draws, objective=objective, gap=gap)

    def _effects(self, ranked: Tensor) -> list[Effect]:
        size = len(self.values)
        below = self.below_floor.flatten()[ranked].tolist()
        strengths = torch.cat([self.and_, self.or_])[ranked].tolist()
        bars: list[Any] = [None] * len(ranked)
        if self.draws is not None:
            spread = self.intervals()
            bars = torch.stack([spread.low.flatten(), spread.high.flatten()], 1)[ranked].tolist()
        found = []
        for position, strength, under, bar in zip(ranked.tolist(), strengths, below, bars, strict=True):
            kind, subset = divmod(position, size)
            members = players_in(subset)
            names = tuple(self.player_names[i] for i in members)
            found.append(
                Effect(KINDS[kind], names, members, strength, under, None if bar is None else tuple(bar))
            )
        return found


def _merged(parts: Tensor, single: Tensor) -> Tensor:
    """(k, 2, 2^n) with the OR effects where ``single`` says so moved to AND."""
    and_, or_ = parts.unbind(1)
    return torch.stack([and_ + or_ * single, or_ * ~single], 1)


def _need(fine: bool, expected: str, got: object) -> None:
    if not fine:
        raise ValueError(explain("salient", expected, got, "Pass a number in this range."))
