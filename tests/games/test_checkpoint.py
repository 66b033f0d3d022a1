"""The file of a game that is played: resumed, complete, of another game, damaged, not writable."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from playing import convnet, image
from safetensors.torch import save_file
from torch import Tensor

from pyinterp.games import ImageGame, grid_players
from pyinterp.games import checkpoint as checkpoints
from pyinterp.games.checkpoint import Scores
from pyinterp.storage import replace_files

GRID = grid_players(2, 3)


def play(path: Path, **options: Any) -> Tensor:
    model, x = options.pop("model", None) or convnet(), options.pop("x", image())
    players = options.pop("players", GRID)
    return ImageGame(model, x, players, **{"target": 1, **options}).values(checkpoint=path)


def changed() -> torch.nn.Module:
    model = convnet()
    model.get_parameter("stem.weight").data[0, 0, 0, 0] += 1e-6
    return model


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("model", {"model": changed()}),
        ("image", {"x": image(1)}),
        ("players", {"players": grid_players(3, 2)}),
        ("target", {"target": 2}),
        ("score", {"score": "logit"}),
        ("baseline", {"baseline": "mean"}),
        ("precision", {"allow_tf32": True}),
    ],
)
def test_a_checkpoint_of_another_game_is_refused(tmp_path: Path, part: str, options: dict[str, Any]) -> None:
    path = tmp_path / "game"
    values = play(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"a checkpoint of this game at .*\(it differs in .*{part}"):
        play(path, **options)
    assert path.read_bytes() == before
    assert torch.equal(play(path), values)


def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(ValueError, match="the checkpoint of a game at"):
        play(path)
    assert path.read_text() == "years of work"
    save_file({"values": torch.zeros(64)}, path)
    with pytest.raises(ValueError, match="no game of this version"):
        play(path)
    play(tmp_path / "game")
    path.write_bytes((tmp_path / "game").read_bytes()[:200])
    with pytest.raises(ValueError, match="the checkpoint of a game at"):
        play(path)


def test_a_path_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    calls: list[int] = []

    def score(logits: Tensor) -> Tensor:
        calls.append(len(logits))
        return logits[:, 0]

    game = ImageGame(convnet(), image(), GRID, score=score)
    calls.clear()
    with pytest.raises(OSError, match="a folder that exists"):
        game.values(checkpoint=tmp_path / "no" / "folder")
    assert sum(calls) <= 8  # the fingerprint of the score
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_written_every_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    path = tmp_path / "game"
    scores = Scores(8, torch.float32, {"game": "one"}, path)
    scores.keep(torch.tensor([1, 5]), torch.tensor([2.0, 3.0]))
    again = Scores(8, torch.float32, {"game": "one"}, path)
    assert again.done.nonzero().flatten().tolist() == [1, 5] and float(again.values[5]) == 3.0
    assert [file.name for file in tmp_path.iterdir()] == ["game"]


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    path, sizes, errors = tmp_path / "game", [1 << 10, 1 << 20], []

    def write(size: int) -> None:
        try:
            for _ in range(50):
                replace_files("save", {path: size.to_bytes(4, "little") * (size // 4)}, "fix.")
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(size,)) for size in 2 * sizes]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            content = path.read_bytes()
            assert content == content[:4] * (int.from_bytes(content[:4], "little") // 4)
    assert not errors and [file.name for file in tmp_path.iterdir()] == ["game"]


def test_values_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    played = ImageGame(convnet(), image(), GRID).play(noise_samples=2)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"GameValues\.save: expected a path to a file"):
        played.save(tmp_path / "folder")
    with pytest.raises(OSError, match=r"GameValues\.save: expected to write"):
        played.save(tmp_path / "no" / "values")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_nan_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "game"
    broken = [True]

    def score(logits: Tensor) -> Tensor:
        found = logits[:, 0].clone()
        if broken[0] and len(logits) == 7:
            found[3] = torch.nan
        return found

    game = ImageGame(convnet(), image(), GRID, score=score)
    with pytest.raises(ValueError, match="finite scores"):
        game.values(checkpoint=path, batch_size=7)
    broken[0] = False
    resumed = game.values(checkpoint=path, batch_size=7)
    torch.testing.assert_close(resumed, game.values(), rtol=1e-5, atol=1e-6)
