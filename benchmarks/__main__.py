"""Run benchmarks, print their ratios, and say what moved since an older run.

python -m benchmarks [SUITE ...] [--keep] [--out FILE] [--compare OLD.json]

Suites are the files bench_SUITE.py; without names all of them run, for half an hour on two cores. Each leaves
its own build/benchmarks/SUITE.json; --keep puts those that ran to their end without an error into benchmarks/results/,
under today's date; --out holds them all. Ratios are compared, since times differ from machine to machine: "over" is
smaller when it is better, "faster" larger. OLD.json is what --out wrote, or the file of one suite.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import harness
from benchmarks.environment import environment

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LABELS = ("job", "kind", "network", "players", "noise", "shape", "dtype", "act", "layout", "start")
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
    alone = _alone(report)
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
        elif name == "sites":
            yield from ratios([site for site in value if site["network"] not in alone], label)
        elif isinstance(value, (dict, list)) and name != "build":
            yield from ratios(value, label)


def _alone(report: dict[str, Any]) -> set[str]:
    """Networks with one site, of which the sum says all."""
    names = [site["network"] for site in report.get("sites", [])]
    return {name for name in names if names.count(name) == 1 and name in report.get("networks", {})}


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
    lines = []
    for key in sorted(both, key=str):
        change = after[key] / before[key] - 1
        if abs(change) > MOVED:
            better = (change > 0) == ("faster" in key[2])
            lines.append(
                f"  {'better' if better else 'worse':6}  {' '.join(key)}: {before[key]:.2f} -> {after[key]:.2f}"
            )
    moves = f"{len(lines) or 'none'} more than {MOVED:.0%} apart{':' if lines else '.'}"
    lines = [*_elsewhere(old, new), f"{len(both)} ratios are in both, {moves}", *lines]
    shared = {key[0] for key in both}
    for words, keys in (("the old file", before.keys() - after), ("this run", after.keys() - before)):
        alone = sorted({key[0] for key in keys} & shared)
        if alone:
            lines.append(f"Some measurements of {', '.join(alone)} are in {words} alone.")
    return "\n".join(lines)


def _elsewhere(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A line per part of the machine that is another one now."""
    return sorted(
        {
            f"Measured elsewhere: {part} {old[suite].get(part, 'unknown')} then, {new[suite][part]} now."
            for suite in old.keys() & new.keys()
            for part in ("cpu", "cpu_capability", "threads", "gpu", "torch")
            if part in new[suite] and old[suite].get(part, "unknown") != new[suite][part]
        }
    )


def left_out(reports: dict[str, Any]) -> list[str]:
    """A line per suite some of whose peers are not installed."""
    lines = []
    for suite, report in reports.items():
        rows = [row for part in report.values() if isinstance(part, list) for row in part]
        names = {name for row in rows if isinstance(row, dict) for name in row.get("not_installed", [])}
        if names:
            lines.append(f"{suite}: without {', '.join(sorted(names))}, which `make bench` installs")
    return lines


def read(path: Path) -> dict[str, Any]:
    """The results of suites, by name."""
    try:
        report = json.loads(path.read_text("utf-8"))
        return dict(report["suites"]) if "suites" in report else {report["suite"]: report}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"--compare: expected a file that benchmarks have written, got {path} ({error})"
        ) from error


def _known(name: str) -> str:
    if name not in suites():
        raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(suites())})")
    return name


class Failures:
    """A plugin of pytest that notes the suites in which a test failed."""

    def __init__(self) -> None:
        self.suites: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.suites.add(Path(report.location[0]).stem.removeprefix("bench_"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("suite", nargs="*", type=_known, metavar="SUITE", help=", ".join(suites()))
    parser.add_argument("--keep", action="store_true", help="put the results into benchmarks/results/")
    parser.add_argument("--out", type=Path, help="write the results of all suites into this file")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="say what moved since")
    chosen = parser.parse_args()
    old = read(chosen.compare) if chosen.compare else None
    import pytest

    names, start = chosen.suite or suites(), time.time()
    files, failures = [str(HERE / f"bench_{name}.py") for name in names], Failures()
    code = pytest.main([*files, "-q", "-rs"], plugins=[failures])
    here = environment()
    reports = {}
    for name in names:
        path = harness.file_of(name)
        if path.exists() and path.stat().st_mtime >= start:
            reports[name] = json.loads(path.read_text("utf-8"))
            if chosen.keep and code in (0, 1) and name not in failures.suites:
                shutil.copy(path, RESULTS / harness.name_to_keep(reports[name]))
    print(f"\n{here['cpu']}, {here['threads']} threads, GPU: {here['gpu'] or 'none'}, torch {here['torch']}")
    print("\n".join([table(reports), *left_out(reports)]))
    if chosen.out:
        chosen.out.write_text(json.dumps({**here, "suites": reports}, indent=1) + "\n")
    if old is not None:
        print(moved(old, reports))
    raise SystemExit(int(code))


if __name__ == "__main__":
    main()
