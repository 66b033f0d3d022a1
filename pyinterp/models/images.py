"""Images as one batch: files, folders, PIL images or tensors, with one clear error for whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.models.pictures import MAX_PIXELS, list_pictures, read_picture

Preprocessor = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class ImageSet:
    """A batch of images.

    Attributes:
        tensor: (N, C, H, W) float32, as the network takes it.
        names: N file names, or ``image 0``, ``image 1``, ...
        pixels: (N, 3, H, W) uint8 on the CPU: what ``tensor`` shows, for people to look at.
    """

    tensor: Tensor
    names: tuple[str, ...]
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.names)


def load_images(
    images: Any,
    preprocess: Preprocessor | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    expected_shape: Sequence[int | None] | None = None,
) -> ImageSet:
    """Bring images into one batch.

    Args:
        images: A float tensor (N, C, H, W), already preprocessed, or what this gave before; or a PIL image, a
            path, a folder (its images by name, not those of its subfolders), or a list of these or of tensors
            (C, H, W). Files and PIL images may have any mode: EXIF orientation is applied, transparency is laid
            on white, 16 bits become 8, of an animation the first frame is taken.
        preprocess: PIL image (RGB) -> (C, H, W), usually ``LoadedModel.preprocess``. Not applied to tensors.
            Without it the images are scaled to [0, 1] and must all have one size.
        max_pixels: Files and PIL images with more pixels are refused before they are decoded.
        expected_shape: (C, H, W) that the network takes; None in it stands for any.

    Raises:
        ValueError: No images; unreadable, truncated or too large files (all of them are named); mixed sizes;
            another shape than expected; NaN or infinite values.
        TypeError: Integer tensors, or things that are no images.
    """
    if isinstance(images, ImageSet):
        if expected_shape is not None:
            _check_shape(images.tensor, expected_shape)
        return images
    if isinstance(images, Tensor):
        tensor = checked_batch(images)
        names = tuple(f"image {i}" for i in range(len(tensor)))
        _check_values(tensor, names)
        picture = preprocess
    else:
        entries = image_entries(images)
        names = tuple(entry_name(entry, i) for i, entry in enumerate(entries))
        tensor, picture = read_entries(entries, names, preprocess, max_pixels), preprocess or _scaled
    if expected_shape is not None:
        _check_shape(tensor, expected_shape)
    return ImageSet(tensor, names, _display(tensor, picture))


def read_entries(
    entries: Sequence[Any],
    names: Sequence[str],
    preprocess: Preprocessor | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """The images (N, C, H, W) float32 that `image_entries` has listed; ``names`` are for the messages.

    Raises:
        ValueError: As `load_images`.
        TypeError: As `load_images`.
    """
    tensors: list[Tensor] = []
    broken: list[str] = []
    for entry, name in zip(entries, names, strict=True):
        if isinstance(entry, Tensor):
            tensors.append(checked_batch(entry[None])[0])
            continue
        try:
            picture = read_picture(entry, max_pixels)
        except Exception as error:  # decoders raise errors of any type on damaged files
            broken.append(f"{name}: {str(error).strip() or type(error).__name__}")
            continue
        tensors.append(_apply(preprocess or _scaled, picture, name))
    if broken:
        raise ValueError(
            explain(
                "load_images",
                "images that can be read",
                f"{len(broken)} of {len(entries)} that can't ({'; '.join(broken)})",
                "Repair or remove them.",
            )
        )
    sizes = {
        tuple(tensor.shape): name for tensor, name in zip(reversed(tensors), reversed(names), strict=True)
    }
    if len(sizes) > 1:
        found = ", ".join(f"{shape} ({name})" for shape, name in reversed(sizes.items()))
        raise ValueError(
            explain(
                "load_images",
                "images of one size",
                found,
                "Resize them, or pass preprocess=loaded.preprocess of the model, which does.",
            )
        )
    batch = torch.stack(tensors)
    _check_values(batch, names)
    return batch


def image_entries(images: Any) -> list[Any]:
    """The PIL images, tensors and file paths that the argument of `load_images` stands for; no file is read."""
    if isinstance(images, (str, PathLike, Image.Image)):
        images = [images]
    if not isinstance(images, Iterable) or isinstance(images, (np.ndarray, bytes, dict)):
        raise _not_images(images)
    entries: list[Any] = []
    for entry in images:
        if isinstance(entry, (Image.Image, Tensor)):
            entries.append(entry)
        elif isinstance(entry, (str, PathLike)):
            entries += list_pictures(Path(entry))
        else:
            raise _not_images(entry)
    if not entries:
        raise ValueError(
            explain("load_images", "at least one image", "none", "Pass images, paths or a folder.")
        )
    return entries


def _not_images(got: Any) -> TypeError:
    fix = "Pass a batch (N, C, H, W), PIL images, paths or a folder."
    if isinstance(got, np.ndarray):
        fix = (
            "Wrap each picture: PIL.Image.fromarray(array); or pass torch.from_numpy of a preprocessed batch."
        )
    return TypeError(explain("load_images", "images", f"{type(got).__module__}.{type(got).__name__}", fix))


def entry_name(entry: Any, index: int) -> str:
    """The name of a file, else ``image INDEX``."""
    if isinstance(entry, Path):
        return entry.name
    return Path(getattr(entry, "filename", "") or f"image {index}").name


def _scaled(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32) / 255


def _apply(preprocess: Preprocessor, image: Image.Image, name: str) -> Tensor:
    tensor = preprocess(image)
    if not isinstance(tensor, Tensor) or tensor.dim() != 3 or not tensor.is_floating_point():
        got = (
            f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            if isinstance(tensor, Tensor)
            else type(tensor).__name__
        )
        raise TypeError(
            explain(
                "load_images",
                "a preprocess that makes a float tensor (C, H, W) of an image",
                f"{got} for {name}",
                "Pass preprocess=loaded.preprocess, or one that ends in such a tensor.",
            )
        )
    return tensor.detach().to(torch.float32)


def checked_batch(batch: Tensor) -> Tensor:
    """A batch of images in float32; raises ValueError or TypeError, as `load_images`, unless it is one."""
    shape = tuple(batch.shape)
    if batch.dim() == 3:
        raise ValueError(
            explain("load_images", "a batch (N, C, H, W)", f"one image {shape}", "Pass images[None].")
        )
    if batch.dim() != 4:
        raise ValueError(
            explain(
                "load_images",
                "a batch (N, C, H, W)",
                f"a tensor of shape {shape}",
                "Reshape it to four axes.",
            )
        )
    if not batch.is_floating_point():
        raise TypeError(
            explain(
                "load_images",
                "a float batch, preprocessed as the model wants it",
                str(batch.dtype),
                "Scale and normalise it (at least images.float() / 255), or pass PIL images and preprocess=.",
            )
        )
    if not batch.numel():
        raise ValueError(
            explain(
                "load_images",
                "at least one image",
                f"a batch of shape {shape}",
                "Pass images, paths or a folder.",
            )
        )
    if batch.is_meta:
        raise ValueError(
            explain(
                "load_images",
                "images on a device that holds their values",
                "a batch on the device meta",
                "Load the images themselves: a meta tensor has a shape and nothing else.",
            )
        )
    return batch.detach().to(torch.float32)


def _check_values(tensor: Tensor, names: Sequence[str]) -> None:
    bad = (~torch.isfinite(tensor)).flatten(1).any(1).tolist()
    if any(bad):
        which = ", ".join(name for name, is_bad in zip(names, bad, strict=True) if is_bad)
        raise ValueError(
            explain("load_images", "finite values", f"NaN or infinity in {which}", "Check the preprocessing.")
        )


def _check_shape(tensor: Tensor, expected: Sequence[int | None]) -> None:
    shape = tuple(tensor.shape[1:])
    if len(expected) != len(shape) or any(
        e is not None and e != s for e, s in zip(expected, shape, strict=True)
    ):
        wanted = f"({', '.join('any' if e is None else str(e) for e in expected)})"
        fix = "Resize them, or pass PIL images and preprocess=loaded.preprocess."
        if expected[0] is not None and expected[0] != shape[0]:
            fix = f"The model takes {expected[0]} channels: convert the images, keeping channels on axis 1."
        raise ValueError(explain("load_images", f"images of shape {wanted}", f"{shape}", fix))


def _display(tensor: Tensor, preprocess: Preprocessor | None) -> Tensor:
    """(N, C, H, W) float -> (N, 3, H, W) uint8.

    A preprocess that normalises maps a black, a grey and a white picture to three points on one line per
    channel: that gives its inverse, whatever library made it. Otherwise each image is stretched between its
    extremes.
    """
    values = tensor.cpu()
    levels = None if preprocess is None else pixel_levels(preprocess, tuple(values.shape[1:]))
    if levels is None:
        low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    else:
        low, high = levels
    pixels = ((values - low) / (high - low).clamp_min(1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    if pixels.shape[1] != 3:
        return pixels.float().mean(1, keepdim=True).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return pixels


def pixel_levels(preprocess: Preprocessor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    """What a black and a white pixel are for the network.

    Args:
        preprocess: PIL image (RGB) -> (C, H, W), usually ``LoadedModel.preprocess``.
        shape: (C, H, W) of a picture that it leaves at its size.

    Returns:
        Black and white, (C, 1, 1) float32 each: a pixel p in [0, 1] becomes ``black + (white - black) * p``. None if
        ``preprocess`` is no such map per channel.
    """
    flat = [preprocess(Image.new("RGB", (shape[2], shape[1]), (level,) * 3)) for level in (0, 51, 255)]
    if any(tuple(one.shape[:1]) != shape[:1] for one in flat):
        return None
    black, grey, white = (one.to(torch.float32).amax((1, 2), keepdim=True) for one in flat)
    affine = torch.allclose(grey, black + (white - black) * 0.2, atol=1e-3) and bool((white > black).all())
    even = all(torch.allclose(one.amin((1, 2)), one.amax((1, 2)), atol=1e-3) for one in flat)
    return (black, white) if affine and even else None
