"""The part of a report that shows a LayerKnowledge: answer, table of layers, what changes by order, settings."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from pyinterp.knowledge.layer_knowledge import LOW
from pyinterp.report.bars import stack_chart
from pyinterp.report.page import NAMES, Block, Page, fragment
from pyinterp.report.plots import Series, line_chart, number, percent

if TYPE_CHECKING:
    from torch import Tensor

    from pyinterp.knowledge.layer_knowledge import LayerKnowledge
    from pyinterp.knowledge.metrics import Estimate

PARTS = ("there already, and kept", "to be forgotten", "still to come")
WELL = 30
"""Images, below which a note says that intervals are rough."""
UNLIKE = 3
"""Times, by which the strengths of two layers differ, from which on a note says so."""
SHOWN = 300
"""Effects, the strongest first, whose strengths are drawn."""
KINDS = ("AND", "OR")
LINES = ("main", "second", "faint", "dashed")


def knowledge_blocks(found: LayerKnowledge, page: Page) -> list[Block]:
    """The sections for what the layers of a network, or two functions, know."""
    table, both = partial(fragment, "knowledge.html", "table"), partial(fragment, "shared.html")
    between = []
    if len(found.layers) > 1:
        between = [
            Block("layers", f"{_noun(found)} by {_noun(found).lower()}", table(_layers(found))),
            Block("change", "What is kept, forgotten and added", both("charts", _change(found))),
            Block("ways", "Other ways to compare", table(_ways(found))),
        ]
    return [
        Block("answer", "The answer", fragment("interactions.html", "answer", _answer(found))),
        *between,
        Block("orders", "By the number of parts", both("charts", _orders(found))),
        Block("settings", "Settings and provenance", both("settings", _settings(found)), late=True),
    ]


def knowledge_headline(found: LayerKnowledge, page: Page) -> str:
    """What was found, as the heading of the page."""
    name = NAMES.get(found.model_name, found.model_name)
    if found.of_networks:
        return f"Which interactions {name} share"
    if len(found.layers) == 1:
        return f"What {name} knows of {len(found.effects)} images"
    return f"What {len(found.layers)} layers of {name} know of {len(found.effects)} images"


def _answer(found: LayerKnowledge) -> dict[str, Any]:
    last = found.layers[-1]
    means = f"Means over {len(found.effects)} images of {found.n} parts, with 95 % intervals over the images."
    counts = found.salient.sum((2, 3)).double().mean(0)
    tiles = [
        _tile("Salient", number(float(counts[-1])), f"interactions of an image, at {last}"),
        _tile("Error bar", number(float(found.floor[:, -1, 1].mean())), "noise floor at order 1"),
    ]
    if len(found.layers) == 1:
        low = found.low_orders()
        sentence = f"{_share(low, 0)} of the strength of the interactions is in those of at most {LOW} parts. {means}"
        tiles.insert(
            0, _tile("Low orders", percent(float(low.value[0]), 2), f"of the strength, to {LOW} parts")
        )
        return {"sentence": sentence, "notes": _notes(found), "tiles": tiles}
    complete, redundant = found.completeness(), found.redundancy()
    first = (len(found.layers) - 1) // 2
    layer = found.layers[first]
    called = layer if found.of_networks else f"Layer {layer}"
    sentence = (
        f"{called} already has {_share(complete, first)} of the strength of the interactions of {last}; of what it has "
        f"itself, {_share(redundant, first)} gets lost. {means}"
    )
    first_tiles = [
        _tile("Complete", percent(float(complete.value[first]), 2), f"of {last}, at {layer}"),
        _tile("Redundant", percent(float(redundant.value[first]), 2), f"of {layer}: gone in {last}"),
    ]
    return {"sentence": sentence, "notes": _notes(found), "tiles": first_tiles + tiles}


def _notes(found: LayerKnowledge) -> list[dict[str, str]]:
    notes = []
    if len(found.effects) < WELL:
        text = (
            f"{len(found.effects)} are few: their intervals are rough, cover less than they say where images differ "
            "much, and say nothing about other images."
        )
        notes.append({"kind": "warn", "head": "Few images.", "text": text})
    sums = found.kept.abs().double().sum((2, 3)).mean(0)
    others = sums[:-1][sums[:-1] > 0]
    if (
        len(others)
        and not found.is_relative
        and float((sums[-1] / others).log().abs().max()) > math.log(UNLIKE)
    ):
        text = (
            f"Scores of {found.layers[-1]} and of others are not of one size, so strengths differ by more than "
            f"{UNLIKE} times: look at numbers and shares too, under “Other ways to compare”."
        )
        notes.append({"kind": "plain", "head": "Unlike scales.", "text": text})
    if found.judged_too_few:
        text = f"{found.judged} held-out samples are too few to show that a layer knows more than chance."
        notes.append({"kind": "warn", "head": "Accuracies say nothing.", "text": text})
    weak = found.near_chance
    if weak:
        text = f"{', '.join(weak)}: what is said of these layers says little."
        notes.append({"kind": "warn", "head": "Probes near chance.", "text": text})
    below = int(found.below_floor.sum())
    if below:
        text = f"{below:,} effects were left out: numerical noise alone could make them."
        notes.append({"kind": "plain", "head": "Below the noise.", "text": text})
    return notes


def _layers(found: LayerKnowledge) -> dict[str, Any]:
    complete, redundant = found.completeness(), found.redundancy()
    counts, known = found.salient.sum((2, 3)).double().mean(0), not found.accuracy.isnan().all()
    heads = [_noun(found), "Salient", "Complete", "Redundant"]
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(found.layers):
        cells = [number(float(counts[i])), _share(complete, i), _share(redundant, i)]
        if known:
            cells.insert(0, percent(float(found.accuracy[i])))
        rows.append({"name": name, "cells": cells})
    text = f"Salient interactions of an image, and how they relate to those of {found.layers[-1]}."
    if known:
        heads.insert(1, "Accuracy")
        text += (
            f" The accuracy is that of a linear classifier on the layer, on {found.judged:,} samples that it has not "
            f"seen; chance would give {percent(found.chance)}."
        )
    return _table(text, heads, rows)


def _ways(found: LayerKnowledge) -> dict[str, Any]:
    """By number, by share of each layer's strength, and from each layer to the next."""
    last = found.layers[-1]
    counted = found.completeness(counts=True), found.redundancy(counts=True)
    shares = found.relative()
    shared = shares.completeness(), shares.redundancy()
    heads = [
        "Layer",
        "Complete, by number",
        "Redundant, by number",
        "Complete, by share",
        "Redundant, by share",
    ]
    text = (
        f"Against {last}: the numbers of interactions, whatever their strength; and with strengths as shares of each "
        "layer's sum, so that layers differ in what they know and not in how sure they are."
    )
    columns = [*counted, *shared]
    if len(found.layers) > 2:
        columns += [found.completeness("next"), found.redundancy("next")]
        heads += ["Complete, of the next", "Lost in the next"]
        text += " The last two columns compare each with the one behind it, by strength."
    rows = [
        {"name": name, "cells": [_share(one, i) for one in columns]}
        for i, name in enumerate(found.layers[:-1])
    ]
    return _table(text, heads, rows)


