"""The charts: what they draw, where, and that names stay text."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from pyinterp.report.bars import bar_chart, stack_chart
from pyinterp.report.plots import (
    ABOVE,
    BOTTOM,
    HEIGHT,
    LEFT,
    WIDTH,
    Series,
    dot_plot,
    line_chart,
    number,
    percent,
)

NASTY = "<script>alert(1)</script>\"'&"


def polyline(svg: str) -> list[tuple[float, float]]:
    points = re.search(r'points="([^"]*)"', svg)
    assert points
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points[1].split())]


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{markup}</div>")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.07149, "0.0715"),
        (1.0, "1"),
        (12.34, "12.3"),
        (99.96, "100"),
        (21008, "21,008"),
        (0.00042, "4.2e-04"),
        (-1.5, "-1.5"),
        (math.nan, "not finite"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_percent() -> None:
    assert percent(0.0312) == "3.12\u202f%"


def test_a_line_goes_through_its_points_in_proportion() -> None:
    chart = line_chart([Series("a", [(0, 0), (5, 2), (10, 4)])], label="t", x_label="x", y_label="y")
    (x0, y0), (x1, y1), (x2, y2) = polyline(chart)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2
    assert min(x0, y2) >= 0
    assert x2 <= WIDTH
    assert y0 <= HEIGHT


def test_a_log_axis_is_even_in_factors_and_leaves_out_zero() -> None:
    points = [(1, 0.01), (2, 0.1), (3, 1.0), (4, 0.0), (5, math.nan)]
    chart = line_chart([Series("a", points)], label="t", x_label="x", y_label="y", log_y=True)
    drawn = polyline(chart)
    assert len(drawn) == 3
    assert drawn[0][1] - drawn[1][1] == pytest.approx(drawn[1][1] - drawn[2][1], abs=0.2)


def test_an_axis_of_1_plus_x_has_a_place_for_zero() -> None:
    series = [Series("a", [(0, 1), (1, 2), (3, 3)])]
    chart = line_chart(series, label="t", x_label="x", y_label="y", zero_x=True)
    (x0, _), (x1, _), (x2, _) = polyline(chart)
    assert x0 == LEFT and x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    shown = re.findall(r'text-anchor="middle">([^<]*)<', chart)
    assert shown[0] == "0" and {"1", "2"} <= set(shown)
    parsed(line_chart([Series("a", [(0, 1)])], label="t", x_label="x", y_label="y", zero_x=True))


def test_an_axis_ends_where_it_is_told_to() -> None:
    chart = line_chart([Series("a", [(0, 0), (1, 50)])], label="t", x_label="x", y_label="y", top=100)
    assert ">100</text>" in chart
    assert polyline(chart)[1][1] == pytest.approx((ABOVE + HEIGHT - BOTTOM) / 2, abs=0.1)


@pytest.mark.parametrize("mark", [(5.0, 8.0), (10.0, 4.0), (0.0, 9.9)])
def test_the_words_of_a_dot_stand_clear_of_lines_and_edges(mark: tuple[float, float]) -> None:
    lines = [Series("a", [(0, 0), (5, 8), (10, 10)]), Series("b", [(0, 2), (5, 9.5), (10, 10)])]
    chart = line_chart(lines, label="t", x_label="x", y_label="y", mark=(*mark, "this head"))
    found = re.search(r'class="name" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)"', chart)
    assert found
    x, y, width = float(found[1]), float(found[2]), 6.5 * len("this head")
    left = x if found[3] == "start" else x - width
    assert left >= LEFT and left + width <= WIDTH - 14 and ABOVE <= y <= HEIGHT - BOTTOM
    for points in re.findall(r'points="([^"]*)"', chart):
        ends = [tuple(map(float, pair.split(","))) for pair in points.split()]
        for (a, b), (c, d) in itertools.pairwise(ends):
            on = [(a + (c - a) * t / 99, b + (d - b) * t / 99) for t in range(100)]
            assert not any(left < px < left + width and y - 9 < py < y for px, py in on)


def test_one_point_and_equal_values_draw_without_error() -> None:
    parsed(line_chart([Series("a", [(1, 3)])], label="t", x_label="x", y_label="y"))
    parsed(line_chart([Series("a", [(1, 3), (2, 3)])], label="t", x_label="x", y_label="y", log_y=True))
    parsed(dot_plot([("a", 0.0, True)], label="t", x_label="x", log=True))


def test_nothing_to_draw_is_said_in_words() -> None:
    assert "nothing was recorded" in line_chart([Series("a", [])], label="t", x_label="x", y_label="y")
    assert "no finite value" in dot_plot([("a", math.nan, True)], label="t", x_label="x")


def test_dots_are_placed_by_value_and_written_beside() -> None:
    chart = dot_plot([("ours", 1.0, True), ("b", 2.0, False), ("c", 4.0, False)], label="t", x_label="x")
    a, b, c = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', chart))
    assert b - a == pytest.approx((c - b) / 2, abs=0.2)
    assert [text.text for text in parsed(chart).iter("text") if text.get("class") == "value"] == [
        "1",
        "2",
        "4",
    ]


def test_names_are_text_in_every_place() -> None:
    chart = line_chart(
        [Series(NASTY, [(0, 1), (1, 2)]), Series("b", [(0, 1), (1, 1)])],
        label=NASTY,
        x_label=NASTY,
        y_label=NASTY,
        bound=(1.5, NASTY),
        breaks=[(0.5, NASTY)],
        mark=(0.5, 1.5, NASTY),
    ) + dot_plot([(NASTY, 1.0, True)], label=NASTY, x_label=NASTY, bound=(1.0, NASTY))
    assert "<script" not in chart
    tree = parsed(chart)
    written = [element.text for element in tree.iter() if element.text] + [
        element.get("aria-label") for element in tree.iter("svg")
    ]
    assert written.count(NASTY) == 11


def test_bars_stand_on_zero_and_are_as_high_as_their_values() -> None:
    chart = bar_chart(
        [("1", (1.0, 0.5)), ("2", (2.0, math.nan))],
        ("AND", "OR"),
        label="sums",
        x_label="order",
        y_label="sum",
    )
    heights = [float(h) for h in re.findall(r'<rect class="column[^>]*height="([\d.]+)"', chart)]
    assert heights[0] == pytest.approx(heights[2] / 2, abs=0.1)
    assert heights[1] == pytest.approx(heights[2] / 4, abs=0.1)
    assert len(heights) == 3
    assert "<title>AND 2: 2</title>" in chart
    empty = bar_chart([("1", (math.nan,))], ("AND",), label="sums", x_label="", y_label="")
    assert "nothing was recorded" in empty
    zeros = bar_chart([("1", (0.0,))], ("AND",), label="sums", x_label="", y_label="")
    assert 'height="0.0"' in zeros


def test_bands_lie_around_their_lines() -> None:
    line = Series("a", [(1, 2), (2, 3)], "second", [(1, 1, 4), (2, 2, 5), (3, math.nan, 6)])
    svg = line_chart([line], label="", x_label="", y_label="")
    drawn = re.search(r'class="band second" points="([^"]*)"', svg)
    assert drawn
    corners = [tuple(map(float, one.split(","))) for one in drawn[1].split()]
    assert [x for x, _ in corners] == [52, 426, 426, 52]  # the interval without bounds is left out
    heights = [HEIGHT - BOTTOM - y for _, y in corners]
    assert heights == pytest.approx([4 * heights[3], 5 * heights[3], 2 * heights[3], heights[3]], abs=0.2)
    assert "band" not in line_chart([Series("a", [(1, 2)])], label="", x_label="", y_label="")


def test_stacks_lie_upon_each_other() -> None:
    svg = stack_chart(
        [("1", (1.0, 2.0, 0.5)), ("2", (0.0, 1.0, 1.0))],
        ("low", NASTY, "high"),
        label="",
        x_label="",
        y_label="",
        top=4.0,
    )
    boxes = [
        tuple(map(float, one)) for one in re.findall(r'<rect[^>]* y="([\d.]+)"[^>]* height="([\d.]+)"', svg)
    ]
    for (y, height), (above, more) in ((boxes[0], boxes[1]), (boxes[1], boxes[2]), (boxes[4], boxes[5])):
        assert above + more == pytest.approx(y, abs=0.11) and height >= 0
    assert boxes[1][1] == pytest.approx(2 * boxes[0][1], abs=0.11) and boxes[3][1] == 0
    assert NASTY not in svg


def test_counts_have_whole_ticks() -> None:
    """Orders 1 to 3, and 1 to 10: no tick at 1.5 or 2.5."""
    for most in (3, 10):
        chart = line_chart(
            [Series("a", [(float(m), 0.5 * m) for m in range(1, most + 1)])],
            label="l",
            x_label="x",
            y_label="y",
        )
        ticks = re.findall(r'text-anchor="middle"[^>]*>([\d.]+)<', chart)
        assert len(ticks) >= 3 and all(float(tick).is_integer() for tick in ticks)
