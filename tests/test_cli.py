"""The command line: what it calls, what it says, how it leaves."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from pyinterp import cli, models
from pyinterp.chains import extract
from pyinterp.cli import chain_command

RUN = CliRunner()


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.full((3, 8, 8), sum(image.resize((1, 1)).getpixel((0, 0))) / 765)  # type: ignore[arg-type]


@dataclass
class Stage:
    """Stands for the parts the command line calls, and notes the calls."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    bound_met: bool | None = True
    interrupted: bool = False
    error: BaseException | None = None
    full: Path | None = None

    def load(self, name: str, *, device: str = "cpu") -> Any:
        self.calls.append(("load", (name, device)))
        return SimpleNamespace(
            name=name,
            model=torch.nn.Linear(1, 1),
            preprocess=to_tensor,
            classes=("cat",),
            input_shape=(3, 8, 8),
        )

    def extract(self, model: Any, images: Any, **options: Any) -> Any:
        self.calls.append(("extract", (len(images), options)))
        if self.error:
            raise self.error

        def save(path: Path) -> None:
            if self.full in path.parents:
                raise OSError("save: the disk is full.")
            self.calls.append(("save", path))

        return SimpleNamespace(
            save=save, summary=lambda: "kept 3 %", bound_met=self.bound_met, interrupted=self.interrupted
        )

    def report(self, found: Any, loaded: Any, batch: Any, out: Path) -> Path:
        self.calls.append(("report", len(batch)))
        return out / "report.html"

    def named(self, name: str) -> list[Any]:
        return [what for kind, what in self.calls if kind == name]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(models, "load", stage.load)
    monkeypatch.setattr(extract, "extract_chain", stage.extract)
    monkeypatch.setattr(chain_command, "_report", stage.report)
    return stage


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (10, 12), colour).save(folder / name)
    return folder


def run(*words: object) -> Result:
    return RUN.invoke(cli.app, [str(word) for word in words])


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n")


