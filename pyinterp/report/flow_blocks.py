"""The chain as a layered graph: columns are layers, nodes are kept units, edges are contributions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pyinterp.report.page import Block, Page, Photo, data_uri, fragment
from pyinterp.report.plots import number, percent

if TYPE_CHECKING:
    from pyinterp.chains.flow import ChainFlow, FlowColumn, FlowUnit

SIDE, COLUMN, ROW, SKIPPED = 46, 84, 64, 30
TOP, MARGIN, LAST = 66, 14, 190
SWEEPS = 4
KINDS = {"filter": "filter", "head": "head", "neuron": "neuron"}


def flow_blocks(flow: ChainFlow, page: Page) -> list[Block]:
    """The section for one layered graph; empty when no unit is kept."""
    if not any(column.units for column in flow.columns):
        return []
    names = [_names(column, page) for column in flow.columns]
    places = _places(flow)
    values = {
        "id": "flow",
        "text": _text(flow),
        "svg": _svg(flow, names, places),
        "data": _data(flow, names, places, page),
    }
    return [Block("graph", "The chain, unit by unit", fragment("flow.html", "graph", values))]


def _names(column: FlowColumn, page: Page) -> list[str]:
    if column.kind == "class":
        return [page.class_name(unit.index) for unit in column.units]
    return [f"{column.site}, {KINDS[column.kind]} {unit.index}" for unit in column.units]


def _text(flow: ChainFlow) -> str:
    layers = [column for column in flow.columns if column.kind != "class"]
    kept, shown = sum(column.kept for column in layers), sum(len(column.units) for column in layers)
    cap = "All kept units are shown" if shown == kept else f"{shown:,} of {kept:,} kept units are shown"
    return (
        "From left to right, the layers of the network in their order; at the right end its answers. Each picture is "
        "the part of the images to which a kept unit responds most. "
        f"{cap}: in each layer those with the most influence on the answers, which is the bar under each picture. "
        "A line from one unit to another is as wide as its share of everything that the kept units put into the "
        f"other, and only shares of at least {percent(flow.least_share, 2)} are drawn."
    )


def _places(flow: ChainFlow) -> list[list[tuple[float, float]]]:
    """Centre of every node: columns from left to right, rows ordered so that lines cross little."""
    rows = _rows(flow)
    tallest = max(len(column.units) for column in flow.columns)
    middle = TOP + tallest * ROW / 2
    places, x = [], MARGIN + COLUMN / 2
    for column, order in zip(flow.columns, rows, strict=True):
        start = middle - len(order) * ROW / 2 + ROW / 2
        places.append([(x, start + order.index(unit) * ROW) for unit in range(len(column.units))])
        x += COLUMN if column.units else SKIPPED
    return places


def _rows(flow: ChainFlow) -> list[list[int]]:
    """Order of the nodes in each column by the mean height of their neighbours, swept to and fro."""
    rows = [list(range(len(column.units))) for column in flow.columns]
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        columns = range(len(rows)) if forward else reversed(range(len(rows)))
        for here in columns:
            heights: dict[int, list[tuple[float, float]]] = {}
            for edge in flow.edges:
                (node, other) = (edge.target, edge.source) if forward else (edge.source, edge.target)
                if node[0] == here:
                    height = rows[other[0]].index(other[1]) - (len(rows[other[0]]) - 1) / 2
                    heights.setdefault(node[1], []).append((height, abs(edge.share)))
            middle = (len(rows[here]) - 1) / 2
            keys = {
                unit: sum(h * w for h, w in heights[unit]) / sum(w for _, w in heights[unit])
                if unit in heights
                else place - middle
                for place, unit in enumerate(rows[here])
            }
            rows[here].sort(key=lambda unit, keys=keys: keys[unit])  # type: ignore[misc]
    return rows


def _svg(flow: ChainFlow, names: list[list[str]], places: list[list[tuple[float, float]]]) -> Markup:
    tallest = max(len(column.units) for column in flow.columns)
    height = TOP + tallest * ROW + 26
    lefts, x = [], float(MARGIN)
    for column in flow.columns:
        lefts.append(x)
        x += COLUMN if column.units else SKIPPED
    width = x + LAST
    numbers = _numbers(flow)
    edges = [
        _edge(places[e.source[0]][e.source[1]], places[e.target[0]][e.target[1]], e.share) for e in flow.edges
    ]
    heads = [
        _head(column, left, height)
        for column, left in zip(flow.columns, lefts, strict=True)
        if column.kind != "class"
    ]
    nodes = [
        _node(numbers[c, u], unit, column, names[c][u], places[c][u])
        for c, column in enumerate(flow.columns)
        for u, unit in enumerate(column.units)
    ]
    return Markup(
        '<svg class="flow-svg" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" role="group" '
        'aria-label="Graph of the chain: {2} units in {3} layers">'
        "{4}{5}{6}{7}</svg>"
    ).format(
        width,
        height,
        len(numbers),
        len(flow.columns),
        _stages(flow.columns, lefts),
        Markup("").join(heads),
        Markup("").join(edges),
        Markup("").join(nodes),
    )


def _numbers(flow: ChainFlow) -> dict[tuple[int, int], int]:
    keys = [(c, u) for c, column in enumerate(flow.columns) for u in range(len(column.units))]
    return {key: number for number, key in enumerate(keys)}


def _stages(columns: Sequence[FlowColumn], lefts: Sequence[float]) -> Markup:
    """The common path of neighbouring columns, written once above them."""
    inner = [
        (column.site.rpartition(".")[0], left, column) for column, left in zip(columns, lefts, strict=True)
    ]
    parts = []
    for parent, members in groupby(inner, key=lambda entry: entry[0]):
        group = list(members)
        start = group[0][1]
        end = group[-1][1] + (COLUMN if group[-1][2].units else SKIPPED)
        if not parent:
            continue
        parts.append(
            Markup(
                '<g><title>{0}</title><text class="stage" x="{1:.0f}" y="16">{2}</text>'
                '<line class="rule" x1="{1:.0f}" x2="{3:.0f}" y1="23" y2="23"/></g>'
            ).format(parent, start + 4, _short(parent, (end - start) / 6.6), end - 8)
        )
    return Markup("").join(parts)


def _head(column: FlowColumn, left: float, height: float) -> Markup:
    name = column.site.rpartition(".")[2]
    if not column.units:
        return Markup(
            '<g class="skipped"><title>{0}: nothing is kept{1}</title>'
            '<rect x="{2:.0f}" y="{3}" width="{4}" height="{5:.0f}" rx="5"/>'
            '<text transform="translate({6:.0f} {7:.0f}) rotate(-90)">{8}</text></g>'
        ).format(
            column.site,
            ", the layer is skipped" if column.skipped else "",
            left + 5,
            TOP - 4,
            SKIPPED - 10,
            height - TOP - 18,
            left + SKIPPED / 2 + 4,
            TOP + (height - TOP - 18) / 2,
            _short(name, 18),
        )
    middle = left + COLUMN / 2
    hidden = column.kept - len(column.units)
    more = Markup("")
    if hidden:
        more = Markup('<text class="more" x="{:.0f}" y="{:.0f}">+ {:,} more</text>').format(
            middle, height - 8, hidden
        )
    return Markup(
        '<g><title>{0}</title><text x="{1:.0f}" y="39">{2}</text><text class="more" x="{1:.0f}" y="54">'
        "{3:,} of {4:,}</text>{5}</g>"
    ).format(column.site, middle, _short(name, 13), column.kept, column.total, more)


def _edge(start: tuple[float, float], end: tuple[float, float], share: float) -> Markup:
    x0, x1 = start[0] + SIDE / 2 + 1, end[0] - SIDE / 2 - 1
    bend = min(60.0, max(16.0, (x1 - x0) * 0.5))
    return Markup(
        '<path class="edge{}" d="M{:.0f} {:.0f}C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} {:.0f}" stroke-width="{:.1f}"/>'
    ).format(
        " minus" if share < 0 else "",
        x0,
        start[1],
        x0 + bend,
        start[1],
        x1 - bend,
        end[1],
        x1,
        end[1],
        0.8 + 7 * abs(share),
    )


def _node(number: int, unit: FlowUnit, column: FlowColumn, name: str, place: tuple[float, float]) -> Markup:
    half = SIDE / 2
    most = max(other.influence for other in column.units) or 1.0
    if column.kind == "class":
        inside = Markup(
            '<rect class="disc" x="{0}" y="-13" width="{1}" height="26" rx="13"/>'
            '<rect class="ring" x="{0}" y="-13" width="{1}" height="26" rx="13"/>'
            '<text x="{2}" y="4">{3}</text>'
        ).format(-half, LAST + 10, -half + (LAST + 10) / 2, _short(name, 28))
    else:
        picture = Markup("")
        if unit.picture is not None:
            picture = Markup('<image href="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                data_uri(unit.picture, 2 * SIDE), -half, -half, SIDE, SIDE
            )
        inside = Markup(
            '<rect class="disc" x="{0}" y="{0}" width="{1}" height="{1}" rx="9"/>{2}'
            '<rect class="ring" x="{0}" y="{0}" width="{1}" height="{1}" rx="9"/>'
            '<rect class="weight" x="{0}" y="{3}" width="{4:.1f}" height="3" rx="1.5"/>'
        ).format(-half, SIDE, picture, half + 4, max(2.0, SIDE * unit.influence / most))
    return Markup(
        '<g class="unit" data-unit="{}" role="button" tabindex="-1" aria-label="{}" '
        'transform="translate({:.0f} {:.0f})">'
        "<title>{}</title>{}</g>"
    ).format(number, name, *place, name, inside)


def _data(
    flow: ChainFlow, names: list[list[str]], places: list[list[tuple[float, float]]], page: Page
) -> dict[str, Any]:
    numbers = _numbers(flow)
    units = []
    for c, column in enumerate(flow.columns):
        heights = sorted(y for _, y in places[c])
        for u, unit in enumerate(column.units):
            units.append(
                {
                    "name": names[c][u],
                    "text": _words(unit, column),
                    "column": c,
                    "row": heights.index(places[c][u][1]),
                    "maps": [
                        {
                            "image": response.image,
                            "w": response.map.shape[1],
                            "h": response.map.shape[0],
                            "map": base64.b64encode(response.map.contiguous().numpy().tobytes()).decode(
                                "ascii"
                            ),
                        }
                        for response in unit.responses
                        if page.images is not None
                    ],
                }
            )
    shown = {r.image for column in flow.columns for unit in column.units for r in unit.responses}
    photos = [page.photo(i) if i in shown else Photo("", "") for i in range(1 + max(shown, default=-1))]
    return {
        "units": units,
        "edges": [(numbers[e.source], numbers[e.target], round(e.share, 4)) for e in flow.edges],
        "images": [{"name": photo.name, "src": photo.source} for photo in photos],
        "last": len(flow.columns) - 1,
    }


def _words(unit: FlowUnit, column: FlowColumn) -> str:
    if column.kind == "class":
        return "A class of the answer. Its inputs are what the last kept layers put into its logit."
    score = f" Its score is {number(unit.score)}." if unit.score != 1 else ""
    return (
        f"One of {column.kept:,} kept units of {column.total:,} in {column.site}.{score} Its share of its layer's "
        f"influence on the answers is {percent(unit.influence, 2)}. Below: the images to which it responds most, lit "
        "where it responds."
    )


def _short(text: str, length: float) -> str:
    room = max(4, int(length))
    return text if len(text) <= room else text[: room - 1] + "…"
