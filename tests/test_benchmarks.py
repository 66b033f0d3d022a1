"""The table of the benchmarks, and what it says of an older run."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import harness
from benchmarks.__main__ import left_out, moved, ratios, read, suites, table
from benchmarks.study_growth import slope
from benchmarks.study_profile import kind_of

ROOT = Path(__file__).parents[1]
OPS = {
    "suite": "gate",
    "networks": {"resnet50": {"over_bound": 1.2, "faster_than_eager": 1.5}},
    "sites": [
        {"network": "resnet50", "shape": [10, 64], "milliseconds": {"pyinterp": 1.0}, "over_bound": 1.1},
        {"network": "resnet50", "shape": [20, 64], "milliseconds": {"pyinterp": 2.0}, "over_bound": 1.3},
    ],
}
JOB = {"suite": "chain", "steps": 3, "faster_than": {"eager": 2.5}, "build": {"over": 1}}


def test_ratios_are_found_wherever_they_stand() -> None:
    assert list(ratios(OPS)) == [
        ("resnet50 (all)", "over_bound", 1.2),
        ("resnet50 (all)", "faster_than_eager", 1.5),
        ("resnet50, [10, 64]", "over_bound", 1.1),
        ("resnet50, [20, 64]", "over_bound", 1.3),
    ]
    assert list(ratios(JOB)) == [("", "faster_than_eager", 2.5)]


def test_a_sum_of_one_site_is_told_once() -> None:
    alone = {
        "networks": {"float32": {"over_bound": 1.2}},
        "sites": [{"network": "float32", "over_bound": 1.2}],
    }
    assert list(ratios(alone)) == [("float32 (all)", "over_bound", 1.2)]


def test_kinds_of_a_job_have_lines_of_their_own() -> None:
    rows = [
        {"kind": kind, "shape": [9], "faster_than": {peer: 2.0}} for kind, peer in (("a", "x"), ("b", "y"))
    ]
    assert [line.split()[1] for line in table({"path": {"rows": rows}}).splitlines()] == ["a,", "b,"]


def test_peers_that_are_not_there_are_named() -> None:
    assert harness.missing({"saga": "sklearn", "other": "no_such_package"}) == ["other"]
    rows = [{"not_installed": ["skglm", "adelie"]}, {"not_installed": ["adelie"]}, {}]
    assert left_out({"path": {"rows": rows, "threads": 2}, "gate": OPS}) == [
        "path: without adelie, skglm, which `make bench` installs"
    ]


def test_a_result_is_whole_and_kept_by_date_and_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "WRITTEN", tmp_path / "new")
    for rows in ([1], [1, 2]):
        harness.write("gate", torch.device("cpu"), rows=rows)
    written = json.loads(harness.file_of("gate").read_text())
    assert written["rows"] == [1, 2] and written["gpu"] is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["gate.json"]
    assert harness.name_to_keep(written) == f"{written['date']}-gate.json"
    assert harness.name_to_keep(written | {"gpu": "H200"}).endswith("-gate-cuda.json")


def test_the_table_has_a_line_per_measurement() -> None:
    lines = table({"gate": OPS, "chain": JOB}).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "gate resnet50 (all) over bound 1.20, faster than eager 1.50",
        "chain faster than eager 2.50",
    ]


def test_what_moved_is_told() -> None:
    new: dict[str, Any] = copy.deepcopy(OPS)
    new["sites"][0]["over_bound"], new["networks"]["resnet50"]["faster_than_eager"] = 0.9, 1.2
    told = moved({"gate": OPS}, {"gate": new, "chain": JOB}).splitlines()
    assert told[0] == "4 ratios are in both, 2 more than 10% apart:"
    assert [line.split()[0] for line in told[1:]] == ["worse", "better"]
    assert "gate resnet50, [10, 64] over_bound: 1.10 -> 0.90" in told[2]
    del new["sites"][1]
    assert "Some measurements of gate are in the old file alone." in moved({"gate": OPS}, {"gate": new})
    assert "Some measurements of gate are in this run alone." in moved({"gate": new}, {"gate": OPS})
    assert moved({"gate": OPS}, {"gate": OPS}) == "4 ratios are in both, none more than 10% apart."
    here, there = ({"gate": OPS | {"threads": threads, "gpu": None}} for threads in (2, 64))
    assert moved(there, here).splitlines()[0] == "Measured elsewhere: threads 64 then, 2 now."
    assert moved({"gate": OPS}, {"chain": JOB}) == "The two have no measurement in common."


def test_old_results_are_read_as_one_or_as_all(tmp_path: Path) -> None:
    one, all_of_them = tmp_path / "one.json", tmp_path / "all.json"
    one.write_text(json.dumps(OPS))
    all_of_them.write_text(json.dumps({"date": "today", "suites": {"gate": OPS, "chain": JOB}}))
    assert read(one) == {"gate": OPS} and read(all_of_them) == {"gate": OPS, "chain": JOB}
    for text in ("no json", "{}", "[]"):
        one.write_text(text)
        with pytest.raises(SystemExit, match="expected a file that benchmarks have written, got"):
            read(one)
    with pytest.raises(SystemExit, match="expected a file"):
        read(tmp_path / "none.json")


def test_every_result_that_is_kept_can_be_compared() -> None:
    for name in suites():
        kept = sorted((ROOT / "benchmarks" / "results").glob(f"????-??-??-{name}.json"))
        assert kept, f"no result of {name} is kept"
        assert list(ratios(read(kept[-1])[name])), kept[-1].name


def test_an_unknown_suite_is_refused_with_the_names() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gates"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "invalid choice: 'gates'" in done.stderr and "subset_sum" in done.stderr


def test_exponents_of_growth() -> None:
    powers = [{"size": size, "seconds": 3 * size**1.5} for size in (1, 2, 8, 64)]
    assert slope(powers, doubling=False) == pytest.approx((1.5, 0))
    doublings = [{"size": size, "seconds": 0.1 * 2.0 ** (1.25 * size)} for size in (8, 10, 12)]
    assert slope(doublings, doubling=True) == pytest.approx((1.25, 0))
    scattered = [
        {"size": size, "seconds": size * noise} for size, noise in ((1, 1.1), (2, 0.9), (4, 1.1), (8, 1))
    ]
    value, error = slope(scattered, doubling=False)
    assert abs(value - 1) < 2 * error


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::convolution_backward", "convolutions"),
        ("aten::addmm", "products"),
        ("pyinterp::gate_backward", "own kernels"),
        ("aten::constant_pad_nd", "padding"),
        ("aten::copy_", "copies and layouts"),
        ("aten::native_batch_norm", "batch norm"),
        ("aten::sum", "other ops"),
    ],
)
def test_ops_are_told_by_what_they_do(op: str, kind: str) -> None:
    assert kind_of(op) == kind
