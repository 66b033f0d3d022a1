"""The rows that a head is fitted to: standardised, in chunks, on one or many devices, from memory or from disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from pyinterp.elastic.families import Family
from pyinterp.memory import free_bytes

CHUNK_BYTES = {
    "cpu": 4 << 20,
    "cuda": 512 << 20,
}  # a chunk that both products of a pass find in the cache; on a GPU
"""Bytes of features in one chunk, by the type of the device."""
RESIDENT_SHARE = 0.5
"""Features are kept standardised in memory if they take no more than this share of what is free."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class Chunk:
    """Some rows on their device: features (n, d), labels (n,) or (n, m), weights (n,) or None."""

    features: Tensor
    labels: Tensor
    weights: Tensor | None

    def logits(self, weights: Tensor, bias: Tensor) -> Tensor:
        """(n, K) of weights (K, d) and biases (K,) on any device."""
        at = self.features.device
        return torch.addmm(bias.to(at), self.features, weights.to(at).T)

    def weighted(self, values: Tensor) -> Tensor:
        """(n, ...) values, each row times its weight."""
        return values if self.weights is None else values * self.weights[:, None]


@dataclass(frozen=True)
class Gradient:
    """Of the mean loss without penalty: its value, by the weights (K, d), by the biases (K,)."""

    loss: float
    weights: Tensor
    bias: Tensor


