"""Which layers of a network to look at: places through which all flows that it knows of its input, found by trying."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models.graph import logits_of, require_eval, require_own_forward
from pyinterp.models.inputs import Inputs, call, rows_of

WHERE = "find_layers"
SAME = 1e-3
"""Relative difference of logits that other batch rows make by rounding, at most."""

Layers = Sequence[str] | Literal["auto", "stages"]


@dataclass(frozen=True)
class Layer:
    """A module that runs once, and its output for one input.

    Attributes:
        name: Its dotted path.
        shape: (C, H, W), (H, W, C), (T, C) or (C,).
        channels_last: Of a map, whether it is (H, W, C), as some transformers have it.
        whole: Whether all that the answer depends on flows through it, so that later layers know nothing else: not so
            inside a branch that runs beside a skip connection.
    """

    name: str
    shape: tuple[int, ...]
    whole: bool
    channels_last: bool = False


@dataclass(frozen=True)
class _Run:
    """One call of a module: ``depth`` layers with weights have run by its end."""

    name: str
    shape: tuple[int, ...]
    print: tuple[float, ...]
    depth: int


def find_layers(
    model: nn.Module, example: Inputs, layers: Layers = "auto", *, n_layers: int = 8
) -> tuple[Layer, ...]:
    """Choose layers, in the order in which they run; the last one, whose output is the answer, is none of them.

    A place is whole if two inputs that exchange their values there also exchange their answers, exactly.

    Args:
        model: In eval mode; it stays as it is.
        example: Inputs (N, ...), at least two that differ.
        layers: Names of modules; "auto" for ``n_layers`` whole places, spread evenly over the layers with weights; or
            "stages": the last whole place of each resolution.
        n_layers: Of "auto"; fewer where there are fewer places.

    Raises:
        ValueError: No such module (the nearest names are told), one that does not run exactly once or gives no tensor
            with one row per input; a network without such a place; a model in train mode; inputs that are alike.
        TypeError: ``layers`` is something else.
    """
    require_eval(model)
    require_own_forward(WHERE, model)
    if type(n_layers) is not int or n_layers < 1:
        raise ValueError(explain(WHERE, "n_layers of 1 or more", repr(n_layers), "Pass 8."))
    pair = _pair(model, example)
    runs, calls, logits = _runs(model, pair)

    def whole(name: str) -> bool:
        return _exchanged(model, pair, name, logits)

    if isinstance(layers, str):
        if layers not in ("auto", "stages"):
            fix = "Or pass a list of names of modules."
            raise ValueError(explain(WHERE, 'layers="auto" or "stages"', repr(layers), fix))
        places = _places(runs, _print(logits))
        chosen = _spread(places, whole, n_layers) if layers == "auto" else _stages(model, places, whole)
        if not chosen:
            fix = "Name the layers; or explain the output alone (measure_knowledge(..., layers='output'))."
            raise ValueError(explain(WHERE, "a module that all flows through", "none", fix))
        return tuple(_layer(model, run, True) for run in sorted(chosen, key=runs.index))
    if not isinstance(layers, Sequence) or not all(isinstance(name, str) for name in layers) or not layers:
        fix = 'For example ["layer1", "layer3"].'
        raise TypeError(explain(WHERE, "a list of names of modules", repr(layers), fix))
    known = {run.name: run for run in runs}
    for name in layers:
        _require_layer(name, known, calls)
    named = sorted(dict.fromkeys(layers), key=lambda name: runs.index(known[name]))
    return tuple(_layer(model, known[name], whole(name)) for name in named)


def _pair(model: nn.Module, example: Inputs) -> Inputs:
    """The two inputs whose answers differ most."""
    if rows_of(WHERE, example) < 2:
        raise ValueError(explain(WHERE, "two inputs or more", "one", "Pass a batch of some images."))
    with torch.no_grad():
        logits = logits_of(call(model, example)).double().flatten(1)
    first, second = divmod(int(torch.cdist(logits, logits).argmax()), len(logits))
    if torch.allclose(logits[first], logits[second], rtol=SAME, atol=0):
        fix = "Pass images that differ."
        raise ValueError(explain(WHERE, "two inputs with different answers", "the same answer", fix))

    def both(value: Any) -> Any:
        return torch.stack([value[first], value[second]]) if isinstance(value, Tensor) else value

    return (
        both(example) if isinstance(example, Tensor) else {name: both(one) for name, one in example.items()}
    )


def _layer(model: nn.Module, run: _Run, whole: bool) -> Layer:
    last = len(run.shape) == 3 and _has_channels_last(model, run.shape)
    return Layer(run.name, run.shape, whole, last)


def _has_channels_last(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a map is (H, W, C): what normalises so many last values is there, and no convolution of as many first."""
    parts = list(model.modules())
    normed = any(isinstance(one, nn.LayerNorm) and tuple(one.normalized_shape) == shape[2:] for one in parts)
    return normed and not any(isinstance(one, nn.Conv2d) and one.out_channels == shape[0] for one in parts)


