"""``pyinterp head``: from a folder per class to a head and a page, twice, and one line for whatever is wrong."""

from __future__ import annotations

import re
import shutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from coloured_folders import COLOURS, Net, loaded, write_folders
from PIL import Image
from typer.testing import CliRunner, Result

from pyinterp import cli, models
from pyinterp.heads import SparseHead, SparsePath
from pyinterp.heads.head_study import HeadStudy
from pyinterp.heads.trail import Trail

KEPT = ["features.json", "features.npy", "path.json", "path.safetensors"]
FILES = sorted([*KEPT, "head.json", "head.safetensors", "report.html", "study.json", "study.safetensors"])


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    net = Net().eval()
    monkeypatch.setattr(models, "load", lambda name, *, device: loaded(net))
    return net


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data")


def run(*words: object) -> Result:
    quick = () if "--n-lambdas" in words else ("--n-lambdas", 15)
    return CliRunner().invoke(cli.app, ["head", *map(str, (*words, *quick))])


def test_from_folders_to_a_report(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("--data", data, "--features-per-class", 2, "--validation", 0.3, "--out", out)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == FILES
    head, path = SparseHead.load(out / "head"), SparsePath.load(out / "path")
    assert head.class_names == ("blue", "green", "red")
    used = path.features_per_class
    assert abs(head.features_per_class - 2) == float((used - 2).abs().min())
    assert (path.samples, path.validation_samples) == (21, 9)
    study = HeadStudy.load(out / "study")
    # The report judges by exactly the samples that the path held back.
    assert study.held_out and study.judged == 9
    assert study.accuracy == head.origin["validation_accuracy"]
    assert study.dense_accuracy is not None  # the network has classes of these names
    lines = done.stdout.splitlines()
    assert lines[0] == "net: 30 images of 3 classes"
    assert any(line.startswith("3 classes, ") for line in lines)
    assert lines[-2:] == [
        f"Head: {(out / 'head').resolve()}.safetensors",
        f"Report: {(out / 'report.html').resolve()}",
    ]
    assert "blue/" in (out / "report.html").read_text("utf-8")


def test_features_are_located_and_made_if_asked(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--data", data, "--out", out, "--features-per-class", 1)
    assert run(*words).exit_code == 0
    cards = HeadStudy.load(out / "study").cards
    assert cards and all(card.places.shape[1:] == (7, 7) and not card.visual.numel() for card in cards)
    done = run(*words, "--visualise")
    report = (out / "report.html").resolve()
    told = f"Making pictures of {len(cards)} features. The report without them is there: {report}"
    assert told in done.stdout.splitlines()
    assert all(card.visual.shape == (3, 16, 16) for card in HeadStudy.load(out / "study").cards)
    assert "was made to raise the feature" in report.read_text("utf-8")


def test_an_interruption_of_the_pictures_leaves_the_report_without_them(
    net: Net, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*anything: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("pyinterp.heads.illustrate"), "visualise_features", stop)
    out = tmp_path / "out"
    done = run("--data", data, "--out", out, "--features-per-class", 1, "--visualise")
    report = (out / "report.html").resolve()
    told = "interrupted; head and report are written, without pictures of the features"
    assert (done.exit_code, done.stderr) == (130, f"pyinterp: {told}: {report}\n")
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert "was made to raise" not in report.read_text("utf-8")
    assert all(len(card.places) for card in HeadStudy.load(out / "study").cards)


def test_a_second_run_computes_no_features_again(net: Net, data: Path, tmp_path: Path) -> None:
    words = ("--data", data, "--out", tmp_path / "out", "--validation", 0.2)
    assert run(*words, "--features-per-class", 1).exit_code == 0
    before = [(path, path.read_bytes()) for path in sorted((tmp_path / "out").glob("features.*"))]
    net.batches.clear()
    assert run(*words, "--features-per-class", 3).exit_code == 0
    assert max(net.batches, default=0) < 30
    assert all(path.read_bytes() == content for path, content in before)


def test_options_reach_the_path(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--alpha", 0.9, "--n-lambdas", 9, "--grouped", "--seed", 3, "--within", 0.5, "--validation", 0.2)
    done = run("--data", data, "--out", out, "--batch-size", 7, *words)
    assert done.exit_code == 0, done.output
    path = SparsePath.load(out / "path")
    assert (path.alpha, path.grouped, len(path.settings["grid"])) == (0.9, True, 9)
    assert (path.settings["seed"], path.validation_samples) == (3, 6)
    head = SparseHead.load(out / "head")
    good = path.validation_accuracy >= path.validation_accuracy.max() - 0.5
    assert head.features_per_class == float(path.features_per_class[good].min())
    assert max(net.batches) == 7


def test_without_validation_the_page_says_so(net: Net, data: Path, tmp_path: Path) -> None:
    done = run("--data", data, "--validation", 0, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "30 samples that it was fitted to" in done.stdout
    assert "Nothing was held out." in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_without_data_five_photographs_are_told_apart(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {name: Image.new("RGB", (20, 30), colour) for name, colour in COLOURS.items()}
    pictures["blue"].putpixel((9, 9), (255, 255, 255))
    monkeypatch.setattr(models, "photographs", lambda: pictures)
    done = run("--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("net: 60 images of 3 classes\n")
    assert "blue, crop 1" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_an_interrupted_extraction_goes_on(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--data", data, "--out", out, "--batch-size", 6)
    net.stop_at = 7  # four batches of two searches for the layer, then three of six images
    done = run(*words)
    assert done.exit_code == 130
    assert done.stderr == f"pyinterp: interrupted; the same command goes on from what is kept in {out}.\n"
    net.stop_at = -1
    net.batches.clear()
    assert run(*words).exit_code == 0
    assert net.batches.count(6) == 2  # 12 of 30 images were left


def test_an_interrupted_path_goes_on(
    net: Net, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    add, points = Trail._add, []

    def stop(self: Trail, *found: Any) -> None:
        points.append(1)
        if len(points) == 5:
            raise KeyboardInterrupt
        add(self, *found)

    with monkeypatch.context() as patch:
        patch.setattr(Trail, "_add", stop)
        done = run("--data", data, "--out", out)
    assert done.exit_code == 130 and "goes on from what is kept" in done.stderr
    assert len(SparsePath.load(out / "path")) == 4
    monkeypatch.setattr(Trail, "_add", lambda self, *found: (points.append(1), add(self, *found)))
    points.clear()
    assert run("--data", data, "--out", out).exit_code == 0
    assert len(points) == len(SparsePath.load(out / "path")) - 4


def test_a_path_of_other_options_is_fitted_anew(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("--data", data, "--out", out).exit_code == 0
    before = (out / "features.npy").stat().st_mtime_ns
    done = run("--data", data, "--out", out, "--alpha", 0.5)
    assert done.exit_code == 0, done.output
    assert f"The path in {out} differs in alpha, grid: it is fitted anew." in done.stdout.splitlines()
    assert SparsePath.load(out / "path").alpha == 0.5
    assert (out / "features.npy").stat().st_mtime_ns == before
    assert "anew" not in run("--data", data, "--out", out, "--alpha", 0.5).stdout


@pytest.mark.parametrize(
    ("name", "keep"), [("path.safetensors", 0.5), ("path.json", 0.5), ("path.safetensors", 0)]
)
def test_a_damaged_path_is_fitted_anew(net: Net, data: Path, tmp_path: Path, name: str, keep: float) -> None:
    out = tmp_path / "out"
    assert run("--data", data, "--out", out).exit_code == 0
    whole = (out / name).read_bytes()
    (out / name).unlink()
    if keep:
        (out / name).write_bytes(whole[: int(keep * len(whole))])
    done = run("--data", data, "--out", out)
    assert done.exit_code == 0, done.output
    assert f"The path in {out} is damaged: it is fitted anew." in done.stdout.splitlines()
    assert (out / name).stat().st_size == len(whole)


def test_another_result_in_the_place_of_the_path_is_left_alone(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("--data", data, "--out", out).exit_code == 0
    for suffix in (".json", ".safetensors"):
        (out / f"head{suffix}").replace(out / f"path{suffix}")
    done = run("--data", data, "--out", out)
    assert done.exit_code == 1 and "SparseHead" in done.stderr
    assert SparseHead.load(out / "path").class_names


def test_features_of_other_data_are_named(net: Net, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("--data", data, "--out", out).exit_code == 0
    (data / "red" / "0.png").unlink()
    done = run("--data", data, "--out", out)
    assert done.exit_code == 1 and "features of other data" in done.stderr
    assert done.stderr.endswith(f"delete {out / 'features'}.*, or choose another --out.\n")
    (out / "features.json").write_text("[1, ")
    done = run("--data", data, "--out", out)
    assert done.exit_code == 1 and "a features.json that is damaged (" in done.stderr
    assert done.stderr.endswith(f"delete {out / 'features'}.*, or choose another --out.\n")


def test_in_a_folder_that_was_not_chosen_features_of_other_data_are_replaced(
    net: Net, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--data", data).exit_code == 0
    (data / "red" / "0.png").unlink()
    assert run("--data", data, "--out", "head").exit_code == 1
    done = run("--data", data)
    assert done.exit_code == 0, done.output
    assert (
        "The features in head are of another model or of other data: they are computed anew." in done.stdout
    )
    assert np.load("head/features.npy").shape[0] == 29


def make(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("counts", "words", "said"),
    [
        ({}, (), "--data: expected a folder with one sub-folder of images per class, got no folder"),
        ({"": 3}, (), "images per class, got FOLDER without sub-folders. Make a folder of each class's name"),
        ({"cats": 5}, (), "--data: expected at least two classes, got one (cats)."),
        ({"cats": 5, "dogs": 1}, (), "--data: expected at least 2 images of each class, got one of dogs."),
        ({"cats": 5, "dogs": 0}, (), "expected pictures in each folder of FOLDER, got none in dogs."),
        (
            {"cats": 4, "dogs": 3},
            (),
            "at most 4 images per class is less than one. Pass --validation 0.25 or",
        ),
        ({"cats": 4, "dogs": 3}, ("--validation", 1), "--validation: expected a share from 0 to below 1"),
    ],
)
def test_a_folder_that_does_not_do_is_one_line(
    net: Net, tmp_path: Path, counts: dict[str, int], words: tuple[object, ...], said: str
) -> None:
    folder = make(tmp_path / "some", **counts)
    done = run("--data", folder, "--out", tmp_path / "out", *words)
    assert done.exit_code == 1
    assert said.replace("FOLDER", str(folder)) in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.output
    assert net.batches == [] and not (tmp_path / "out").exists()


def test_the_suggested_share_is_enough(net: Net, tmp_path: Path) -> None:
    folder = make(tmp_path / "some", cats=7, dogs=3)
    words = ("--data", folder, "--out", tmp_path / "out")
    share = re.search(r"Pass --validation (\S+) or", run(*words).stderr)
    assert share is not None
    assert run(*words, "--validation", share[1]).exit_code == 0


def test_all_broken_images_are_found_before_the_network_runs(net: Net, data: Path, tmp_path: Path) -> None:
    (data / "green" / "3.png").write_text("no image")
    cut = data / "red" / "9.png"
    cut.write_bytes(cut.read_bytes()[:-300])
    done = run("--data", data, "--out", tmp_path / "out", "--batch-size", 2)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert "got 2 of 30 that can't (green/3.png: not an image file, or of an unknown" in done.stderr
    assert "; red/9.png: " in done.stderr
    assert max(net.batches) == 2 and len(net.batches) == 2  # the search for the layer, for its width
    assert not (tmp_path / "out" / "features.json").exists()


def test_features_that_the_disk_has_no_room_for_cost_no_work(
    net: Net, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=(10 << 20) + 4 * 12 * 30 - 1)  # a byte short of 30 rows of 12 features
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    words = ("--data", data, "--out", tmp_path / "out")
    done = run(*words)
    assert done.exit_code == 1
    assert f"with room for 10 MB, got {tmp_path / 'out'} (10 MB free). Free some space" in done.stderr
    usage.free += 1
    assert run(*words).exit_code == 0
    usage.free -= 4 * 12 * 30  # the features are there
    assert run(*words).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--features-per-class", 1, "--n-lambdas", 2), "A larger --n-lambdas gives heads between these."),
        (("--features-per-class", 11), "It is the last one; a smaller --alpha lets heads use more."),
        (("--features-per-class", 30), "The network has only 12."),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_head_off_the_wish_is_told_in_words_of_the_command(
    net: Net, data: Path, tmp_path: Path, words: tuple[object, ...], said: str
) -> None:
    done = run("--data", data, "--out", tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("Asked for"))
    assert line.endswith(said)
    assert "min_ratio" not in done.output


def test_an_unknown_model_is_told_with_close_names(data: Path, tmp_path: Path) -> None:
    done = run("--data", data, "--model", "timm:resnet81", "--out", tmp_path / "out")
    assert done.exit_code == 1 and "Did you mean timm:resnet" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--features-per-class", 2, "--within", 0.1),
        ("--features-per-class", 0),
        ("--within", 0.1, "--validation", 0),
        ("--within", 2),
        ("--alpha", 1.5),
        ("--alpha", 0),
        ("--alpha", 0, "--features-per-class", 20),
        ("--n-lambdas", 0),
        ("--batch-size", 0),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(data: Path, words: tuple[object, ...]) -> None:
    assert run("--data", data, *words).exit_code == 2
