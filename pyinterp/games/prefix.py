"""The logits of many masked copies of one image, exactly, without computing twice what subsets share.

A value deep inside a convolutional network depends on the few players in its receptive field, so it takes few
different values over all subsets. At a cut of the network, players who meet at no position share a colour; the
2^colours images in which each colour is present or absent then contain every value that any subset has at any
position. They are computed once, and a subset's feature map is gathered from them, position by position. Cuts nest:
a later one, with more colours, is filled from gathered maps of the one before. Where the first thing a network does
to the whole input is linear, its answer is a sum of players + 1 responses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pyinterp.errors import explain
from pyinterp.games.cuts import Cut, Plan, find_plan
from pyinterp.games.reach import Reach
from pyinterp.games.stretch import cut_out
from pyinterp.models import TracedModel, trace
from pyinterp.models.graph import require_eval
from pyinterp.ops.mask_inputs import mask_inputs

Values = tuple[Tensor, ...]
LEAST_GAIN = 1.05
"""A smaller estimated gain is not worth the tables."""
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_CHECKED = 4
_INSTEAD = "The plain forward is used instead, which takes longer"


class SharedPrefix:
    """The network's answers to masked copies of one image: ``prefix(codes) -> logits``.

    Attributes:
        plan: Which values are tabled, and the estimated gain over plain forwards.
    """

    def __init__(
        self, traced: TracedModel, masked: Callable[[Tensor], Tensor], plan: Plan, batch_size: int
    ) -> None:
        """Fill the tables; `build` decides first whether that pays, and checks the result."""
        inputs = tuple(node for node in traced.graph.nodes if node.op == "placeholder")
        source: Callable[[Tensor], Values] = lambda codes: (masked(codes),)
        self.plan = plan
        with torch.inference_mode():
            for cut in plan.cuts:
                segment = cut_out(traced, inputs, cut.nodes)
                if cut.colours is None:
                    source = _Responses(segment, source, cut)
                else:
                    source = _Tables(segment, source, cut, batch_size)
                inputs = cut.nodes
        self._values = source
        self._rest = cut_out(traced, inputs, [traced.graph.output_node().args[0]])  # type: ignore[list-item]

    @classmethod
    def build(
        cls,
        model: nn.Module | TracedModel,
        image: Tensor,
        baseline: Tensor,
        players: Tensor,
        *,
        evaluations: int | None = None,
        batch_size: int = 32,
        memory: int = 1 << 30,
    ) -> SharedPrefix | None:
        """Plan, fill the tables and compare a few random subsets with the plain forward.

        Args:
            model: Maps (N, *image.shape) to logits (N, classes), in eval mode; or its trace. Its weights are shared.
            image: (C, H, W), or any other input of the model, without the batch axis, on the model's device.
            baseline: Like ``image``: what stands where a player is absent.
            players: int64, the player of each position, as for `pyinterp.ops.mask_inputs`.
            evaluations: How many subsets will be asked for; all 2^n by default.
            batch_size: Images at a time while the tables are filled.
            memory: Bytes that two neighbouring tables may take together; by default 1 GiB.

        Returns:
            None where sharing is estimated to gain less than 5 %; and, with a warning, where the model has no graph
            (see `pyinterp.models.trace`) or an answer differs from the plain forward by more than rounding.

        Raises:
            ValueError: There is no player, or the model is in train mode.
            TypeError: The model is not a module.
        """
        count = int(players.max()) + 1
        if count < 1:
            fix = "Give at least one position a player: a number from 0 on."
            raise ValueError(explain("SharedPrefix", "a map with players", "none", fix))
        traced = model if isinstance(model, TracedModel) else _trace(model, image[None])
        if traced is None:
            return None
        plan = find_plan(traced, players, evaluations or 2**count, memory)
        if plan is None or plan.gain < LEAST_GAIN:
            return None
        players = players.to(image.device)
        layout = torch.channels_last if image.dim() == 3 else torch.contiguous_format

        def masked(codes: Tensor) -> Tensor:
            return mask_inputs(image, baseline, players, codes.to(image.device), memory_format=layout)

        prefix = cls(traced, masked, plan, batch_size)
        codes = torch.randint(2**count, (_CHECKED,), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            wanted = traced.module(masked(codes))
        largest = wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
        difference = float((prefix(codes) - wanted).abs().max() / largest)
        if not difference <= _TOLERANCE.get(wanted.dtype, 0.05):
            expected, fix = "the plain forward's logits up to rounding", f"{_INSTEAD}. Please report it."
            got = f"a relative difference of {difference:.3g}"
            warnings.warn(explain("SharedPrefix", expected, got, fix), stacklevel=2)
            return None
        return prefix

    @torch.inference_mode()
    def __call__(self, codes: Tensor) -> Tensor:
        """Logits (B, classes) of the image masked for each of ``codes`` (B,) int64: bit i is set: player i is shown.

        Equal to the network's answer to ``mask_inputs(image, baseline, players, codes)`` within float rounding.
        """
        logits: Tensor = self._rest(*self._values(codes))[0]
        return logits


def _trace(model: nn.Module, example: Tensor) -> TracedModel | None:
    """The model's graph, or None, with a warning, where it has none."""
    require_eval(model)
    try:
        with torch.inference_mode(False):
            return trace(model, example)
    except ValueError as error:
        got = f'one of which "{error}"'
        warnings.warn(explain("SharedPrefix", "a model with a graph", got, f"{_INSTEAD}."), stacklevel=3)
        return None


