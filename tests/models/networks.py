"""The architectures under test: what they hold, and how to zero one unit by hand in the user's own modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Switch = Callable[[nn.Module, str, int], Any]
"""(model, site name, unit) -> context manager inside which that unit is zero (that layer bypassed)."""


@dataclass(frozen=True)
class Network:
    """One architecture.

    Attributes:
        name: For test ids.
        build: Makes it with random weights.
        size: Image height and width.
        units: {kind: (sites, units)}, facts of the architecture.
        closed: {kind: how to close a unit by hand}.
    """

    name: str
    build: Callable[[], nn.Module]
    size: int
    units: dict[str, tuple[int, int]]
    closed: dict[str, Switch] = field(default_factory=dict)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """No weight at a value that hides mistakes: BatchNorm's 0 and 1, zero heads, layer scales of 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        for parameter in model.parameters():
            if parameter.dim() == 1 or parameter.abs().max() < 1e-4:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
        for name, parameter in model.named_parameters():
            if name.endswith(("layer_scale", "gamma")):
                parameter.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that must not change: storage and version of each tensor, hooks, flags, attributes."""
    state: dict[str, Any] = {"fast path": torch.backends.mha.get_fastpath_enabled()}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"tensor {name}"] = (
            id(tensor),
            tensor.data_ptr(),
            tensor._version,
            tensor.requires_grad,
            tensor.grad,
        )
    for name, module in model.named_modules():
        hooks = {key: list(value.items()) for key, value in vars(module).items() if key.endswith("_hooks")}
        state[f"module {name}"] = (
            id(module),
            module.training,
            hooks,
            list(vars(module)),
            list(module._modules),
        )
    return state


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def next_number(name: str) -> str:
    """``features.3`` -> ``features.4``: the module behind one in a Sequential."""
    return re.sub(r"\d+$", lambda found: str(int(found.group()) + 1), name)


def zero_channel(rename: Callable[[str], str] = str, dim: int = 1) -> Switch:
    """Zero one channel of the output of the module called ``rename(site name)``."""

    def switch(model: nn.Module, name: str, unit: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output.select(dim, unit).zero_()
            return output

        return hooked(model.get_submodule(rename(name)).register_forward_hook(hook))

    return switch


def zero_input(width: int, rename: Callable[[str], str]) -> Switch:
    """Zero ``width`` neighbouring features of what the linear called ``rename(site name)`` reads."""

    def switch(model: nn.Module, name: str, unit: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor]) -> Tensor:
            x = args[0].clone()
            x[..., unit * width : (unit + 1) * width] = 0
            return x

        return hooked(model.get_submodule(rename(name)).register_forward_pre_hook(hook))

    return switch


def zero_columns(width: int, rename: Callable[[str], str]) -> Switch:
    """Zero the columns that read a head, for nn.MultiheadAttention, which calls its projection as a function."""

    @contextmanager
    def switch(model: nn.Module, name: str, unit: int) -> Iterator[None]:
        weight = model.get_parameter(rename(name))
        columns = slice(unit * width, (unit + 1) * width)
        before = weight.data[:, columns].clone()
        weight.data[:, columns] = 0
        try:
            yield
        finally:
            weight.data[:, columns] = before

    return switch


def zero_output(rename: Callable[[str], str] = str) -> Switch:
    """The branch computed by the module called ``rename(site name)`` gives zeros."""

    def switch(model: nn.Module, name: str, unit: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (torch.zeros_like(output[0]), *output[1:])
            return torch.zeros_like(output)

        return hooked(model.get_submodule(rename(name)).register_forward_hook(hook))

    return switch


def passed_by(conv: Callable[[str], str], last: Callable[[str], str]) -> Switch:
    """The module ``last`` returns what the module ``conv`` got."""

    def switch(model: nn.Module, name: str, unit: int) -> Any:
        kept: list[Tensor] = []
        first, final = model.get_submodule(conv(name)), model.get_submodule(last(name))
        return hooked(
            first.register_forward_pre_hook(lambda module, args: kept.append(args[0].clone())),
            final.register_forward_hook(lambda module, args, output: kept.pop()),
        )

    return switch


def by_name(choose: Callable[[str], Switch]) -> Switch:
    return lambda model, name, unit: choose(name)(model, name, unit)


def path(name: str) -> str:
    """A layer's path without the suffix that sets it apart from units of the same path."""
    return name.removesuffix(".layer")
