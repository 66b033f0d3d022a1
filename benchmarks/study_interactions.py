"""The interactions of the README: the default network, the photograph chelsea, a grid of 3 x 4 players.

python benchmarks/study_interactions.py --out FILE
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environment import environment
from pyinterp import Interactions, extract_interactions, grid_players, models

KEPT = (10, 20, 50, 100)


def errors(found: Interactions) -> dict[int, float]:
    """Of the scores rebuilt from the strongest effects."""
    curve = found.error_curve()
    by_count = dict(zip(curve.counts, curve.errors, strict=True))
    return {k: round(by_count[k], 4) for k in (*KEPT, len(found.salient())) if k in by_count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    loaded, photo = models.load("default"), models.photographs()["chelsea"]
    start = time.perf_counter()
    found = extract_interactions(loaded, photo, grid_players(3, 4))
    seconds = time.perf_counter() - start
    report: dict[str, Any] = {
        "suite": "interactions",
        **environment(),
        "seconds": round(seconds, 1),
        "forwards": found.forwards,
        "class": found.class_name,
        "objective": round(found.objective, 4),
        "gap": found.gap,
        "sigma": found.sigma,
        "not_zero": int((found.and_[1:] != 0).sum() + (found.or_[1:] != 0).sum()),
        "salient": len(found.salient()),
        "below_floor": sum(effect.below_floor for effect in found.salient()),
        "relative_error_by_kept": errors(found),
        "relative_error_of_and_alone_by_kept": errors(found.and_only()),
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "build"}, indent=1))


if __name__ == "__main__":
    main()
