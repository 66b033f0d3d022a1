"""Scores of many subsets, in batches whose size is found by measuring and halved when memory runs out."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.games.checks import require_batch_size
from pyinterp.memory import free_bytes, held_bytes, is_out_of_memory

Worker = Callable[[Tensor], Tensor]
"""Codes (B,) int64 on the CPU -> scores (B,) on any device."""

SMALLEST, LARGEST = 4, 4096
GAIN = 1.03


class Evaluation:
    """Evaluates codes in order, and hands every batch of scores over as soon as it is there.

    Without a batch size, the first worker measures: 4 subsets, 4 again (the first call pays for set-up), 8, 16, ... as
    long as the time per subset falls by 3 % and twice the memory is free. These are scores like all others. A batch for
    which memory runs out is halved, and its halves again, down to one subset; the worker keeps the smaller size.

    Args:
        workers: One per device. With several, each runs in a thread of its own and takes the next batch when it is
            done with one.
        codes: (M,) int64 on the CPU.
        keep: Called with the codes (B,) and scores (B,) of a batch, both on the CPU, one call at a time.
        device: Of the first worker, for its memory.
        batch_size: Subsets per batch; None finds it.

    Attributes:
        workers: As given.
        device: As given.
        count: M.
        batch_size: The one that was used; the largest that fitted.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        codes: Tensor,
        keep: Callable[[Tensor, Tensor], None],
        device: torch.device,
        batch_size: int | None = None,
    ) -> None:
        require_batch_size(batch_size)
        self.batch_size = batch_size
        self.workers, self.device = workers, device
        self._codes, self._keep = codes, keep
        self.count = len(codes)
        self._at = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Evaluate them all.

        Raises:
            MemoryError: One subset alone does not fit.
        """
        if self.batch_size is None and len(self._codes):
            self._measure()
        if len(self.workers) == 1:
            self._drain(self.workers[0])
            return
        threads = [threading.Thread(target=self._drain_aside, args=(worker,)) for worker in self.workers]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self._stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        if self._errors:
            raise self._errors[0]

    def _measure(self) -> None:
        """Grow the batch as long as it pays; what it gives is kept."""
        worker, before = self.workers[0], held_bytes(self.device)
        limit = max(SMALLEST, len(self._codes) // (2 * len(self.workers)))
        codes, scores = self._fitting(worker, self._take(SMALLEST), SMALLEST)[0]
        self._hand_over(codes, scores.cpu())
        size = self.batch_size = SMALLEST
        best, idle = float("inf"), 0
        while idle < 2 and size <= min(limit, LARGEST):
            codes = self._take(size)
            if len(codes) < size:  # too few are left to measure with: they go the same way as all others
                self._at -= len(codes)
                return
            start = time.perf_counter()
            (codes, scores), fits = self._fitting(worker, codes, size)
            scores = scores.cpu()
            seconds = (time.perf_counter() - start) / size
            self._hand_over(codes, scores)
            if fits < size:
                self.batch_size = min(self.batch_size, fits)
                return
            if seconds * GAIN < best:
                best, self.batch_size, idle = seconds, size, 0
            else:
                idle += 1
            free = free_bytes(self.device)
            if free is not None and 2 * (held_bytes(self.device) - before) > free:
                return
            size *= 2

    def _drain(self, worker: Worker) -> None:
        """Evaluate until no codes are left; scores are waited for one batch late, so that a GPU never waits."""
        assert self.batch_size is not None or not len(self._codes)
        size = self.batch_size or SMALLEST
        waiting: tuple[Tensor, Callable[[], Tensor]] | None = None
        try:
            while not self._stop.is_set() and len(codes := self._take(size)):
                (codes, scores), size = self._fitting(worker, codes, size)
                ready, waiting = waiting, (codes, _sent(scores))
                if ready is not None:
                    self._hand_over(ready[0], ready[1]())
        finally:
            if waiting is not None:
                self._hand_over(waiting[0], waiting[1]())
            with self._lock:
                self.batch_size = min(self.batch_size or size, size)

    def _drain_aside(self, worker: Worker) -> None:
        try:
            self._drain(worker)
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()

    def _take(self, size: int) -> Tensor:
        with self._lock:
            codes = self._codes[self._at : self._at + size]
            self._at += len(codes)
        return codes

    def _hand_over(self, codes: Tensor, scores: Tensor) -> None:
        with self._lock:
            self._keep(codes, scores)

    def _fitting(self, worker: Worker, codes: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], int]:
        """The batch's codes and scores, evaluated in pieces that fit, and the size of these."""
        found: list[Tensor] = []
        done = 0
        while done < len(codes):
            piece = codes[done : done + size]
            scores = _tried(worker, piece)
            if scores is not None:
                found.append(scores)
                done += len(piece)
            elif len(piece) == 1:
                fix = "Use a smaller model or input, a lower precision or another device."
                raise MemoryError(explain("games", "memory for one subset", "too little of it", fix))
            else:
                _release(self.device)
                size = (len(piece) + 1) // 2
        return (codes, found[0] if len(found) == 1 else torch.cat(found)), size


def _sent(scores: Tensor) -> Callable[[], Tensor]:
    """Send scores to the CPU; what is given back waits for them, and not for what the GPU is asked afterwards."""
    if not scores.is_cuda:
        return scores.cpu
    here = scores.to("cpu", non_blocking=True)  # into pinned memory
    sent = torch.cuda.current_stream(scores.device).record_event()

    def arrived() -> Tensor:
        sent.synchronize()
        return here

    return arrived


def _tried(worker: Worker, codes: Tensor) -> Tensor | None:
    """Scores, or None if memory ran out; the error is gone by then, and with it what its frames hold."""
    try:
        return worker(codes)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def evaluate_in_batches(
    worker: Worker, codes: Tensor, device: torch.device, batch_size: int | None
) -> Tensor:
    """Scores (M,) on the CPU of codes (M,), by one worker; see `Evaluation`."""
    found: list[Tensor] = []
    Evaluation([worker], codes, lambda _, scores: found.append(scores), device, batch_size).run()
    return torch.cat(found) if found else torch.zeros(0)
