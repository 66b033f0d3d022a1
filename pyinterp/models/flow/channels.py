"""Rules of the operations that mix or scale channels: convolutions, linear maps, normalisations and gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Builder, Weighted
from pyinterp.models.flow.masks import Known, Masks, everything, filled, indices, known, position, replaced
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule
from pyinterp.ops.gated_affine import ACTIVATIONS

aten = torch.ops.aten

_ACTIVATION_CALLS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "relu": (aten.relu.default, (), {}),
    "relu6": (aten.hardtanh.default, (0.0, 6.0), {}),
    "silu": (aten.silu.default, (), {}),
    "hardswish": (aten.hardswish.default, (), {}),
    "gelu": (aten.gelu.default, (), {}),
    "gelu_tanh": (aten.gelu.default, (), {"approximate": "tanh"}),
}


def _wide(value: Tensor) -> Tensor:
    return value.detach().cpu().double()


def _weights_fixed(flow: Flow, call: dict[str, Any]) -> bool:
    return flow.is_constant(call["weight"]) and flow.is_constant(call["bias"])


def _bias(flow: Flow, call: dict[str, Any]) -> Tensor:
    """The bias (outputs,) in float64, zeros where there is none."""
    if call["bias"] is None:
        return torch.zeros(flow.dims(call["weight"])[0].size, dtype=torch.float64)
    return _wide(flow.tensor(call["bias"]))


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
                bias = bias + _wide(flow.tensor(call["weight"])).flatten(1).sum(1) * value
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
        return _wide(columns).flatten(2).sum(2) @ values[constant]

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
        return _wide(flow.tensor(call["weight"]).index_select(1, constant.to(flow.device))) @ values[constant]


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
        mean, variance = _wide(flow.tensor(call["running_mean"])), _wide(flow.tensor(call["running_var"]))
        scale = (variance + call["eps"]).rsqrt()
        if call["weight"] is not None:
            scale = scale * _wide(flow.tensor(call["weight"]))
        shift = -mean * scale
        return scale, shift if call["bias"] is None else shift + _wide(flow.tensor(call["bias"]))


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
        weight, bias = (None if call[k] is None else _wide(flow.tensor(call[k])) for k in ("weight", "bias"))
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


class _GateRule(Rule):
    """Shared by both gates: what is closed is zero, what is open takes its score."""

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        dim = flow.gates[node].dim
        entries = indices(filled(wanted[dim], flow.dims(node)[dim].size))
        mask, _ = flow.factor(node)
        flow.open_units(node, entries[~mask[entries]] if flow.values is None else entries)
        return wanted, [(node.args[0], wanted)]  # type: ignore[list-item]

    def score(self, build: Builder, node: Node) -> Node:
        """The node of one score per stored entry, from the site's stored units."""
        gate = build.flow.gates[node]
        value = build.scores[gate.site]
        if gate.complement:
            value = build.call(aten.rsub.Scalar, value, 1)
        present = build.flow.live_units()[gate.site]
        units = gate.unit[filled(build.flow.stored[node][gate.dim], len(gate.unit))]
        place = position(present, torch.ones_like(present))[units]
        if torch.equal(place, torch.arange(int(present.sum()))):
            return value
        return build.call(aten.index_select.default, value, -1, build.index(place))


@rule(torch.ops.pyinterp.gate)
class Gate(_GateRule):
    """y[c] = g[c] * x[c]."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        mask, value = flow.factor(node)
        dim = flow.gates[node].dim
        fact = flow.known.get(node.args[0])  # type: ignore[arg-type]
        if fact is None or fact.axis != dim:
            return known(dim, mask & (value == 0), value)
        return known(dim, (mask & (value == 0)) | fact.zero | (mask & fact.mask), value * fact.value)

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow, dim = build.flow, build.flow.gates[node].dim
        mask, value = flow.factor(node)
        kept = filled(flow.stored[node][dim], len(mask))
        if bool((mask & (value == 1))[kept].all()):
            return inputs[0]  # type: ignore[return-value]
        if flow.values is not None:
            return build.scale_and_shift(node, inputs[0], dim, value[kept], None)
        call = bound(node)
        return build.call(
            node.target, inputs[0], self.score(build, node), build.group, call["temperature"], dim
        )


@rule(torch.ops.pyinterp.gated_affine)
class GatedAffine(_GateRule):
    """y[c] = act(g[c] * (scale[c] * x[c] + shift[c])); every activation keeps zero."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        mask, value = flow.factor(node)
        call, dim = bound(node), flow.gates[node].dim
        closed = mask & (value == 0)
        fact = flow.known.get(call["x"])
        if fact is None or fact.axis != dim:
            return known(dim, closed, torch.zeros_like(value))
        inside = _wide(flow.tensor(call["scale"])) * fact.value + _wide(flow.tensor(call["shift"]))
        found = closed | (fact.mask & (mask | (inside == 0)))
        return known(dim, found, _activate(call["act"], torch.where(found, value * inside, 0.0)))

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow, call, dim = build.flow, bound(node), build.flow.gates[node].dim
        kept = flow.stored[node][dim]
        if flow.values is None:
            scale = build.register(f"{node.name}_scale", build.sliced(call["scale"], (kept,)))
            shift = build.register(f"{node.name}_shift", build.sliced(call["shift"], (kept,)))
            rest = (self.score(build, node), build.group, call["act"], call["temperature"], dim)
            return build.call(node.target, inputs[0], scale, shift, *rest)
        factor = flow.factor(node)[1]
        scale, shift = (factor * _wide(flow.tensor(call[name])) for name in ("scale", "shift"))
        stored = filled(kept, len(factor))
        result = build.scale_and_shift(node, inputs[0], dim, scale[stored], shift[stored])
        name = ACTIVATIONS[call["act"]]
        if name == "none":
            return result
        target, args, kwargs = _ACTIVATION_CALLS[name]
        return build.call(target, result, *args, **kwargs)


def _activate(code: int, value: Tensor) -> Tensor:
    name = ACTIVATIONS[code]
    if name == "none":
        return value
    target, args, kwargs = _ACTIVATION_CALLS[name]
    return target(value, *args, **kwargs)  # type: ignore[no-any-return]