class Rows:
    """z = (x - center) / scale, chunk by chunk, always the same chunks in the same order.

    What the chunks give is added in float64 in their order: the result does not depend on how many devices there are.

    Args:
        features: (N, d), not standardised; a memory-mapped tensor is read as it is needed.
        labels: (N,) int64, or (N, m) float for regression.
        weights: (N,) or None: the weight of each row's loss.
        index: (n,) int64, which of them to use, in rising order; None: all.
        center: (d,) float64.
        scale: (d,) float64; infinite for a feature that is to be left out.
        family: Gives losses and their derivatives.
        devices: Chunk i is held and worked on by device i modulo their number.
        resident: Whether standardised rows stay on the devices; None: if they fit.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        center: Tensor,
        scale: Tensor,
        family: Family,
        devices: Sequence[torch.device],
        index: Tensor | None = None,
        resident: bool | None = None,
    ) -> None:
        self.count, self.width = len(features) if index is None else len(index), features.shape[1]
        self.family, self.devices = family, list(devices)
        self.dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        self.mass = 1.0 if weights is None else float(weights[_all(index)].double().mean())
        self._features, self._labels, self._weights, self._index = features, labels, weights, index
        self._center, self._scale = center, scale
        self._starts = range(0, self.count, self._height())
        # A new thread would have its own number of threads for a product, and so another order of its sums.
        threads = partial(torch.set_num_threads, torch.get_num_threads())
        many = len(self.devices) > 1
        self._pool = ThreadPoolExecutor(len(self.devices), initializer=threads) if many else None
        keep = self._fits() if resident is None else resident
        self._kept = [self._load(i) for i in range(len(self._starts))] if keep else None

    @property
    def home(self) -> torch.device:
        """Where weights and gradients live."""
        return self.devices[0]

    def gradient(self, weights: Tensor, bias: Tensor) -> Gradient:
        """One pass over all rows: mean loss and its derivatives at weights (K, d) and biases (K,)."""

        def of(number: int, chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
            residual = chunk.logits(weights, bias)
            losses = self.family.residual_(residual, chunk.labels, chunk.weights)
            return losses.sum(dtype=torch.float64), residual.T @ chunk.features, residual.sum(0)

        loss, slope, lift = self._sums(of, (), weights.shape, bias.shape)
        return Gradient(float(loss), slope.to(self.dtype), lift.to(self.dtype))

    def answers(self, weights: Tensor, bias: Tensor) -> tuple[list[Tensor], Tensor]:
        """Half a pass: what the family answers for each chunk, and the mean second derivatives (K,) by the logits."""
        kept: dict[int, Tensor] = {}

        def of(number: int, chunk: Chunk) -> tuple[Tensor, ...]:
            kept[number] = self.family.answer_(chunk.logits(weights, bias))
            return (chunk.weighted(self.family.spread(kept[number])).sum(0),)

        (spread,) = self._sums(of, bias.shape)
        return [kept[number] for number in range(len(self._starts))], spread.to(self.dtype)

    def curve(self, answers: list[Tensor], weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """One pass: the product of the loss's Hessian, where `answers` were taken, with a change (K, d), (K,)."""

        def of(number: int, chunk: Chunk) -> tuple[Tensor, ...]:
            bent = chunk.weighted(self.family.curve_(chunk.logits(weights, bias), answers[number]))
            return bent.T @ chunk.features, bent.sum(0)

        slope, lift = self._sums(of, weights.shape, bias.shape)
        return slope.to(self.dtype), lift.to(self.dtype)

    def start(self) -> tuple[Tensor, Tensor]:
        """The best biases (K,) with weights of zero, and the loss's slope (K, d) there, in float64."""
        index = _all(self._index)
        labels = self._labels[index]
        weights = self._weights[index] if self._weights is not None else torch.ones(self.count).double()
        bias = self.family.start(labels, weights)

        def of(number: int, chunk: Chunk) -> tuple[Tensor, ...]:
            residual = chunk.weighted(self.family.at_start(chunk.labels, bias.to(chunk.labels.device)))
            return (residual.double().T @ chunk.features.double(),)

        (slope,) = self._sums(of, (len(bias), self.width))
        return bias.to(self.home), slope

    def gram(self) -> Tensor:
        """(d, d): the mean of weight * z z^T over the rows."""

        def of(number: int, chunk: Chunk) -> tuple[Tensor, ...]:
            return (chunk.weighted(chunk.features).T @ chunk.features,)

        (gram,) = self._sums(of, (self.width, self.width))
        return gram.to(self.dtype)

    def chunks(self) -> Iterator[Chunk]:
        """All chunks in their order."""
        if self._kept is not None:
            yield from self._kept
            return
        with ThreadPoolExecutor(1) as reader:  # reads the next chunk while this one is worked on
            coming = reader.submit(self._load, 0)
            for i in range(len(self._starts)):
                chunk = coming.result()
                if i + 1 < len(self._starts):
                    coming = reader.submit(self._load, i + 1)
                yield chunk

    def _sums(self, of: Callable[[int, Chunk], tuple[Tensor, ...]], *shapes: Sequence[int]) -> list[Tensor]:
        """The means over the rows of what each chunk sums up, in float64 and in the order of the chunks."""
        totals = [torch.zeros(shape, dtype=torch.float64, device=self.home) for shape in shapes]
        for parts in self._map(of):
            for total, part in zip(totals, parts, strict=True):
                total += part.to(self.home)
        return [total / self.count for total in totals]

    def _map(self, of: Callable[[int, Chunk], Part]) -> Iterator[Part]:
        if self._pool is None:
            yield from map(of, itertools.count(), self.chunks())
            return
        waiting = []
        for number, chunk in enumerate(self.chunks()):
            waiting.append(self._pool.submit(of, number, chunk))
            if len(waiting) == len(self.devices):
                yield from (task.result() for task in waiting)
                waiting = []
        yield from (task.result() for task in waiting)

    def _load(self, number: int) -> Chunk:
        at = self.devices[number % len(self.devices)]
        rows: slice | Tensor = slice(self._starts[number], self._starts[number] + self._starts.step)
        if self._index is not None:
            rows = self._index[rows]
        raw = self._features[rows].to(at, self.dtype)
        z = ((raw - self._center.to(at)) / self._scale.to(at)).to(self.dtype)
        weights = None if self._weights is None else self._weights[rows].to(at, self.dtype)
        labels = self._labels[rows].to(at)
        return Chunk(z, labels.to(self.dtype) if labels.is_floating_point() else labels, weights)

    def _height(self) -> int:
        row = self.width * (8 if self.dtype == torch.float64 else 4)
        wanted = CHUNK_BYTES.get(self.home.type, CHUNK_BYTES["cuda"]) // row
        return max(256, 8 * self.family.outputs, wanted)

    def _fits(self) -> bool:
        needed = self.count * self.width * (8 if self.dtype == torch.float64 else 4) / len(self.devices)
        free = free_bytes(self.home)
        return free is None or needed <= RESIDENT_SHARE * free


def _all(index: Tensor | None) -> slice | Tensor:
    return slice(None) if index is None else index
