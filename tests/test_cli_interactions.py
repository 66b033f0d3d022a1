"""``pyinterp interactions``: from an image file to files and a page, and one line for whatever is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from pyinterp import cli, models
from pyinterp.games import ImageGame
from pyinterp.games.checkpoint import Scores
from pyinterp.interactions import Interactions
from pyinterp.models.zoo import LoadedModel

CLASSES = ("tabby, tabby cat", "Egyptian cat", "crane, bird", "crane, machine")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=2)
        self.last = nn.Linear(8, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x).relu().amax((2, 3)))


def preprocess(image: Image.Image) -> Tensor:
    small = image.convert("RGB").resize((16, 16))
    return torch.tensor(list(small.tobytes()), dtype=torch.float32).reshape(16, 16, 3).permute(2, 0, 1) / 255


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    loaded = LoadedModel("net", Net().eval(), preprocess, CLASSES, (3, 16, 16))  # type: ignore[arg-type]
    monkeypatch.setattr(models, "load", lambda name, *, device: loaded)
    picture = Image.new("RGB", (32, 32), "orange")
    picture.paste("navy", (4, 4, 20, 12))
    picture.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, ["interactions", *map(str, words)])


def test_from_a_file_to_a_report(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("--image", photo, "--players", "2x2", "--target", "egyptian CAT", "--out", out)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == [
        "interactions.json",
        "interactions.safetensors",
        "report.html",
    ]
    found = Interactions.load(out / "interactions")
    assert (found.n, found.target, found.class_name, found.score) == (4, 1, "Egyptian cat", "log_odds")
    assert found.player_names[3] == "row 2, column 2"
    lines = done.stdout.splitlines()
    assert lines[0] == "net: 16 masked images"
    assert lines[1].startswith("Interactions of Egyptian cat in net: ")
    assert lines[-1] == f"Report: {(out / 'report.html').resolve()}"
    assert "scores “Egyptian cat”" in (out / "report.html").read_text("utf-8")


def test_options_reach_the_game(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--score", "probability", "--baseline", "blur", "--target", 2, "--draws", 2, "--seed", 3)
    done = run("--image", photo, "--players", "1X3", "--out", out, "--checkpoint", tmp_path / "half", *words)
    assert done.exit_code == 0, done.output
    found = Interactions.load(out / "interactions")
    assert (found.score, found.baseline, found.target) == ("probability", "blur", 2)
    assert found.draws is not None and found.draws.shape == (2, 2, 8)
    assert (tmp_path / "half").is_file()


def test_without_an_image_the_cat_is_played(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "photographs", lambda: {"chelsea": Image.new("RGB", (20, 20), "red")})
    assert run("--players", "1x2", "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--players", "3by4"), "--players: expected ROWSxCOLUMNS, got '3by4'. Write 3x4"),
        (("--players", "0x4"), "--players: expected ROWSxCOLUMNS, got '0x4'."),
        (("--players", "5x5"), "at most 20 players, got 25 players: 33,554,432 forwards"),
        (("--players", "30x1", "--max-players", 40), "pixels for the grid"),
        (("--target", "tabbi"), "got 'tabbi'. Close names: tabby."),
        (("--target", "zzz"), "a class of the model (0 to 3), got 'zzz'. Give its number"),
        (("--target", "4"), "a class of the model (0 to 3), got '4'."),
        (("--target", "crane"), "which 2 (crane, bird), 3 (crane, machine) are called. Give the number"),
        (
            ("--masking", "drop"),
            "masking='drop': expected a vision transformer whose blocks take any number of tokens, got",
        ),
        (("--image", "nowhere.png"), "--image: expected an image file, got no file nowhere.png."),
    ],
)
def test_wrong_input_is_one_line(photo: Path, tmp_path: Path, words: tuple[object, ...], said: str) -> None:
    done = run("--image", photo, "--out", tmp_path / "out", *words)
    assert done.exit_code == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.output
    assert not list((tmp_path / "out").glob("*"))


def test_a_file_that_is_no_image_is_named(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    done = run("--image", tmp_path / "text.png", "--out", tmp_path / "out")
    assert done.exit_code == 1 and "text.png" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("grid", "said"), [("9x9", "got 81, which would take"), ("3x7", "got 21 players: 2,097,152 forwards")]
)
def test_too_many_players_are_refused_before_anything_is_promised(
    photo: Path, tmp_path: Path, grid: str, said: str
) -> None:
    done = run("--image", photo, "--players", grid, "--out", tmp_path / "out")
    assert done.exit_code == 1 and said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", [("--score", "odds"), ("--draws", "-1"), ("--nonsense",)])
def test_options_that_do_not_parse_are_usage_errors(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


@contextmanager
def broken_off(monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException) -> Iterator[None]:
    """The game's method evaluates a first batch of subsets, keeps their scores and raises."""
    whole = getattr(ImageGame, method)

    def part(self: ImageGame, **options: object) -> object:
        def stop(state: object) -> None:
            raise error

        return whole(self, **(options | {"progress": stop, "batch_size": 4}))

    with monkeypatch.context() as patch:
        patch.setattr(ImageGame, method, part)
        yield


