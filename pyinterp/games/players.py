"""The players of a game: which parts of an input are present or absent together, and what stays out of the game."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.ops.mask_inputs import KEPT, MASKED

Background = Literal["keep", "mask"]
Box = tuple[float, float, float, float]

SPECIAL_TOKENS = ("[CLS]", "[SEP]", "[PAD]", "<s>", "</s>", "<pad>")
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Players:
    """Who plays, and where.

    Attributes:
        map: int64 on the CPU: the player of each position, from 0; -1 is always kept, -2 always masked. (H, W) for an
            image, (L,) for tokens, (D,) for columns.
        names: One per player.
        stretch: `map` is a grid of cells that `over` stretches over an image of any size.
        box: (left, top, right, bottom) in fractions of the image: where the grid lies.
        outside: What lies around the box: -1 or -2.
    """

    map: Tensor
    names: tuple[str, ...]
    stretch: bool = False
    box: Box = _WHOLE
    outside: int = KEPT

    def __post_init__(self) -> None:
        if self.map.dtype != torch.int64 or self.map.device.type != "cpu" or self.map.dim() == 0:
            got = f"{self.map.dtype} {tuple(self.map.shape)} on {self.map.device}"
            fix = "Convert it: map.to('cpu', torch.int64)."
            raise ValueError(explain("players", "an int64 map on the CPU", got, fix))
        if not self.names:
            fix = "Choose at least one part of the input."
            raise ValueError(explain("players", "at least one player", "none", fix))
        sizes = torch.bincount(self.map[self.map >= 0], minlength=self.count).tolist()
        if len(sizes) > self.count or (self.map.numel() and int(self.map.min()) < MASKED):
            got = f"ids {int(self.map.min())} to {int(self.map.max())} for {self.count} names"
            fix = f"Use 0 to {self.count - 1} for the players, {KEPT} for kept and {MASKED} for masked positions."
            raise ValueError(explain("players", "a map of the players that have names", got, fix))
        empty = [name for name, size in zip(self.names, sizes, strict=True) if size == 0]
        if empty:
            fix = "Leave out players that cover nothing."
            raise ValueError(explain("players", "every player somewhere", _listed(empty) + " nowhere", fix))

    @property
    def count(self) -> int:
        """How many players there are."""
        return len(self.names)

    def over(self, shape: tuple[int, ...]) -> Tensor:
        """Lay the players over an input.

        Args:
            shape: Of the input's last axes, as many as the map has: (H, W) for an image.

        Returns:
            int64 of this shape: the player of each position.

        Raises:
            ValueError: The map is of another size, or the input has too few pixels for a grid.
        """
        shape = tuple(shape)
        if not self.stretch:
            if shape != tuple(self.map.shape):
                fix = "Make the players for inputs of this size (grid_players fit any)."
                raise ValueError(explain("players", f"a map of shape {shape}", tuple(self.map.shape), fix))
            return self.map
        if len(shape) != 2:
            fix = "A grid lies over images."
            raise ValueError(explain("players", "a shape (height, width) for a grid", shape, fix))
        left, top, right, bottom = self.box
        edges = [(round(top * shape[0]), round(bottom * shape[0]))]
        edges += [(round(left * shape[1]), round(right * shape[1]))]
        if any(last - first < cells for (first, last), cells in zip(edges, self.map.shape, strict=True)):
            room = " x ".join(str(max(0, last - first)) for first, last in edges)
            cells = " x ".join(map(str, self.map.shape))
            fix = "Use fewer players, a larger image or a larger box."
            raise ValueError(explain("players", f"at least {cells} pixels for the grid", room, fix))
        laid = torch.full(shape, self.outside)
        (y, y_end), (x, x_end) = edges
        rows = torch.arange(y_end - y) * self.map.shape[0] // (y_end - y)
        columns = torch.arange(x_end - x) * self.map.shape[1] // (x_end - x)
        laid[y:y_end, x:x_end] = self.map[rows[:, None], columns]
        return laid

    def select(self, chosen: Sequence[int], background: Background = "keep") -> Players:
        """Some of the players, in this order; the others become background."""
        unknown = [i for i in chosen if not 0 <= i < self.count]
        if unknown or len(set(chosen)) != len(chosen):
            fix = f"Give each of 0 to {self.count - 1} once at most."
            raise ValueError(explain("players", "different players", list(chosen), fix))
        rest = _background("players", background)
        table = torch.full((self.count + 2,), rest)
        table[KEPT], table[MASKED] = KEPT, MASKED
        table[torch.tensor(chosen, dtype=torch.int64)] = torch.arange(len(chosen))
        names = tuple(self.names[i] for i in chosen)
        return Players(table[self.map], names, self.stretch, self.box, self.outside)


def require_players(where: str, players: Any, instead: str) -> Players:
    """What a game was given as its players.

    Args:
        where: The game.
        players: Anything.
        instead: What makes players for this game, e.g. ``"grid_players(3, 4)"``.

    Raises:
        TypeError: They are something else.
    """
    if not isinstance(players, Players):
        fix = f"Pass what {instead} returns."
        raise TypeError(explain(where, "players", type(players).__name__, fix))
    return players


def grid_players(rows: int, cols: int, *, box: Box | None = None, background: Background = "keep") -> Players:
    """The cells of a grid that is laid over the image, whatever its size.

    Args:
        rows: Cells from top to bottom.
        cols: Cells from left to right.
        box: (left, top, right, bottom) in fractions of the image: the grid covers this part alone, as in
            ``(0.125, 0.125, 0.875, 0.875)`` for central patches. None is the whole image.
        background: What is around the box: "keep" shows it always, "mask" never.

    Returns:
        rows * cols players, row by row.

    Raises:
        ValueError: No rows or columns, or a box that is empty or not within the image.
    """
    if rows < 1 or cols < 1:
        fix = "A grid has at least one row and one column."
        raise ValueError(explain("grid_players", "rows and cols >= 1", f"{rows} x {cols}", fix))
    left, top, right, bottom = box or _WHOLE
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        fix = "Give (left, top, right, bottom) as fractions of the image's width and height."
        raise ValueError(explain("grid_players", "a box within (0, 0, 1, 1)", box, fix))
    names = tuple(f"row {row}, column {col}" for row in range(1, rows + 1) for col in range(1, cols + 1))
    cells = torch.arange(rows * cols).reshape(rows, cols)
    return Players(cells, names, True, (left, top, right, bottom), _background("grid_players", background))


def box_players(
    boxes: Sequence[Sequence[float] | Tensor],
    *,
    size: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    background: Background = "keep",
) -> Players:
    """Parts of an image that somebody has marked.

    Args:
        boxes: Per player (left, top, right, bottom) in pixels, right and bottom not included, rounded, and cut off at
            the edges of the image; or a bool mask (H, W).
        size: (H, W) of the image; masks know it.
        names: One per player; "box 1", "box 2", ... by default.
        background: What is in no box: "keep" shows it always, "mask" never.

    Raises:
        ValueError: A box is empty, misses the image or overlaps another one (it says which), a mask is of another
            size, or `size` is missing.
    """
    if not len(boxes):
        fix = "Give one box or mask per player."
        raise ValueError(explain("box_players", "at least one box", "none", fix))
    names = [f"box {i + 1}" for i in range(len(boxes))] if names is None else list(names)
    if len(names) != len(boxes):
        fix = "Give one name per box."
        raise ValueError(explain("box_players", f"{len(boxes)} names", len(names), fix))
    if size is None:
        first = next((box for box in boxes if isinstance(box, Tensor) and box.dim() == 2), None)
        if first is None:
            fix = "Pass size=(height, width) of the image."
            raise ValueError(explain("box_players", "the size of the image", "boxes alone", fix))
        size = (first.shape[0], first.shape[1])
    masks = [_box_mask(box, size, name) for box, name in zip(boxes, names, strict=True)]
    covered = torch.stack(masks).flatten(1).float()
    shared = (covered @ covered.T).triu(1).nonzero().tolist()
    if shared:
        got = _listed([f"{names[i]} and {names[j]}" for i, j in shared]) + " overlapping"
        fix = "Shrink them, or give masks in which each pixel belongs to one."
        raise ValueError(explain("box_players", "boxes apart from each other", got, fix))
    ids = torch.full(size, _background("box_players", background))
    for i, mask in enumerate(masks):
        ids[mask] = i
    return Players(ids, tuple(names))


def _box_mask(box: Sequence[float] | Tensor, size: tuple[int, int], name: str) -> Tensor:
    if isinstance(box, Tensor) and box.dim() == 2:
        mask = box.cpu() != 0
        if tuple(mask.shape) != tuple(size):
            fix = "All masks are of the size of the image."
            raise ValueError(
                explain("box_players", f"masks of {size}", f"{name} of {tuple(mask.shape)}", fix)
            )
        if not mask.any():
            raise ValueError(
                explain("box_players", "masks that hold pixels", f"{name} empty", "Leave it out.")
            )
        return mask
    corners = [float(value) for value in box]
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        fix = "Give (left, top, right, bottom) in pixels."
        raise ValueError(explain("box_players", "boxes of four finite numbers", f"{name} = {corners}", fix))
    left, top, right, bottom = map(round, corners)
    if left >= right or top >= bottom:
        fix = "Give (left, top, right, bottom) in pixels, or leave it out."
        raise ValueError(explain("box_players", "boxes that hold pixels", f"{name} = {corners} empty", fix))
    height, width = size
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        fix = "Give (left, top, right, bottom) in pixels of this image."
        got = f"{name} = {corners} outside"
        raise ValueError(explain("box_players", f"boxes on the image of {width} x {height}", got, fix))
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[max(0, top) : bottom, max(0, left) : right] = True
    return mask


def token_players(
    tokens: Sequence[str],
    which: Sequence[int | Sequence[int]] | None = None,
    *,
    background: Background = "keep",
) -> Players:
    """Tokens of a sentence.

    Args:
        tokens: The L tokens as words, as ``tokenizer.convert_ids_to_tokens(ids)`` gives them.
        which: Per player a position, or all positions of a word of several pieces; negative ones count from the end.
            By default every token plays, but for those that mark start, end and padding.
        background: What does not play: "keep" shows it always, "mask" never.

    Raises:
        ValueError: A position is outside the sentence or belongs to two players; no token plays.
    """
    length = len(tokens)
    if which is None:
        which = [i for i, token in enumerate(tokens) if token not in SPECIAL_TOKENS]
    groups = [[i] if isinstance(i, int) else list(i) for i in which]
    outside = [i for group in groups for i in group if not -length <= i < length]
    if outside:
        fix = f"Positions count from 0 to {length - 1}."
        raise ValueError(explain("token_players", "positions in the sentence", outside, fix))
    groups = [[i % length for i in group] for group in groups]
    names = [" ".join(tokens[i] for i in group) or f"player {n}" for n, group in enumerate(groups, 1)]
    often = Counter(names)
    names = [
        f"{name} ({group[0]})" if group and often[name] > 1 else name
        for name, group in zip(names, groups, strict=True)
    ]
    return _grouped("token_players", length, groups, names, background)


def feature_players(
    names: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    background: Background = "keep",
) -> Players:
    """Columns of a table.

    Args:
        names: Of the D columns.
        groups: Player -> the names of its columns; by default each column is a player.
        background: What is in no group: "keep" shows it always, "mask" never.

    Raises:
        ValueError: A group names a column that does not exist, or one of another group.
    """
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        fix = "Give every column its own name."
        raise ValueError(explain("feature_players", "different names", _listed(repeated) + " twice", fix))
    if groups is None:
        groups = {name: [name] for name in names}
    place = {name: i for i, name in enumerate(names)}
    unknown = [name for group in groups.values() for name in group if name not in place]
    if unknown:
        fix = f"The columns are {_listed(list(names))}."
        raise ValueError(explain("feature_players", "groups of the columns", _listed(unknown), fix))
    columns = [[place[name] for name in group] for group in groups.values()]
    return _grouped("feature_players", len(names), columns, list(groups), background)


def _grouped(
    where: str, length: int, groups: Sequence[Sequence[int]], names: Sequence[str], background: Background
) -> Players:
    ids = torch.full((length,), _background(where, background))
    owner: dict[int, str] = {}
    for i, (group, name) in enumerate(zip(groups, names, strict=True)):
        for position in group:
            if position in owner:
                got = f"position {position} in {owner[position]!r} and {name!r}"
                raise ValueError(
                    explain(where, "players apart from each other", got, "Give it to one of them.")
                )
            owner[position] = name
            ids[position] = i
    return Players(ids, tuple(names))


def _background(where: str, background: Background) -> int:
    if background not in ("keep", "mask"):
        fix = 'Pass "keep" to show it always, or "mask" to show it never.'
        raise ValueError(explain(where, 'background "keep" or "mask"', repr(background), fix))
    return KEPT if background == "keep" else MASKED


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
