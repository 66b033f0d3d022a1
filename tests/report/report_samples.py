"""A small chain, its graph and its images, made by hand, with names that try to break out of the page."""

from __future__ import annotations

import torch

from pyinterp.chains.flow import ChainFlow, FlowColumn, FlowEdge, FlowUnit, Response
from pyinterp.models import ImageSet

NASTY = "<script>alert(1)</script>\"'&"
CLASSES = ("a </script><b> cat", "espresso")


def an_image_set(count: int = 2) -> ImageSet:
    """Two different photographs, the second with a nasty name."""
    pixels = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    pixels[0, 0] = torch.arange(64, dtype=torch.uint8)[:, None] * 4
    pixels[-1, 2] = torch.arange(64, dtype=torch.uint8)[None, :] * 4
    names = (*(f"image {i}.png" for i in range(count - 1)), f"{NASTY}.png")
    return ImageSet(pixels.float() / 255, names, pixels)


def a_flow(site: str = "conv1") -> ChainFlow:
    """Two units, a closed layer, two units, one class; 0 and 1 feed 2, 0 feeds 3, 2 and 3 feed the class."""
    steps = torch.arange(16, dtype=torch.uint8).reshape(4, 4) * 17

    def unit(index: int, influence: float) -> FlowUnit:
        picture = torch.full((3, 8, 8), 40 * (index % 6), dtype=torch.uint8)
        return FlowUnit(index, 1.0, influence, picture, (Response(0, steps), Response(1, steps.T)))

    columns = (
        FlowColumn(site, "filter", 8, 3, False, (unit(3, 0.6), unit(5, 0.3))),
        FlowColumn("block.conv2", "filter", 8, 0, True, ()),
        FlowColumn("block.mlp", "neuron", 16, 2, False, (unit(0, 0.7), unit(9, 0.3))),
        FlowColumn("", "class", 2, 1, False, (FlowUnit(0, 1.0, 1.0, None, ()),)),
    )
    edges = (
        FlowEdge((0, 0), (2, 0), 0.7),
        FlowEdge((0, 1), (2, 0), -0.3),
        FlowEdge((0, 0), (2, 1), 1.0),
        FlowEdge((2, 0), (3, 0), 0.6),
        FlowEdge((2, 1), (3, 0), 0.4),
    )
    return ChainFlow(columns, edges, 0.05, 2)
