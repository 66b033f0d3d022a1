"""Arguments of the wrong kind: one line that says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playing import SIZE, convnet, image
from test_text_game import TEXT, bert, tokenizer
from torch import Tensor, nn

from pyinterp.games import (
    FeatureGame,
    Game,
    ImageGame,
    TextGame,
    grid_players,
    learn_baseline,
    make_baseline,
    relevant_players,
    segment_players,
)
from pyinterp.models import LoadedModel
from pyinterp.models.zoo import Preprocess

GRID = grid_players(2, 3)
ROW = torch.ones(5)


def linear() -> nn.Module:
    return nn.Linear(5, 3).eval()


def game() -> ImageGame:
    return ImageGame(convnet(), image(), GRID)


def text(**options: Any) -> TextGame:
    return TextGame(bert(), tokenizer(), TEXT, **options)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (
            TypeError,
            r"ImageGame: expected players, got str\. Pass what grid_players\(3, 4\) returns",
            lambda: ImageGame(convnet(), image(), "3x4"),  # type: ignore[arg-type]
        ),
        (
            TypeError,
            "ImageGame: expected players, got Tensor",
            lambda: ImageGame(convnet(), image(), torch.zeros(SIZE, SIZE).long()),  # type: ignore[arg-type]
        ),
        (
            TypeError,
            "FeatureGame: expected players, got list",
            lambda: FeatureGame(linear(), ROW, ROW, []),  # type: ignore[arg-type]
        ),
        (
            TypeError,
            "relevant_players: expected players, got str",
            lambda: relevant_players(convnet(), image(), "3x4", 2),  # type: ignore[arg-type]
        ),
        (
            TypeError,
            "learn_baseline: expected players, got str",
            lambda: learn_baseline(convnet(), image(), "3x4"),  # type: ignore[arg-type]
        ),
        (TypeError, "TextGame: expected players, got list", lambda: text(players=[0, 1])),
        (TypeError, "by name or as a tensor, got NoneType", lambda: text(baseline=None)),
        (TypeError, r"x and baseline as tensors \(D,\), got list", lambda: FeatureGame(linear(), ROW, [1.0])),  # type: ignore[arg-type]
        (TypeError, "by name or as a tensor, got NoneType", lambda: make_baseline(image(), None)),  # type: ignore[arg-type]
        (
            TypeError,
            "make_baseline: .* by name or as a tensor, got ndarray.*torch.from_numpy",
            lambda: ImageGame(convnet(), image(), GRID, baseline=np.zeros((3, SIZE, SIZE))),  # type: ignore[arg-type]
        ),
        (
            TypeError,
            r"segment_players: expected an image tensor .*, got Image\. Pass the tensor",
            lambda: segment_players(Image.new("RGB", (8, 8)), 3),  # type: ignore[arg-type]
        ),
        (TypeError, r"batch_size: expected a whole number, got 2\.5", lambda: game().values(batch_size=2.5)),  # type: ignore[arg-type]
        (TypeError, "batch_size: expected a whole number, got True", lambda: game().play(batch_size=True)),
        (ValueError, "batch_size: expected at least 1, got 0", lambda: game().values(batch_size=0)),
        (
            ValueError,
            "batch_size: expected at least 1, got -1",
            lambda: game().evaluate_many(torch.arange(3), batch_size=-1),
        ),
        (ValueError, r"devices: .*, got 'gpu' \(RuntimeError", lambda: game().values(devices=["gpu"])),
        (ValueError, "devices: .*, got 'cuda:99'", lambda: game().values(devices=["cpu", "cuda:99"])),
        (ValueError, "devices: expected a list of devices, got 2", lambda: game().values(devices=2)),  # type: ignore[arg-type]
        (TypeError, "progress: .* or a callable, got 3", lambda: game().values(progress=3)),  # type: ignore[arg-type]
    ],
)
def test_one_line_says_what_was_expected(
    error: type[Exception], words: str, call: Callable[[], object]
) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda codes: codes.tolist(), "list"),
        (lambda codes: codes[:, None].float(), r"shape \(4, 1\)"),
        (lambda codes: codes.float().mean(), r"shape \(\)"),
    ],
)
def test_scores_of_ones_own_are_checked(answer: Callable[[Tensor], Any], got: str) -> None:
    class Own(Game):
        def evaluate(self, codes: Tensor) -> Tensor:
            return answer(codes)  # type: ignore[no-any-return]

    words = rf"Own\.evaluate: expected a tensor of one number per subset, \(4,\), got {got}"
    own = Own(list("abc"))
    with pytest.raises(ValueError, match=words):
        own.values(batch_size=4)
    with pytest.raises(ValueError, match=words):
        own.evaluate_many(torch.arange(4), batch_size=4)
    with pytest.raises(ValueError, match=r"Own\.evaluate: expected a tensor"):
        own.values(max_players=2)


def loaded() -> LoadedModel:
    return LoadedModel(
        "small", convnet(), Preprocess(lambda picture: image()), tuple("abcde"), (3, SIZE, SIZE)
    )


def test_a_loaded_model_takes_tensors_of_its_channels_and_any_size() -> None:
    for wrong in (torch.zeros(1, SIZE, SIZE), torch.zeros(1, 4, SIZE, SIZE)):
        with pytest.raises(ValueError, match=r"shape \(3, any, any\), got .* The model takes 3 channels"):
            ImageGame(loaded(), wrong, GRID)
    assert ImageGame(loaded(), torch.rand(3, 20, 24), GRID).player_map.shape == (20, 24)


def test_an_image_that_the_model_cannot_take_is_told_with_its_shape() -> None:
    with pytest.raises(ValueError, match=r"ImageGame: .* got RuntimeError: .* \(1, 4, 16, 16\)\. ") as caught:
        ImageGame(convnet(), torch.zeros(4, SIZE, SIZE), GRID)
    assert isinstance(caught.value.__cause__, RuntimeError) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"FeatureGame: .* on a row of shape \(1, 4\)"):
        FeatureGame(linear(), ROW[:4], ROW[:4])


def test_too_little_memory_for_the_first_forward_stays_that() -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(torch.OutOfMemoryError):
        ImageGame(Large().eval(), image(), GRID)
