"""A traced network with a gate at every site: one forward pass per set of scores, the weights untouched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

import pyinterp.ops  # noqa: F401  (defines torch.ops.pyinterp)
from pyinterp.errors import explain
from pyinterp.models.axes import FIRST, Place, sample_places
from pyinterp.models.dataflow import argument, input_of, only_user
from pyinterp.models.graph import TracedModel, op_of, size_of
from pyinterp.models.sites import Site
from pyinterp.ops.gated_affine import ACTIVATIONS

aten = torch.ops.aten


@dataclass(frozen=True)
class GatedModel:
    """A network whose units are scaled by scores.

    Attributes:
        module: ``forward(x, group, *scores) -> logits (N, classes)``, one tensor of scores per site, in order:
            (units,) with ``group=None``, or (G, units) with ``group`` (N,) int64, the row that each sample uses.
            A unit's value is multiplied by its score; a layer's score G gives stream + G * branch, or
            G * F(h) + (1 - G) * h for a plain layer. With all scores 1 the logits are the network's own: bit for bit,
            or within float rounding where ``fused``.
        sites: What the scores belong to.
        traced: The network without gates; all weights are shared.
        fused: Whether BatchNorm, gate and activation of a filter site are one operation.
    """

    module: GraphModule
    sites: tuple[Site, ...]
    traced: TracedModel
    fused: bool


def gate_model(traced: TracedModel, sites: Sequence[Site], fused: bool = False) -> GatedModel:
    """Put a gate at every one of ``sites``.

    Args:
        traced: From `pyinterp.models.graph.trace`.
        sites: Some or all of `pyinterp.models.sites.find_sites(traced)`, at least one.
        fused: Make BatchNorm, gate and activation one ``gated_affine`` where a filter site has them, and keep the
            weights of convolutions in `channels_last`, like the images to come: faster, and equal within float
            rounding. The weights are read once, here.

    Raises:
        ValueError: There is no site, or one does not belong to this network.
    """
    if not sites:
        raise ValueError(
            explain("gate_model", "at least one site", "none", "Pass find_sites(traced) or a part of it.")
        )
    nodes = {node.name for node in traced.graph.nodes}
    for site in sites:
        if not {site.node, site.skip or site.node} <= nodes:
            fix = "Pass sites of find_sites for this very traced network."
            raise ValueError(
                explain("gate_model", "sites of the traced network", f"{site.name!r} of another", fix)
            )
    module = _Builder(traced, sites, fused).build()
    if fused:
        store_channels_last(module)
    return GatedModel(module, tuple(sites), traced, fused)


def channels_last(images: Tensor) -> Tensor:
    """(N, C, H, W) in torch's channels-last format, in which convolutions with few or many channels are fast."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def store_channels_last(module: GraphModule) -> None:
    """Replace the 4-dimensional buffers of a module by copies in the `channels_last` format."""
    for owner in module.modules():
        for name, value in owner._buffers.items():
            if value is not None:
                owner._buffers[name] = channels_last(value)


