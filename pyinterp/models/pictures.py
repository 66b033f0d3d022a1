"""One picture from a file or a PIL image: any mode, any orientation, nothing decoded that is too large."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pyinterp.errors import explain

_ENDINGS = ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pgm .png .ppm .tif .tiff .webp"
# No others are read: some of Pillow's formats start external programs.
_FORMATS = ("PNG", "JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
# The size from which Pillow itself warns of a decompression bomb.
MAX_PIXELS = 89_478_485


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as people see it, in 8-bit RGB: EXIF orientation applied, transparency laid on white.

    Raises:
        ValueError: The mode has no fixed white (32-bit integers or floats).
    """
    # The format is lost when the picture is turned.
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(image)
    if sixteen_bits:
        values = np.asarray(image).astype(np.float64) * (255 / 65535)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}) whose white is unknown; convert them to 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def read_picture(source: Path | Image.Image, max_pixels: int) -> Image.Image:
    """Decode a file or a PIL image into 8-bit RGB.

    Raises:
        ValueError: No image file, an unknown format, or more than ``max_pixels`` pixels.
        Exception: Whatever the decoder raises on damaged files.
    """
    if isinstance(source, Image.Image):
        return _decoded(source, max_pixels)
    if not source.exists():
        raise ValueError("no such file")
    Image.init()
    with warnings.catch_warnings():
        # The limit is max_pixels, which _decoded enforces before anything is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(source, formats=[name for name in _FORMATS if name in Image.OPEN])
        except UnidentifiedImageError:
            raise ValueError("not an image file, or of an unknown format") from None
        with opened:
            return _decoded(opened, max_pixels)


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is a picture by its ending, and not hidden."""
    return os.path.splitext(name)[1].lower() in _ENDINGS.split() and not name.startswith(".")


def list_pictures(path: Path) -> list[Path]:
    """The image files in a folder by name, without hidden ones and subfolders; a file stands for itself.

    Raises:
        ValueError: The folder holds no images.
    """
    if not path.is_dir():
        return [path]
    files = sorted(entry for entry in path.iterdir() if is_picture_name(entry.name) and entry.is_file())
    if not files:
        fix = f"Files with these endings are taken: {_ENDINGS}."
        raise ValueError(explain("load_images", f"images in the folder {path}", "none", fix))
    return files


def _decoded(image: Image.Image, max_pixels: int) -> Image.Image:
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise ValueError(
            f"{width} x {height} pixels, not in 1 to max_pixels={max_pixels} (decompression bomb?)"
        )
    return to_rgb(image)
