"""v(S) for all subsets, against loops from the definition; what a game refuses; what it leaves as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from playing import CLASSES, SIZE, by_hand, convnet, image, log_odds, players_of
from torch import Tensor, nn

import pyinterp
from pyinterp.games import Game, GameValues, ImageGame, Players, box_players, grid_players
from pyinterp.models import LoadedModel
from pyinterp.models.zoo import Preprocess

GRID = grid_players(2, 3)


class Counting(Game):
    """v(S) = how many players S has, squared."""

    def evaluate(self, codes: Tensor) -> Tensor:
        present = sum(codes >> i & 1 for i in range(self.count))
        return torch.as_tensor(present).float() ** 2


def probability(logits: list[float], target: int) -> float:
    odds = log_odds(logits, target)
    return 1 / (1 + 2.718281828459045**-odds)


@pytest.mark.parametrize(
    ("score", "wanted"),
    [
        ("log_odds", log_odds),
        ("logit", lambda logits, target: logits[target]),
        ("probability", probability),
        (lambda logits: logits[:, 1] - logits[:, 0], lambda logits, target: logits[1] - logits[0]),
    ],
)
@pytest.mark.parametrize("target", [None, 3])
def test_values_are_the_scores_of_all_masked_images(
    score: Any, wanted: Callable[[list[float], int], float], target: int | None
) -> None:
    model, x = convnet(), image()
    chosen = int(model(x[None]).argmax()) if target is None else target
    game = ImageGame(model, x, GRID, target=target, score=score)
    assert game.target == chosen
    values = game.values()
    loops = by_hand(copy.deepcopy(model), x, GRID, lambda z: wanted(z, chosen), torch.zeros_like(x))
    torch.testing.assert_close(values, torch.tensor(loops), rtol=1e-5, atol=1e-5)
    assert values.dtype == torch.float32 and values.shape == (64,)
    torch.testing.assert_close(game.evaluate(torch.tensor([5, 0])), values[[5, 0]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("baseline", ["mean", "blur", torch.tensor([0.1, -0.2, 0.3]), image(7)])
def test_baselines_stand_for_absent_players(baseline: Any) -> None:
    model, x = convnet(), image()
    from pyinterp.games import make_baseline

    game = ImageGame(model, x[None], GRID, baseline=baseline)
    loops = by_hand(
        copy.deepcopy(model), x, GRID, lambda z: log_odds(z, game.target), make_baseline(x, baseline)
    )
    torch.testing.assert_close(game.values(), torch.tensor(loops), rtol=1e-4, atol=1e-5)
    assert game.play().baseline == (baseline if isinstance(baseline, str) else "given")


@pytest.mark.parametrize(("target", "sign"), [(None, 0), (1, 1), (0, -1)])
def test_one_logit_has_a_sign(target: int | None, sign: int) -> None:
    model, x = convnet(1), image()
    plain = float(model(x[None]).detach())
    sign = sign or (1 if plain > 0 else -1)
    values = ImageGame(model, x, GRID, target=target).values()
    assert float(values[-1]) == pytest.approx(sign * plain, rel=1e-5)
    chances = ImageGame(model, x, GRID, target=target, score="probability").values()
    torch.testing.assert_close(chances, values.sigmoid())


def test_log_odds_are_stable_where_the_softmax_is_not() -> None:
    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([300 + x.mean((1, 2, 3)), x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1)

    values = ImageGame(Sure().eval(), image(), GRID, target=0).values()
    assert values.isfinite().all() and float(values[0]) == pytest.approx(300 - 0.6931472, rel=1e-6)


def test_background_is_kept_or_masked() -> None:
    model, x = convnet(), image()
    for background, other in (("keep", x), ("mask", torch.zeros_like(x))):
        players = box_players([(0, 0, 8, 8), (8, 8, 16, 16)], size=(SIZE, SIZE), background=background)  # type: ignore[arg-type]
        values = ImageGame(model, x, players, target=1, score="logit").values()
        shown = other.clone()
        shown[:, :8, :8] = x[:, :8, :8]
        shown[:, 8:, 8:] = 0
        assert float(values[1]) == pytest.approx(float(model(shown[None])[0, 1].detach()), rel=1e-4)


def test_channels_last_and_float64_follow_the_model() -> None:
    seen: list[Tensor] = []
    model, x = convnet(), image()
    plain = ImageGame(model, x, GRID).values()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    handle = model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    torch.testing.assert_close(ImageGame(model, x, GRID).values(), plain, rtol=1e-4, atol=1e-5)
    assert seen[-1].is_contiguous(memory_format=torch.channels_last) and not seen[-1].is_contiguous()
    handle.remove()
    assert ImageGame(model.double(), x, GRID).values().dtype == torch.float64


def test_a_loaded_model_takes_pictures_and_names_classes(tmp_path: Path) -> None:
    def transform(picture: Image.Image) -> Tensor:
        values = torch.tensor(list(picture.resize((SIZE, SIZE)).tobytes()), dtype=torch.float32)
        return values.view(SIZE, SIZE, 3).permute(2, 0, 1) / 255

    names = tuple("abcde")
    loaded = LoadedModel("small", convnet(), Preprocess(transform), names, (3, SIZE, SIZE))
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    picture.save(tmp_path / "noise.png")
    played = ImageGame(loaded, tmp_path / "noise.png", GRID, target=2).play()
    assert played.target_name == "c"
    assert torch.equal(played.values, ImageGame(loaded.model, transform(picture), GRID, target=2).values())


def test_a_game_of_ones_own_and_what_is_told_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    game = Counting([f"p{i}" for i in range(7)])
    wanted = [float(len(players_of(code, 7)) ** 2) for code in range(128)]
    assert game.values().tolist() == wanted
    assert game.evaluate_many(torch.tensor([127, 0, 3])).tolist() == [49.0, 0.0, 4.0]
    told: list[dict[str, Any]] = []
    game.values(progress=lambda row: told.append(dict(row)), batch_size=50)
    assert [row["done"] for row in told] == [50, 100, 128] and told[-1]["total"] == 128
    capsys.readouterr()
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    game.values(progress=True)
    assert "128/128" in capsys.readouterr().err
    game.values()
    assert capsys.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="higher precision"):
        played = game.play()
    assert played.noise == 0 and played.game == "Counting" and played.count == 7


def test_the_played_values_say_what_was_played_and_go_to_disk(tmp_path: Path) -> None:
    played = ImageGame(convnet(), image(), GRID, target=2).play(noise_samples=16)
    assert isinstance(played, GameValues)
    assert (played.target, played.score, played.masking) == (2, "log_odds", "replace")
    assert played.forwards == 64 + 2 * 16 and played.precision == "float32"
    assert "log_odds of class 2" in played.summary()
    played.save(tmp_path / "values.safetensors")
    again = GameValues.load(tmp_path / "values.safetensors")
    assert torch.equal(again.values, played.values)
    assert {**vars(again), "values": 0} == {**vars(played), "values": 0}
    (tmp_path / "broken").write_bytes(b"nothing")
    for name in ("broken", "missing"):
        with pytest.raises(ValueError, match="the values of a game at"):
            GameValues.load(tmp_path / name)


def test_the_same_game_has_the_same_digest() -> None:
    def digest(**options: Any) -> str:
        model = options.pop("model", None) or convnet()
        x, players = options.pop("x", image()), options.pop("players", GRID)
        return ImageGame(model, x, players, **{"target": 1, **options}).play(noise_samples=2).digest

    changed = convnet()
    changed.get_parameter("head.bias").data[0] += 1e-6
    others = [
        digest(model=changed),
        digest(x=image(1)),
        digest(players=grid_players(3, 2)),
        digest(target=2),
        digest(score="logit"),
        digest(baseline="mean"),
        digest(score=lambda logits: logits[:, 0]),
        digest(score=lambda logits: logits[:, 1]),
        digest(allow_tf32=True),
    ]
    assert digest() == digest()
    assert len({digest(), *others}) == 10


def test_nan_scores_are_named() -> None:
    class Fragile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alone = (x[:, :, :8, :5] != 0).flatten(1).any(1) & (x[:, :, 8:] == 0).flatten(1).all(1)
            logits = torch.stack([x.mean((1, 2, 3)), x.sum((1, 2, 3))], 1)
            return torch.where(alone[:, None], torch.nan, logits)

    with pytest.raises(ValueError, match=r"finite scores, got NaN or infinity for \{row 1, column 1\}"):
        ImageGame(Fragile().eval(), image(), GRID).values()


def test_a_constant_game_is_told() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.mean((1, 2, 3))[:, None] + torch.arange(3.0)

    game = ImageGame(Same().eval(), image(), GRID)
    with pytest.warns(UserWarning, match="scores that depend on the players"):
        game.values()
    with pytest.warns(UserWarning, match="scores that depend on the players"):
        game.play()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageGame(convnet(), image(), GRID).values()


def test_too_many_players_are_refused_with_the_price() -> None:
    game = ImageGame(convnet(), image(), grid_players(5, 5))
    words = r"at most 20 players, got 25 players: 33,554,432 forwards, about .*MiB for the scores"
    with pytest.raises(ValueError, match=words) as caught:
        game.values()
    assert "relevant_players" in str(caught.value) and "as_shapiq()" in str(caught.value)
    with pytest.raises(ValueError, match="at most 4 players"):
        ImageGame(convnet(), image(), GRID).values(max_players=4)
    assert "max_players=25 insists" in str(caught.value)
    huge = Counting([f"p{i}" for i in range(60)])
    for most in (20, 60):
        with pytest.raises(ValueError, match=r"at most 20 players|fit into memory") as caught:
            huge.values(max_players=most)
        assert "insists" not in str(caught.value)
    with pytest.raises(ValueError, match="1 to 62 players, got 63"):
        Counting([f"p{i}" for i in range(63)])
    with pytest.raises(ValueError, match=r"got 81, which would take 2\^81 = 2\.42e\+24 forwards"):
        ImageGame(convnet(), image(), grid_players(9, 9))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"target": CLASSES}, ValueError, "a target from 0 to 4, got 5"),
        ({"target": -1}, ValueError, "a target from 0 to 4"),
        ({"target": True}, ValueError, "a target from 0 to 4"),
        ({"target": 1.5}, TypeError, "a class as a whole number"),
        ({"score": "log-odds"}, ValueError, "one of the scores"),
        ({"score": 3}, TypeError, "by name or a callable"),
        ({"score": lambda logits: logits}, ValueError, r"one number per row of the logits"),
        ({"baseline": "grey"}, ValueError, "a baseline by name"),
        ({"masking": "hide"}, ValueError, "a masking by name"),
        ({"model": "resnet50"}, TypeError, "a network, got str"),
        ({"model": Counting(["a"])}, TypeError, "a network"),
        ({"model": convnet().train()}, ValueError, "train mode"),
        ({"image": torch.zeros(3, SIZE, SIZE).int()}, TypeError, "a float batch"),
        ({"image": torch.full((3, SIZE, SIZE), torch.nan)}, ValueError, "finite values"),
        ({"image": torch.zeros(2, 3, SIZE, SIZE)}, ValueError, "one image, got 2"),
        ({"image": "photo.jpg"}, TypeError, "an image tensor"),
        ({"players": Players(torch.zeros(4, 4, dtype=torch.int64), ("a",))}, ValueError, "a map of shape"),
        ({"players": grid_players(20, 1)}, ValueError, "20 x 1 pixels for the grid"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    options = {"model": convnet(), "image": image(), "players": GRID, **change}
    with pytest.raises(error, match=words):
        ImageGame(options.pop("model"), options.pop("image"), options.pop("players"), **options).values()


def test_a_model_with_infinite_logits_is_refused() -> None:
    model = convnet()
    model.get_parameter("head.bias").data[0] = torch.inf
    with pytest.raises(ValueError, match="finite logits on the whole input"):
        ImageGame(model, image(), GRID)


def test_the_top_level_names() -> None:
    assert pyinterp.ImageGame is ImageGame and pyinterp.games.Game is Game
