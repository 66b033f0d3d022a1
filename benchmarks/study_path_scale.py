"""What a path costs as it grows: seconds and memory of a pass over N rows of width 2048 and 1000 classes.

python benchmarks/study_path_scale.py --out FILE

A pass is two products, X W^T and P^T X, of 2 N d K floating-point operations each. Its time is measured for several N,
beside the time of one square product of torch, and a line is fitted; then a path with 1000 classes is followed until 20
features per class, and its passes are counted. Memory is what a path takes beyond its features (Linux tells the peak
between two moments), for the smallest and the largest N.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environment import environment
from benchmarks.study_path import rectified
from pyinterp.elastic.families import family_of
from pyinterp.elastic.rows import Rows
from pyinterp.heads import fit_sparse_path

WIDTH, CLASSES = 2048, 1000
POINTS = 30


def fastest(step: Any, turns: int = 3) -> float:
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def one_pass(count: int) -> dict[str, float]:
    features, labels = samples(count)
    mean, std = features.double().mean(0), features.double().std(0, correction=0)
    rows = Rows(features, labels, None, mean, std, family_of("multinomial", labels), [torch.device("cpu")])
    weights, bias = torch.zeros(CLASSES, WIDTH), torch.zeros(CLASSES)
    seconds = fastest(lambda: rows.gradient(weights, bias))
    work = 4.0 * count * WIDTH * CLASSES
    return {
        "rows": count,
        "seconds": seconds,
        "gigaflop": work / 1e9,
        "gigaflop_per_second": work / seconds / 1e9,
    }


def samples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = rectified(count, WIDTH, CLASSES)
    labels[:CLASSES] = torch.arange(CLASSES)
    return features, labels


def gigabytes(what: str) -> float:
    """VmRSS (now) or VmHWM (the peak since it was reset)."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(what))
    return int(line.split()[1]) / 2**20


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def memory(count: int) -> dict[str, float]:
    """Of a short path."""
    features, labels = samples(count)
    reset_peak()
    before = gigabytes("VmRSS")
    path = fit_sparse_path(features, labels, n_lambdas=3, min_ratio=0.6, tolerance=1e-3, progress=False)
    return {"rows": count, "points": len(path), "gigabytes": gigabytes("VmHWM") - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[4000, 8000, 16000])
    parser.add_argument("--path-rows", type=int, default=4000)
    chosen = parser.parse_args()
    square = torch.randn(2048, 2048)
    peak = 2 * 2048**3 / fastest(lambda: square @ square, 5) / 1e9
    passes = [one_pass(count) for count in chosen.rows]
    slope = (passes[-1]["seconds"] - passes[0]["seconds"]) / (passes[-1]["rows"] - passes[0]["rows"])
    memories = [memory(min(chosen.rows)), memory(max(chosen.rows))]
    features, labels = samples(chosen.path_rows)
    reset_peak()
    before = gigabytes("VmRSS")
    start = time.perf_counter()
    path = fit_sparse_path(
        features, labels, n_lambdas=POINTS, max_features_per_class=20, tolerance=1e-3, progress=False
    )
    seconds = time.perf_counter() - start
    report = {
        "suite": "path_scale",
        **environment(),
        "square_product_gigaflop_per_second": peak,
        "passes": passes,
        "seconds_per_million_rows": 1e6 * slope,
        "memory": memories,
        "path": {
            "rows": chosen.path_rows,
            "points": len(path),
            "passes": int(path.passes.sum()),
            "converged": bool(path.converged.all()),
            "features_per_class": float(path.features_per_class[-1]),
            "seconds": seconds,
            "seconds_in_passes_by_formula": int(path.passes.sum()) * slope * chosen.path_rows,
            "gigabytes": gigabytes("VmHWM") - before,
        },
    }
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "build"}, indent=1))


if __name__ == "__main__":
    main()
