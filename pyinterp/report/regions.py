"""Parts of an image as SVG paths: outlines from a bool mask, and the place for a label inside."""

from __future__ import annotations

import numpy as np
from torch import Tensor

Point = tuple[int, int]


def outline(mask: Tensor) -> str:
    """The border of a bool mask (H, W) as SVG path data in pixels, for ``fill-rule="evenodd"``; "" where it is empty.

    Walks along the pixels' edges with the inside at the right hand, and turns right where two pixels touch at a corner,
    so that these stay apart.
    """
    inside = np.pad(mask.cpu().numpy().astype(bool), 1)
    ahead: dict[Point, list[Point]] = {}
    for (row, column), start, end in (
        ((-1, 0), (0, 0), (1, 0)),  # nothing above: along the top, to the right
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        border = inside & ~np.roll(inside, (-row, -column), (0, 1))
        for y, x in np.argwhere(border).tolist():
            a = (x - 1 + start[0], y - 1 + start[1])
            ahead.setdefault(a, []).append((x - 1 + end[0], y - 1 + end[1]))
    path = []
    while ahead:
        path.append(_loop(ahead, next(iter(ahead))))
    return "".join(path)


def _loop(ahead: dict[Point, list[Point]], start: Point) -> str:
    """Takes one closed walk out of the edges; its corners as path data."""
    corners, here, before = [start], start, (0, 0)
    while True:
        ends = ahead[here]
        # Of two ways on, the one to the right of where we came from.
        after = min(ends, key=lambda end: before[1] * (end[0] - here[0]) - before[0] * (end[1] - here[1]))
        ends.remove(after)
        if not ends:
            del ahead[here]
        step = (after[0] - here[0], after[1] - here[1])
        if step == before:
            corners[-1] = after
        else:
            corners.append(after)
        here, before = after, step
        if here == start:
            break
    return "M" + "L".join(f"{x} {y}" for x, y in corners) + "Z"


def anchor(mask: Tensor) -> tuple[float, float]:
    """(x, y) inside a bool mask (H, W) that is not empty: the centre of the pixel closest to its centre of mass."""
    places = mask.nonzero().double()
    near = (places - places.mean(0)).square().sum(1).argmin()
    y, x = places[near].tolist()
    return x + 0.5, y + 0.5
