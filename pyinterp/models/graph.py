"""The network as a graph of ATen operations, taken with ``torch.export``; the user's module is never touched.

Everything that gates, measures or shrinks a network works on this graph. The nodes are functional ATen calls
(``aten.conv2d``, ``aten.batch_norm``, ``aten.linear``, ...), so one rule per operation serves every architecture,
whatever its classes are called. Parameters are shared with the model as detached views: no copy, no gradient.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from pyinterp.errors import explain

aten = torch.ops.aten

_IDENTITY_IN_EVAL = {
    "dropout", "dropout_", "feature_dropout", "alpha_dropout", "detach", "detach_", "alias", "lift_fresh",
}  # fmt: skip
_SCATTERS = {aten.slice: aten.slice_scatter.default, aten.select: aten.select_scatter.default}
_BLOCKS = {"wrap_with_set_grad_enabled": 2, "wrap_with_autocast": 5}
"""Where the inputs of a block's body begin among its arguments."""
_CHECKS_ONLY = ("_assert", "sym_constrain", "_guards", "insert_deferred")


@dataclass(frozen=True)
class TracedModel:
    """A model as a graph.

    Attributes:
        module: ``forward(x) -> logits``, x (N, ...) as traced with any N, logits (N, classes). Weights are shared.
            Each node's ``meta["val"]`` is a fake tensor with its shape, ``meta["module"]`` the dotted path of the
            innermost submodule of the user's model that ran it ("" for the model itself).
        input_shape: Shape of one input without the batch axis.
        classes: Width of the logits.
    """

    module: GraphModule
    input_shape: tuple[int, ...]
    classes: int

    @property
    def graph(self) -> Graph:
        return self.module.graph

    def node(self, name: str) -> Node:
        """The node called ``name``."""
        return next(node for node in self.graph.nodes if node.name == name)


def trace(model: nn.Module, example: Tensor) -> TracedModel:
    """Take the graph of ``model`` at ``example``'s resolution, for any batch size.

    Args:
        model: Maps (N, ...) to logits (N, classes), or to a mapping, named tuple or Hugging Face output with
            ``logits``; in eval mode.
        example: (N, ...) with N >= 1; only its shape, dtype and device matter.

    Raises:
        ValueError: The model is in train mode, does not return logits, depends on values of its input in a way
            that has no graph, or its graph does not give the model's own answer.
    """
    require_eval(model)
    require_own_forward("trace", model)
    pair = example.detach()[:1].repeat(2, *[1] * (example.dim() - 1))
    with _plain_attention():
        try:
            exported = torch.export.export(
                model, (pair,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False
            )
        except Exception as error:
            if "not a known type" in str(error):
                raise ValueError(
                    "trace: expected a model that returns logits, or a mapping, a named tuple or a Hugging Face output "
                    "with .logits, got one that returns another object. Wrap it in a module that returns the logits."
                ) from error
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"trace: expected a model that torch.export can capture at input shape {tuple(example.shape)}, got "
                f"{type(error).__name__}: {reason}. Check that model(images) runs, and that its forward does not "
                "branch on values of the images."
            ) from error
        with torch.no_grad():
            answer = model(pair)
    logits = logits_of(answer)
    require_finite("trace", logits)
    _inline_blocks(exported.graph_module)
    module = _rebuild(exported, _logits_index(answer))
    for node in (*module.graph.find_nodes(op="placeholder"), module.graph.output_node().args[0]):
        if isinstance(size_of(node)[0], int):
            raise ValueError(
                "trace: expected a model that takes any batch size, got one whose forward fixes it to "
                f"{size_of(node)[0]}. Use x.shape[0] in its forward; a constant or len(x) holds for one batch size."
            )
    with torch.no_grad():
        difference = (module(pair) - logits).abs().max().item()
    if not difference <= 1e-4 * max(1.0, logits.abs().max().item()):
        raise ValueError(
            f"trace: expected the graph to give the model's own logits, got a difference of {difference:.3g}. "
            "Its forward is random, keeps state between calls, writes into views or changes its input."
        )
    return TracedModel(module, tuple(example.shape[1:]), logits.shape[1])


