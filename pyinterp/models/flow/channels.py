"""Rules of the operations that mix channels: convolutions and linear maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Builder, Weighted
from pyinterp.models.flow.masks import Known, Masks, everything, filled, indices, known, replaced
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule, wide

aten = torch.ops.aten


def _weights_fixed(flow: Flow, call: dict[str, Any]) -> bool:
    return flow.is_constant(call["weight"]) and flow.is_constant(call["bias"])


def _bias(flow: Flow, call: dict[str, Any]) -> Tensor:
    """The bias (outputs,) in float64, zeros where there is none."""
    if call["bias"] is None:
        return torch.zeros(flow.dims(call["weight"])[0].size, dtype=torch.float64)
    return wide(flow.tensor(call["bias"]))


def _sliced_bias(
    build: Builder, call: dict[str, Any], outputs: Tensor | None, shift: Tensor | None
) -> Tensor | None:
    """The stored part of the bias, plus what the absorbed constants add."""
    if shift is None and call["bias"] is None:
        return None
    if shift is None:
        return build.sliced(call["bias"], (outputs,))
    total = _bias(build.flow, call) + shift
    weight = build.flow.tensor(call["weight"])
    return (total if outputs is None else total[outputs]).to(weight.device, weight.dtype)


@rule(aten.conv1d, aten.conv2d, aten.conv3d)
class Convolution(Rule):
    """y[o] = b[o] + sum_c W[o, c] * x[c]. Constant inputs move into the bias unless padding breaks them at the rim."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        call = bound(node)
        fact = flow.known.get(call["input"])
        if fact is None or fact.axis != 1 or not _weights_fixed(flow, call):
            return None
        groups, bias = call["groups"], _bias(flow, call)
        if _depthwise(flow, call):
            absorbed = self._absorbed(flow, call).repeat_interleave(len(bias) // groups)
            if not absorbed.any():
                return None
            value = fact.value.repeat_interleave(len(bias) // groups)
            if fact.value.any():
                bias = bias + wide(flow.tensor(call["weight"])).flatten(1).sum(1) * value
            return known(1, absorbed, bias)
        if not fact.mask.all() or not self._absorbed(flow, call).all():
            return None
        if fact.value.any():
            if groups != 1:
                return None
            bias = bias + self._shift(flow, call, fact.value)
        return known(1, torch.ones_like(bias, dtype=torch.bool), bias)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        call = bound(node)
        x = call["input"]
        whole = everything(flow.dims(node))
        if not _weights_fixed(flow, call) or flow.dims(x)[0].size < 0 or len(flow.dims(x)) < 3:
            return super().plan(flow, node, wanted)
        stored = replaced(whole, 1, wanted[1])
        if _depthwise(flow, call):
            inputs = filled(wanted[1], flow.dims(node)[1].size).view(call["groups"], -1).any(1)
            return stored, [(x, replaced(whole, 1, inputs))]
        if call["groups"] != 1:
            return whole, [(x, whole)]
        return stored, [(x, replaced(whole, 1, ~self._absorbed(flow, call)))]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow, call = build.flow, bound(node)
        if len(flow.demands[node]) != 1:
            return build.copy(node, inputs)
        x, outputs, groups = inputs[0], flow.stored[node][1], call["groups"]
        rest = (None,) * (len(flow.dims(node)) - 2)
        source = flow.demands[node][0][1][1]
        shift = None
        if _depthwise(flow, call):
            x, groups = self._spread(build, node, x, source, outputs)
            weight = build.sliced(call["weight"], (outputs, None, *rest))
        elif groups == 1:
            fact = flow.known.get(call["input"])
            if fact is not None and fact.axis == 1 and fact.value.any() and source is not None:
                shift = self._shift(flow, call, torch.where(source, 0.0, fact.value))
            weight = build.sliced(call["weight"], (outputs, source, *rest))
        else:
            weight = flow.tensor(call["weight"])
        bias = _sliced_bias(build, call, outputs, shift)
        settings = (call["stride"], call["padding"], call["dilation"], groups)
        new = build.call(node.target, x, None, None, *settings)
        name = str(call["weight"].target) if call["weight"].op == "get_attr" else f"{node.name}_weight"
        trained = build.trained(call["weight"])
        build.weighted[new] = Weighted(name, weight, bias, trained, 1, 1, groups)
        return new

    def _absorbed(self, flow: Flow, call: dict[str, Any]) -> Tensor:
        """Input channels that need not be computed: zeros, and constants that no padding interrupts."""
        fact = flow.known.get(call["input"])
        channels = flow.dims(call["input"])[1].size
        if fact is None or fact.axis != 1:
            return torch.zeros(channels, dtype=torch.bool)
        return fact.mask if _unpadded(flow, call) else fact.zero

    def _shift(self, flow: Flow, call: dict[str, Any], values: Tensor) -> Tensor:
        """(outputs,) what constant inputs add to every position."""
        constant = indices(values != 0)
        columns = flow.tensor(call["weight"]).index_select(1, constant.to(flow.device))
        return wide(columns).flatten(2).sum(2) @ values[constant]

    def _spread(
        self, build: Builder, node: Node, x: Node | None, source: Tensor | None, outputs: Tensor | None
    ) -> tuple[Node | None, int]:
        """Inputs and groups of a depthwise convolution whose outputs are ``outputs``."""
        channels = bound(node)["groups"]
        source, outputs = filled(source, channels), filled(outputs, build.flow.dims(node)[1].size)
        each = outputs.view(channels, -1).sum(1)[source]
        if bool((each == each[0]).all()):
            return x, len(each)
        taken = torch.arange(len(each)).repeat_interleave(each)
        return build.call(aten.index_select.default, x, 1, build.index(taken)), len(taken)


def _depthwise(flow: Flow, call: dict[str, Any]) -> bool:
    return call["groups"] > 1 and flow.dims(call["weight"])[1].size == 1


def _unpadded(flow: Flow, call: dict[str, Any]) -> bool:
    padding = call["padding"]
    if isinstance(padding, str):
        return padding == "valid" or all(dim.size == 1 for dim in flow.dims(call["weight"])[2:])
    return not any([padding] if isinstance(padding, int) else padding)


@rule(aten.linear)
class Linear(Rule):
    """y[..., o] = b[o] + sum_c W[o, c] * x[..., c]; constant inputs always move into the bias."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        call = bound(node)
        fact = flow.known.get(call["input"])
        last = len(flow.dims(node)) - 1
        if fact is None or fact.axis != last or not fact.mask.all() or not _weights_fixed(flow, call):
            return None
        value = _bias(flow, call) + self._shift(flow, call, fact.value)
        return known(last, torch.ones_like(value, dtype=torch.bool), value)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        call = bound(node)
        if not _weights_fixed(flow, call) or len(flow.dims(call["weight"])) != 2:
            return super().plan(flow, node, wanted)
        fact = flow.known.get(call["input"])
        source = ~fact.mask if fact is not None and fact.axis == len(wanted) - 1 else None
        return wanted, [(call["input"], replaced(wanted, len(wanted) - 1, source))]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow, call = build.flow, bound(node)
        if len(flow.demands[node]) != 1:
            return build.copy(node, inputs)
        outputs, source = flow.stored[node][-1], flow.demands[node][0][1][-1]
        fact = flow.known.get(call["input"])
        shift = None
        if fact is not None and source is not None and fact.value.any():
            shift = self._shift(flow, call, torch.where(source, 0.0, fact.value))
        new = build.call(node.target, inputs[0], None, None)
        name = str(call["weight"].target) if call["weight"].op == "get_attr" else f"{node.name}_weight"
        weight = build.sliced(call["weight"], (outputs, source))
        bias = _sliced_bias(build, call, outputs, shift)
        last = len(flow.dims(node)) - 1
        build.weighted[new] = Weighted(name, weight, bias, build.trained(call["weight"]), last, last, 1)
        return new

    def _shift(self, flow: Flow, call: dict[str, Any], values: Tensor) -> Tensor:
        constant = indices(values != 0)
        return wide(flow.tensor(call["weight"]).index_select(1, constant.to(flow.device))) @ values[constant]
