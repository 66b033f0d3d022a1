"""Where a unit responds on the images: maps, and the piece of a picture around the peak."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyinterp.chains.flow import Response

MAP_SIDE = 28
LEAST_CROP, CELLS = 36, 6
EVEN = 0.02
MOST_OTHERS = 16
"""Tokens beside the patches, at most."""


def response_maps(value: Tensor, dim: int, units: int, pixels: Tensor) -> Tensor:
    """Response of every unit at every place, not negative: (N, units, h, w).

    Args:
        value: What the gate of a site gives, its units along ``dim``: maps (N, C, H, W) or (N, H, W, C), tokens
            (N, T, C), pooled features (N, C). Where it has another first axis than N, places are averaged.
        dim: Axis of the units.
        units: Number of units; a unit of more than one entry responds by the norm over them.
        pixels: (N, 3, H, W), the images; tokens are patches in a grid of their shape.
    """
    images, (height, width) = len(pixels), pixels.shape[-2:]
    moved = value.movedim(dim, -1)
    moved = moved.reshape(*moved.shape[:-1], units, -1)
    response = moved.norm(dim=-1) if moved.shape[-1] > 1 else moved[..., 0]
    # A unit responds by being positive; one that never is, by its size.
    never = (response <= 0).flatten(0, -2).all(0)
    response = torch.where(never, response.abs(), response.clamp_min(0))
    if len(response) == images and response.dim() == 4:
        return response.movedim(-1, 1)
    if len(response) == images and response.dim() == 3:
        tokens = response.shape[1]
        # Class and register tokens stand before the grid of patches, which has as many rows as fit.
        rows = next(
            (r for r in range(math.isqrt(tokens * height // width), 0, -1) if r * width % height == 0), 0
        )
        columns = rows * width // height
        if rows and tokens - rows * columns <= MOST_OTHERS:
            grid = response[:, tokens - rows * columns :]
            return grid.reshape(images, rows, columns, -1).movedim(-1, 1)
    return response.reshape(images, -1, units).mean(1)[:, :, None, None]


def look(maps: Tensor, pixels: Tensor, numbers: Tensor, examples: int) -> tuple[Tensor, tuple[Response, ...]]:
    """What one unit responds to.

    Args:
        maps: (N, h, w), its response at every place of every image.
        pixels: (N, 3, H, W) uint8, the images.
        numbers: (N,) what the images are called in the result.
        examples: Responses wanted.

    Returns:
        The piece of the strongest image around its peak, and the strongest responses.
    """
    peak = maps.amax((1, 2))
    order = peak.argsort(descending=True, stable=True)[:examples]
    height, width = min(MAP_SIDE, maps.shape[1]), min(MAP_SIDE, maps.shape[2])
    small = nn.functional.adaptive_max_pool2d(maps[order][:, None], (height, width))[:, 0]
    low, high = maps.min(), peak.max()
    # A unit that responds alike everywhere is lit everywhere.
    low = low if high - low > EVEN * high else torch.zeros_like(low)
    levels = (
        ((small - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny) * 255).round().to(torch.uint8)
    )
    responses = tuple(Response(int(numbers[i]), level) for i, level in zip(order, levels, strict=True))
    best = int(order[0])
    return _crop(maps[best], pixels[best]), responses


def _crop(response: Tensor, picture: Tensor) -> Tensor:
    rows, columns = response.shape
    height, width = picture.shape[1:]
    row, column = divmod(int(response.argmax()), columns)
    side = int(min(max(LEAST_CROP, CELLS * height / rows), height, width))
    top = min(max(0, int((row + 0.5) * height / rows - side / 2)), height - side)
    left = min(max(0, int((column + 0.5) * width / columns - side / 2)), width - side)
    return picture[:, top : top + side, left : left + side].clone()
