"""The checks that every op passes: one call of `check_op` per sample input.

A sample is given in float32. `plain` is the op written in differentiable torch; run in float64 it is the truth, run
in the sample's own precision it is the error that torch itself makes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.library import opcheck

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Sample:
    """Arguments of one call; the tensors named in `gradients` (positions) get gradients, the first is the data.

    Without any, the op has no gradient.
    """

    args: tuple[Any, ...]
    gradients: tuple[int, ...] = (0,)

    def to(self, device: str, data: torch.dtype = torch.float32) -> Sample:
        """Move to a device, the data in dtype `data`; float64 data brings the other numbers along."""
        rest = torch.float64 if data == torch.float64 else torch.float32

        def move(i: int, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            dtype = (data if i == 0 else rest) if value.is_floating_point() else value.dtype
            return value.to(device, dtype, copy=True, memory_format=torch.preserve_format)

        return Sample(tuple(move(i, value) for i, value in enumerate(self.args)), self.gradients)

    def with_data(self, x: Tensor) -> Sample:
        return Sample((x, *self.args[1:]), self.gradients)

    def run(self, function: Function) -> list[Tensor]:
        """Return the output and the gradients for an upstream gradient that depends on the shape alone."""
        args = list(self.args)
        for i in self.gradients:
            args[i] = args[i].detach().requires_grad_()
        output = function(*args)
        if not self.gradients:
            assert not output.requires_grad
            return [output]
        generator = torch.Generator().manual_seed(1)
        upstream = torch.randn(output.shape, generator=generator).to(output.device, output.dtype)
        wanted = [args[i] for i in self.gradients]
        return [output.detach(), *torch.autograd.grad(output, wanted, upstream)]


def _error(got: Tensor, truth: Tensor) -> float:
    """Return the largest error in units of the truth's largest magnitude."""
    assert got.shape == truth.shape
    if truth.numel() == 0:
        return 0.0
    return float((got.double() - truth).abs().max() / truth.abs().max().clamp_min(1e-30))


def check_values(op: Function, plain: Function, sample: Sample, device: str) -> None:
    """Value and gradients equal the plain ones to float32 accuracy, in float64 to its own."""
    for data, tolerance in ((torch.float32, 5e-6), (torch.float64, 1e-12)):
        truth = sample.to(device, torch.float64).run(plain)
        for got, wanted in zip(sample.to(device, data).run(op), truth, strict=True):
            assert _error(got, wanted) < tolerance


def check_low_precision(op: Function, plain: Function, sample: Sample, device: str) -> None:
    """In bfloat16 and float16 the error is at most twice that of plain torch in the same precision."""
    for data in (torch.bfloat16, torch.float16):
        rounded = sample.to(device, data)
        truth = rounded.to(device, torch.float64).run(plain)
        # Float32 tables promote the result; torch's own low-precision answer is that, rounded to the data's dtype.
        ours, torchs = rounded.run(op), rounded.run(lambda *args: plain(*args).to(args[0].dtype))
        for got, other, wanted in zip(ours, torchs, truth, strict=True):
            assert got.dtype == other.dtype
            assert _error(got, wanted) <= 2 * _error(other, wanted) + 1e-6


def check_layouts(op: Function, plain: Function, sample: Sample, device: str) -> None:
    """Any strides give the same numbers; contiguous and channels-last data keep their format."""
    sample = sample.to(device)
    x = sample.args[0]
    truth = sample.to(device, torch.float64).run(plain)
    layouts = {"contiguous": x.contiguous(), "transposed": x.transpose(0, -1).contiguous().transpose(0, -1)}
    layouts["strided"] = torch.stack([x, x], -1)[..., 0]
    if x.dim() == 4:
        layouts["channels_last"] = x.contiguous(memory_format=torch.channels_last)
    for name, data in layouts.items():
        output, *gradients = sample.with_data(data).run(op)
        for got, wanted in zip((output, *gradients), truth, strict=True):
            assert _error(got, wanted) < 5e-6, name
        kept = torch.channels_last if name == "channels_last" else torch.contiguous_format
        if name in ("contiguous", "channels_last"):
            assert output.is_contiguous(memory_format=kept), name
            assert all(gradient.is_contiguous(memory_format=kept) for gradient in gradients[:1]), name