def output_of(value: Any) -> Tensor | None:
    """The tensor in what a module gives: itself, or the first of a tuple or of named values, as transformers give."""
    several = tuple(value.values()) if isinstance(value, Mapping) else value
    first = several[0] if isinstance(several, (tuple, list)) and several else several
    return first if isinstance(first, Tensor) else None


def _runs(model: nn.Module, pair: Inputs) -> tuple[list[_Run], dict[str, int], Tensor]:
    """Modules that ran once and gave a tensor of two rows, in the order of their ends; calls of all; the logits."""
    calls: dict[str, int] = {}
    runs: dict[str, _Run] = {}
    depth = 0

    def note(name: str, module: nn.Module, output: Any) -> None:
        nonlocal depth
        calls[name] = calls.get(name, 0) + 1
        if not any(module.children()) and any(value.dim() > 1 for value in module.parameters()):
            depth += 1
        value = output_of(output)
        if value is None or not value.is_floating_point() or value.dim() not in (2, 3, 4) or len(value) != 2:
            return
        runs.pop(name, None)
        runs[name] = _Run(name, tuple(value.shape[1:]), _print(value), depth)

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                stack.enter_context(_hooked(module, partial(note, name)))
        logits = logits_of(call(model, pair))
    return [run for run in runs.values() if calls[run.name] == 1], calls, logits


def _print(value: Tensor) -> tuple[float, ...]:
    """The same for the same numbers."""
    exact = value.detach().double()
    return (*value.shape, float(exact.sum()), float(exact.abs().sum()), float(exact[0].sum()))


class _hooked:
    """While inside, ``see(module, output)`` is called after each forward; what it returns takes the output's place."""

    def __init__(self, module: nn.Module, see: Callable[[nn.Module, Any], Any]) -> None:
        self.handle = module.register_forward_hook(lambda part, args, output: see(part, output))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


def _places(runs: Sequence[_Run], answer: tuple[float, ...]) -> list[_Run]:
    """Of modules that gave the same, such as a block and its last part, the outermost one; none for the answer."""
    groups: dict[tuple[float, ...], list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.print, []).append(run)
    groups.pop(answer, None)
    found = [min(group, key=lambda run: run.name.count(".")) for group in groups.values()]
    found = [run for run in found if run.depth]  # before it there is but the input
    return sorted(found, key=runs.index)


def _spread(places: list[_Run], whole: Callable[[str], bool], count: int) -> list[_Run]:
    """For each of ``count`` depths the nearest whole place that none took before: the outermost, and of these the last.

    So it is behind a layer's activation, and behind the pooling that follows.
    """
    if not places:
        return []
    deepest = places[-1].depth
    known: dict[str, bool] = {}
    chosen: list[_Run] = []
    for step in range(count):
        wanted = (step + 1) * deepest / count
        ranked = sorted(
            range(len(places)), key=lambda i: (abs(places[i].depth - wanted), places[i].name.count("."), -i)
        )
        for place in (places[i] for i in ranked):
            if place in chosen:
                break
            if place.name not in known:
                known[place.name] = whole(place.name)
            if known[place.name]:
                chosen.append(place)
                break
    return chosen


def _stages(model: nn.Module, places: list[_Run], whole: Callable[[str], bool]) -> list[_Run]:
    found: dict[int, _Run] = {}
    for place in reversed(places):
        size = _positions(place.shape, _layer(model, place, True).channels_last)
        if size not in found and whole(place.name):
            found[size] = place
    return list(found.values())


def _positions(shape: tuple[int, ...], channels_last: bool) -> int:
    """Of a map, or tokens of a sequence."""
    if len(shape) == 3:
        return shape[0] * shape[1] if channels_last else shape[1] * shape[2]
    return shape[0] if len(shape) == 2 else 1


def _exchanged(model: nn.Module, pair: Inputs, name: str, logits: Tensor) -> bool:
    """Whether the answers change places with the outputs of a module."""

    def exchange(module: nn.Module, output: Any) -> Any:
        value = output_of(output)
        assert value is not None
        flipped = value.flip(0)
        if isinstance(output, Tensor):
            return flipped
        if isinstance(output, Mapping):
            named: Any = copy.copy(output)
            named[next(iter(output))] = flipped
            return named
        changed = (flipped, *output[1:])
        return type(output)(*changed) if hasattr(output, "_fields") else type(output)(changed)

    with _hooked(model.get_submodule(name), exchange), torch.no_grad():
        found = logits_of(call(model, pair))
    return bool((found.flip(0) - logits).abs().max() <= SAME * (logits[0] - logits[1]).abs().max())


def _require_layer(name: str, known: dict[str, _Run], calls: dict[str, int]) -> None:
    if name in known:
        return
    if name in calls:
        times = calls[name]
        got = f"{name!r}, which ran {times} times" if times > 1 else f"{name!r}, which gives something else"
        fix = "Take the module around it."
    else:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        got = repr(name)
        fix = f"Near it: {', '.join(map(repr, near))}." if near else "dict(model.named_modules()) lists them."
    raise ValueError(
        explain(WHERE, "a module that runs once and gives a tensor with one row per input", got, fix)
    )
