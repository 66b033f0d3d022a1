"""The page as text: nothing that a name says becomes markup, nothing is fetched, nothing is half written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import CLASSES, NASTY, a_chain, a_flow, an_image_set, an_interactions

from pyinterp.report import write_report

VOID = {"meta", "link", "img", "br", "input"}
ADDRESSES = {"src", "href", "srcset", "action", "data", "poster"}


class Reader(HTMLParser):
    """Reads the page as a browser does: its tags, their balance, every address, the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ADDRESSES]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag == "script":
            self.scripts.append((given.get("type") or "", ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "script":
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = write_report(
        [a_chain(model_name=NASTY), a_flow(site=NASTY), an_interactions(model_name=NASTY, class_name=NASTY)],
        tmp_path / "deep" / "report.html",
        images=an_image_set(),
        classes=CLASSES,
    )
    return path.read_text("utf-8")


def test_names_never_become_markup(page: str) -> None:
    reader = Reader(page)
    assert not reader.open
    assert not reader.handlers
    # The data of the graph and the page's own script: a name has added none.
    assert [kind for kind, _ in reader.scripts] == ["application/json", ""]
    assert "<script>alert" not in page
    shown = "".join(reader.text)
    assert NASTY in shown
    assert f"{NASTY}.png" in shown
    assert CLASSES[0] in shown


def test_the_data_of_the_graph_survives_nasty_names(page: str) -> None:
    data = json.loads(Reader(page).scripts[0][1])
    assert data["units"][0]["name"] == f"{NASTY}, filter 3"
    assert data["units"][-1]["name"] == CLASSES[0]
    assert data["images"][1]["name"] == f"{NASTY}.png"
    maps = data["units"][0]["maps"]
    assert [m["image"] for m in maps] == [0, 1]
    assert list(base64.b64decode(maps[0]["map"])) == [17 * i for i in range(16)]


def test_the_page_asks_for_nothing(page: str) -> None:
    reader = Reader(page)
    assert reader.addresses
    assert all(address.startswith(("data:", "#")) for address in reader.addresses)
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|sendBeacon|WebSocket", page)


def test_every_link_has_its_section_and_ids_are_unique(page: str) -> None:
    reader = Reader(page)
    assert len(set(reader.ids)) == len(reader.ids)
    targets = [address[1:] for address in reader.addresses if address.startswith("#")]
    assert targets
    assert set(targets) <= set(reader.ids)


def test_the_policy_names_the_one_script(page: str) -> None:
    script = Reader(page).scripts[1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_two_results_of_one_type_get_ids_of_their_own(tmp_path: Path) -> None:
    path = write_report([a_flow(), a_flow()], tmp_path / "report.html")
    reader = Reader(path.read_text("utf-8"))
    assert {"graph", "graph-2"} <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)


def test_without_images_and_classes_numbers_stand_for_names(tmp_path: Path) -> None:
    text = write_report([a_chain(), a_flow()], tmp_path / "report.html").read_text("utf-8")
    assert "image 1" in text
    assert "class 0" in text


def test_an_older_report_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(a_flow(), tmp_path / "report.html")
    before = path.read_bytes()

    def full_disk(self: Path, *args: object, **kwargs: object) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_report(a_flow(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("results", "error", "words"),
    [([], ValueError, "at least one result"), ([3], TypeError, "got int"), ("x", TypeError, "got str")],
)
def test_what_is_no_result_is_refused(
    tmp_path: Path, results: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        write_report(results, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link_and_a_device_is_refused(tmp_path: Path) -> None:
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    real.write_text("old")
    link.symlink_to(real)
    write_report(a_chain(), link)
    assert link.is_symlink() and "<html" in real.read_text("utf-8")
    pipe = tmp_path / "pipe.html"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="which is none"):
        write_report(a_chain(), pipe)
    assert pipe.is_fifo()
