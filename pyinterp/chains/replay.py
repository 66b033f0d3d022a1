"""What a step asks of the network, recorded on a GPU once and replayed: without Python between its kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyinterp.chains.engine import Engine
from pyinterp.errors import explain
from pyinterp.models.prefix import SplitNetwork

Work = Callable[..., tuple[Tensor, ...]]
WARM = 3
"""Runs before the recording: libraries choose their algorithms and get their memory."""


class Replay:
    """A function of tensors; on a GPU a CUDA graph of it, recorded anew whenever the engine's network is another one.

    Args:
        engine: Whose network the function runs.
        work: Tensors to tensors, of the same shapes at every call, always by the same kernels; it does not wait for the
            GPU, copies nothing from the host, keeps none of its inputs, and all else that it reads stays where it is.
        recorded: False runs the function itself, as on a CPU.

    What a call returns is overwritten by the next one.
    """

    def __init__(self, engine: Engine, work: Work, recorded: bool = True) -> None:
        self._engine, self._work, self._recorded = engine, work, recorded
        self._network: SplitNetwork | None = None
        self._alive: Any = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self._recorded and inputs[0].is_cuda and self._engine.network is not self._network:
            self._record(inputs)
        if self._graph is None:
            return self._work(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs

    def close(self) -> None:
        """Give the memory of the recording back."""
        self._graph, self._network, self._alive = None, None, None
        self._inputs = self._outputs = ()

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self.close()
        with torch.cuda.device(inputs[0].device):
            self._capture(inputs)

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        here = torch.cuda.current_stream()
        self._inputs = tuple(value.detach().clone() for value in inputs)
        aside = torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self._work(*self._inputs)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._outputs = self._work(*self._inputs)
        except RuntimeError as error:
            torch.cuda.set_stream(here)
            self.close()
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if isinstance(error.__context__, torch.OutOfMemoryError):  # which ended the recording
                raise error.__context__ from error
            self._recorded = False
            fix = "The search goes on without: the same result, more slowly."
            got = str(error).splitlines()[0]
            warnings.warn(
                explain("extract_chain", "a network whose kernels can be recorded", got, fix), stacklevel=3
            )
            return
        self._graph, self._network = graph, self._engine.network
        self._alive = self._network.remembered  # the graph reads it, whatever the network is asked in between