def _table(text: str, heads: list[str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [heads, *([row["name"], *row["cells"]] for row in rows)]
    return {"text": text, "heads": heads, "rows": rows, "plain": "\n".join("\t".join(line) for line in lines)}


def _change(found: LayerKnowledge) -> dict[str, Any]:
    parts = [one.value.sum(1) for one in (found.overlap(), found.forget(), found.new())]
    top = float(sum(parts).max()) or 1.0  # type: ignore[union-attr]
    figures = []
    for i, name in enumerate(found.layers[:-1]):
        bars = [(str(m), [float(part[i, m]) for part in parts]) for m in range(1, found.n + 1)]
        chart = stack_chart(
            bars,
            PARTS,
            label=f"What {name} has of {found.layers[-1]}, by order",
            x_label="parts of an interaction",
            y_label="share of all strength" if found.is_relative else "strength",
            top=top,
        )
        figures.append({"caption": name if found.of_networks else f"Layer {name}", "svg": chart})
    text = (
        f"Strength of the interactions of so many parts, AND and OR together, compared with {found.layers[-1]}. The "
        "lower two parts of a bar are what the layer has, the lowest and the upper one what comes out in the end."
    )
    return {"figures": figures, "text": text}


def _orders(found: LayerKnowledge) -> dict[str, Any]:
    shown = _some(len(found.layers))
    roles = dict(zip(shown, LINES, strict=False))
    early = [i for i in shown if i < len(found.layers) - 1]
    strength, likeness = found.strength(), found.iou()
    charts = [(f"Strength, {kind}", _kind(strength, k), shown, "sum of |I|") for k, kind in enumerate(KINDS)]
    charts += [
        (f"Likeness to {found.layers[-1]}, {kind}", _kind(likeness, k), early, "IoU above chance")
        for k, kind in enumerate(KINDS)
        if bool(likeness.value[early, k].isfinite().any())
    ]
    if found.spread is not None:
        steady = found.stability()
        bounds = (steady.value, steady.low, steady.high)
        charts.append(("Steadiness under input noise", bounds, shown, "|mean| / deviation"))
    figures = []
    for caption, (values, low, high), own, words in charts:
        chart = line_chart(
            [Series(found.layers[i], _points(values[i]), roles[i], _band(low[i], high[i])) for i in own],
            label=f"{caption} of the interactions by the number of their parts",
            x_label="parts of an interaction",
            y_label=words,
        )
        figures.append({"caption": caption, "svg": chart})
    shares = found.sorted_strengths()
    lines = [
        Series(found.layers[i], [(float(k + 1), float(v)) for k, v in enumerate(shares[i, :SHOWN])], roles[i])
        for i in shown
    ]
    chart = line_chart(
        lines,
        label="Strengths of the effects of an image, the strongest first",
        x_label="rank of an effect (logarithmic axis)",
        y_label="|I| over the largest",
        log_x=True,
    )
    figures.append({"caption": "How few are strong", "svg": chart})
    text = "Means over the images, with 95 % intervals as bands."
    if early:
        text += (
            " IoU compares which interactions are salient: 0 is what unrelated choices of as many would give, 1 the "
            "same ones. Orders at which chance alone gives 1, or that nothing has, are left out."
        )
    return {"figures": figures, "text": text}


def _noun(found: LayerKnowledge) -> str:
    return "Network" if found.of_networks else "Layer"


def _some(count: int) -> list[int]:
    """At most four layers, the last one among them."""
    return sorted({round((count - 1) * step / 3) for step in range(4)}, reverse=True)


def _kind(estimate: Estimate, kind: int) -> tuple[Tensor, Tensor, Tensor]:
    """(layers, n + 1) value, low and high of AND or OR."""
    return estimate.value[:, kind], estimate.low[:, kind], estimate.high[:, kind]


def _band(low: Tensor, high: Tensor) -> list[tuple[float, float, float]]:
    return [(float(m), float(low[m]), float(high[m])) for m in range(1, len(low))]


def _points(values: Tensor) -> list[tuple[float, float]]:
    return [(float(m), float(values[m])) for m in range(1, len(values)) if math.isfinite(float(values[m]))]


def _settings(found: LayerKnowledge) -> dict[str, Any]:
    rows = [
        ("model", found.model_name),
        ("images", f"{len(found.effects):,}"),
        ("strengths", "as shares of each layer's sum" if found.is_relative else "as they are"),
        ("parts", f"{found.n}: {2**found.n:,} subsets of each image"),
        ("an effect counts from", f"{percent(found.threshold)} of the largest, and above the noise floor"),
        ("left unexplained of each score", f"at most {percent(found.noise)}"),
        ("masked images", f"{found.forwards:,}"),
        ("largest gap of a split", percent(float(found.gap.max()), 2)),
    ]
    if found.draws:
        rows.append(("input noise", f"{found.draws} draws, deviation {number(found.input_noise)}"))
    rows += [(name, version) for name, version in found.versions.items()]
    of = "linear probes on the layers, and of the output" if found.judged else "the answers"
    provenance = (
        f"AND and OR interactions of {of}, after X. Cheng et al., “Layerwise Change of Knowledge in Neural Networks”, "
        "ICML 2024; intervals, noise floors and the correction for chance are additions."
    )
    return {"settings": rows, "provenance": provenance}


def _share(estimate: Estimate, i: int) -> str:
    value, low, high = (float(one[i]) for one in (estimate.value, estimate.low, estimate.high))
    if not math.isfinite(value):
        return "none"
    return f"{percent(value, 2)} ({percent(low, 2)} to {percent(high, 2)})"


def _tile(name: str, value: str, detail: str) -> dict[str, str]:
    return {"name": name, "value": value, "detail": detail}
