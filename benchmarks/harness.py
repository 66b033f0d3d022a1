"""Times contenders in turns, so that a busy machine troubles all alike, and writes one dated JSON per suite.

Tensors are on the GPU where there is one: CUDA_VISIBLE_DEVICES= in front of the command measures the CPU there.

The bound is what moving the same bytes costs: forward reads x and writes y, backward reads x and dy and writes dx,
so 2.5 times `x.clone()`. Ops find their memory as in a method, which keeps what it frees (`pyinterp.memory`). Times are
the best of all turns; what is compared are ratios of times from one run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.environment import environment
from benchmarks.sites import Site
from pyinterp.memory import reused_memory

WRITTEN = Path(__file__).parents[1] / "build" / "benchmarks"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Step = Callable[[], Any]


def forward_backward(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, scores: Tensor, dy: Tensor
) -> Step:
    """Return a step that computes y and the gradients of x and scores."""
    x, scores = x.detach().requires_grad_(), scores.detach().requires_grad_()
    return lambda: torch.autograd.grad(function(x, scores), (x, scores), dy)


def bound(x: Tensor) -> Step:
    """Return a step that moves as many bytes as forward and backward have to."""
    half = x[: x.shape[0] // 2]

    def step() -> None:
        x.clone()
        x.clone()
        half.clone()

    return step


def validate(got: Step, wanted: Step) -> None:
    """Refuse to time a wrong answer; rounding may put one number in a million beyond the kink of an activation."""
    for a, b in zip(got(), wanted(), strict=True):
        wrong = (a - b).abs() > 2e-4 * b.abs().max()
        if float(wrong.double().mean()) > 1e-6:
            raise AssertionError(
                f"expected equal results, got {int(wrong.sum())} of {a.numel()} numbers wrong"
            )


def race(contenders: dict[str, Step], seconds: float = 2.0, turns: int = 40) -> dict[str, float]:
    """Run the contenders in turns and return the best time of each, in milliseconds."""
    best = dict.fromkeys(contenders, float("inf"))
    times = {name: _repeats(step) for name, step in contenders.items()}
    stop = time.perf_counter() + seconds
    for turn in range(turns):
        for name, step in contenders.items():
            best[name] = min(best[name], _milliseconds(step, times[name]))
        if turn >= 6 and time.perf_counter() > stop:
            break
    return best


def race_ops(contenders: dict[str, Step], seconds: float = 2.0, turns: int = 40) -> dict[str, float]:
    """`race`, where what one contender frees is there for the next: no time is spent on fresh pages."""
    with reused_memory():
        return race(contenders, seconds, turns)


def missing(packages: dict[str, str]) -> list[str]:
    """The contenders whose package is not installed, of {contender: package}; results name them."""
    return [name for name, package in packages.items() if importlib.util.find_spec(package) is None]


def _repeats(step: Step) -> int:
    """How often a step runs in one turn: once; on a GPU, whose events tell milliseconds, for about one of these."""
    _milliseconds(step, 1)
    if DEVICE.type == "cpu":
        return 1
    return min(1000, 1 + round(1 / max(_milliseconds(step, 1), 1e-3)))


def _milliseconds(step: Step, times: int) -> float:
    """Of one step, in the mean of several on end."""
    if DEVICE.type == "cpu":
        start = time.perf_counter()
        for _ in range(times):
            step()
        return (time.perf_counter() - start) * 1e3 / times
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(times):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / times


def describe(site: Site, times: dict[str, float]) -> dict[str, Any]:
    """Put the times of one site and the ratios that matter into one row."""
    ours = times["pyinterp"]
    return {
        "network": site.network,
        "shape": list(site.shape),
        "act": site.act,
        "count": site.count,
        "milliseconds": {name: round(value, 4) for name, value in times.items()},
        "over_bound": round(ours / times["bound"], 3),
        "faster_than_eager": round(times["eager"] / ours, 3),
        "faster_than_compile": round(times["compile"] / ours, 3),
    }


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Add up each network's sites, every site as often as the network has it."""
    totals: dict[str, dict[str, float]] = {}
    for row in rows:
        total = totals.setdefault(row["network"], {})
        for name, value in row["milliseconds"].items():
            total[name] = total.get(name, 0.0) + value * row["count"]
    return {
        network: {
            "over_bound": round(total["pyinterp"] / total["bound"], 3),
            "faster_than_eager": round(total["eager"] / total["pyinterp"], 3),
            "faster_than_compile": round(total["compile"] / total["pyinterp"], 3),
        }
        for network, total in totals.items()
    }


def write(suite: str, device: torch.device = DEVICE, **parts: Any) -> None:
    """Write what a suite has found so far, and on what, to `file_of` it."""
    report = {"suite": suite, **environment(device), **parts}
    WRITTEN.mkdir(parents=True, exist_ok=True)
    unfinished = WRITTEN / f"{suite}.unfinished"
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(unfinished, file_of(suite))


def file_of(suite: str) -> Path:
    """What the last run of a suite has left."""
    return WRITTEN / f"{suite}.json"


def name_to_keep(report: dict[str, Any]) -> str:
    """``DATE-suite.json``, or ``DATE-suite-cuda.json`` where a GPU was measured."""
    return f"{report['date']}-{report['suite']}{'-cuda' if report['gpu'] else ''}.json"


def show(suite: str, rows: list[dict[str, Any]]) -> None:
    """Print each network's ratios."""
    for network, ratios in summarise(rows).items():
        words = ", ".join(f"{name.replace('_', ' ')} {value:.2f}x" for name, value in ratios.items())
        print(f"\n{suite} {network}: {words}", end="")
    print()
