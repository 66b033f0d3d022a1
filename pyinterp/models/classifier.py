"""A network's last linear layer: found from what runs, read through a hook, and exchanged in a copy of the network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models.graph import logits_of, require_eval, require_finite, require_own_forward
from pyinterp.models.inputs import Inputs, call, place_of, rows_of, take_rows
from pyinterp.models.sites import default_example


@dataclass(frozen=True)
class Classifier:
    """The layer whose output is the logits.

    Attributes:
        name: Its path in the user's model; "" if it is the model.
        layer: An nn.Linear, or an nn.Conv2d of size 1x1 that runs on a 1x1 map.
        features: d, what it reads per input.
        classes: K, what it gives.
    """

    name: str
    layer: nn.Module
    features: int
    classes: int


@dataclass(frozen=True)
class _Run:
    """One call of a linear layer."""

    name: str
    layer: nn.Linear | nn.Conv2d
    x: Any
    y: Any

    def gives(self, logits: Tensor) -> bool:
        y = self.y
        if not isinstance(y, Tensor) or not y.dim() or y.numel() != logits.numel():
            return False
        return y.shape[0] == logits.shape[0] and torch.equal(y.flatten(1).to(logits.dtype), logits)


def find_classifier(model: nn.Module, example: Inputs | None = None) -> Classifier:
    """Find the layer whose output is the logits, whatever it is called: the model runs twice under hooks.

    A layer is taken if its output, flattened to (N, K), is the logits, and if any other output in its place is too.

    Args:
        model: Maps inputs to logits (N, K), or to an object or mapping with ``logits``; in eval mode.
        example: Inputs (N, ...) as the model takes them, or a dict of what it takes by keyword; two rows are used.
            None draws images in the size that a timm or Hugging Face model states, else (2, 3, 224, 224).

    Raises:
        ValueError: The logits are not the output of one linear layer: they are pooled from a map, the mean of two
            heads, changed afterwards, or computed by a function; the linear layers that ran are named. Or the model
            is in train mode or does not take the example.
        TypeError: ``model`` is no module, ``example`` no inputs.
    """
    require_eval(model)
    require_own_forward("find_classifier", model)
    inputs = _example(model, example)
    layers = _linear_layers(model)
    runs: list[_Run] = []

    def note(name: str, module: Any, x: Any, y: Any) -> None:
        # Copies, since what comes later may write into both.
        runs.append(_Run(name, module, *(v.clone() if isinstance(v, Tensor) else v for v in (x, y))))

    try:
        answer = _watched(model, inputs, layers, note)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        fix = "Pass inputs that model(...) runs on as example: a tensor, or a dict for text models."
        got = f"{_words(error)} on {_shapes(inputs)}"
        raise ValueError(explain("find_classifier", "a model that takes the example", got, fix)) from error
    logits = logits_of(answer)
    require_finite("find_classifier", logits)
    fitting = [run for run in reversed(runs) if run.gives(logits) and _decides(model, run, inputs)]
    if not fitting:
        raise ValueError(_no_classifier(layers, runs, logits))
    found = fitting[0]
    _check(found, [run.layer for run in runs].count(found.layer))
    return Classifier(found.name, found.layer, found.x.shape[1], logits.shape[1])


def features_of(model: nn.Module, classifier: Classifier, inputs: Inputs) -> Tensor:
    """What the last layer reads: (N, d), in the model's dtype and on its device, without gradient.

    Args:
        model: As it was handed to `find_classifier`; in eval mode.
        classifier: What that gave.
        inputs: (N, ...), or a dict of what the model takes by keyword.

    Raises:
        ValueError: The model is in train mode, is not the classifier's, or does not give one row per input.
    """
    with reading_features(model, classifier) as read:
        return read(inputs)


@contextmanager
def reading_features(model: nn.Module, classifier: Classifier) -> Iterator[Callable[[Inputs], Tensor]]:
    """`features_of` for many batches, one after the other: while inside, a hook stands at the layer.

    Yields:
        Inputs (N, ...) -> features (N, d), as `features_of`.
    """
    require_eval(model)
    require_own_forward("features_of", model)
    if dict(model.named_modules()).get(classifier.name) is not classifier.layer:
        fix = "Find it again: find_classifier(model)."
        got = f"one of another model ({classifier.name!r})"
        raise ValueError(explain("features_of", "a classifier of this model", got, fix))
    kept: list[Any] = []

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        value = _first(args, kwargs)
        # Later modules may write into what this one has read.
        kept.append(value.detach().clone() if isinstance(value, Tensor) else value)

    def read(inputs: Inputs) -> Tensor:
        rows = rows_of("features_of", inputs)
        kept.clear()
        with torch.no_grad():
            call(model, inputs)
        wanted = (rows, classifier.features)
        if len(kept) != 1 or tuple(kept[0].shape) not in (wanted, (*wanted, 1, 1)):
            got = ", ".join(str(tuple(one.shape)) for one in kept) or "no call of it"
            fix = "Pass inputs of the kind that find_classifier has seen."
            raise ValueError(explain("features_of", f"one call of {classifier.name!r} on {wanted}", got, fix))
        return kept.pop().flatten(1)

    handle = classifier.layer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield read
    finally:
        handle.remove()


def with_classifier(model: nn.Module, layer: nn.Module, example: Inputs | None = None) -> nn.Module:
    """A copy of the network with another last layer; it shares all other parameters and buffers with ``model``.

    The copy is a model like any other, in eval mode: it can be traced, gated, explained and saved. Where ``layer`` is
    ``nn.Identity()`` it answers with the features.

    Args:
        model: See `find_classifier`; it stays as it is.
        layer: Maps features (N, d) to (N, anything). The copy shares its tensors too.
        example: See `find_classifier`.

    Raises:
        ValueError: As `find_classifier`; or ``layer`` does not take the features, or does not give (N, anything), or
            the model's forward needs the old number of classes.
        TypeError: ``layer`` is no module, or the model can't be copied.
    """
    _require_module(layer)
    inputs = _example(model, example)
    classifier = find_classifier(model, inputs)
    own = _sharing_copy(layer, {}).eval()
    placed = _OnMap(own) if isinstance(classifier.layer, nn.Conv2d) else own
    changed: nn.Module = _sharing_copy(model, {id(classifier.layer): placed}).eval()
    outputs: list[Any] = []
    try:
        answer = _watched(changed, inputs, {"": own}, lambda name, module, x, y: outputs.append(y))
        logits = logits_of(answer)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        wanted = f"a layer that works in place of {classifier.name!r}"
        fix = f"It must map (N, {classifier.features}) to (N, anything), on the model's device and in its dtype."
        raise ValueError(explain("with_classifier", wanted, _words(error), fix)) from error
    if len(outputs) != 1 or not torch.equal(outputs[0].to(logits.dtype), logits):
        got = "one whose forward does something else with it"
        fix = "Its forward may be bound to the original, or depend on the number of classes."
        raise ValueError(
            explain("with_classifier", "a model that answers with its last layer's output", got, fix)
        )
    return changed


def _require_module(layer: Any) -> None:
    if not isinstance(layer, nn.Module):
        fix = "Pass a module such as nn.Linear."
        raise TypeError(explain("with_classifier", "a torch.nn.Module", type(layer).__name__, fix))


class _OnMap(nn.Module):
    """A layer on features (N, d) in the place of a 1x1 convolution on (N, d, 1, 1)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))[:, :, None, None]


