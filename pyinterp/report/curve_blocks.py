"""The part of a report that shows a SufficiencyCurve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyinterp.report.page import Block, Page, fragment
from pyinterp.report.plots import Series, line_chart, percent

if TYPE_CHECKING:
    from pyinterp.chains.curve import SufficiencyCurve

ENOUGH = 0.9


def curve_blocks(curve: SufficiencyCurve, page: Page) -> list[Block]:
    """The section for one curve."""
    html = fragment("shared.html", "charts", _charts(curve))
    return [Block("sufficiency", "How few of its units are enough", html)]


def _charts(curve: SufficiencyCurve) -> dict[str, Any]:
    figures = []
    for caption, values, factor, y_label, log in (
        ("Difference from the full network", curve.kl, 1, "mean KL", True),
        ("Images with the full network's top class", curve.agreement, 100, "% of the images", False),
    ):
        points = [(100 * ratio, factor * value) for ratio, value in zip(curve.ratios, values, strict=True)]
        chart = line_chart(
            [Series(caption, points)],
            label=f"{caption} with only the strongest units of the chain",
            x_label="% of the chain's units",
            y_label=y_label,
            log_y=log,
        )
        figures.append({"caption": caption, "svg": chart})
    text = (
        "The chain's own units, the strongest first, everything else removed. Where the answer comes back at the "
        f"right end only, there is nothing to spare. Mean agreement over all shares: {percent(curve.area)}."
    )
    enough = [ratio for ratio, same in zip(curve.ratios, curve.agreement, strict=True) if same >= ENOUGH]
    if enough and enough[0] < 1:
        text += (
            f" {percent(enough[0])} of the chain's units already agree with the full network on at least "
            f"{percent(ENOUGH)} of the images."
        )
    return {"figures": figures, "text": text}
