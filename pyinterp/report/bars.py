"""Bars side by side, and stacked bars, as inline SVG on the frame of the other charts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from pyinterp.report.plots import (
    ABOVE,
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Axis,
    Series,
    axis_words,
    legend_of,
    number,
    svg,
    value_grid,
)

ROLES = ("main", "second", "faint")


def bar_chart(
    groups: Sequence[tuple[str, Sequence[float]]],
    names: Sequence[str],
    *,
    label: str,
    x_label: str,
    y_label: str,
) -> Markup:
    """Bars side by side in groups, on a linear axis from 0.

    Args:
        groups: (words under the group, one value >= 0 per name); values that are not finite are left out.
        names: What the legend calls the bars of a group: at most two.
        label: What the chart shows, for a reader who cannot see it.
        x_label: Words under the horizontal axis.
        y_label: Words above the vertical axis.
    """
    values = [value for _, row in groups for value in row if math.isfinite(value)]
    if not values:
        return Markup('<p class="quiet">{}: nothing was recorded.</p>').format(label)
    y_axis = Axis(0.0, max(values), HEIGHT - BOTTOM, ABOVE, False)
    x_axis = Axis(0.0, float(len(groups)), LEFT, WIDTH - RIGHT, False)
    parts = [value_grid(y_axis), axis_words(x_label, y_label)]
    roles = ("main", "second")[: len(names)]
    width = 0.72 * (x_axis(1) - x_axis(0)) / len(names)
    for index, (words, row) in enumerate(groups):
        middle = x_axis(index + 0.5)
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                middle, HEIGHT - BOTTOM + 15, words
            )
        )
        for place, (role, name, value) in enumerate(zip(roles, names, row, strict=True)):
            if math.isfinite(value):
                parts.append(
                    Markup(
                        '<rect class="column {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                        "<title>{} {}: {}</title></rect>"
                    ).format(
                        role,
                        middle + (place - len(names) / 2) * width,
                        y_axis(value),
                        max(width - 1, 1),
                        y_axis(0) - y_axis(value),
                        name,
                        words,
                        number(value),
                    )
                )
    legend = legend_of([Series(name, (), role) for name, role in zip(names, roles, strict=True)])
    return svg(label, HEIGHT, Markup("").join(parts)) + Markup('<div class="boxes">{}</div>').format(legend)


def stack_chart(
    bars: Sequence[tuple[str, Sequence[float]]],
    names: Sequence[str],
    *,
    label: str,
    x_label: str,
    y_label: str,
    top: float,
) -> Markup:
    """One bar per place on the horizontal axis, its parts one upon the other from 0 on.

    Args:
        bars: (words under the bar, one value >= 0 per name), the lowest part first.
        names: What the legend calls the parts: at most three.
        label: What the chart shows, for a reader who cannot see it.
        x_label: Words under the horizontal axis.
        y_label: Words above the vertical axis.
        top: End of the vertical axis, so that several charts can be compared.
    """
    y_axis = Axis(0.0, top, HEIGHT - BOTTOM, ABOVE, False)
    x_axis = Axis(0.0, float(len(bars)), LEFT, WIDTH - RIGHT, False)
    width = 0.72 * (x_axis(1) - x_axis(0))
    parts = [value_grid(y_axis), axis_words(x_label, y_label)]
    for index, (words, values) in enumerate(bars):
        middle, below = x_axis(index + 0.5), 0.0
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                middle, HEIGHT - BOTTOM + 15, words
            )
        )
        for role, name, value in zip(ROLES, names, values, strict=False):
            parts.append(
                Markup(
                    '<rect class="column {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                    "<title>{}, {}: {}</title></rect>"
                ).format(
                    role,
                    middle - width / 2,
                    y_axis(below + value),
                    width,
                    y_axis(below) - y_axis(below + value),
                    name,
                    words,
                    number(value),
                )
            )
            below += value
    named = legend_of([Series(name, (), role) for name, role in zip(names, ROLES, strict=False)])
    return svg(label, HEIGHT, Markup("").join(parts)) + Markup('<div class="boxes">{}</div>').format(named)
