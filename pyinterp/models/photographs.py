"""Photographs that scikit-image and scikit-learn ship, and random crops of a photograph."""

from __future__ import annotations

import torch
from PIL import Image

from pyinterp.errors import explain
from pyinterp.models.packages import require
from pyinterp.models.pictures import to_rgb

_SMALLEST_SIDE = 0.6


def photographs() -> dict[str, Image.Image]:
    """Five photographs in RGB that installed packages hold, so that no network is needed.

    ``chelsea`` (a cat), ``coffee`` (an espresso), ``rocket`` from scikit-image; ``china`` (a palace),
    ``flower`` (a daisy) from scikit-learn.

    Raises:
        ImportError: One of the two packages is missing.
    """
    data = require("skimage.data", "the photographs")
    datasets = require("sklearn.datasets", "the photographs")
    arrays = {name: getattr(data, name)() for name in ("chelsea", "coffee", "rocket")}
    arrays |= {name: datasets.load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: Image.fromarray(array) for name, array in arrays.items()}


def crops(image: Image.Image, count: int, *, size: int, seed: int) -> list[Image.Image]:
    """Random square crops of a photograph, each (size, size).

    The crop's side is uniform in [0.6, 1] of the photograph's shorter side, its place uniform, then resized.
    Two seeds give independent sets: one to extract from, one held out.

    Args:
        image: A PIL image of any mode.
        count: Number of crops.
        size: Side in pixels of each result; the network's preprocessing resizes it again.
        seed: Same seed, same crops.

    Raises:
        ValueError: ``count`` or ``size`` is not positive.
    """
    if count < 1 or size < 1:
        raise ValueError(
            explain(
                "crops",
                "count and size of at least 1",
                f"count={count}, size={size}",
                "Ask for one crop or more.",
            )
        )
    image = to_rgb(image)
    generator = torch.Generator().manual_seed(seed)
    result = []
    for share, across, down in torch.rand(count, 3, generator=generator, dtype=torch.float64).tolist():
        side = (_SMALLEST_SIDE + (1 - _SMALLEST_SIDE) * share) * min(image.size)
        left, top = across * (image.width - side), down * (image.height - side)
        box = (left, top, left + side, top + side)
        result.append(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return result
