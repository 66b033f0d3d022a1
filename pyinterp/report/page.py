"""What every part of a report shares: the template environment, the photographs and the class names."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from pyinterp.models.images import ImageSet

PHOTO_SIDE = 288
NAMES = {"default": "EfficientNet-Lite0"}
"""Models in words; their names in the settings are the ones that load them."""


@dataclass(frozen=True)
class Photo:
    """A photograph of the page: its name, and its picture as a data URI ("" when only the name is known)."""

    name: str
    source: str


@dataclass(frozen=True)
class Block:
    """One titled section of the page.

    Attributes:
        anchor: Its id in the page.
        title: Its heading, also in the navigation.
        html: Its content, already escaped.
        late: Stands after the blocks of all results: settings, curves of the run.
    """

    anchor: str
    title: str
    html: Markup
    late: bool = False


@dataclass(frozen=True)
class Page:
    """What the section builders may use besides their result."""

    images: ImageSet | None
    classes: tuple[str, ...]

    def class_name(self, index: int) -> str:
        """A class in words, or its number when its name is not known."""
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def photo(self, index: int) -> Photo:
        """The photograph of image ``index`` of the batch."""
        if self.images is None or index >= len(self.images):
            return Photo(f"image {index + 1}", "")
        return Photo(self.images.names[index], data_uri(self.images.pixels[index], PHOTO_SIDE))


@cache
def environment() -> jinja2.Environment:
    """The templates of this package; everything that is put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pyinterp.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fragment(template: str, macro: str, values: Mapping[str, Any]) -> Markup:
    """The HTML that one macro of a template makes of ``values``."""
    return Markup(getattr(environment().get_template(template).module, macro)(values))


def data_uri(pixels: Tensor, side: int) -> str:
    """A picture (3, H, W) uint8 as a JPEG data URI, at most ``side`` pixels wide and high."""
    picture = Image.fromarray(pixels.to(torch.uint8).movedim(0, -1).contiguous().numpy())
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=86)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def grey_uri(shares: Tensor) -> str:
    """A map (h, w) of values from 0 to 1 as a PNG data URI: 0 is black."""
    picture = Image.fromarray((shares.clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def unique(blocks: Sequence[Block]) -> list[Block]:
    """The blocks with early ones first and every anchor used once."""
    seen: dict[str, int] = {}
    result = []
    for block in sorted(blocks, key=lambda block: block.late):
        count = seen[block.anchor] = seen.get(block.anchor, 0) + 1
        number = "" if count == 1 else f" {count}"
        result.append(
            Block(block.anchor + number.replace(" ", "-"), block.title + number, block.html, block.late)
        )
    return result
