"""Chains of the default network over many random sets of images: is the bound met, and how large are they?

python benchmarks/study_chain.py --sets 12 --mode exact --out benchmarks/results/study.json
python benchmarks/study_chain.py --default --out benchmarks/results/default.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.environment import environment
from pyinterp import Chain, extract_chain
from pyinterp.chains import BASELINES, attribution, sufficiency_curve
from pyinterp.chains.evaluate import measure_fidelity
from pyinterp.models import LoadedModel, crops, load, load_images, photographs

GROWTH = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75)
MOST_PHOTOGRAPHS, MOST_IMAGES, FRESH_CROPS = 5, 20, 5


def crop_set(loaded: LoadedModel, counts: dict[str, int], seed: int) -> Tensor:
    """(N, 3, H, W) preprocessed crops, ``counts[name]`` of each photograph."""
    shown, size = photographs(), loaded.input_shape[-1]
    pictures = [crop for name, n in counts.items() for crop in crops(shown[name], n, size=size, seed=seed)]
    return load_images(pictures, loaded.preprocess).tensor


def draw(generator: torch.Generator) -> dict[str, int]:
    """How many crops of which photographs: 1 to 5 photographs, at most 20 images, every doubling as likely."""
    names = list(photographs())
    some = int(torch.randint(1, MOST_PHOTOGRAPHS + 1, (1,), generator=generator))
    spread = float(torch.rand(1, generator=generator))
    total = int(some * ((MOST_IMAGES + 1) / some) ** spread)
    chosen = torch.randperm(len(names), generator=generator)[:some].tolist()
    return {names[i]: total // some + (place < total % some) for place, i in enumerate(chosen)}


def measure(
    loaded: LoadedModel, images: Tensor, fresh: Tensor, options: dict[str, Any]
) -> tuple[Chain, dict[str, Any]]:
    """Extract one chain; return it and what is worth knowing about it."""
    start = time.perf_counter()
    chain = extract_chain(loaded, images, held_out=fresh, progress=False, **options)
    seconds = round(time.perf_counter() - start, 1)
    mine, fresh_ones = chain.fidelity["images"], chain.fidelity["held_out"]
    best = min(chain.baselines, key=lambda name: chain.baselines[name]["kl"], default="")
    return chain, {
        "mode": chain.mode,
        "images": len(images),
        "classes": len({prediction.full_class for prediction in chain.predictions}),
        "kept_percent": round(100 * chain.kept_fraction, 3),
        **mine,
        **{f"held_out_{name}": value for name, value in fresh_ones.items()},
        "bound_met": chain.bound_met,
        "seconds": seconds,
        "steps": len(chain.history["step"]),
        "best_baseline": best,
        "best_baseline_kl": chain.baselines[best]["kl"] if best else None,
        "message": chain.message,
    }


def trade_off(chain: Chain, loaded: LoadedModel, images: Tensor) -> dict[str, list[list[float]]]:
    """[percent of the units, KL]: of parts of the chain, and of each baseline from the chain's size on upwards.

    A baseline of share t keeps kept + t * (units - kept) units of each site, and all layers for t > 0; of units that it
    gives the same worth (0, most often), the first.
    """
    curve = sufficiency_curve(chain, loaded.model, images)
    size = 100 * chain.kept_fraction
    points = {"chain": [[r * size, kl] for r, kl in zip(curve.ratios, curve.kl, strict=True)]}
    gated, kept = chain.bind(loaded.model), [int((gate != 0).sum()) for gate in chain.gates()]
    generator = torch.Generator().manual_seed(0)
    for name in BASELINES:
        if name == "random":
            worth = [torch.rand(site.units, generator=generator) for site in chain.sites]
        else:  # ranked once for all sizes: some baselines are slow
            worth = getattr(attribution, name)(gated, *([] if name == "magnitude" else [images]))
        ranked = [row.nan_to_num(nan=-1.0).argsort(descending=True, stable=True) for row in worth]
        points[name] = []
        for share in GROWTH:
            masks, units = [], 0
            for site, row, k in zip(chain.sites, ranked, kept, strict=True):
                layer = site.kind == "layer"
                count = 1 if layer and share else k + round(share * (site.units - k))
                masks.append(torch.zeros(len(row)).index_fill(0, row[:count], 1))
                units += 0 if layer else count
            kl = measure_fidelity(gated, masks, images)["kl"]
            points[name].append([100 * units / chain.unit_count, kl])
    return points


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Bounds met, and quantiles (least, quartiles, most) over the sets."""

    def quantiles(key: str) -> list[float]:
        values = torch.tensor([float(row[key]) for row in rows])
        return [round(value, 4) for value in values.quantile(torch.linspace(0, 1, 5)).tolist()]

    keys = ("kept_percent", "kl", "held_out_kl", "held_out_agreement", "seconds")
    met = sum(row["bound_met"] is True for row in rows)
    better = sum(row["kl"] < row["best_baseline_kl"] for row in rows if row["best_baseline"])
    shares = {"bound_met": f"{met} of {len(rows)}", "beats_all_baselines": f"{better} of {len(rows)}"}
    return {**shares, **{key: quantiles(key) for key in keys}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--default", action="store_true", help="the demo's images, both modes, with curves")
    parser.add_argument("--sets", type=int, default=12, help="random sets of images")
    parser.add_argument("--mode", choices=("exact", "scaled"), default="exact")
    parser.add_argument("--target-kl", type=float, default=0.1)
    parser.add_argument("--max-steps", type=int, help="as in extract_chain")
    parser.add_argument("--seed", type=int, default=0, help="of the sets")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    loaded, rows, generator = load("default"), [], torch.Generator().manual_seed(asked.seed)
    bounds = {"target_kl": asked.target_kl, "max_steps": asked.max_steps}
    demo = {"chelsea": 5, "coffee": 5}
    jobs = [(demo, "exact"), (demo, "scaled")] if asked.default else [({}, asked.mode)] * asked.sets
    for index, (fixed, mode) in enumerate(jobs):
        counts, seed = (fixed, 0) if fixed else (draw(generator), 2 * (1000 * asked.seed + index) + 2)
        images = crop_set(loaded, counts, seed)
        fresh = crop_set(loaded, dict.fromkeys(counts, FRESH_CROPS), seed + 1)
        chain, row = measure(loaded, images, fresh, {"mode": mode, **bounds})
        rows.append({"crops": counts, "seed": seed, **row})
        print(json.dumps(rows[-1]), flush=True)
        if asked.default:
            rows[-1]["percent_and_kl"] = trade_off(chain, loaded, images)
        report = {"suite": "study_chain", **environment(), **bounds, "summary": summarise(rows), "sets": rows}
        asked.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(summarise(rows)))


if __name__ == "__main__":
    main()
