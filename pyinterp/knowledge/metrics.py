"""What two sets of interactions on the same players share, lose and add, by order, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions.subsets import subset_sizes

ODDS = 0.01
"""How often guessing may do as well as a layer that is said to know something."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """How the interactions I of one function relate to the interactions J of a later one, by type and order.

    share(S) = sign(J(S)) min(|I(S)|, |J(S)|) where I(S) and J(S) have the same sign, and 0 elsewhere.

    Attributes:
        overlap: (..., 2, n + 1) float64: the sum over S of that order of |share(S)|; AND first, then OR.
        forget: The sum of |I(S) - share(S)|: what the later function has no more.
        new: The sum of |J(S) - share(S)|: what it has added.

    Source: Cheng et al., "Layerwise Change of Knowledge in Neural Networks", ICML 2024.
    """

    overlap: Tensor
    forget: Tensor
    new: Tensor

    @property
    def completeness(self) -> Tensor:
        """(...) the share of the later function's interactions that are there already: overlap over overlap + new."""
        return share_of(self.overlap, self.new)

    @property
    def redundancy(self) -> Tensor:
        """(...) the share of the earlier function's interactions that get lost: forget over overlap + forget."""
        return share_of(self.forget, self.overlap)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A statistic of all images, and its interval over resampled ones.

    Attributes:
        value: Of any shape.
        low: Like ``value``.
        high: Like ``value``.
    """

    value: Tensor
    low: Tensor
    high: Tensor


def transfer(before: Tensor, after: Tensor, *, counts: bool = False) -> Transfer:
    """Compare interactions, subset by subset.

    Args:
        before: (..., 2, 2^n) AND and OR effects I, of which those that don't count are 0; the empty set is left out.
        after: Like ``before``, J.
        counts: Count interactions instead of adding up strengths: one is shared if both have it, with the same sign.
    """
    before, after = before.double(), after.double()
    if counts:
        before, after = before.sign(), after.sign()
    smaller = torch.minimum(before.abs(), after.abs())
    share = torch.where(before.sign() == after.sign(), after.sign() * smaller, 0.0)
    parts = (share, before - share, after - share)
    return Transfer(*(by_order(part.abs()) for part in parts))


def by_order(amounts: Tensor) -> Tensor:
    """(..., 2^n) -> (..., n + 1) float64: the sum over the subsets of each size; that of the empty set is left out."""
    n = amounts.shape[-1].bit_length() - 1
    total = amounts.new_zeros(*amounts.shape[:-1], n + 1, dtype=torch.float64)
    total.index_add_(-1, subset_sizes(n, amounts.device), amounts.double())
    total[..., 0] = 0
    return total


def jaccard(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """How alike two sets of salient subsets are, by order, and how alike they would be by chance.

    IoU = |A and B| / |A or B| among the C(n, m) subsets of order m. By chance, were B any other set of its size, the
    intersection follows the hypergeometric law, and the expected IoU is the mean over it.

    Args:
        first: (..., 2^n) bool.
        second: Like ``first``.

    Returns:
        (..., n + 1) float64 each; NaN where neither set has a subset of that order, and at the orders 0 and n, which
        have one subset: there is no choice that could be alike by chance or not.
    """
    both, either = by_order(first & second), by_order(first | second)
    sizes = by_order(torch.ones_like(first[(0,) * (first.dim() - 1)]))
    expected = _expected_jaccard(by_order(first), by_order(second), sizes.expand_as(both))
    nothing = (either == 0) | (sizes <= 1)
    return torch.where(nothing, torch.nan, both / either), torch.where(nothing, torch.nan, expected)


def corrected(iou: Tensor, expected: Tensor) -> Tensor:
    """(IoU - expected) / (1 - expected): 0 for unrelated sets, 1 for equal ones; NaN where chance alone gives 1.

    Of many inputs it is taken of the means of both: sets so full that chance alone makes them equal count too.
    """
    return torch.where(expected < 1, (iou - expected) / (1 - expected), torch.nan)


def bootstrap(
    parts: tuple[Tensor, ...],
    statistic: Callable[..., Tensor],
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of images, and the interval between its percentiles over images that are drawn with replacement.

    Args:
        parts: (images, ...) each.
        statistic: Means over the images of the parts (...) -> statistic; NaN are left out of the means.
        draws: Resampled sets of images.
        level: Coverage. The percentiles lie as much further out as those of Student's law beyond those of the normal
            one; below ten images or so, or where few images have all, intervals still cover less than they say.
        seed: Of the draws.

    Raises:
        ValueError: Fewer than two images; a level outside (0, 1); no draws.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; Hesterberg, "What Teachers
    Should Know about the Bootstrap", The American Statistician 69, 2015, section 5.3 (expanded percentiles).
    """
    count = len(parts[0])
    if count < 2:
        raise ValueError(explain("bootstrap", "two images or more", count, "Take more images."))
    if not 0 < level < 1 or draws < 1:
        raise ValueError(
            explain("bootstrap", "0 < level < 1 and draws >= 1", f"{level}, {draws}", "Try 0.95 and 1000.")
        )
    generator = torch.Generator().manual_seed(seed)
    times = torch.zeros(draws, count, dtype=torch.float64)
    chosen = torch.randint(count, (draws, count), generator=generator)
    times.scatter_add_(1, chosen, torch.ones(draws, count, dtype=torch.float64))
    value = statistic(*(_means(torch.ones(1, count, dtype=torch.float64), part)[0] for part in parts))
    again = [_means(times, part) for part in parts]
    found = torch.stack([statistic(*(one[i] for one in again)) for i in range(draws)])
    tail = _expanded((1 - level) / 2, count)
    low, high = found.nanquantile(torch.tensor([tail, 1 - tail], dtype=found.dtype), dim=0)
    return Estimate(value, low, high)


