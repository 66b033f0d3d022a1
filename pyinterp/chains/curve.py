"""``SufficiencyCurve``: how few of a chain's units still give the answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SufficiencyCurve:
    """Fidelity of a chain's strongest units alone.

    Attributes:
        ratios: Shares of the chain's units, ascending.
        kl: Mean divergence from the full network at each share.
        agreement: Share of images with the full network's top class.
        area: Mean agreement over the shares: the area under the curve (trapezoids), divided by its width.
    """

    ratios: tuple[float, ...]
    kl: tuple[float, ...]
    agreement: tuple[float, ...]
    area: float
