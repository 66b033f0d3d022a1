"""``pyinterp knowledge``: from folders to a page, again from what is kept, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from coloured_folders import COLOURS, Net, loaded, write_folders
from PIL import Image
from typer.testing import CliRunner, Result

from pyinterp import cli, models
from pyinterp.knowledge import LayerKnowledge


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    net = Net().eval()
    with torch.no_grad():
        net.conv.weight.zero_()
        net.conv.weight[range(3), range(3)] = 1 / 9
        net.last.weight.zero_()
        net.last.weight[range(3), range(3)] = 5
    monkeypatch.setattr(models, "load", lambda name, *, device: loaded(net))
    return net


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data")


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, ["knowledge", "--players", "2x2", *map(str, words)])


def test_from_folders_to_a_report_and_again(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--data", data, "--images", 6, "--layers", "conv", "--out", out)
    done = run(*words)
    assert done.exit_code == 0, done.output
    found = LayerKnowledge.load(out / "knowledge")
    assert found.layers == ("conv", "output") and found.labels.bincount().tolist() == [2, 2, 2]
    assert found.class_names == ("blue", "green", "red") and found.image_names[0].startswith("blue/")
    assert float(found.accuracy[1]) == 1  # classes are matched by their names
    lines = done.stdout.splitlines()
    assert lines[0] == "net: 30 images of 3 classes" and any(
        one.startswith("96 masked images, about 0 seconds") for one in lines
    )
    assert lines[-1] == f"Report: {(out / 'report.html').resolve()}"
    whole = sum(net.batches)
    net.batches.clear()
    again = run(*words)
    assert again.exit_code == 0 and torch.equal(LayerKnowledge.load(out / "knowledge").effects, found.effects)
    assert sum(net.batches) <= whole - 30 - 6 * 16  # no image is read, and no subset played, a second time


def test_an_interrupted_run_goes_on(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--data", data, "--images", 6, "--layers", "conv", "--out", out)
    net.stop_at = 39
    done = run(*words)
    assert done.exit_code == 130
    assert done.stderr.endswith(
        f"pyinterp: interrupted; the same command goes on from what is kept in {out}.\n"
    )
    net.stop_at = -1
    assert run(*words).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--images", 7), "--images: expected 2 to 6 images, got 7, with 6 of 30 held out."),
        (("--layers", "covn"), "got 'covn'. Near it: 'conv'."),
        (("--players", "3by4"), "--players: expected ROWSxCOLUMNS, got '3by4'."),
        (("--held-out", 1), "--held-out: expected a share between 0 and 1, got 1.0."),
        (("--players", "5x5"), "--players: expected at most 20 parts, got 25, whose 2^25 subsets"),
        (("--draws", 1), "--draws: expected 0 or at least 5 noisy copies, got 1."),
        (("--data", "nowhere"), "no folder nowhere"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    net: Net, data: Path, tmp_path: Path, words: tuple[object, ...], said: str
) -> None:
    done = run("--data", data, "--images", 3, "--out", tmp_path / "out", *words)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1 and said in done.stderr


def test_only_what_an_earlier_run_has_left_is_to_be_deleted(net: Net, data: Path, tmp_path: Path) -> None:
    """An error that has nothing to do with files, though it speaks of a path."""
    wrong = run("--data", data, "--layers", "drop_path", "--images", 3, "--out", tmp_path / "out")
    assert wrong.exit_code == 1 and "An earlier run" not in wrong.output
    words = ("--data", data, "--layers", "conv", "--images", 3, "--out", tmp_path / "out")
    assert run(*words).exit_code == 0
    Image.new("RGB", (20, 20)).save(data / "red" / "0.png")
    stale = run(*words)
    assert stale.exit_code == 1 and "An earlier run" in stale.output and "layers-" in stale.output


def test_without_data_ten_crops_of_photographs_are_explained(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pictures = {
        name: Image.fromarray(
            (np.array(colour) + rng.integers(-40, 40, (300, 300, 3))).clip(0, 255).astype(np.uint8)
        )
        for name, colour in COLOURS.items()
    }
    monkeypatch.setattr(models, "photographs", lambda: pictures)
    done = CliRunner().invoke(cli.app, ["knowledge", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    found = LayerKnowledge.load(tmp_path / "out" / "knowledge")
    assert found.effects.shape[0] == 10 and found.n == 9
    assert found.class_names == ("blue", "green", "red")


def test_the_output_alone_takes_any_folder(net: Net, data: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out", ("--layers", "output")
    for folder in (data / "red", data):
        done = run("--data", folder, *words, "--images", 4, "--out", out)
        assert done.exit_code == 0, done.output
        assert f"net: {10 if folder.name == 'red' else 30} images\n" in done.output
    found = LayerKnowledge.load(out / "knowledge")
    assert found.layers == ("output",) and found.labels.max() < 3
    assert "What net knows of 4 images" in (out / "report.html").read_text("utf-8")
    few = run("--data", data / "red", *words, "--images", 11, "--out", out)
    assert few.exit_code == 1 and "--images: expected 2 to 10 images, got 11" in few.output
    usual = run("--data", data / "red", *words, "--out", tmp_path / "usual")
    assert usual.exit_code == 0 and f"{10 * 16} masked images" in usual.output
    missing = run("--data", tmp_path / "none", *words, "--out", out)
    assert missing.exit_code == 1 and "--data: expected a folder of images, got no folder" in missing.output


def test_another_class_alone_is_refused(net: Net, data: Path, tmp_path: Path) -> None:
    for name in ("green", "red"):
        (data / name).rename(tmp_path / name)
    done = run("--data", data, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "at least two classes, got one (blue)" in done.stderr