def test_chain_extracts_saves_reports_and_says_where(stage: Stage, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = run("chain", "--model", "tiny", "--images", photos, "--out", out, "--seed", 7, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert stage.named("load") == [("tiny", "cpu")]
    ((count, options),) = stage.named("extract")
    assert count == 2
    assert options == {"target_kl": 0.1, "mode": "exact", "seed": 7}
    assert stage.named("save") == [out / "chain"]
    last = done.stdout.splitlines()
    assert "kept 3 %" in last
    assert last[-1] == f"Report: {out / 'report.html'}"


def test_options_reach_the_extraction(stage: Stage, photos: Path, tmp_path: Path) -> None:
    words = ("--target-keep", 0.05, "--mode", "scaled", "--max-steps", 9)
    done = run("chain", "--images", photos / "a.png", photos / "b.jpg", "--out", tmp_path, *words)
    assert done.exit_code == 0, done.output
    ((count, options),) = stage.named("extract")
    assert count == 2
    assert options == {"target_keep": 0.05, "mode": "scaled", "max_steps": 9, "seed": 0}


def test_held_out_images_are_measured_too(stage: Stage, photos: Path, tmp_path: Path) -> None:
    done = run("chain", "--images", photos / "a.png", "--held-out", photos, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    ((count, options),) = stage.named("extract")
    assert count == 1 and len(options["held_out"]) == 2


@pytest.mark.parametrize(
    ("bound_met", "interrupted", "code"),
    [(False, False, 3), (None, False, 0), (True, True, 130), (False, True, 130)],
)
def test_exit_codes_come_after_everything_is_saved(
    stage: Stage, photos: Path, tmp_path: Path, bound_met: bool | None, interrupted: bool, code: int
) -> None:
    stage.bound_met, stage.interrupted = bound_met, interrupted
    done = run("chain", "--images", photos, "--out", tmp_path)
    assert done.exit_code == code
    assert [name for name, _ in stage.calls] == ["load", "extract", "save", "report"]
    assert "Report: " in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("chain",),
        ("chain", "--images"),
        ("chain", "--images", ".", "--target-kl", "0.1", "--target-keep", "0.1"),
        ("chain", "--images", ".", "--mode", "rough"),
        ("chain", "--images", ".", "--max-steps", "0"),
        ("chian",),
        ("info", "--nonsense"),
    ],
)
def test_wrong_options_are_usage_errors(stage: Stage, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert "Error" in done.stderr
    assert stage.calls == []


def test_user_errors_are_one_line_without_a_traceback(stage: Stage, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    done = run("chain", "--images", photos, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "broken.png" in done.stderr
    assert "Traceback" not in done.output
    assert stage.named("extract") == []


def test_a_folder_that_is_not_there_is_named(stage: Stage, tmp_path: Path) -> None:
    done = run("chain", "--images", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "nowhere" in done.stderr


def test_an_unusable_out_costs_no_work(stage: Stage, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    done = run("chain", "--images", photos, "--out", tmp_path / "file" / "out")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert stage.calls == []


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file grows beyond ``limit`` bytes: writes fail as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_no_work(stage: Stage, photos: Path, tmp_path: Path) -> None:
    with small_files(100_000):
        done = run("chain", "--images", photos, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert f"with room for 10 MB, got {tmp_path / 'out'} (File too large). Free some space" in done.stderr
    assert stage.calls == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_fills_up_loses_no_chain(
    stage: Stage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spare").mkdir()
    stage.full = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "spare"))
        done = run("chain", "--images", photos, "--out", tmp_path / "out")
    assert done.exit_code == 1
    (saved,) = stage.named("save")
    assert saved.parent.parent == tmp_path / "spare"
    assert done.stderr == f"pyinterp: save: the disk is full. Until then the result is kept as {saved}.\n"


def test_where_nothing_can_be_saved_the_first_error_is_told(
    stage: Stage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spare").mkdir()
    stage.full = tmp_path
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "spare"))
        done = run("chain", "--images", photos, "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (1, "pyinterp: save: the disk is full.\n")
    assert stage.named("save") == [] and list((tmp_path / "spare").iterdir()) == []


def test_debug_shows_where(stage: Stage, photos: Path, tmp_path: Path) -> None:
    stage.error = ValueError("expected this, got that.\nDo so.")
    quiet = run("chain", "--images", photos, "--out", tmp_path)
    assert (quiet.exit_code, quiet.stderr) == (1, "pyinterp: expected this, got that. Do so.\n")
    loud = run("chain", "--images", photos, "--out", tmp_path, "--debug")
    assert loud.exception is stage.error


def test_a_fault_of_the_program_says_so(stage: Stage, photos: Path, tmp_path: Path) -> None:
    stage.error = RuntimeError("boom")
    done = run("chain", "--images", photos, "--out", tmp_path)
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "RuntimeError: boom" in done.stderr
    assert "--debug" in done.stderr


def test_ctrl_c_outside_the_search_leaves_with_130(stage: Stage, photos: Path, tmp_path: Path) -> None:
    stage.error = KeyboardInterrupt()
    done = run("chain", "--images", photos, "--out", tmp_path)
    assert (done.exit_code, done.stderr) == (130, "pyinterp: interrupted.\n")


def test_demo_takes_five_crops_of_each_photograph(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures = {name: Image.new("RGB", (40, 30), "green") for name in ("chelsea", "coffee", "rocket")}
    monkeypatch.setattr(models, "photographs", lambda: pictures)
    done = run("demo", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert stage.named("load") == [("default", "cpu")]
    ((count, options),) = stage.named("extract")
    assert count == 10
    assert options["target_kl"] == 0.1
    # Other crops of the same photographs.
    assert options["held_out"].shape == (10, 3, 8, 8)
    assert "Report: " in done.stdout


@pytest.mark.parametrize("command", ["demo", "chain", "interactions", "info"])
def test_help_tells_what_a_command_does(command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "--debug" in done.stdout


def test_info_says_what_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyinterp", "info"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for word in ("pyinterp", "torch", torch.__version__, "compiled kernels", "ops on cpu", "devices", "timm"):
        assert word in done.stdout
