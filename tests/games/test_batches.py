"""Batches that fit: sizes found by measuring, halved when memory runs out, shared between devices, interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from playing import convnet, image
from torch import Tensor

from pyinterp.games import Game, ImageGame, grid_players
from pyinterp.games import evaluate as evaluating
from pyinterp.games.evaluate import SMALLEST, Evaluation
from pyinterp.memory import free_bytes, held_bytes, is_out_of_memory

CPU = torch.device("cpu")
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


class Small:
    """A worker with room for ``most`` subsets, which gives 3 c + 1 for a code c and notes its batches."""

    def __init__(self, most: int, error: Exception = ERRORS[0]) -> None:
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def __call__(self, codes: Tensor) -> Tensor:
        if len(codes) > self.most:
            raise self.error
        self.sizes.append(len(codes))
        return 3.0 * codes + 1


class Play(Game):
    def __init__(self, count: int, worker: Callable[[Tensor], Tensor]) -> None:
        super().__init__([f"p{i}" for i in range(count)])
        self.worker = worker

    def evaluate(self, codes: Tensor) -> Tensor:
        return self.worker(codes)


def run(workers: list[Any], count: int, batch_size: int | None) -> tuple[Tensor, Evaluation]:
    found = torch.full((count,), torch.nan)

    def keep(codes: Tensor, scores: Tensor) -> None:
        assert found[codes].isnan().all(), "each code once"
        found[codes] = scores

    evaluation = Evaluation(workers, torch.arange(count), keep, CPU, batch_size)
    evaluation.run()
    return found, evaluation


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("batch_size", [None, 64, 100])
def test_batches_are_halved_when_memory_runs_out(error: Exception, batch_size: int | None) -> None:
    worker = Small(11, error)
    found, evaluation = run([worker], 1000, batch_size)
    assert torch.equal(found, 3.0 * torch.arange(1000) + 1)
    assert evaluation.batch_size is not None and 4 <= evaluation.batch_size <= 11
    assert sum(worker.sizes) == 1000 and worker.sizes.count(evaluation.batch_size) > 900 // 11


def test_memory_for_nothing_is_an_error() -> None:
    with pytest.raises(MemoryError, match="memory for one subset"):
        run([Small(0)], 8, None)


def test_other_errors_are_none_of_memory() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run([Small(3, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))], 8, 4)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_size_grows_as_long_as_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(evaluating.time, "perf_counter", lambda: clock[0])

    def slow(codes: Tensor) -> Tensor:
        worker.sizes.append(len(codes))
        clock[0] += 32 + max(len(codes), 32)  # a subset costs least from 32 on, nearly
        return codes.float()

    worker = Small(10**6)
    _, evaluation = run([slow], 50_000, None)
    assert worker.sizes[:4] == [SMALLEST, SMALLEST, 8, 16]
    assert evaluation.batch_size == 1024  # 2048 gains 1.5 % more, 4096 another 0.8 %


def test_the_size_stops_growing_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [0]
    monkeypatch.setattr(evaluating, "held_bytes", lambda device: held[0])
    monkeypatch.setattr(evaluating, "free_bytes", lambda device: 1000 - held[0])
    clock = [0.0]
    monkeypatch.setattr(evaluating.time, "perf_counter", lambda: clock[0])

    def worker(codes: Tensor) -> Tensor:
        held[0] = max(held[0], 10 * len(codes))
        clock[0] += 1
        return codes.float()

    run([worker], 20_000, None)
    assert 160 <= held[0] <= 640


def test_memory_is_known_here() -> None:
    free = free_bytes(CPU)
    assert held_bytes(CPU) > 2**20 and (free is None or free > 0)


@pytest.mark.parametrize("batch_size", [16, None])
def test_several_devices_give_the_same(batch_size: int | None) -> None:
    game = ImageGame(convnet(), image(), grid_players(2, 4), target=1)
    alone = game.values(batch_size=16)
    shared = game.values(batch_size=batch_size, devices=["cpu", "cpu"])
    torch.testing.assert_close(shared, alone, rtol=0, atol=0 if batch_size else 1e-5)
    assert torch.equal(shared, alone) or batch_size is None


def test_all_devices_work_and_one_with_less_memory_takes_less() -> None:
    both = threading.Barrier(2, timeout=20)
    workers, entered = [Small(64), Small(5)], []

    def together(worker: Small) -> Callable[[Tensor], Tensor]:
        def work(codes: Tensor) -> Tensor:
            if worker not in entered:
                entered.append(worker)
                both.wait()
            return worker(codes)

        return work

    found, _ = run([together(worker) for worker in workers], 640, 16)
    assert torch.equal(found, 3.0 * torch.arange(640) + 1)
    assert max(workers[0].sizes) == 16 and max(workers[1].sizes) <= 5


def test_an_error_on_one_device_ends_all() -> None:
    def broken(codes: Tensor) -> Tensor:
        raise RuntimeError("device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        run([Small(64), broken], 100_000, 4)


def test_devices_that_make_no_sense_are_refused() -> None:
    game = ImageGame(convnet(), image(), grid_players(1, 2))
    for devices in ([], "cpu"):
        with pytest.raises(ValueError, match="a list of devices"):
            game.values(devices=devices)
    with pytest.raises(ValueError, match="a game of a network"):
        Play(3, Small(9)).values(devices=["cpu"])
    with pytest.raises(ValueError, match="at least 1"):
        game.values(batch_size=0)


class Stopped:
    """3 c + 1, and Ctrl-C after ``after`` batches."""

    def __init__(self, after: int, stop: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.stop = after, stop
        self.seen: list[int] = []

    def __call__(self, codes: Tensor) -> Tensor:
        if self.left == 0:
            raise self.stop
        self.left -= 1
        self.seen += codes.tolist()
        return 3.0 * codes + 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_what_is_done_is_kept_when_a_game_is_stopped(tmp_path: Path, stop: type[BaseException]) -> None:
    path, worker = tmp_path / "game.safetensors", Stopped(5, stop)
    with pytest.raises(stop):
        Play(8, worker).values(batch_size=10, checkpoint=path)
    assert len(worker.seen) == 50
    rest = Stopped(1000)
    values = Play(8, rest).values(batch_size=10, checkpoint=path)
    assert sorted(worker.seen + rest.seen) == list(range(256))
    assert torch.equal(values, 3.0 * torch.arange(256) + 1)
    done = Stopped(0)
    assert torch.equal(Play(8, done).values(checkpoint=path), values)


def test_ctrl_c_while_several_devices_work(tmp_path: Path) -> None:
    path, count = tmp_path / "game.safetensors", [0]
    model, x, players = convnet(), image(), grid_players(2, 4)

    def stopping(logits: Tensor) -> Tensor:
        count[0] += len(logits)
        if count[0] > 120:
            raise KeyboardInterrupt
        return logits[:, 1]

    with pytest.raises(KeyboardInterrupt):
        ImageGame(model, x, players, score=stopping).values(
            batch_size=8, devices=["cpu", "cpu"], checkpoint=path
        )
    from safetensors.torch import load_file

    done = load_file(path)["done"]
    assert 64 < int(done.sum()) < 256
    plain = ImageGame(model, x, players, target=1, score="logit").values(batch_size=8)
    torch.testing.assert_close(load_file(path)["values"][done], plain[done])


@pytest.mark.gpu
def test_a_gpu_has_its_next_batch_while_it_works_on_the_last() -> None:
    """What is waited for is the batch before the last: the worker finds the GPU busy, but for its first call."""
    busy = []
    [torch.zeros(2, device="cuda").to("cpu", non_blocking=True) for _ in range(3)]  # pinned memory is there

    def worker(codes: Tensor) -> Tensor:
        busy.append(not torch.cuda.current_stream().query())
        scores = 2.0 * codes.cuda(non_blocking=True)
        torch.cuda._sleep(100_000_000)  # some 50 ms
        return scores + 1

    found = torch.zeros(12)
    keep = found.__setitem__
    Evaluation([worker], torch.arange(12), keep, torch.device("cuda"), 2).run()
    assert busy == [False] + 5 * [True]
    assert torch.equal(found, 2.0 * torch.arange(12) + 1)