class _Tables:
    """Values at a cut, gathered position by position from the images of all combinations of colours."""

    def __init__(
        self,
        segment: GraphModule,
        source: Callable[[Tensor], Values],
        cut: Cut,
        batch_size: int,
    ) -> None:
        assert cut.colours is not None and cut.reach is not None
        self.tables: list[_Table] = []
        for rows in torch.arange(cut.rows).split(batch_size):
            values = segment(*source(_subsets_of(rows, cut.colours)))
            if not self.tables:
                self.tables = [
                    _Table(value, reach, cut.colours, cut.rows)
                    for value, reach in zip(values, cut.reach, strict=True)
                ]
            for table, value in zip(self.tables, values, strict=True):
                table.store(rows, value)

    def __call__(self, codes: Tensor) -> Values:
        return tuple(table.gather(codes) for table in self.tables)


def _subsets_of(rows: Tensor, colours: Sequence[int]) -> Tensor:
    """The subset with all players of the colours whose bits are set in a row's number."""
    return sum((rows >> c & 1) << i for i, c in enumerate(colours))  # type: ignore[return-value]


class _Table:
    """One value for every combination of colours: (rows, H * W, rest), the numbers of a position side by side."""

    def __init__(self, example: Tensor, reach: Reach, colours: Sequence[int], rows: int) -> None:
        h, w = reach.axes
        others = [axis for axis in range(1, example.dim()) if axis not in (h, w)]
        self.order = [0, h, w, *others]
        self.back = [self.order.index(axis) for axis in range(example.dim())]
        self.shape = [example.shape[axis] for axis in self.order[1:]]
        self.positions = self.shape[0] * self.shape[1]
        self.numbers = example.new_empty(rows * self.positions, example[0].numel() // self.positions)
        kinds, kind = torch.unique(reach.map.flatten(1), dim=1, return_inverse=True)
        bits = torch.tensor([2.0**c for c in colours], dtype=torch.float64)
        self.weights = (kinds * bits[:, None]).to(
            example.device
        )  # (players, kinds): a player's bit where it reaches
        self.kind = kind.to(example.device)
        self.position = torch.arange(self.positions, device=example.device)

    def store(self, rows: Tensor, value: Tensor) -> None:
        first = int(rows[0]) * self.positions
        target = self.numbers[first : first + len(rows) * self.positions]
        target.view(len(rows), *self.shape).copy_(value.permute(self.order))

    def gather(self, codes: Tensor) -> Tensor:
        shown = _bits(codes.to(self.weights.device), len(self.weights))
        row = (shown.double() @ self.weights).long()  # (B, kinds), exact
        index = row[:, self.kind] * self.positions + self.position
        return self.numbers.index_select(0, index.flatten()).view(len(codes), *self.shape).permute(self.back)


class _Responses:
    """Values that are affine in the image: those of no player, and what each player adds."""

    def __init__(self, segment: GraphModule, source: Callable[[Tensor], Values], cut: Cut) -> None:
        single = torch.tensor([0, *(1 << i for i in range(cut.rows - 1))])
        values = segment(*source(single))[0]
        self.shape = values.shape[1:]
        values = values.flatten(1)
        self.offset = values[0]
        self.added = values[1:] - self.offset

    def __call__(self, codes: Tensor) -> Values:
        shown = _bits(codes.to(self.added.device), len(self.added)).to(self.added.dtype)
        return (torch.addmm(self.offset, shown, self.added).view(len(codes), *self.shape),)


def _bits(codes: Tensor, count: int) -> Tensor:
    """bool (B, count): which players a subset has."""
    return (codes[:, None] >> torch.arange(count, device=codes.device) & 1).bool()
