"""Run benchmarks, print their ratios, and say what moved since an older run.

python -m benchmarks [SUITE ...] [--out FILE] [--compare OLD.json]

Suites are the files bench_SUITE.py; without names all of them run. Each leaves its own results/DATE-SUITE.json; --out
holds them all. Ratios are compared, since times differ from machine to machine: "over" is smaller when it is better,
"faster" larger. OLD.json is what --out wrote, or the file of one suite.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import harness
from benchmarks.environment import environment

HERE = Path(__file__).parent
LABELS = ("network", "players", "noise", "shape", "dtype", "act", "layout", "start")
MOVED = 0.1  # told from here on; where others use the machine, the same code may differ by more


def suites() -> list[str]:
    """Names of all there are."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def ratios(report: Any, label: str = "") -> Iterator[tuple[str, str, float]]:
    """(what was measured, name of the ratio, value) of everything in the result of a suite."""
    if isinstance(report, list):
        for one in report:
            yield from ratios(one, label)
    if not isinstance(report, dict):
        return
    told = [f"{report[name]}" for name in LABELS if name in report and not isinstance(report[name], dict)]
    label = ", ".join([*([label] if label else []), *told])
    for name, value in report.items():
        if isinstance(value, (int, float)) and ("faster_than" in name or "over" in name):
            yield label, name, float(value)
        elif name.startswith("faster_than") and isinstance(value, dict):
            yield from ((label, f"{name}_{other}", float(ratio)) for other, ratio in value.items())
        elif name == "networks" and isinstance(value, dict):
            for network, sums in value.items():
                yield from ratios(sums, f"{network} (all)")
        elif isinstance(value, (dict, list)) and name != "build":
            yield from ratios(value, label)


def table(reports: dict[str, Any]) -> str:
    """A line per measurement; sites of networks, of which there are many, are told by their sums."""
    lines = []
    for suite, report in reports.items():
        found: dict[str, list[str]] = {}
        for what, name, value in ratios({key: part for key, part in report.items() if key != "sites"}):
            found.setdefault(what, []).append(f"{name.replace('_', ' ')} {value:.2f}")
        lines += [f"{suite:17} {what:30} {', '.join(told)}" for what, told in found.items()]
    return "\n".join(lines)


def moved(old: dict[str, Any], new: dict[str, Any]) -> str:
    """A line per ratio that differs by more than a tenth, and what only one of the two has."""
    before, after = (
        {(suite, what, name): value for suite, one in reports.items() for what, name, value in ratios(one)}
        for reports in (old, new)
    )
    both = before.keys() & after.keys()
    if not both:
        return "The two have no measurement in common."
    lines = [f"{len(both)} ratios are in both; more than {MOVED:.0%} apart:"]
    for key in sorted(both, key=str):
        change = after[key] / before[key] - 1
        if abs(change) > MOVED:
            better = (change > 0) == ("faster" in key[2])
            lines.append(
                f"  {'better' if better else 'worse':6}  {' '.join(key)}: {before[key]:.2f} -> {after[key]:.2f}"
            )
    gone = {key[0] for key in before.keys() - after.keys()} & {key[0] for key in both}
    if gone:
        lines.append(f"Some measurements of {', '.join(sorted(gone))} are in the old file alone.")
    return "\n".join(lines)


def read(path: Path) -> dict[str, Any]:
    """The results of suites, by name."""
    try:
        report = json.loads(path.read_text("utf-8"))
        return dict(report["suites"]) if "suites" in report else {report["suite"]: report}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"--compare: expected a file that benchmarks have written, got {path} ({error})"
        ) from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    known = [*suites(), []]  # argparse looks for the empty list too
    parser.add_argument("suite", nargs="*", choices=known, metavar="SUITE", help=", ".join(suites()))
    parser.add_argument("--out", type=Path, help="write the results of all suites into this file")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="say what moved since")
    chosen = parser.parse_args()
    old = read(chosen.compare) if chosen.compare else None
    import pytest

    names, start = chosen.suite or suites(), time.time()
    failed = pytest.main([*(str(HERE / f"bench_{name}.py") for name in names), "-q"])
    here = environment()
    reports = {}
    for name in names:
        path = harness.file_of(name)
        if path.exists() and path.stat().st_mtime >= start:
            reports[name] = json.loads(path.read_text("utf-8"))
    print(f"\n{here['cpu']}, {here['threads']} threads, GPU: {here['gpu'] or 'none'}, torch {here['torch']}")
    print(table(reports))
    if chosen.out:
        chosen.out.write_text(json.dumps({**here, "suites": reports}, indent=1) + "\n")
    if old is not None:
        print(moved(old, reports))
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
