"""Segments: exactly as many as asked, connected, and where the colours are."""

from __future__ import annotations

import sys

import pytest
import torch

from pyinterp.games import segment_players

measure = pytest.importorskip("skimage.measure")


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("kind", ["noise", "flat", "grey"])
def test_exactly_n_connected_segments(kind: str, n: int) -> None:
    image = torch.zeros(3, 20, 30) if kind == "flat" else torch.randn(1 if kind == "grey" else 3, 20, 30)
    players = segment_players(image, n)
    assert players.count == n
    assert players.map.shape == (20, 30)
    assert sorted(players.map.unique().tolist()) == list(range(n))
    for i in range(n):
        assert measure.label((players.map == i).numpy(), connectivity=1).max() == 1


def test_every_pixel_a_player() -> None:
    assert torch.equal(segment_players(torch.rand(3, 3, 4), 12).map, torch.arange(12).reshape(3, 4))


def test_segments_follow_the_colours() -> None:
    image = torch.zeros(3, 24, 24)
    image[0, :, 12:], image[2, 12:] = 1.0, 1.0
    ids = segment_players(image, 4).map
    wanted = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(12, 0).repeat_interleave(12, 1)
    assert (ids == wanted).float().mean() > 0.95


def test_the_scale_of_the_image_does_not_matter() -> None:
    image = torch.rand(3, 16, 16)
    assert torch.equal(segment_players(image, 5).map, segment_players(image * 8 - 3, 5).map)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (r"1 to 12 players, one per pixel, got 13", lambda: segment_players(torch.rand(3, 3, 4), 13)),
        (r"1 to 12 players, one per pixel, got 0", lambda: segment_players(torch.rand(3, 3, 4), 0)),
        (r"image \(C, H, W\), got \(3, 4\)", lambda: segment_players(torch.rand(3, 4), 2)),
        (r"finite image", lambda: segment_players(torch.full((3, 4, 4), float("nan")), 2)),
    ],
)
def test_errors_say_what_was_expected(words: str, call: object) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]


def test_without_scikit_image_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"segment_players needs.*pyinterp\[demo\]"):
        segment_players(torch.rand(3, 4, 4), 2)
