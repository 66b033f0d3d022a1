"""A whole path of sparse heads against the solvers that users would otherwise take, to an equal violation.

python -m pytest benchmarks/bench_path.py

The smallest case of `study_path.py`: 1,437 deep features of handwritten digits, 128 wide, 10 classes, 8 falling lambdas
to a tenth of the first. "fista" is FISTA as plain torch products on the same rows (`solver="fista"`). Each contender
solves all points, one contender after the other, the best of as many calls as fit a second; the violation of the
optimality conditions is computed here from the definition, and none of ours may be above the tolerance. Peers that are
not installed are left out, and named.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import harness, study_path

TOLERANCE, POINTS, RATIO = 1e-3, 8, 0.1
PACKAGES = {"saga": "sklearn", "glm_saga": "glm_saga", "adelie": "adelie", "skglm": "skglm"}
ROWS: list[dict[str, Any]] = []


@pytest.mark.parametrize("kind", list(study_path.KINDS))
def test_path(benchmark: BenchmarkFixture, kind: str) -> None:
    peers = [name for name in study_path.KINDS[kind] if name != "pyinterp"]
    missing = [name for name in harness.missing(PACKAGES) if name in peers]
    there = [name for name in peers if name not in missing]
    found = study_path.measure("digits", kind, there or ["none"], POINTS, RATIO, TOLERANCE)
    contenders = found.pop("contenders")
    worst = contenders["pyinterp"]["worst_kkt"]
    if not worst <= TOLERANCE:
        raise AssertionError(f"expected a violation of at most {TOLERANCE}, got {worst:.3g}")
    row = {
        **found,
        "seconds": {name: one["seconds"] for name, one in contenders.items()},
        "violation": {name: one["worst_kkt"] for name, one in contenders.items()},
        "faster_than": {name: contenders[name]["times_our_seconds"] for name in there},
        "not_installed": missing,
    }
    ROWS.append(row)
    harness.write("path", how=" ".join(__doc__.split("\n\n")[2].split()), tolerance=TOLERANCE, rows=ROWS)
    print(f"\npath, {kind}: faster than {row['faster_than']}")
    features, labels = study_path.CASES["digits"]()
    step = lambda: study_path.KINDS[kind]["pyinterp"](features, labels, [0.05, 0.02], TOLERANCE)
    benchmark.extra_info.update(row)
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
