"""``ChainFlow``: a chain as a layered graph, ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Response:
    """Where one unit responds on one image.

    Attributes:
        image: Index of the image in the batch.
        map: (h, w) uint8; 255 is the unit's strongest response on the images, 0 its weakest.
    """

    image: int
    map: Tensor


@dataclass(frozen=True)
class FlowUnit:
    """A kept unit, or a class of the answer.

    Attributes:
        index: Number of the unit in its site, or of the class.
        score: What it is multiplied by; 1 in exact mode.
        influence: Its share of its layer's influence on the answers, in [0, 1]; of a class: its share of the images.
        picture: (3, h, w) uint8, the part of the images to which it responds most; None where it has no place.
        responses: Its strongest images first.
    """

    index: int
    score: float
    influence: float
    picture: Tensor | None
    responses: tuple[Response, ...]


@dataclass(frozen=True)
class FlowColumn:
    """One site of the chain, or the classes at its end.

    Attributes:
        site: The site's name; "" for the classes.
        kind: "filter", "head", "neuron" or "class".
        total: Units the full network has here.
        kept: Units the chain has here.
        skipped: Whether the layer is bypassed as a whole.
        units: The kept units with most influence, most influential first.
    """

    site: str
    kind: str
    total: int
    kept: int
    skipped: bool
    units: tuple[FlowUnit, ...]


@dataclass(frozen=True)
class FlowEdge:
    """What one shown unit puts into a later one.

    Attributes:
        source: (column, position among its units).
        target: Likewise.
        share: Its part of all that kept units put into the target, in [-1, 1]; negative where it lowers the answer.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    share: float


@dataclass(frozen=True)
class ChainFlow:
    """A chain as a layered graph.

    Attributes:
        columns: In the network's order; the classes last.
        edges: Those with at least ``least_share``.
        least_share: The smallest share that counts as an edge.
        images: How many images it was measured on.
    """

    columns: tuple[FlowColumn, ...]
    edges: tuple[FlowEdge, ...]
    least_share: float
    images: int

    def summary(self) -> str:
        """One line: how many units and edges stand in how many columns."""
        units = sum(len(column.units) for column in self.columns)
        return f"{units} units and {len(self.edges)} edges in {len(self.columns)} columns, from {self.images} images"