def rows_of(group: Tensor | None, x: Tensor, after: int) -> Tensor | None:
    """Row of the scores for each index along axis 0 of ``x``, where index i belongs to sample (i // after) modulo N.

    Args:
        group: (N,) int64, or None.
        x: (L, ...), L a multiple of N: windows of each sample, or samples of each token.
        after: Consecutive indices of one sample; 0 where samples can't be told apart.

    Returns:
        (L,) int64, or None without a group.
    """
    if group is None:
        return None
    if after < 1:
        got = f"one in which it is lost on the way to a gate, whose value has shape {tuple(x.shape)}"
        fix = "Name other sites, or search without a target and for one batch."
        raise ValueError(
            explain("extract_chain", "a network in which the axis of the images can be followed", got, fix)
        )
    each = group.repeat_interleave(after)
    return each.repeat(x.shape[0] // len(each))


class _Builder:
    """Copies the traced graph node by node; ``current`` maps each of its nodes to that value, gated."""

    def __init__(self, traced: TracedModel, sites: Sequence[Site], fused: bool) -> None:
        self.traced, self.sites, self.fused = traced, sites, fused
        self.nodes = list(traced.graph.nodes)
        self.by_name = {node.name: node for node in self.nodes}
        self.places = sample_places(traced.graph)
        self.graph = Graph()
        self.current: dict[Node, Node] = {}
        self.buffers: dict[str, Tensor] = {}
        self.units: dict[Node, tuple[Site, Node]] = {}
        self.branches: dict[Node, tuple[Site, Node]] = {}
        self.blocks: dict[Node, tuple[Site, Node]] = {}

    def build(self) -> GraphModule:
        self._write_inputs()
        for node in self.nodes:
            if node.op == "output":
                self.graph.output(self.current[node.args[0]])  # type: ignore[index]
                break
            if node not in self.current:
                self._write(node)
            if node in self.blocks:
                self._bypass(node, *self.blocks[node])
        self.graph.eliminate_dead_code()
        self.graph.lint()
        root = nn.Module()
        for name, value in (dict(self.traced.module.named_buffers()) | self.buffers).items():
            root.register_buffer(name, value)
        return GraphModule(root, self.graph, class_name="Gated").eval()

    def _write_inputs(self) -> None:
        self.images = next(node for node in self.nodes if node.op == "placeholder")
        self.current[self.images] = self.graph.node_copy(self.images)
        self.group = self.graph.placeholder("group")
        for i, site in enumerate(self.sites):
            gate = (site, self.graph.placeholder(f"scores_{i}"))
            node, skip = self.by_name[site.node], self.by_name.get(site.skip or "")
            if site.kind != "layer":
                self.units[node] = gate
            elif skip is not None and op_of(skip) is aten.add and node in skip.all_input_nodes:
                self.branches[skip] = gate
            else:
                self.blocks[node] = gate

    def _write(self, node: Node) -> None:
        """Copy one node, with the gate of its units and of the branch that it adds."""
        inputs = {}
        if node in self.branches:
            site, scores = self.branches[node]
            branch = self.by_name[site.node]
            inputs[branch] = self._gate(branch, site, scores)
        first = self.places.get(node, FIRST).axis == 0
        if node in self.units and self.fused and first and op_of(node) is aten.batch_norm:
            self._write_fused(node, *self.units[node])
            return
        self.current[node] = self.graph.node_copy(
            node, lambda n: inputs[n] if n in inputs else self.current[n]
        )
        if node in self.units:
            self.current[node] = self._gate(node, *self.units[node])

    def _bypass(self, node: Node, site: Site, scores: Node) -> None:
        """G * F(h) + (1 - G) * h, as two products: 1 * F + 0 * h is F bit for bit."""
        closed = self._call(aten.rsub.Scalar, (scores, 1))
        through = self._gate(node, site, scores)
        around = self._gate(self.by_name[site.skip or ""], site, closed)
        self.current[node] = self._call(aten.add.Tensor, (through, around), node)

    def _gate(self, node: Node, site: Site, scores: Node) -> Node:
        """The value of ``node`` times its scores along the site's axis."""
        place, value, dim = self.places.get(node), self.current[node], site.dim
        entries = size_of(node)[dim] // site.units
        if entries > 1:
            scores = self._call(aten.repeat_interleave.self_int, (scores, entries, -1))
        if place is None or place.axis == 0:
            args = (value, scores, self._rows(node, value, place), None, dim)
            return self._call(torch.ops.pyinterp.gate.default, args, node)
        # The op finds each sample's row of scores along axis 0.
        first = self._call(aten.transpose.int, (value, 0, place.axis), node)
        first.meta["val"] = node.meta["val"].transpose(0, place.axis)
        dim = {0: place.axis, place.axis: 0}.get(dim, dim)
        args = (first, scores, self._rows(node, first, place), None, dim)
        gated = self._call(torch.ops.pyinterp.gate.default, args, first)
        return self._call(aten.transpose.int, (gated, 0, place.axis), node)

    def _rows(self, node: Node, value: Node, place: Place | None) -> Node:
        if place is not None and str(size_of(node)[place.axis]) == str(size_of(self.images)[0]):
            return self.group
        return self._call(rows_of, (self.group, value, 0 if place is None else place.after))

    def _write_fused(self, norm: Node, site: Site, scores: Node) -> None:
        """BatchNorm, gate and the activation that alone reads them, as one operation."""
        scale, shift = _affine_of(norm, self.traced.module)
        constants = []
        for suffix, tensor in (("scale", scale), ("shift", shift)):
            name = f"{norm.name}__{suffix}"
            self.buffers[name] = tensor
            node = self.graph.get_attr(name)
            node.meta = {"val": tensor.to("meta"), "module": norm.meta["module"]}
            constants.append(node)
        user = only_user(norm)
        act = _activation(user) if user is not None and norm not in self.blocks else None
        last = norm if act is None or user is None else user
        code = ACTIVATIONS.index(act or "none")
        value = self.current[input_of(norm)]
        rows = self._rows(norm, value, self.places.get(norm))
        args = (value, *constants, scores, rows, code, None, site.dim)
        fused = self._call(torch.ops.pyinterp.gated_affine.default, args, last)
        self.current[norm] = self.current[last] = fused

    def _call(self, target: Any, args: tuple[Any, ...], like: Node | None = None) -> Node:
        node = self.graph.call_function(target, args)
        if like is not None:
            node.meta = dict(like.meta)
        return node


def _affine_of(norm: Node, module: GraphModule) -> tuple[Tensor, Tensor]:
    """An eval-mode BatchNorm as scale * x + shift, float32 (float64 for a float64 network)."""
    stored: list[Tensor] = []
    for i, name in enumerate(("running_mean", "running_var", "weight", "bias")):
        node = argument(norm, (3, 4, 1, 2)[i], name)
        if node is None:
            stored.append(torch.full_like(stored[0], name == "weight"))
        else:
            stored.append(getattr(module, str(node.target)).double())
    mean, variance, weight, bias = stored
    scale = weight * torch.rsqrt(variance + argument(norm, 7, "eps"))
    shift = bias - mean * scale
    dtype = torch.float64 if norm.meta["val"].dtype == torch.float64 else torch.float32
    return scale.to(dtype), shift.to(dtype)


def _activation(node: Node) -> str | None:
    """The name that ``gated_affine`` has for an activation."""
    op = op_of(node)
    if op is aten.hardtanh:
        limits = (argument(node, 1, "min_val", -1), argument(node, 2, "max_val", 1))
        return "relu6" if limits == (0, 6) else None
    if op is aten.gelu:
        return "gelu_tanh" if argument(node, 1, "approximate", "none") == "tanh" else "gelu"
    names = {aten.relu: "relu", aten.relu6: "relu6", aten.silu: "silu", aten.hardswish: "hardswish"}
    return names.get(op)