def _sharing_copy(module: nn.Module, memo: dict[int, Any]) -> Any:
    """A copy of the modules, and of no tensor; ``memo`` maps the id of what is replaced to what replaces it."""
    for part in module.modules():
        tensors = [*part.parameters(recurse=False), *part.buffers(recurse=False), *vars(part).values()]
        memo |= {id(value): value for value in tensors if isinstance(value, Tensor)}
    try:
        return copy.deepcopy(module, memo)
    except (TypeError, RuntimeError, AttributeError) as error:
        fix = "Remove what can't be copied, such as open files and locks, from the module's attributes."
        raise TypeError(
            explain("with_classifier", "modules that copy.deepcopy can copy", _words(error), fix)
        ) from error


def _example(model: nn.Module, example: Inputs | None) -> Inputs:
    require_eval(model)
    if example is not None:
        rows_of("find_classifier", example)
        return take_rows(example, slice(2))
    shape = tuple(default_example(model).shape[1:])
    device, dtype = place_of(model)
    # Noise, so that no two layers agree by chance.
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def _linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    def is_linear(module: nn.Module) -> bool:
        if isinstance(module, nn.Conv2d):
            return module.kernel_size == (1, 1) and module.groups == 1
        return isinstance(module, nn.Linear)

    return {name: module for name, module in model.named_modules() if is_linear(module)}