def _expanded(tail: float, count: int) -> float:
    """The tail at which the percentiles of resampled means are those of Student's law: resampling few is too narrow."""
    steps = torch.linspace(0, math.pi / 2, 200_001, dtype=torch.float64)
    weights = torch.cos(steps) ** (count - 2)  # the density of t = sqrt(count - 1) tan(angle)
    above = 1 - torch.cumulative_trapezoid(weights, steps) / torch.trapezoid(weights, steps)
    angle = float(steps[int((above > 2 * tail).sum())])
    t = math.sqrt(count - 1) * math.tan(angle)
    return 0.5 * math.erfc(t * math.sqrt(count / (count - 1)) / math.sqrt(2))


def can_tell(chance: float, samples: int) -> bool:
    """Whether so many samples can show that something is better than guessing: if all right, at odds of 1 in 100."""
    return chance**samples <= ODDS


def is_chance(accuracy: float, chance: float, samples: int) -> bool:
    """Whether guessing does at least as well on so many samples more often than one time in a hundred.

    False where they are too few to tell; see `can_tell`.
    """
    if not samples or math.isnan(accuracy) or not 0 < chance < 1 or not can_tell(chance, samples):
        return False
    right = torch.arange(round(accuracy * samples), samples + 1, dtype=torch.float64)
    total = torch.full_like(right, samples)
    log = _log_choose(total, right) + right * math.log(chance) + (total - right) * math.log1p(-chance)
    return float(log.exp().sum()) > ODDS


def _means(times: Tensor, part: Tensor) -> Tensor:
    """(draws, images), (images, ...) -> (draws, ...): weighted means without NaN."""
    flat = part.double().reshape(len(part), -1)
    known = ~flat.isnan()
    total = times @ torch.where(known, flat, 0.0)
    weight = times @ known.double()
    return (total / weight).view(len(times), *part.shape[1:])


def ratio_of(part: Tensor, rest: Tensor) -> Tensor:
    """part / (part + rest), element by element."""
    return part / (part + rest)


def share_of(part: Tensor, rest: Tensor) -> Tensor:
    """(..., 2, n + 1) each -> (...): part / (part + rest), of their sums over all types and orders."""
    return ratio_of(part.sum((-2, -1)), rest.sum((-2, -1)))


def _expected_jaccard(first: Tensor, second: Tensor, total: Tensor) -> Tensor:
    """Mean of i / (a + b - i) where i is hypergeometric: draws of b out of ``total``, of which a are marked."""
    expected = torch.zeros_like(first)
    # Only i from max(0, a + b - total) to min(a, b) has weight; all i up to the largest min(a, b) are tried.
    most = int(torch.minimum(first, second).max()) if first.numel() else 0
    for i in range(1, most + 1):
        fits = (i <= torch.minimum(first, second)) & (first + second - i <= total)
        log = _log_choose(first, i) + _log_choose(total - first, second - i) - _log_choose(total, second)
        expected += torch.where(fits, log.exp() * i / (first + second - i), 0.0)
    return expected


def _log_choose(n: Tensor, k: Tensor | int) -> Tensor:
    k = torch.as_tensor(k, dtype=n.dtype, device=n.device)
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
