"""The page in a real browser: no error, no request, something to see, and it answers to mouse and keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_samples import CLASSES, a_chain, a_flow, a_knowledge, a_study, an_image_set, an_interactions

from pyinterp.report import write_report

Render = Callable[..., Any]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return write_report(
        [a_chain(), a_flow()], tmp_path / "report.html", images=an_image_set(), classes=CLASSES
    )


def inked(rendered: Any) -> float:
    """Share of the picture that differs clearly from the page's background."""
    grey = np.asarray(rendered.picture.convert("L")).astype(int)
    return float((abs(grey - grey[4, 4]) > 40).mean())


def test_the_instrument_sees_errors_requests_and_blank_pages(render: Render, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><img src='http://example.invalid/x.png'><script>nonsense()</script>", "utf-8"
    )
    seen = render(bad)
    assert any("nonsense is not defined" in line for line in seen.console)
    assert "http://example.invalid/x.png" in seen.requests
    assert inked(seen) < 0.001


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_the_page_renders_without_error_or_request(
    render: Render, page: Path, width: int, dark: bool
) -> None:
    seen = render(page, width=width, dark=dark)
    assert seen.console == []
    assert seen.requests == []
    assert inked(seen) > 0.02
    corner = np.asarray(seen.picture.convert("L"))[4, 4]
    assert (corner < 60) == dark


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_interactions_render_without_error_or_request(
    render: Render, tmp_path: Path, width: int, dark: bool
) -> None:
    path = write_report(an_interactions(), tmp_path / "interactions.html")
    seen = render(path, width=width, height=2600, dark=dark)
    assert seen.console == []
    assert seen.requests == []
    assert inked(seen) > 0.02
    # The image of noise is drawn: many strongly coloured pixels, which nothing else on the page has.
    colours = np.asarray(seen.picture.convert("HSV"))[..., 1]
    assert (colours > 120).mean() > 0.01


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True)])
def test_a_head_renders_without_error_or_request(
    render: Render, tmp_path: Path, width: int, dark: bool
) -> None:
    script = """
    document.body.dataset.fits = document.documentElement.scrollWidth <= window.innerWidth;
    document.body.dataset.drawn = [...document.querySelectorAll("use")].every(use => use.getBBox().width == 16);
    """
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None, None].expand(4, 3, 24, 16)
    path = write_report(a_study(pictures=magenta), tmp_path / "head.html")
    seen = render(path, width=width, height=4800, dark=dark)
    assert seen.console == []
    assert seen.requests == []
    # Each picture is in the page once, and is drawn wherever it is referred to: five times at 76 x 114 at least.
    red, green, blue = np.asarray(seen.picture.convert("RGB")).astype(int).transpose(2, 0, 1)
    assert ((red > 230) & (green < 40) & (blue > 230)).sum() > 5 * 76 * 114
    seen = render(driven(path, script), width=width, height=4800)
    assert 'data-fits="true"' in seen.html and 'data-drawn="true"' in seen.html


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_what_layers_know_renders_without_error_or_request(
    render: Render, tmp_path: Path, width: int, dark: bool
) -> None:
    script = """
    document.body.dataset.fits = document.documentElement.scrollWidth <= window.innerWidth;
    const filled = [...document.querySelectorAll("rect.column")].map(one => getComputedStyle(one).fill);
    document.body.dataset.colours = new Set(filled).size;
    """
    spread = (
        torch.tensor([2.0, 0.5]).expand(2, 3, 2, 8, 2) * torch.tensor([1.0, 3])[:, None, None, None, None]
    )
    path = write_report(a_knowledge(spread=spread, draws=3), tmp_path / "knowledge.html")
    seen = render(path, width=width, height=4800, dark=dark)
    assert seen.console == [] and seen.requests == []
    assert inked(seen) > 0.02
    seen = render(driven(path, script), width=width, height=4800)
    assert 'data-fits="true"' in seen.html and 'data-colours="3"' in seen.html


def test_no_part_of_a_picture_stands_out_of_its_card(render: Render, tmp_path: Path) -> None:
    script = """
    const wide = document.documentElement.scrollWidth;
    document.body.dataset.fits = wide <= window.innerWidth;
    document.body.dataset.cards = [...document.querySelectorAll(".effects li")].every(li =>
      [...li.children].every(child => child.getBoundingClientRect().right <= li.getBoundingClientRect().right));
    """
    path = driven(write_report(an_interactions(), tmp_path / "interactions.html"), script)
    for width in (1280, 500):
        seen = render(path, width=width)
        assert 'data-fits="true"' in seen.html
        assert 'data-cards="true"' in seen.html


def driven(page: Path, script: str) -> Path:
    """The page with a script at its end, which its own policy would not let run."""
    text = page.read_text("utf-8")
    start = text.index('<meta http-equiv="Content-Security-Policy"')
    end = text.index(">", start) + 1
    other = page.with_name("driven.html")
    other.write_text(f"{text[:start]}{text[end:]}<script>{script}</script>", "utf-8")
    return other


def test_the_policy_stops_a_foreign_script(render: Render, page: Path) -> None:
    text = page.read_text("utf-8")
    page.write_text(f"{text}<script>document.title = 'taken'</script>", "utf-8")
    seen = render(page)
    assert any("Content Security Policy" in line for line in seen.console)
    assert "<title>taken" not in seen.html


def test_a_click_shows_a_unit_and_its_paths(render: Render, page: Path) -> None:
    script = """
    const unit = document.querySelector('.unit[data-unit="0"]');
    unit.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    document.body.dataset.lit = document.querySelectorAll(".edge.on").length;
    document.body.dataset.units = document.querySelectorAll(".unit.on").length;
    document.body.dataset.canvases = document.querySelectorAll(".flow-detail canvas").length;
    document.body.dataset.heading = document.querySelector(".flow-detail h3").textContent;
    """
    seen = render(driven(page, script))
    assert seen.console == []
    assert 'data-heading="conv1, filter 3"' in seen.html
    # Unit 0 feeds 2 and 3, and those feed the class: four edges, four units.
    assert 'data-lit="4"' in seen.html
    assert 'data-units="4"' in seen.html
    assert 'data-canvases="2"' in seen.html


def test_arrows_move_along_the_graph_and_escape_lets_go(render: Render, page: Path) -> None:
    script = """
    const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    const at = () => document.activeElement.dataset.unit;
    const stops = () => document.querySelectorAll('.unit[tabindex="0"]').length;
    const seen = [];
    document.querySelector('.unit[tabindex="0"]').focus(); seen.push(at(), stops());
    press("ArrowRight"); seen.push(at(), stops());
    press("ArrowRight"); seen.push(at());
    press("ArrowRight"); seen.push(at());
    press("ArrowLeft"); press("ArrowLeft"); seen.push(at());
    press("Enter"); seen.push(document.querySelectorAll(".pinned").length);
    press("Escape"); seen.push(document.querySelectorAll(".pinned").length);
    document.body.dataset.seen = seen.join(" ");
    """
    seen = render(driven(page, script))
    assert seen.console == []
    trail = seen.html.partition('data-seen="')[2].partition('"')[0].split()
    assert trail[1] == trail[3] == "1"
    first, second, third, end, back = trail[0], trail[2], trail[4], trail[5], trail[6]
    assert first in "01"
    assert second in "23"
    assert third == end == "4"
    assert back == first
    assert trail[7:] == ["1", "0"]
