"""Rules of normalisations in eval mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Builder
from pyinterp.models.flow.masks import Known, Masks, everything, filled, known
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule, wide

aten = torch.ops.aten


@rule(aten.batch_norm)
class BatchNorm(Rule):
    """y[c] = scale[c] * x[c] + shift[c] with the stored statistics."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        call = bound(node)
        fact = flow.known.get(call["input"])
        if fact is None or fact.axis != 1 or not self._fixed(flow, call):
            return None
        scale, shift = self._affine(flow, call)
        return known(1, fact.mask, scale * fact.value + shift)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        call = bound(node)
        if not self._fixed(flow, call):
            return super().plan(flow, node, wanted)
        return wanted, [(call["input"], wanted)]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        call = bound(node)
        if not self._fixed(build.flow, call):
            return build.copy(node, inputs)
        scale, shift = self._affine(build.flow, call)
        kept = filled(build.flow.stored[node][1], len(scale))
        return build.scale_and_shift(node, inputs[0], 1, scale[kept], shift[kept])

    def _fixed(self, flow: Flow, call: dict[str, Any]) -> bool:
        statistics = (call["running_mean"], call["running_var"])
        given = all(n is not None for n in statistics) and not call["training"]
        return given and all(flow.is_constant(n) for n in (*statistics, call["weight"], call["bias"]))

    def _affine(self, flow: Flow, call: dict[str, Any]) -> tuple[Tensor, Tensor]:
        mean, variance = wide(flow.tensor(call["running_mean"])), wide(flow.tensor(call["running_var"]))
        scale = (variance + call["eps"]).rsqrt()
        if call["weight"] is not None:
            scale = scale * wide(flow.tensor(call["weight"]))
        shift = -mean * scale
        return scale, shift if call["bias"] is None else shift + wide(flow.tensor(call["bias"]))


@rule(aten.layer_norm)
class LayerNorm(Rule):
    """Normalises over the last axes, which it needs whole."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        call = bound(node)
        fact = flow.known.get(call["input"])
        last = len(flow.dims(node)) - 1
        fixed = flow.is_constant(call["weight"]) and flow.is_constant(call["bias"])
        if (
            fact is None
            or fact.axis != last
            or not fact.mask.all()
            or len(call["normalized_shape"]) != 1
            or not fixed
        ):
            return None
        weight, bias = (None if call[k] is None else wide(flow.tensor(call[k])) for k in ("weight", "bias"))
        value = torch.nn.functional.layer_norm(
            fact.value, call["normalized_shape"], weight, bias, call["eps"]
        )
        return known(last, fact.mask, value)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        call = bound(node)
        rank = len(call["normalized_shape"])
        block = (*wanted[:-rank], *(None,) * rank)
        inputs = [(n, everything(flow.dims(n))) for n in flow.inputs(node) if n is not call["input"]]
        return block, [(call["input"], block), *inputs]
