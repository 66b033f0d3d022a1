"""Physically smaller networks for a set of kept units: with live gates while searching, folded for good at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule

from pyinterp.models.flow import (  # noqa: F401  (they register the rules)
    attention,
    channels,
    gates,
    norms,
    pointwise,
    selections,
    shapes,
    spaces,
)
from pyinterp.models.flow.build import Builder
from pyinterp.models.flow.plan import Flow
from pyinterp.models.flow.simplify import simplify
from pyinterp.models.gating import GatedModel


@dataclass(frozen=True)
class Shrunk:
    """A smaller network whose remaining gates are live.

    Attributes:
        module: forward(x, group, *scores) -> logits; scores[i] (..., len(stored[i])) of the stored units alone.
        stored: Per site, the units (long indices) that are physically there; all others count as closed.
    """

    module: GraphModule
    stored: list[Tensor]

    def __call__(self, x: Tensor, group: Tensor | None, *scores: Tensor) -> Tensor:
        """Logits for whole score rows (units,) or (G, units)."""
        taken = [s.index_select(-1, i.to(s.device)) for s, i in zip(scores, self.stored, strict=True)]
        return self.module(x, group, *taken)  # type: ignore[no-any-return]


def shrink(gated: GatedModel, kept: Sequence[Tensor]) -> Shrunk:
    """The part of a gated network that its kept units need.

    Args:
        gated: The gated network; not changed, weights that are whole are shared.
        kept: Per site, which units are open, bool (units,).

    Returns:
        A network with the same answer as ``gated`` with zeros at every other unit, up to rounding, for any scores of
        the kept units, and the same gradients.

    Raises:
        ValueError: ``kept`` does not fit the sites.
    """
    _check(gated, kept, "shrink")
    flow = Flow(gated.module, kept)
    build = Builder(flow)
    build.run(with_scores=True)
    simplify(build)
    stored = [units.nonzero().flatten() for units in flow.live_units()]
    return Shrunk(build.finish("Shrunk"), stored)


def fold(gated: GatedModel, kept: Sequence[Tensor], scores: Sequence[Tensor]) -> GraphModule:
    """The small network for fixed scores: forward(x) -> logits, no gates left.

    Args:
        gated: The gated network; not changed, weights that are whole are shared.
        kept: Per site, which units are open, bool (units,).
        scores: Per site, the factor of each unit (units,); ones give exact copies.

    Returns:
        A module whose weights are frozen parameters. Scores and BatchNorm go into the weights beside them, constant
        channels into the biases after them, wherever that is exact in exact arithmetic.

    Raises:
        ValueError: ``kept`` or ``scores`` does not fit the sites.
    """
    _check(gated, kept, "fold")
    _check(gated, scores, "fold")
    flow = Flow(gated.module, kept, scores)
    build = Builder(flow)
    build.run(with_scores=False)
    simplify(build)
    return build.finish("Compact")


def live_units(gated: GatedModel, kept: Sequence[Tensor]) -> list[Tensor]:
    """``kept`` without the units that change nothing: no one reads them, or nothing but zero reaches them.

    Args:
        gated: The gated network.
        kept: Per site, which units are open, bool (units,).

    Returns:
        Per site, bool (units,); closing the others leaves the function as it is, for any scores.
    """
    _check(gated, kept, "live_units")
    return [units.clone() for units in Flow(gated.module, kept).live_units()]


def _check(gated: GatedModel, rows: Sequence[Tensor], where: str) -> None:
    expected, got = [site.units for site in gated.sites], [row.numel() for row in rows]
    if got != expected:
        raise ValueError(
            f"{where}: expected one row per site with its units, {len(expected)} sites of {expected[:8]} units, got "
            f"{len(got)} rows of {got[:8]}. Pass one tensor per site, in the order of the sites."
        )