def check_brute_force(
    op: Function, brute_force: Callable[..., np.ndarray], sample: Sample, device: str
) -> None:
    """A loop straight from the definition, one number at a time, gives the same values."""
    sample = sample.to(device)
    arrays = [a.cpu().numpy() if isinstance(a, Tensor) else a for a in sample.args]
    truth = torch.from_numpy(np.asarray(brute_force(*arrays), dtype=np.float64))
    assert _error(op(*sample.args).cpu(), truth) < 5e-6


def check_registration(calls: Sequence[tuple[Any, tuple[Any, ...]]]) -> None:
    """torch's own opcheck: schema, fake kernel with strides, autograd, dynamic shapes; on the raw ops."""
    for raw, args in calls:
        opcheck(raw, args)


def check_gradients(op: Function, sample: Sample, device: str) -> None:
    """First and second derivatives equal finite differences in float64."""
    double = sample.to(device, torch.float64)
    args = list(double.args)
    for i in double.gradients:
        args[i].requires_grad_()
    inputs = tuple(args[i] for i in double.gradients)

    def call(*tensors: Tensor) -> Tensor:
        for i, tensor in zip(double.gradients, tensors, strict=True):
            args[i] = tensor
        return op(*args)

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def check_subsets_of_gradients(op: Function, sample: Sample, device: str) -> None:
    """Asking for some gradients only gives the same numbers as asking for all."""
    sample = sample.to(device)
    everything = dict(zip(sample.gradients, sample.run(op)[1:], strict=True))
    for count in range(1, len(sample.gradients)):
        for some in itertools.combinations(sample.gradients, count):
            for i, got in zip(some, Sample(sample.args, some).run(op)[1:], strict=True):
                torch.testing.assert_close(got, everything[i], rtol=0, atol=0)


def check_determinism(op: Function, sample: Sample, device: str) -> None:
    """Bit-identical from run to run and for any number of threads."""
    sample = sample.to(device)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(sample.run(op))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for got, wanted in zip(run, runs[0], strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def check_compile(op: Function, sample: Sample, device: str, backend: str = "aot_eager") -> None:
    """`torch.compile(fullgraph=True, dynamic=True)` gives the eager numbers, forward and backward."""
    sample = sample.to(device)
    torch._dynamo.reset()
    compiled = torch.compile(op, fullgraph=True, dynamic=True, backend=backend)
    for got, wanted in zip(sample.run(compiled), sample.run(op), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def check_cuda(op: Function, sample: Sample) -> None:
    """On a GPU: no sync, replay of a CUDA graph on a side stream, and any device (call where there is one)."""
    sample = sample.to("cuda")
    wanted = sample.run(op)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        op(*sample.args)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    static = sample.to("cuda")
    with torch.cuda.stream(stream):
        op(*static.args)
        with torch.cuda.graph(graph, stream=stream):
            output = op(*static.args)
    static.args[0].zero_()
    static.args[0].copy_(sample.args[0])
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(output, wanted[0], rtol=0, atol=0)
    for index in range(torch.cuda.device_count()):
        for got, other in zip(sample.to(f"cuda:{index}").run(op), wanted, strict=True):
            torch.testing.assert_close(got.to(other.device), other, rtol=0, atol=0)


def check_op(
    op: Function,
    plain: Function,
    sample: Sample,
    device: str,
    *,
    brute_force: Callable[..., np.ndarray] | None = None,
    raw: Sequence[tuple[Any, tuple[Any, ...]]] = (),
) -> None:
    """Run every check on one sample; the slow ones (finite differences, opcheck, compile) on small ones only."""
    check_values(op, plain, sample, device)
    check_layouts(op, plain, sample, device)
    check_low_precision(op, plain, sample, device)
    check_subsets_of_gradients(op, sample, device)
    check_determinism(op, sample, device)
    if brute_force is not None:
        check_brute_force(op, brute_force, sample, device)
    if raw:
        check_registration(raw)
        check_gradients(op, sample, device)
        check_compile(op, sample, device)
    if device == "cuda":
        check_cuda(op, sample)
