"""Outlines against the definition: what a path encloses is the mask again."""

from __future__ import annotations

import re

import pytest
import torch

from pyinterp.report.regions import anchor, outline


def filled(path: str, height: int, width: int) -> torch.Tensor:
    """Which pixels' centres the path encloses, by crossings to the left (even-odd)."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    for loop in re.findall(r"M([^Z]*)Z", path):
        corners = [tuple(map(int, pair.split())) for pair in loop.split("L")]
        for (x, top), (other, bottom) in zip(corners, [*corners[1:], corners[0]], strict=True):
            assert (x == other) != (top == bottom) or (x, top) == (other, bottom)
            if x == other:
                rows = slice(min(top, bottom), max(top, bottom))
                mask[rows, x:] ^= True
    return mask


@pytest.mark.parametrize("seed", range(8))
def test_the_outline_encloses_the_mask(seed: int) -> None:
    mask = torch.rand(9, 13, generator=torch.Generator().manual_seed(seed)) < 0.2 + 0.1 * seed
    assert torch.equal(filled(outline(mask), 9, 13), mask)


def test_a_rectangle_has_four_corners_and_a_hole_its_own_loop() -> None:
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[1:5, 2:7] = True
    assert outline(mask) == "M2 1L7 1L7 5L2 5L2 1Z"
    mask[2:3, 3:4] = False
    assert outline(mask).count("M") == 2
    assert outline(torch.zeros(3, 3, dtype=torch.bool)) == ""


def test_pixels_that_touch_at_a_corner_stay_apart() -> None:
    assert outline(torch.eye(2, dtype=torch.bool)).count("M") == 2


def test_the_anchor_is_inside_even_where_the_centre_is_not() -> None:
    mask = torch.ones(9, 9, dtype=torch.bool)
    assert anchor(mask) == (4.5, 4.5)
    mask[2:7, 2:7] = False
    x, y = anchor(mask)
    assert mask[int(y), int(x)]