def logits_of(answer: Any) -> Tensor:
    """The logits (N, classes) in what a model returned: a tensor, or an object or mapping with ``logits``."""
    logits = answer
    if not isinstance(answer, Tensor):
        logits = answer.get("logits") if isinstance(answer, dict) else getattr(answer, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        got = (
            f"a tensor of shape {tuple(logits.shape)}"
            if isinstance(logits, Tensor)
            else type(answer).__name__
        )
        raise ValueError(
            f"expected a model that returns logits (N, classes), or an object with .logits, got {got}. "
            "Wrap the model in a module that returns the logits."
        )
    return logits


def with_logits(answer: Any, logits: Tensor) -> Any:
    """``logits`` in the structure of ``answer``; its other entries, which belong to other logits, become None."""
    logits_of(answer)
    if isinstance(answer, Tensor):
        return logits
    if isinstance(answer, dict):
        return type(answer)(**{**dict.fromkeys(answer), "logits": logits})
    if isinstance(answer, tuple):
        return type(answer)(**{**dict.fromkeys(answer._fields), "logits": logits})  # type: ignore[attr-defined]
    other = object.__new__(type(answer))
    other.__dict__.update({**dict.fromkeys(vars(answer)), "logits": logits})
    return other


def require_eval(model: Any) -> None:
    """Raise unless all of it is in eval mode: a chain explains the network that answers, not one that trains."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"expected a torch.nn.Module, got {type(model).__name__}. Pass the module itself: the .model of what "
            "pyinterp.models.load returns."
        )
    for name, module in model.named_modules():
        if module.training:
            where = f" (its submodule {name!r} is in train mode)" if name else ""
            raise ValueError(
                f"expected a model in eval mode, got one in train mode{where}. Call model.eval() first."
            )


def require_own_forward(where: str, model: nn.Module) -> None:
    """Raise for a model that answers as a chain does at the moment, and for what torch.compile gives."""
    if hasattr(model.__dict__.get("forward"), "replaces"):
        fix = "Leave the block of `with chain.apply(model)` first, or call the model itself in it."
        raise ValueError(
            explain(where, "a model with its own forward", "one that a chain is applied to", fix)
        )
    if hasattr(model, "_orig_mod"):
        fix = "Pass the module that was compiled."
        raise ValueError(explain(where, "a plain module", "what torch.compile gives", fix))


def _logits_index(answer: Any) -> int:
    """Position of the logits among the output's tensors and other leaves, in pytree order."""
    leaves = torch.utils._pytree.tree_leaves(answer)
    logits = logits_of(answer)
    return next(i for i, leaf in enumerate(leaves) if leaf is logits)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without nn.MultiheadAttention's fused inference path, which is one opaque operation and rounds differently."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def require_finite(where: str, logits: Tensor) -> None:
    """Raise ValueError, as of the function ``where``, unless the full network's logits (N, classes) are finite."""
    if not torch.isfinite(logits).all():
        fix = "Check its weights, its forward and the preprocessing of the images."
        raise ValueError(explain(where, "finite logits of the full network", "NaN or infinite ones", fix))


def _inline_blocks(module: GraphModule) -> None:
    """Put what stands under ``torch.no_grad()`` or a disabled ``torch.autocast`` in its place in the graph."""
    graph = module.graph
    for node in graph.find_nodes(op="get_attr"):
        body = getattr(module, str(node.target))
        if not isinstance(body, GraphModule):
            continue
        _inline_blocks(body)
        for call in list(node.users):
            name = _label(call)
            if name not in _BLOCKS or (name == "wrap_with_autocast" and call.args[2]):
                raise ValueError(
                    f"trace: expected a forward without branches, loops and autocast of its own, got {name}. Take it "
                    "out of the forward; extract_chain has precision=torch.bfloat16 for lower precision."
                )
            inputs = dict(
                zip(body.graph.find_nodes(op="placeholder"), call.args[_BLOCKS[name] :], strict=True)
            )
            with graph.inserting_before(call):
                outputs = graph.graph_copy(body.graph, inputs)
            for user in list(call.users):
                user.replace_all_uses_with(outputs[user.args[1]])  # type: ignore[index]
                graph.erase_node(user)
            graph.erase_node(call)
        graph.erase_node(node)


def _rebuild(exported: torch.export.ExportedProgram, logits_index: int) -> GraphModule:
    """Copy the exported graph: weights as attributes, in-place calls made functional, no-ops of eval mode dropped."""
    signature = exported.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = dict(signature.inputs_to_lifted_tensor_constants)
    root = nn.Module()
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            name = stored.get(node.name) or constants.get(node.name)
            if name is None:
                copies[node] = graph.placeholder(node.name)
            else:
                value = exported.state_dict[name] if name in exported.state_dict else exported.constants[name]
                attribute = name.replace(".", "__")
                root.register_buffer(attribute, value.detach(), persistent=True)
                copies[node] = graph.get_attr(attribute)
                copies[node].meta["weight"] = name
                copies[node].meta["parameter"] = node.name in signature.inputs_to_parameters
        elif node.op == "call_function":
            label = _label(node)
            if label.startswith(_CHECKS_ONLY):
                continue
            if label in _IDENTITY_IN_EVAL:
                copies[node] = copies[node.args[0]]  # type: ignore[index]
                continue
            if node.target is aten.copy_.default:
                copies[node] = _copied(graph, node, copies)
            else:
                copies[node] = graph.node_copy(node, lambda n: copies[n])
                copies[node].target = _functional(node.target)
            if copies[node].target is not node.target:
                _refuse_changes(node, stored)
                _write_back(graph, node, copies)
        elif node.op == "output":
            graph.output(copies[node.args[0][logits_index]])  # type: ignore[index]
            continue
        else:
            raise ValueError(
                f"trace: expected a graph of tensor operations, got a {node.op} node ({node.target})."
            )
        copies[node].meta["val"] = node.meta.get("val")
        copies[node].meta["module"] = _module_path(node)
    graph.eliminate_dead_code()
    graph.lint()
    return GraphModule(root, graph, class_name="Traced").eval()


def _copied(graph: Graph, node: Node, copies: dict[Node, Node]) -> Node:
    """``target.copy_(source)`` as a value of its own: the source in the shape and dtype of the target."""
    target, source = node.args[:2]
    assert isinstance(target, Node) and isinstance(source, Node)
    spread = graph.call_function(aten.expand_as.default, (copies[source], copies[target]))
    spread.meta = {"val": source.meta["val"].expand_as(target.meta["val"]), "module": _module_path(node)}
    return graph.call_function(aten.type_as.default, (spread, copies[target]))


def _label(node: Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.rpartition("::")[2]
    return getattr(target, "__name__", str(target))


def _functional(target: Any) -> Any:
    """``aten.relu_`` -> ``aten.relu``: the graph's nodes already name the changed value, so no use is missed."""
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return target
    name = target._schema.name.rpartition("::")[2].rstrip("_")
    packet = getattr(aten, name, None)
    if packet is None or target._overloadname not in packet.overloads():
        raise ValueError(
            f"trace: expected operations that have a functional form, got {target}. Use it out of place."
        )
    return getattr(packet, target._overloadname)


def _refuse_changes(node: Node, stored: dict[str, str]) -> None:
    """Raise if an in-place call writes into a weight or buffer, directly or through a view."""
    written = node.args[0]
    while isinstance(written, Node) and written.op == "call_function" and _is_view(written.target):
        written = written.args[0]
    if isinstance(written, Node) and written.name in stored:
        raise ValueError(
            f"trace: expected a model whose forward changes nothing, got one that changes {stored[written.name]}. "
            "Call model.eval(), or make its forward stateless."
        )


def _is_view(target: Any) -> bool:
    """Whether an operation gives its first argument's memory: as a view, or after writing into it."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.arguments[0].alias_info is not None


def _write_back(graph: Graph, node: Node, copies: dict[Node, Node]) -> None:
    """What an in-place call wrote into a slice or row of a value, as that value's new copy."""
    view, written = node.args[0], copies[node]
    while isinstance(view, Node) and op_of(view) in _SCATTERS:
        base = view.args[0]
        assert isinstance(base, Node)
        written = graph.call_function(
            _SCATTERS[op_of(view)], (copies[base], written, *view.args[1:]), dict(view.kwargs)
        )
        written.meta = {"val": base.meta["val"], "module": _module_path(node)}
        copies[base], view = written, base


def _module_path(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if not entry[0].startswith("_empty_nn_module_stack")]
    return paths[-1] if paths else ""


def size_of(node: Node) -> tuple[Any, ...]:
    """Shape of a node's value; the batch axis is symbolic."""
    return tuple(node.meta["val"].shape)


def is_tensor(node: Node) -> bool:
    """Whether the node's value is one tensor (and not a size, a tuple or nothing)."""
    return isinstance(node.meta.get("val"), Tensor)


def op_of(node: Any) -> Any:
    """The ATen overload packet of a call (``aten.conv2d``), ``operator.getitem``, or None."""
    if not isinstance(node, Node) or node.op != "call_function":
        return None
    return node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else node.target


def is_getitem(node: Node) -> bool:
    return op_of(node) is operator.getitem
