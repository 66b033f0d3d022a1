"""What layers compute, read while the network runs: each layer's output as a short vector, and the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyinterp.knowledge.layers import Layer, output_of
from pyinterp.models.graph import logits_of
from pyinterp.models.inputs import place_of

WHOLE = "all of it"


class Taps(nn.Module):
    """A network, and what its layers compute on the way to its answer.

    A layer's output becomes a vector. Where it has more than ``width`` numbers, a map (C, H, W) is averaged over the
    cells of the finest square grid that leaves at most so many, or over all of it where none does, to C; of tokens
    (T, C) the mean and the first one are taken, side by side, 2 C in all; of a vector nothing is left out. All of this
    is linear.

    Args:
        model: Shares all of its weights; it stays as it is.
        layers: From `find_layers`.
        width: Numbers per layer, where there are so few.

    Attributes:
        widths: Of the vectors, one per layer.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], width: int) -> None:
        super().__init__()
        self.model = model
        self.layers = tuple(layers)
        self.width = width
        self.widths = tuple(_size(layer, width) for layer in layers)
        self.train(model.training)

    def read(self, x: Tensor | None = None, **others: Any) -> tuple[list[Tensor], Tensor]:
        """Vectors (N, d) of the layers, and the logits (N, K), of inputs by position or by keyword."""
        found: dict[str, Tensor] = {}
        # Later modules may write into an output: what is a view of it must be copied. In an exported graph all is read
        # off last, so that what subsets share before that can be shared; otherwise at once, which takes no memory.
        late = torch.compiler.is_exporting()
        handles = []
        for layer in self.layers:

            def keep(module: nn.Module, args: Any, output: Any, layer: Layer = layer) -> None:
                value = output_of(output)
                assert value is not None
                if late or reduction(layer, self.width) == WHOLE:
                    value = value.clone()
                found[layer.name] = value if late else reduced(value, layer, self.width)

            handles.append(self.model.get_submodule(layer.name).register_forward_hook(keep))
        try:
            given = () if x is None else (x,)
            logits = logits_of(self.model(*given, **others))
        finally:
            for handle in handles:
                handle.remove()
        if late:
            found = {layer.name: reduced(found[layer.name], layer, self.width) for layer in self.layers}
        return [found[layer.name] for layer in self.layers], logits

    def extra_repr(self) -> str:
        return f"layers={[layer.name for layer in self.layers]}, width={self.width}"


def reduced(value: Tensor, layer: Layer, width: int) -> Tensor:
    """The outputs (N, ...) of a layer as vectors (N, d); see `Taps`."""
    if reduction(layer, width) == WHOLE:
        return value.flatten(1)
    if len(layer.shape) == 2:
        return torch.cat([value.mean(1), value[:, 0]], 1)
    maps = value.permute(0, 3, 1, 2) if layer.channels_last else value
    side = _side(maps.shape[1], tuple(maps.shape[2:]), width)
    return F.adaptive_avg_pool2d(maps, side).flatten(1)


def reduction(layer: Layer, width: int) -> str:
    """What `reduced` does, in words."""
    shape = layer.shape
    if math.prod(shape) <= width or len(shape) == 1:
        return WHOLE
    if len(shape) == 2:
        return f"mean and first of {shape[0]} tokens"
    channels, area = (shape[2], shape[:2]) if layer.channels_last else (shape[0], shape[1:])
    side = _side(channels, area, width)
    return f"{area[0]} x {area[1]} averaged to {side} x {side}" if side > 1 else "mean over the map"


def _side(channels: int, area: tuple[int, ...], width: int) -> int:
    """Of the finest grid that leaves at most ``width`` numbers."""
    return max(1, min(math.isqrt(width // channels), *area))


def _size(layer: Layer, width: int) -> int:
    return int(reduced(torch.empty(1, *layer.shape, device="meta"), layer, width).shape[1])


class TapFeatures(nn.Module):
    """A network whose last layer reads what all the layers compute, then the logits: for `extract_features`.

    Args:
        taps: L layers.
        classes: How many logits there are; 2 where there is one.
    """

    def __init__(self, taps: Taps, classes: int) -> None:
        super().__init__()
        self.taps = taps
        device, dtype = place_of(taps.model)
        self.last = nn.Linear(sum(taps.widths) + classes, 1, device=device, dtype=dtype)
        nn.init.ones_(self.last.weight)  # the same digest in every run
        nn.init.zeros_(self.last.bias)
        self.train(taps.training)

    def forward(self, x: Tensor | None = None, **others: Any) -> Tensor:
        values, logits = self.taps.read(x, **others)
        answer: Tensor = self.last(torch.cat([*values, two_logits(logits).to(values[0].dtype)], 1))
        return answer


class ProbedNetwork(nn.Module):
    """The logits of a probe per layer, and the network's own last: (N, (L + 1) K).

    Args:
        taps: L layers.
        probes: A linear layer (d, K) for each.
        rows: Which of the network's own classes are the K of the probes, in their order; None leaves its own answer
            out, which makes (N, L K).
    """

    def __init__(self, taps: Taps, probes: Sequence[nn.Linear], rows: Sequence[int] | None) -> None:
        super().__init__()
        self.taps = taps
        device, dtype = place_of(taps.model)
        self.probes = nn.ModuleList(probe.to(device, dtype) for probe in probes)
        self.rows = None if rows is None else tuple(rows)
        self.train(taps.training)

    def forward(self, x: Tensor | None = None, **others: Any) -> Tensor:
        values, logits = self.taps.read(x, **others)
        told = [probe(value) for probe, value in zip(self.probes, values, strict=True)]
        if self.rows is not None:
            told.append(two_logits(logits)[:, list(self.rows)].to(told[0].dtype))
        return torch.cat(told, 1)


def two_logits(logits: Tensor) -> Tensor:
    """(N, K), where one logit z stands for the classes 0 and 1, with logits 0 and z."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
