"""Small charts as inline SVG: their colours are the page's CSS variables, so they follow light and dark.

Text goes through ``Markup.format``, which escapes it. A chart is 440 units wide, so that its 12-unit letters stay
readable when the page is one phone wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
ABOVE = 32
APART = 28  # between two numbers under an axis
LETTER = 6.5  # width of a letter


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: What the legend calls it.
        points: (x, y) pairs; those that are not finite are left out.
        role: "main", "second", "faint" or "dashed": the CSS class that gives colour and weight.
        band: (x, low, high) of an interval around the points; those that are not finite are left out.
    """

    name: str
    points: Sequence[tuple[float, float]]
    role: str = "main"
    band: Sequence[tuple[float, float, float]] = ()


def number(value: float, digits: int = 3) -> str:
    """A number as people write it: 3 significant digits, thousands set apart, no exponent between 0.001 and 1e9."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float, digits: int = 3) -> str:
    """``0.0312`` -> ``"3.12 %"``, with a narrow no-break space."""
    return f"{number(100 * share, digits)}\u202f%"


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    log_x: bool = False,
    zero_x: bool = False,
    top: float | None = None,
    bound: tuple[float, str] | None = None,
    breaks: Sequence[tuple[float, str]] = (),
    mark: tuple[float, float, str] | None = None,
    open_points: tuple[Sequence[tuple[float, float]], str] | None = None,
) -> Markup:
    """Lines over a common pair of axes.

    Args:
        series: The lines; at least one finite point in all.
        label: What the chart shows, for a reader who cannot see it.
        x_label: Words under the horizontal axis.
        y_label: Words above the vertical axis.
        log_y: Vertical axis in powers of ten; values <= 0 are left out.
        log_x: Horizontal axis likewise.
        zero_x: Horizontal axis in powers of ten of 1 + x instead, which has a place for 0.
        top: End of the vertical axis, if not the largest value.
        bound: A horizontal dashed line (value, words).
        breaks: Vertical thin lines (x, words), such as the start of a phase.
        mark: One dot (x, y, words); the words stand where fewest lines cross them.
        open_points: Rings around points that are not to be trusted, and what the legend calls them.
    """
    lines = [replace(s, points=_drawable(s.points, log_x, log_y), band=_finite(s.band)) for s in series]
    dots = _drawable([mark[:2]], log_x, log_y) if mark else []
    drawn = [point for line in lines for point in line.points] + dots
    xs = [x for x, _ in drawn]
    ys = [y for _, y in drawn] + ([bound[0]] if bound else [])
    ys += [y for line in lines for _, low, high in line.band for y in (low, high)]
    if not xs:
        return Markup('<p class="quiet">{}: nothing was recorded.</p>').format(label)
    counts = all(float(x).is_integer() for x in xs)
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, log_x or zero_x, float(zero_x), counts)
    high = max(ys) if top is None else top
    y_axis = Axis(min(ys) if log_y else min(0.0, *ys), high, HEIGHT - BOTTOM, ABOVE, log_y)
    parts = [_frame(x_axis, y_axis, x_label, y_label)]
    for x, words in breaks:
        if min(xs) <= x <= max(xs):
            parts.append(
                Markup(
                    '<g class="break"><line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                    '<text x="{3:.1f}" y="{4}">{5}</text></g>'
                ).format(x_axis(x), ABOVE, HEIGHT - BOTTOM, x_axis(x) + 3, ABOVE - 3, words)
            )
    if bound:
        parts.append(
            Markup(
                '<g class="bound"><line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text x="{}" y="{:.1f}" text-anchor="end">{}</text></g>'
            ).format(
                LEFT,
                WIDTH - RIGHT,
                y_axis(bound[0]),
                y_axis(bound[0]),
                WIDTH - RIGHT,
                y_axis(bound[0]) - 4,
                bound[1],
            )
        )
    for line in lines:
        edge = [(x, high) for x, _, high in line.band] + [(x, low) for x, low, _ in reversed(line.band)]
        corners = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in edge)
        parts += [Markup('<polygon class="band {}" points="{}"/>').format(line.role, corners)] if edge else []
    placed = [[(x_axis(x), y_axis(y)) for x, y in line.points] for line in lines]
    for line, points in zip(lines, placed, strict=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.role, path))
    rings = _drawable(open_points[0], log_x, log_y) if open_points else []
    for x, y in rings:
        parts.append(
            Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(x_axis(x), y_axis(y))
        )
    for x, y in dots:
        words = mark[2] if mark else ""
        across, down, anchor = _beside(x_axis(x), y_axis(y), words, placed)
        parts.append(
            Markup(
                '<circle class="point" cx="{0:.1f}" cy="{1:.1f}" r="6"/>'
                '<text class="name" x="{2:.1f}" y="{3:.1f}" text-anchor="{4}">{5}</text>'
            ).format(x_axis(x), y_axis(y), across, down, anchor, words)
        )
    named = [*lines, *([Series(open_points[1], (), "open")] if open_points and rings else [])]
    legend = legend_of(named) if len(named) > 1 else Markup("")
    return svg(label, HEIGHT, Markup("").join(parts)) + legend


def dot_plot(
    rows: Sequence[tuple[str, float, bool]],
    *,
    label: str,
    x_label: str,
    log: bool = False,
    bound: tuple[float, str] | None = None,
    top: float | None = None,
) -> Markup:
    """One dot per row on a common axis, the value written beside it.

    Args:
        rows: (name, value, whether it is the row the page is about); at least one.
        label: What the chart shows, for a reader who cannot see it.
        x_label: Words under the axis.
        log: Axis in powers of ten; values are then raised to a thousandth of the largest at least.
        bound: A dashed line (value, words).
        top: End of the axis, if not the largest value.
    """
    height = TOP + 26 * len(rows) + BOTTOM + 6
    values = [value for _, value, _ in rows if math.isfinite(value)]
    if not values:
        return Markup('<p class="quiet">{}: no finite value.</p>').format(label)
    high = max([*values, *([bound[0]] if bound else []), *([top] if top is not None else [])])
    floor = max(high * 1e-3, 1e-9)
    low = max(floor, min([v for v in values if v > 0] or [floor]) / 1.6) if log else 0.0
    left = 128
    axis = Axis(low, high, left, WIDTH - 62, log)
    bottom = height - BOTTOM
    parts = []
    for tick in axis.ticks(4):
        parts.append(
            Markup(
                '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
            ).format(axis(tick), TOP, bottom, bottom + 14, number(tick))
        )
    if bound:
        parts.append(
            Markup(
                '<g class="bound"><line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text></g>'
            ).format(axis(bound[0]), TOP, bottom, TOP - 3, bound[1])
        )
    for index, (name, value, ours) in enumerate(rows):
        y = TOP + 13 + 26 * index
        x = axis(max(value, low)) if math.isfinite(value) else WIDTH - 62
        parts.append(
            Markup(
                '<g class="row {6}"><line class="stem" x1="{0}" x2="{1:.1f}" y1="{2}" y2="{2}"/>'
                '<circle cx="{1:.1f}" cy="{2}" r="{7}"/>'
                '<text class="name" x="{3}" y="{4}" text-anchor="end">{5}</text>'
                '<text class="value" x="{8:.1f}" y="{4}">{9}</text></g>'
            ).format(
                left,
                x,
                y,
                left - 8,
                y + 4,
                name,
                "ours" if ours else "",
                6 if ours else 4.5,
                x + 10,
                number(value),
            )
        )
    parts.append(Markup('<text class="axis" x="{}" y="{}">{}</text>').format(left, height - 6, x_label))
    return svg(label, height, Markup("").join(parts))


class Axis:
    """Maps values to positions, linearly or by logarithm, and chooses ticks; whole ones for counts."""

    def __init__(
        self,
        low: float,
        high: float,
        start: float,
        end: float,
        log: bool,
        shift: float = 0.0,
        whole: bool = False,
    ) -> None:
        self.whole = whole
        if high <= low:
            even = not log or shift
            low, high = (min(0.0, low), low + (abs(low) or 1.0)) if even else (low / 2, low * 2)
        self.low, self.high, self.start, self.end, self.log, self.shift = low, high, start, end, log, shift

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = (math.log10(one + self.shift) for one in (low, high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        if self.shift:
            return self._ticks_from_zero()
        if self.log:
            return self._log_ticks()
        rough = (self.high - self.low) / count
        if self.whole:
            rough = max(rough, 1.0)
        power = 10 ** math.floor(math.log10(rough))
        steps = (1, 2, 5, 10) if self.whole else (1, 2, 2.5, 5, 10)
        step = next(s * power for s in steps if s * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1,), (1, 3), (1, 2, 5)):
            inside = [
                s * 10.0**e
                for e in range(first, last + 1)
                for s in steps
                if self.low <= s * 10.0**e * 1.0001 <= self.high * 1.001
            ]
            if len(inside) >= 3:
                break
        stride = max(1, math.ceil(len(inside) / 6))
        return inside[::stride]

    def _ticks_from_zero(self) -> list[float]:
        powers = range(-1, math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for tick in (0.0, *(step * 10.0**power for power in powers for step in (1, 2, 5))):
            apart = not found or self(tick) - self(found[-1]) > APART
            if self.low <= tick <= self.high and apart:
                found.append(tick)
        return found


def _beside(
    x: float, y: float, words: str, lines: Sequence[Sequence[tuple[float, float]]]
) -> tuple[float, float, str]:
    """Where words stand beside a dot (x, baseline, anchor): inside the chart, and crossed by as few lines as can be."""
    width = LETTER * len(words)
    free = []
    for side, rise in ((1, 18), (-1, -8), (1, -8), (-1, 18)):
        left, right = sorted((x + 10 * side, x + (10 + width) * side))
        if left < LEFT or right > WIDTH - RIGHT or not ABOVE <= y + rise <= HEIGHT - BOTTOM - 3:
            continue
        crossed = sum(
            left <= a + (c - a) * t / 20 <= right and y + rise - 12 <= b + (d - b) * t / 20 <= y + rise + 4
            for line in lines
            for (a, b), (c, d) in pairwise(line)
            for t in range(21)
        )
        free.append((crossed, x + 10 * side, y + rise, "start" if side > 0 else "end"))
    return min(free, key=lambda one: one[0])[1:] if free else (x + 10, y - 8, "start")


def _drawable(points: Sequence[tuple[float, float]], log_x: bool, log_y: bool) -> list[tuple[float, float]]:
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return [(x, y) for x, y in finite if (x > 0 or not log_x) and (y > 0 or not log_y)]


def _finite(band: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    return [one for one in band if all(map(math.isfinite, one))]


def _frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> Markup:
    parts = [value_grid(y_axis)]
    for tick in x_axis.ticks(5):
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x_axis(tick), HEIGHT - BOTTOM + 15, number(tick)
            )
        )
    parts.append(axis_words(x_label, y_label))
    return Markup("").join(parts)


def value_grid(y_axis: Axis) -> Markup:
    """Grid lines and the numbers of the vertical axis."""
    parts = []
    for tick in y_axis.ticks(4):
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(LEFT, WIDTH - RIGHT, y_axis(tick), LEFT - 7, y_axis(tick) + 4, number(tick))
        )
    return Markup("").join(parts)


def axis_words(x_label: str, y_label: str) -> Markup:
    """The base line and the words of both axes."""
    bottom = HEIGHT - BOTTOM
    return Markup(
        '<line class="base" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="axis" x="{}" y="{}" text-anchor="end">{}</text><text class="axis" x="{}" y="{}">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, bottom, bottom, WIDTH - RIGHT, HEIGHT - 6, x_label, 2, TOP, y_label)


def legend_of(lines: Sequence[Series]) -> Markup:
    items = [Markup('<li class="{}">{}</li>').format(line.role, line.name) for line in lines]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def svg(label: str, height: float, inside: Markup) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, inside
    )
