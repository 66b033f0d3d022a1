"""The drawn graph: where nodes stand, what is said about those that are not drawn."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from report_samples import a_flow, an_image_set

from pyinterp.chains.flow import ChainFlow, FlowColumn, FlowEdge, FlowUnit
from pyinterp.report import write_report
from pyinterp.report.flow_blocks import flow_blocks
from pyinterp.report.page import Page


def drawn(flow: ChainFlow, tmp_path: Path) -> str:
    return write_report(flow, tmp_path / "report.html", images=an_image_set()).read_text("utf-8")


def centres(text: str) -> list[tuple[float, float]]:
    found = re.findall(r'class="unit" data-unit="\d+"[^>]*transform="translate\((-?\d+) (-?\d+)\)"', text)
    return [(float(x), float(y)) for x, y in found]


def test_nodes_stand_in_columns_from_left_to_right_without_overlap(tmp_path: Path) -> None:
    text = drawn(a_flow(), tmp_path)
    nodes = centres(text)
    assert len(nodes) == 5
    columns = [x for x, _ in nodes]
    assert columns[0] == columns[1] < columns[2] == columns[3] < columns[4]
    assert abs(nodes[0][1] - nodes[1][1]) >= 60
    width, height = map(int, re.findall(r'flow-svg" width="(\d+)" height="(\d+)"', text)[0])
    assert all(23 <= x <= width - 23 and 23 <= y <= height - 23 for x, y in nodes)


def test_what_is_not_drawn_is_said(tmp_path: Path) -> None:
    text = drawn(a_flow(), tmp_path)
    assert "4 of 5 kept units are shown" in text
    assert "+ 1 more" in text
    assert "block.conv2: nothing is kept, the layer is skipped" in text


def test_lines_are_as_wide_as_their_share_and_marked_where_they_lower(tmp_path: Path) -> None:
    text = drawn(a_flow(), tmp_path)
    found = re.findall(r'<path class="(edge[^"]*)"[^>]*stroke-width="([\d.]+)"', text)
    assert [name for name, _ in found] == ["edge", "edge minus", "edge", "edge", "edge"]
    widths = [float(width) for _, width in found]
    assert widths[2] > widths[0] > widths[3] > widths[4] > widths[1]


def test_rows_are_ordered_so_that_lines_do_not_cross(tmp_path: Path) -> None:
    """Unit k of each column feeds unit 3 - k of the next: drawn in the given order every line would cross."""
    units = tuple(FlowUnit(k, 1.0, 0.25, None, ()) for k in range(4))
    columns = tuple(FlowColumn(name, "filter", 4, 4, False, units) for name in ("a", "b", "c"))
    edges = tuple(FlowEdge((c, k), (c + 1, 3 - k), 1.0) for c in range(2) for k in range(4))
    nodes = centres(drawn(ChainFlow(columns, edges, 0.05, 1), tmp_path))
    height = {(c, k): nodes[4 * c + k][1] for c in range(3) for k in range(4)}
    for edge in edges:
        assert height[edge.source] == height[edge.target]


def test_a_chain_that_keeps_nothing_draws_no_graph() -> None:
    flow = a_flow()
    empty = tuple(replace(column, kept=0, units=()) for column in flow.columns)
    assert flow_blocks(replace(flow, columns=empty, edges=()), Page(None, ())) == []


def test_one_picture_per_unit_and_no_map_without_its_photograph(tmp_path: Path) -> None:
    text = drawn(a_flow(), tmp_path)
    assert len(re.findall(r'<image href="data:image/jpeg;base64,', text)) == 4
    without = write_report(a_flow(), tmp_path / "without.html").read_text("utf-8")
    assert '"maps": []' in without
    assert '"map"' not in without