def done_in(path: Path) -> int:
    """How many scores the file holds."""
    return int(load_file(path)["done"].sum())


def went_on(path: Path) -> str:
    return f"pyinterp: interrupted; the same command goes on from the scores so far, in {path}.\n"


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half"
    words = ("--image", photo, "--players", "2x3", "--out", tmp_path / "out", "--checkpoint", half)
    with broken_off(monkeypatch, "play", KeyboardInterrupt()):
        done = run(*words)
    assert (done.exit_code, done.stderr) == (130, went_on(half))
    assert run(*words).exit_code == 0
    assert done_in(half) == 64
    # Another game's scores are refused.
    done = run(*words, "--target", "3")
    assert done.exit_code == 1 and "one of another game (it differs in target, score)" in done.stderr
    assert "--out" not in done.stderr


@pytest.mark.parametrize(
    ("method", "error", "code", "file"),
    [
        ("play", KeyboardInterrupt(), 130, "scores.safetensors"),
        ("play", RuntimeError("boom"), 1, "scores.safetensors"),
        ("values", KeyboardInterrupt(), 130, "scores-draw1.safetensors"),
    ],
)
def test_scores_are_kept_in_the_folder_until_all_is_done(
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    error: BaseException,
    code: int,
    file: str,
) -> None:
    out = tmp_path / "out"
    words = ("--image", photo, "--players", "2x3", "--draws", 2, "--out", out)
    with broken_off(monkeypatch, method, error):
        done = run(*words)
    assert done.exit_code == code and done.stderr.count("\n") == 1
    assert done.stderr == went_on(out / "scores.safetensors") or code == 1
    assert 0 < done_in(out / file) < 64

    before = done_in(out / "scores.safetensors")
    evaluated = []
    keep = Scores.keep

    def counted(self: Scores, codes: Tensor, scores: Tensor) -> None:
        evaluated.append(len(codes))
        keep(self, codes, scores)

    monkeypatch.setattr(Scores, "keep", counted)
    left = 3 * 64 - before - (done_in(out / file) if method == "values" else 0)
    assert run(*words).exit_code == 0
    assert sum(evaluated) == left
    assert sorted(p.name for p in out.iterdir()) == [
        "interactions.json",
        "interactions.safetensors",
        "report.html",
    ]


def test_scores_of_another_unfinished_run_are_refused_in_words_of_the_command(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ("--image", photo, "--players", "2x3", "--out", out)
    with broken_off(monkeypatch, "play", KeyboardInterrupt()):
        run(*words)
    done = run(*words, "--target", "3")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert "one of another game (it differs in target, score)" in done.stderr
    assert done.stderr.endswith(f"delete {out / 'scores*.safetensors'}, or choose another --out.\n")
    assert run(*words).exit_code == 0


def test_ctrl_c_before_the_first_score_promises_nothing(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: ImageGame, **options: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageGame, "play", stop)
    done = run("--image", photo, "--players", "1x2", "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (130, "pyinterp: interrupted.\n")
