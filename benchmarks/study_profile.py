"""Where the time of whole jobs goes on the CPU: shares of the wall time, by what is done.

python benchmarks/study_profile.py --out FILE [--job chain] [--job game] [--job path]

"chain" is `extract_chain` on the default network and 10 crops, in 60 steps; "game" all 4,096 subsets of the photograph
chelsea on it; "path" and "path of 100" are `fit_sparse_path` on 20,000 rows of 512 features and 10 classes, and on
10,000 rows and 100 classes. torch's profiler gives the time that each op takes itself on the main thread, which waits
for the others there; what no op takes is Python and whatever runs between ops.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environment import environment
from benchmarks.study_chain import crop_set
from benchmarks.study_path import rectified
from pyinterp import extract_chain, fit_sparse_path, grid_players, models
from pyinterp.games import ImageGame

Job = Callable[[], Any]
KINDS = {
    "own kernels": ("pyinterp::",),
    "convolutions": ("conv", "_conv"),
    "products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn_linear", "dot", "mv"),
    "batch norm": ("native_batch_norm", "batch_norm", "cudnn_batch_norm"),
    "activations": ("hardtanh", "relu", "clamp", "sigmoid", "silu", "gelu", "threshold"),
    "padding": ("constant_pad_nd", "pad"),
    "gathering": ("index", "gather", "index_select", "take"),
    "copies and layouts": ("copy_", "contiguous", "clone", "_to_copy", "cat", "stack"),
    "allocation": ("empty", "zeros", "resize", "fill_", "zero_", "new_"),
    "factorisations": ("linalg", "_linalg", "cholesky"),
}


def kind_of(name: str) -> str:
    """What an op does, by its name."""
    bare = name.removeprefix("aten::").removeprefix("mkldnn::")
    for kind, beginnings in KINDS.items():
        if any(
            name.startswith(one) or bare.startswith(one) or bare.startswith(f"mkldnn_{one}")
            for one in beginnings
        ):
            return kind
    return "other ops"


def chain() -> Job:
    loaded = models.load("default")
    images = crop_set(loaded, {"chelsea": 5, "coffee": 5}, seed=0)
    return lambda: extract_chain(loaded, images, max_steps=60, progress=False)


def game() -> Job:
    loaded, photo = models.load("default"), models.photographs()["chelsea"]
    played = ImageGame(loaded, photo, grid_players(3, 4))
    return lambda: played.values(progress=False)


def path(rows: int, classes: int) -> Job:
    features, labels = rectified(rows, 512, classes)
    return lambda: fit_sparse_path(
        features, labels, n_lambdas=8, min_ratio=0.1, tolerance=1e-4, progress=False
    )


JOBS: dict[str, Callable[[], Job]] = {
    "chain": chain,
    "game": game,
    "path": lambda: path(20_000, 10),
    "path of 100": lambda: path(10_000, 100),
}


def measure(job: Job) -> dict[str, Any]:
    """Seconds without the profiler, and the shares with it."""
    start = time.perf_counter()
    job()
    alone = time.perf_counter() - start
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        start = time.perf_counter()
        job()
        seconds = time.perf_counter() - start
    ops = {one.key: one.self_cpu_time_total / 1e6 for one in seen.key_averages()}
    kinds: dict[str, float] = {}
    for name, spent in ops.items():
        kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + spent
    kinds["Python and between ops"] = max(0.0, seconds - sum(ops.values()))
    longest = sorted(ops, key=lambda name: -ops[name])[:12]
    return {
        "seconds": round(alone, 2),
        "seconds_with_profiler": round(seconds, 2),
        "percent": {
            name: round(100 * kinds[name] / seconds, 1) for name in sorted(kinds, key=lambda k: -kinds[k])
        },
        "percent_of_longest_ops": {name: round(100 * ops[name] / seconds, 1) for name in longest},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", choices=[*JOBS], action="append")
    chosen = parser.parse_args()
    jobs: dict[str, Any] = {}
    for name in chosen.job or JOBS:
        jobs[name] = measure(JOBS[name]())
        print(name, json.dumps(jobs[name], indent=1), flush=True)
    if chosen.out:
        chosen.out.write_text(
            json.dumps({"suite": "profile", **environment(), "jobs": jobs}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
