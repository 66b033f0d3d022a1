"""The rows that a head is fitted to: standardised, in chunks, on one or many devices, from memory or from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from pyinterp.heads.families import Family
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

        def of(chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
            at = chunk.features.device
            logits = torch.addmm(bias.to(at), chunk.features, weights.to(at).T)
            losses = self.family.residual_(logits, chunk.labels, chunk.weights)
            return (
                losses.sum(dtype=torch.float64).to(self.home),
                (logits.T @ chunk.features).to(self.home),
                logits.sum(0, dtype=torch.float64).to(self.home),
            )

        loss = torch.zeros((), dtype=torch.float64, device=self.home)
        slope = torch.zeros(weights.shape, dtype=torch.float64, device=self.home)
        lift = torch.zeros(bias.shape, dtype=torch.float64, device=self.home)
        for part_loss, part_slope, part_lift in self._map(of):
            loss += part_loss
            slope += part_slope
            lift += part_lift
        exact = self.dtype
        return Gradient(
            float(loss / self.count), (slope / self.count).to(exact), (lift / self.count).to(exact)
        )

    def start(self) -> tuple[Tensor, Tensor]:
        """The best biases (K,) with weights of zero, and the loss's slope (K, d) there, in float64."""
        index = _all(self._index)
        labels = self._labels[index]
        weights = self._weights[index] if self._weights is not None else torch.ones(self.count).double()
        bias = self.family.start(labels, weights)
        slope = torch.zeros(len(bias), self.width, dtype=torch.float64, device=self.home)
        for chunk in self.chunks():
            residual = self.family.at_start(chunk.labels, bias.to(chunk.labels.device))
            residual = residual if chunk.weights is None else residual * chunk.weights[:, None]
            slope += (residual.T @ chunk.features.double()).to(self.home)
        return bias.to(self.home), slope / self.count

    def gram(self) -> Tensor:
        """(d, d): the mean of weight * z z^T over the rows."""

        def of(chunk: Chunk) -> Tensor:
            z = chunk.features
            weighted = z if chunk.weights is None else z * chunk.weights[:, None]
            return (weighted.T @ z).to(self.home)

        total = torch.zeros(self.width, self.width, dtype=torch.float64, device=self.home)
        for part in self._map(of):
            total += part
        return (total / self.count).to(self.dtype)

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

    def _map(self, of: Callable[[Chunk], Part]) -> Iterator[Part]:
        if self._pool is None:
            yield from map(of, self.chunks())
            return
        waiting = []
        for chunk in self.chunks():
            waiting.append(self._pool.submit(of, chunk))
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