def _watched(
    model: nn.Module,
    inputs: Inputs,
    layers: dict[str, nn.Module],
    note: Callable[[str, nn.Module, Any, Any], Any],
) -> Any:
    """The answer of one forward in which ``note(name, layer, x, y)`` sees each call of the layers.

    What it returns, other than None, takes the place of y.
    """

    def hook(name: str) -> Callable[..., Any]:
        return lambda module, args, kwargs, y: note(name, module, _first(args, kwargs), y)

    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hook(name), with_kwargs=True).remove)
        return call(model, inputs)


def _decides(model: nn.Module, run: _Run, inputs: Inputs) -> bool:
    """Whether any output of the layer is the logits, and not just this one."""
    other = torch.randn(run.y.shape, generator=torch.Generator().manual_seed(1)).to(run.y)
    answer = _watched(model, inputs, {run.name: run.layer}, lambda name, module, x, y: other.clone())
    logits = logits_of(answer)
    return torch.equal(other.flatten(1).to(logits.dtype), logits)


def _check(run: _Run, calls: int) -> None:
    """Raise ValueError unless the layer ran once, on (N, d) or (N, d, 1, 1), and is linear."""
    what, fix = f"a last layer {run.name!r} that", "Put an nn.Linear on (N, d) behind it, or in its place."
    if calls > 1:
        raise ValueError(explain("find_classifier", f"{what} runs once", f"{calls} calls of it", fix))
    conv = isinstance(run.layer, nn.Conv2d)
    if not isinstance(run.x, Tensor) or run.x.dim() != (4 if conv else 2) or run.x.shape[2:].numel() != 1:
        got = str(tuple(run.x.shape)) if isinstance(run.x, Tensor) else type(run.x).__name__
        raise ValueError(
            explain("find_classifier", f"{what} reads (N, d){' or (N, d, 1, 1)' * conv}", got, fix)
        )
    weight, bias = run.layer.weight.detach(), run.layer.bias
    if weight.is_floating_point():
        y = run.x.flatten(1).double() @ weight.flatten(1).double().T
        y = y if bias is None else y + bias.detach().double()
        # Wide enough for TF32, and for autocast to half precision.
        share = 1e-2 if run.y.dtype.itemsize >= 4 else 5e-2
        if (y - run.y.flatten(1).double()).abs().max() <= share * y.abs().max():
            return
    got = f"a {type(run.layer).__name__} that computes something else"
    raise ValueError(explain("find_classifier", f"{what} computes W x + b", got, fix))


def _no_classifier(layers: dict[str, nn.Module], runs: list[_Run], logits: Tensor) -> str:
    """Why none of the layers gives the logits."""
    rows, classes = logits.shape
    shapes = [(run.name, run.y.shape) for run in runs if isinstance(run.y, Tensor)]
    heads = [name for name, shape in shapes if shape[0] == rows and shape[1:].numel() == classes]
    maps = [(name, shape) for name, shape in shapes if len(shape) > 2 and classes in (shape[1], shape[-1])]
    idle = [name for name in layers if name not in dict(shapes) and _width(layers[name]) == classes]
    linear = "one nn.Linear on (N, d) as its last step"
    if len(heads) > 1:
        got = (
            f"{len(heads)} layers of that width, which its forward combines: {' and '.join(map(repr, heads))}"
        )
        fix = f"Use a variant with one head, or wrap the model so that it has {linear}."
    elif heads:
        got = f"{heads[0]!r}, whose output its forward changes before it returns it"
        fix = "Wrap the model so that it returns what this layer gives (no softmax, scale or other step behind it)."
    elif maps:
        name, shape = maps[-1]
        form = ", ".join(map(str, ("N", *shape[1:])))
        got = f"{name!r}, which gives a map or sequence ({form}) that is pooled or picked from afterwards"
        fix = f"Pool first: the network must have {linear}."
    else:
        got = "logits from a function or another kind of layer"
        if idle:
            got += f"; {', '.join(map(repr, idle))} of that width is never called as a module"
        if shapes:
            got += f"; the last linear layers that ran: {', '.join(repr(name) for name, _ in shapes[-5:])}"
        fix = f"Write the last step as a module: {linear}, in place of F.linear, matmul or einsum."
    return explain("find_classifier", f"a linear layer whose output is the logits (N, {classes})", got, fix)


def _width(layer: nn.Module) -> int:
    return int(layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features)  # type: ignore[arg-type]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return next(iter((*args, *kwargs.values())), None)


def _shapes(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return f"{tuple(inputs.shape)}"
    return ", ".join(f"{name} {tuple(v.shape)}" for name, v in inputs.items() if isinstance(v, Tensor))


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
