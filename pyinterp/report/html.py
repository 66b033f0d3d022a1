"""``write_report``: results in, one self-contained HTML file out."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Sequence
from functools import singledispatch
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pyinterp.chains.chain import Chain
from pyinterp.chains.curve import SufficiencyCurve
from pyinterp.chains.flow import ChainFlow
from pyinterp.errors import explain
from pyinterp.heads.head_study import HeadStudy
from pyinterp.heads.scored_words import TopWords
from pyinterp.interactions.interactions import Interactions
from pyinterp.knowledge.layer_knowledge import LayerKnowledge
from pyinterp.report.chain_blocks import chain_blocks, chain_headline
from pyinterp.report.curve_blocks import curve_blocks
from pyinterp.report.flow_blocks import flow_blocks
from pyinterp.report.head_blocks import head_blocks, head_headline
from pyinterp.report.interactions_blocks import interactions_blocks, interactions_headline
from pyinterp.report.knowledge_blocks import knowledge_blocks, knowledge_headline
from pyinterp.report.page import Block, Page, environment, unique
from pyinterp.report.words_blocks import words_blocks
from pyinterp.storage import replace_files
from pyinterp.version import package_version

if TYPE_CHECKING:
    from pyinterp.models.images import ImageSet


def write_report(
    results: Any,
    path: str | os.PathLike[str],
    *,
    images: ImageSet | None = None,
    classes: Sequence[str] | None = None,
    title: str | None = None,
) -> Path:
    """Write one HTML file that shows ``results`` and opens offline in any browser.

    Args:
        results: A result, or a list of them: ``Chain``, ``ChainFlow``, ``SufficiencyCurve``,
            ``Interactions``, ``LayerKnowledge``, ``HeadStudy``, ``TopWords``.
        path: The file to write; its folder is made, and an older file is replaced only by a whole new one.
        images: The images the results speak of, in their order (``models.load_images`` gives them).
        classes: Name of every class of the model, to be shown instead of its number.
        title: Heading of the page; by default what the first result found.

    Returns:
        The path written.

    Raises:
        TypeError: A result of another type.
        ValueError: No result, or ``path`` is a folder or a device.
        OSError: The file cannot be written.
    """
    listed = list(results) if isinstance(results, list | tuple) else [results]
    if not listed:
        raise ValueError(explain("write_report", "at least one result", "an empty list", "Pass a Chain."))
    given: Any = images
    if given is not None and not hasattr(given, "pixels"):
        fix = "Pass what pyinterp.models.load_images gives."
        raise TypeError(explain("write_report", "an ImageSet", type(given).__name__, fix))
    page = Page(images, tuple(classes or ()))
    blocks = unique([block for result in listed for block in build(result, page)])
    found = (headline(result, page) for result in listed)
    heading = title or next((text for text in found if text), "What the network computes")
    html = environment().get_template("template.html").render(_frame(heading, blocks))
    target = Path(path)
    fix = "Free some space, or choose another folder."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = error.strerror or error
        raise OSError(explain("write_report", f"to write {target}", got, fix)) from error
    replace_files("write_report", {target: html.encode()}, fix)
    return target


@singledispatch
def build(result: Any, page: Page) -> list[Block]:
    """The sections for one result: one builder per result type."""
    known = " or ".join(sorted(kind.__name__ for kind in build.registry if kind is not object))
    raise TypeError(
        explain(
            "write_report",
            f"results of type {known}",
            type(result).__name__,
            "Pass what extract_chain, extract_interactions, measure_knowledge or study_head returned.",
        )
    )


build.register(Chain, chain_blocks)
build.register(ChainFlow, flow_blocks)
build.register(SufficiencyCurve, curve_blocks)
build.register(Interactions, interactions_blocks)
build.register(LayerKnowledge, knowledge_blocks)
build.register(HeadStudy, head_blocks)
build.register(TopWords, words_blocks)


@singledispatch
def headline(result: Any, page: Page) -> str:
    """What a result found, in a few words; "" where it adds nothing to the heading."""
    return ""


headline.register(Chain, lambda chain, page: chain_headline(chain))
headline.register(Interactions, interactions_headline)
headline.register(LayerKnowledge, knowledge_headline)
headline.register(HeadStudy, head_headline)


def _frame(heading: str, blocks: Sequence[Block]) -> dict[str, Any]:
    folder = resources.files("pyinterp.report")
    style = folder.joinpath("style.css").read_text("utf-8")
    script = folder.joinpath("flow.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {
        "title": heading,
        "blocks": blocks,
        "style": Markup(style),
        "script": Markup(script),
        # With this in the page's policy a browser runs this script alone, whatever a file name may smuggle in.
        "script_hash": f"sha256-{digest}",
        "version": package_version(),
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
