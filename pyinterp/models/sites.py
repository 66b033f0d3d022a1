"""What can be gated in a network: filters, attention heads, MLP neurons and whole layers, found from its graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import Node

from pyinterp.errors import explain
from pyinterp.models.attention import Heads, Neurons, find_heads, find_neurons, scaling_nodes
from pyinterp.models.dataflow import (
    CONVS,
    MOVEMENT,
    POINTWISE,
    TRANSPOSED_CONVS,
    Dataflow,
    batch_norm_after,
    path_of,
    weight_of,
)
from pyinterp.models.graph import TracedModel, op_of, require_eval, size_of, trace
from pyinterp.models.layers import Layers, channel_axis, find_layers, layer_name

aten = torch.ops.aten

Kind = Literal["filter", "head", "neuron", "layer"]


@dataclass(frozen=True)
class Site:
    """A place where units can be gated.

    Attributes:
        name: Unique; the path in the user's model of the conv (filters), of the first linear (neurons), of the
            attention (heads), or of the deepest module that holds the branch (layers). A layer whose path another
            site has is called ``path.layer``; a module that runs several times gives ``path``, ``path@2``, ...
        kind: Filters of a conv, heads of an attention, hidden neurons of an MLP, or one layer that can be bypassed.
        units: Number of units; 1 for a layer.
        node: The graph node whose value is gated. Filters: the BatchNorm behind the conv, or the conv (before the
            activation). Neurons: their activation. Heads: what the output projection reads. Layers: the residual
            branch, or the output of a plain block (conv, BatchNorm, activation).
        dim: Axis of that value along which the units lie.
        inner: Consecutive entries of the axis per unit (the head width where heads are merged; 1 elsewhere). A
            layer's one gate covers the whole axis.
        skip: Layers only. Residual: the node of the sum, of which the branch's edge alone is gated
            (stream + G * branch). Plain: the node of the block's input h, for G * F(h) + (1 - G) * h.
        weight: Dotted name of the weight that produces the units (for heads: of the output projection); None where
            there is no single one.
    """

    name: str
    kind: Kind
    units: int
    node: str
    dim: int
    inner: int = 1
    skip: str | None = None
    weight: str | None = None


@dataclass(frozen=True)
class _Structure:
    flow: Dataflow
    filters: dict[Node, Node]  # conv -> gated node
    heads: list[Heads]
    neurons: list[Neurons]
    layers: Layers
    reasons: dict[Node, str]  # conv or linear that is no site -> why


def sites(model: nn.Module, example: Tensor | None = None) -> list[Site]:
    """The gateable units of ``model``, in the order in which they run.

    Args:
        model: Maps images (N, ...) to logits (N, classes); in eval mode.
        example: (N, ...) images whose shape the network is taken at; None uses the input size that a timm or Hugging
            Face model states, else (1, 3, 224, 224).

    Raises:
        ValueError: The model can't be traced at that shape, or has nothing to gate.
    """
    require_eval(model)
    if example is not None:
        return find_sites(trace(model, example))
    try:
        traced = trace(model, default_example(model))
    except ValueError as error:
        raise ValueError(f"{error} If it takes other images, pass some as example.") from error
    return find_sites(traced)


def default_example(model: nn.Module) -> Tensor:
    """A batch (1, channels, height, width) of zeros in the size that the model states, else (1, 3, 224, 224)."""
    shape: tuple[int, ...] = (3, 224, 224)
    stated = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    config = getattr(model, "config", None)
    if isinstance(stated, dict) and stated.get("input_size"):
        shape = tuple(stated["input_size"])
    elif getattr(config, "image_size", None):
        size = config.image_size  # type: ignore[union-attr]
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        shape = (getattr(config, "num_channels", 3), height, width)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros(1, *shape, dtype=like.dtype, device=like.device)


def find_sites(traced: TracedModel) -> list[Site]:
    """Every site of a traced network, in the order in which they run.

    Raises:
        ValueError: There is none.
    """
    structure = _analyse(traced)
    flow, found = structure.flow, []
    for conv, gated in structure.filters.items():
        found.append(Site(path_of(conv), "filter", size_of(conv)[1], gated.name, 1, weight=weight_of(conv)))
    for neurons in structure.neurons:
        units, first = size_of(neurons.value)[neurons.dim], neurons.first
        weight = weight_of(first[0]) if len(first) == 1 and size_of(first[0])[neurons.dim] == units else None
        found.append(Site(path_of(first[0]), "neuron", units, neurons.value.name, neurons.dim, weight=weight))
    for heads in structure.heads:
        name = heads.attention.meta.get("module") or heads.attention.name
        weight = weight_of(heads.projection) if heads.projection is not None else None
        found.append(Site(name, "head", heads.units, heads.value.name, heads.dim, heads.inner, weight=weight))
    for residual in structure.layers.residuals:
        name, dim = layer_name(residual.inside, residual.add.name), channel_axis(flow, residual.branch)
        found.append(Site(name, "layer", 1, residual.branch.name, dim, skip=residual.add.name))
    for plain in structure.layers.plain:
        found.append(Site(path_of(plain.conv), "layer", 1, plain.output.name, 1, skip=plain.source.name))
    if not found:
        raise ValueError(_nothing_found(flow))
    return _named(_sorted(found, flow))


def ungated(traced: TracedModel) -> list[tuple[str, str]]:
    """The convs and linears that are no site: (path in the user's model, why)."""
    structure = _analyse(traced)
    return [(path_of(node), reason) for node, reason in structure.reasons.items()]


def _analyse(traced: TracedModel) -> _Structure:
    flow = Dataflow(traced.graph)
    scaling, classifier = scaling_nodes(flow), flow.last_mixing()
    neurons = [n for n in find_neurons(flow) if not scaling.intersection([*n.first, n.second])]
    neurons = [n for n in neurons if not classifier.intersection(n.first)]
    heads = find_heads(flow)
    reasons = dict.fromkeys(scaling, "it computes the factors of other units (squeeze-excite or a gate)")
    reasons |= dict.fromkeys(classifier, "its outputs are the logits")
    hidden = {first for found in neurons for first in found.first}
    convs = {node for node in flow.nodes if op_of(node) in CONVS and flow.carries_data(node)}
    layers = find_layers(flow, convs - set(reasons) - hidden)
    reasons |= dict.fromkeys(
        layers.shortcuts, "it only fits the residual stream to its block's output (shortcut)"
    )
    filters = {}
    for node in flow.nodes:
        if node in convs and node not in reasons and node not in hidden:
            norm = batch_norm_after(node)
            if norm is None and _starts_stream(flow, node, layers):
                reasons[node] = "it writes the residual stream itself (embedding)"
            else:
                filters[node] = norm or node
    layers = Layers(layers.residuals, [plain for plain in layers.plain if plain.conv in filters])
    for node in flow.nodes:
        if node in reasons or node in filters or node in hidden or not flow.carries_data(node):
            continue
        if op_of(node) is aten.linear:
            reasons[node] = _linear_reason(flow, node, heads)
        elif op_of(node) in TRANSPOSED_CONVS:
            reasons[node] = "transposed convolutions have no filters to gate here"
    named = {n: reasons[n] for n in flow.nodes if n in reasons and _has_path(n)}
    return _Structure(flow, filters, heads, neurons, layers, named)


def _has_path(node: Node) -> bool:
    return op_of(node) in CONVS | TRANSPOSED_CONVS or op_of(node) is aten.linear


def _starts_stream(flow: Dataflow, conv: Node, layers: Layers) -> bool:
    """Whether the conv's value becomes a residual stream as it is, moved or normalised at most."""
    streams, seen, stack = layers.streams, set(), [conv]
    while stack:
        node = stack.pop()
        if node in streams:
            return True
        for user in node.users:
            op = op_of(user)
            passes = op in MOVEMENT or op in (aten.layer_norm, aten.cat)
            shifts = op in POINTWISE and len(flow.sources(user)) == 1 and len(user.all_input_nodes) > 1
            if user not in seen and (passes or shifts):
                seen.add(user)
                stack.append(user)
    return False


def _linear_reason(flow: Dataflow, node: Node, heads: list[Heads]) -> str:
    for found in heads:
        name = found.attention.meta.get("module") or found.attention.name
        if node is found.projection:
            return (
                f"it writes what attention found into the stream; the heads of {name!r} are gated before it"
            )
        if flow.reaches(node, found.attention) and not any(
            map(_has_path, flow.mixing_between(node, found.attention))
        ):
            return f"it makes queries, keys or values; the heads of {name!r} are gated"
    return "its outputs are no hidden neurons (an activation, then a linear map that alone reads them)"


def _sorted(found: list[Site], flow: Dataflow) -> list[Site]:
    position = {node.name: i for i, node in enumerate(flow.nodes)}
    order: list[Kind] = ["filter", "neuron", "head", "layer"]
    return sorted(found, key=lambda site: (position[site.node], order.index(site.kind)))


def _named(found: list[Site]) -> list[Site]:
    """Make names unique: layers give way to units of the same path, repeats are numbered."""
    units = {site.name for site in found if site.kind != "layer"}
    seen: Counter[str] = Counter()
    result = []
    for site in found:
        name = f"{site.name}.layer" if site.kind == "layer" and site.name in units else site.name
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name}@{seen[name]}"
        result.append(replace(site, name=name))
    return result


def _nothing_found(flow: Dataflow) -> str:
    names = Counter(str(op_of(n)).removeprefix("aten.") for n in flow.nodes if n.op == "call_function")
    has = ", ".join(f"{count} {name}" for name, count in names.most_common()) or "no operation at all"
    return explain(
        "sites",
        "a network with convolution filters, attention heads, neurons between two linear layers, or residual branches",
        f"one with {has}",
        "There is nothing to choose from in it; pass a network that has hidden units.",
    )
