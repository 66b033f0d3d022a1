"""Pictures of single samples, read when they are asked for: a page shows some of a million."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pyinterp.errors import explain
from pyinterp.models.images import ImageSet, Preprocessor, load_images

CHUNK = 32  # pictures that are read at a time


class Gallery:
    """What the features were extracted from, row by row.

    Args:
        images: A tensor (N, C, H, W), what `load_images` gives, a list of paths, PIL images or tensors (C, H, W); or
            the folder that the names of the features are relative to.
        names: N names, as the features have them.
        preprocess: PIL image -> (C, H, W); for tensors only to tell which colours they show.

    Raises:
        ValueError: Another number of images, or files that are not there.
        TypeError: Something else.
    """

    def __init__(self, images: Any, names: Sequence[str], preprocess: Preprocessor | None) -> None:
        self._images, self._preprocess = images, preprocess
        if isinstance(images, (str, PathLike)):
            self._images = [Path(images, name) for name in names]
            missing = [str(path) for path in self._images if not path.is_file()]
            if missing:
                fix = "Pass the folder that the features were extracted from."
                got = f"no file {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
                raise ValueError(explain("study_head", "the images of the features", got, fix))
        elif not isinstance(images, (ImageSet, Tensor, list, tuple)):
            fix = "Pass a tensor, a list of pictures or paths, or their folder."
            raise TypeError(explain("study_head", "images", type(images).__name__, fix))
        if len(self._images) != len(names):
            fix = "Pass those that the features were extracted from, in their order."
            raise ValueError(explain("study_head", f"{len(names)} images", len(self._images), fix))

    def read(self, rows: Sequence[int]) -> ImageSet:
        """Some of them, as the network takes them and as people see them."""
        if isinstance(self._images, ImageSet):
            index = torch.as_tensor(rows, dtype=torch.int64)
            names = tuple(self._images.names[row] for row in rows)
            return ImageSet(self._images.tensor[index], names, self._images.pixels[index])
        if isinstance(self._images, Tensor):
            some = self._images[torch.as_tensor(rows, dtype=torch.int64, device=self._images.device)]
            return load_images(some, self._preprocess)
        return load_images([self._images[row] for row in rows], self._preprocess)

    def pictures(self, rows: Sequence[int], side: int) -> Tensor:
        """(rows, 3, h, w) uint8, the longer side at most ``side``."""
        shrunk = [shrink(self.read(rows[i : i + CHUNK]).pixels, side) for i in range(0, len(rows), CHUNK)]
        return torch.cat(shrunk) if shrunk else no_pictures()


def no_pictures() -> Tensor:
    """(0, 3, 0, 0) uint8."""
    return torch.zeros(0, 3, 0, 0, dtype=torch.uint8)


def shrink(pixels: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 -> the same with its longer side at most ``side``."""
    height, width = pixels.shape[2:]
    share = side / max(height, width)
    if share >= 1:
        return pixels
    size = (max(1, round(share * height)), max(1, round(share * width)))
    small = functional.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
