"""How time and memory grow: with players, images, chains at once, and the width, the classes and the rows of a head.

python benchmarks/study_growth.py --out FILE [--figure FILE.png] [--curve players] [--longest 120]

Each point is a process of its own: its time is the best of some turns, its memory what the job and its inputs take
(the peak that Linux tells, beyond what libraries had taken). An exponent is the slope of log time over log size, by
least squares, with its standard error; for players it is the slope of log2 time per player, 1 where each doubles it. A
curve ends where the next point would take longer than --longest seconds if it grew as the last one did.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environment import environment
from benchmarks.study_chain import crop_set
from benchmarks.study_path import rectified
from benchmarks.study_path_scale import gigabytes, reset_peak
from pyinterp import fit_sparse_path, models
from pyinterp.games import FeatureGame
from pyinterp.interactions import sparse_and_or
from pyinterp.memory import reused_memory
from pyinterp.ops import subset_sum

Job = Callable[[], Any]
POINTS = 4


def scores(players: int) -> torch.Tensor:
    """(2^n,) of a small random network with rectifiers."""
    return mlp_game(players).values(progress=False).double()


def mlp_game(players: int) -> FeatureGame:
    torch.manual_seed(0)
    layers = [nn.Linear(players, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
    return FeatureGame(nn.Sequential(*layers).eval(), torch.randn(players), torch.zeros(players), target=0)


def transform(players: int) -> Job:
    values = torch.randn(2**players, dtype=torch.float64)
    return lambda: subset_sum(values, inverse=True)


def split(players: int) -> Job:
    values = scores(players)
    return lambda: sparse_and_or(values)


def play(players: int) -> Job:
    game = mlp_game(players)
    return lambda: game.values(progress=False)


def chains(count: int, images: int) -> Job:
    """One step of a search for ``count`` chains at once, of ``images`` crops each."""
    from pyinterp.chains.anneal import Anneal, Schedule, Target
    from pyinterp.chains.engine import Engine
    from pyinterp.chains.objective import Objective
    from pyinterp.models import sites, trace

    loaded = models.load("default")
    pictures = crop_set(loaded, {"chelsea": count * images}, seed=0)
    with torch.no_grad():
        objective = Objective(loaded.model(pictures))
    filters = [site for site in sites(loaded.model) if site.kind != "layer"]
    engine = Engine(trace(loaded.model, pictures[:1]), filters)
    group = torch.arange(count).repeat_interleave(images)
    search = Anneal(engine, pictures, objective, group, Target(kl=0.1), Schedule(), scaled=False, seed=0)
    reused_memory().__enter__()  # as in `extract_chain`; the process ends with the point
    search._step()  # the first one makes what all others use
    return search._step


def path(rows: int, width: int, classes: int) -> Job:
    features, labels = rectified(rows, width, classes)
    labels[:classes] = torch.arange(classes)
    return lambda: fit_sparse_path(
        features, labels, n_lambdas=POINTS, min_ratio=0.3, tolerance=1e-3, progress=False
    )


CURVES: dict[str, tuple[str, list[int], Callable[[int], Job]]] = {
    "transform": ("players", [8, 10, 12, 14, 16, 18, 20], transform),
    "split": ("players", [8, 10, 12, 14, 16, 18, 20], split),
    "game": ("players", [8, 10, 12, 14, 16, 18, 20], play),
    "images": ("images of one chain", [1, 2, 4, 8, 16, 32, 64], lambda count: chains(1, count)),
    "chains": ("chains at once, two images each", [1, 2, 4, 8, 16, 32], lambda count: chains(count, 2)),
    "width": ("features, 8,192 rows, 10 classes", [128, 256, 512, 1024, 2048], lambda d: path(8192, d, 10)),
    "classes": ("classes, 4,096 rows of 512", [2, 10, 30, 100, 300, 1000], lambda k: path(4096, 512, k)),
    "rows": ("rows of 512, 10 classes", [2048, 8192, 32768, 131072], lambda n: path(n, 512, 10)),
}


def point(curve: str, size: int) -> dict[str, float]:
    """Seconds and bytes of one job."""
    before = gigabytes("VmRSS")
    job = CURVES[curve][2](size)
    reset_peak()
    times: list[float] = []
    spent = 0.0
    while len(times) < 20 and (spent < 2 or len(times) < 2) and (spent < 30 or not times):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
        spent += times[-1]
    return {
        "size": size,
        "seconds": min(times),
        "mebibytes": (gigabytes("VmHWM") - before) * 2**10,
    }


def slope(points: list[dict[str, float]], doubling: bool) -> tuple[float, float]:
    """Exponent and its standard error."""
    x = [one["size"] if doubling else math.log2(one["size"]) for one in points]
    y = [math.log2(one["seconds"]) for one in points]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mx) ** 2 for a in x)
    rise = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / spread
    left = sum((b - my - rise * (a - mx)) ** 2 for a, b in zip(x, y, strict=True))
    return rise, math.sqrt(left / max(1, len(x) - 2) / spread)


def grow(curve: str, longest: float) -> dict[str, Any]:
    what, sizes, _ = CURVES[curve]
    points: list[dict[str, float]] = []
    for size in sizes:
        command = [sys.executable, __file__, "--point", curve, str(size)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        points.append(json.loads(told.splitlines()[-1]))
        print(curve, points[-1], flush=True)
        expected = points[-1]["seconds"] * (
            points[-1]["seconds"] / points[-2]["seconds"] if points[1:] else 1
        )
        if expected > longest:
            break
    doubling = what == "players"
    upper = points[-max(3, (len(points) + 1) // 2) :]
    return {
        "size": what,
        "points": points,
        "exponent": [round(one, 3) for one in slope(points, doubling)],
        "exponent_of_upper_half": [round(one, 3) for one in slope(upper, doubling)],
    }


def draw(curves: dict[str, Any], file: Path) -> None:
    """One panel per curve: seconds and memory over size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(2, 4, figsize=(15, 6.4), layout="constrained")
    for panel, (name, curve) in zip(panels.flat, curves.items(), strict=False):
        sizes = [one["size"] for one in curve["points"]]
        panel.plot(sizes, [one["seconds"] for one in curve["points"]], "o-", color="#1f5fa8", label="seconds")
        panel.set(xlabel=curve["size"], ylabel="seconds", yscale="log", title=name)
        panel.set_xscale("linear" if curve["size"] == "players" else "log", **_base(curve["size"]))
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        panel.minorticks_off()
        beside = panel.twinx()
        beside.plot(sizes, [max(1, one["mebibytes"]) for one in curve["points"]], "s--", color="#c25b12")
        beside.set(ylabel="MiB", yscale="log")
        beside.yaxis.label.set_color("#c25b12")
        beside.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        beside.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        beside.minorticks_off()
        panel.yaxis.label.set_color("#1f5fa8")
    figure.savefig(file, dpi=90)


def _base(size: str) -> dict[str, int]:
    return {} if size == "players" else {"base": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--curve", choices=[*CURVES], action="append")
    parser.add_argument("--longest", type=float, default=120)
    parser.add_argument("--point", nargs=2, metavar=("CURVE", "SIZE"), help="one point alone, as JSON")
    chosen = parser.parse_args()
    if chosen.point:
        print(json.dumps(point(chosen.point[0], int(chosen.point[1]))))
        return
    curves: dict[str, Any] = {}
    for name in chosen.curve or CURVES:
        curves[name] = grow(name, chosen.longest)
        print(name, curves[name]["exponent"], flush=True)
        if chosen.out:
            report = {"suite": "growth", **environment(), "curves": curves}
            chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    if chosen.figure:
        draw(curves, chosen.figure)


if __name__ == "__main__":
    main()
