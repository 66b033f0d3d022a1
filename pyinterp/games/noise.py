"""The numerical error of one score, measured by evaluating some subsets once more, in other ways."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.games.evaluate import Worker, evaluate_in_batches


@dataclass(frozen=True)
class Noise:
    """Standard deviation of the numerical error of one score, or, in the shape of a score, of each of its numbers.

    Attributes:
        sigma: The larger of the two below.
        order: By a second forward of the same network in batches of another order and size: the RMS of the
            differences, over sqrt(2), since both sides carry the error. 0 where kernels don't depend on the batch.
        precision: Against a forward in the next higher precision: the RMS of the differences. None where there is no
            such forward.
        samples: How many subsets were evaluated again.
        reason: Why there was no forward in higher precision; empty if there was.
    """

    sigma: Tensor
    order: Tensor
    precision: Tensor | None
    samples: int
    reason: str


def measure_noise(
    values: Tensor,
    codes: Tensor,
    again: Worker,
    precise: Worker | str,
    device: torch.device,
    batch_size: int,
) -> Noise:
    """Measure the error of scores.

    Args:
        values: (2^n, *shape) on the CPU.
        codes: (M,) int64, the subsets to evaluate again, in random order.
        again: The worker that gave the values.
        precise: One of higher precision, or the reason why there is none.
        device: Of the workers.
        batch_size: Of the first evaluation; the second one takes two thirds of it.
    """
    other = 2 if batch_size == 1 else max(1, 2 * min(batch_size, len(codes)) // 3)
    second = evaluate_in_batches(again, codes, device, other)
    order = _rms(values[codes] - second) / 2**0.5
    precision, reason = None, precise if isinstance(precise, str) else ""
    if not isinstance(precise, str):
        try:
            precision = _rms(values[codes] - evaluate_in_batches(precise, codes, device, other))
            if not torch.isfinite(precision).all():
                precision, reason = None, "NaN or infinite scores in it"
        except Exception as error:  # a forward may insist on its precision by any error
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if reason:
        fix = "The noise is that of another batch order alone, which may be less than the rounding error."
        warnings.warn(
            explain("games", "a forward in higher precision to measure the noise", reason, fix), stacklevel=5
        )
    sigma = order if precision is None else torch.maximum(order, precision)
    return Noise(sigma, order, precision, len(codes), reason)


def _rms(difference: Tensor) -> Tensor:
    return difference.double().square().mean(0).sqrt()
