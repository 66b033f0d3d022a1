"""The part of a report that shows Interactions: answer, players, strongest effects, strengths, settings."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyinterp.interactions.subsets import subset_sizes
from pyinterp.report.bars import bar_chart
from pyinterp.report.page import NAMES, Block, Page, data_uri, fragment
from pyinterp.report.plots import Series, line_chart, number, percent
from pyinterp.report.regions import anchor, outline

if TYPE_CHECKING:
    from pyinterp.interactions.interactions import Effect, Interactions

SHOWN = 12
PICTURE_SIDE, SMALL_SIDE = 448, 240
SALIENT = 0.05
SPARE = 1e-3
WELL = 0.2
DRAWN = 240
DEPTH = 1e-4
NAMED = 72  # letters


def interactions_blocks(found: Interactions, page: Page) -> list[Block]:
    """The sections for the interactions of one input."""
    salient = found.salient(threshold=SALIENT)
    part, both = partial(fragment, "interactions.html"), partial(fragment, "shared.html")
    blocks = [
        Block("answer", "The answer", part("answer", _answer(found, salient, page))),
        Block("players", "Who plays", part("players", _players(found))),
    ]
    if salient:
        blocks.append(Block("effects", "The strongest interactions", part("effects", _effects(found))))
    return [
        *blocks,
        Block("strengths", "How few are enough", both("charts", _strengths(found, salient))),
        Block("settings", "Settings and provenance", both("settings", _settings(found)), late=True),
    ]


def interactions_headline(found: Interactions, page: Page) -> str:
    """What was found, as the heading of the page."""
    salient = found.salient(threshold=SALIENT)
    many = f"{len(salient):,} {_word('interaction', len(salient))} of {found.n} parts"
    name = _class(found, page)
    return f"{many}: how {_model(found)} scores {f'“{name}”' if name else 'them'}"


def _answer(found: Interactions, salient: list[Effect], page: Page) -> dict[str, Any]:
    total = 2 * (2**found.n - 1)
    error = found.error_curve([len(salient)]).errors[0]
    full, empty = float(found.values[-1]), float(found.values[0])
    name = _class(found, page)
    what = f"the {_score(found)} of “{name}”" if name else "a score"
    sentence = (
        f"With its {found.n} parts masked in all {2**found.n:,} ways, {_model(found)} gave {what} for each. "
        f"{len(salient):,} of {total:,} interactions are salient, at least {percent(SALIENT)} of the strongest; "
        f"together they rebuild all these scores with a relative error of {percent(error)}."
    )
    tiles = [
        _tile("Salient", f"{len(salient):,}", f"of {total:,} interactions"),
        _tile("Score", number(full), f"with everything visible; {number(empty)} with nothing"),
        _tile("Rebuilt", percent(error), "relative error of all scores from the salient ones"),
    ]
    if not math.isnan(found.gap):
        text = "at most that much smaller can a sum of strengths be"
        tiles.append(_tile("Sparsity", percent(found.gap, 2), text))
    if found.floor is not None:
        low, high = float(found.floor[1]), float(found.floor[-1])
        detail = f"noise floor at order 1; {number(high)} at order {found.n}"
        tiles.append(_tile("Error bar", number(low), detail))
    return {"sentence": sentence, "notes": _notes(found, salient, error), "tiles": tiles}


def _notes(found: Interactions, salient: list[Effect], error: float) -> list[dict[str, str]]:
    notes = []

    def note(kind: str, head: str, text: str) -> None:
        notes.append({"kind": kind, "head": head, "text": text})

    if not salient:
        note("warn", "Nothing to explain.", "The score is the same whatever is masked.")
    elif error > WELL:
        text = f"The salient interactions leave {percent(error)} of the scores' spread unexplained."
        note("warn", "These few are not enough.", f"{text} Look at more of them.")
    if math.isnan(found.gap):
        note("warn", "No certificate.", "How much smaller the sum of strengths could be is not known.")
    elif not found.converged:
        text = f"A split with a sum of strengths up to {percent(found.gap, 2)} smaller may exist."
        note("warn", "The solver has not converged.", text)
    elif found.gap > SPARE:
        text = f"A split with a sum of strengths up to {percent(found.gap, 2)} smaller may exist."
        note("warn", "Not the sparsest split.", text)
    below = sum(effect.below_floor for effect in salient)
    if found.sigma is None:
        text = "The numerical noise of the scores was not measured, so that no floor can be drawn."
        note("warn", "No error bars.", text)
    elif below:
        text = f"{below:,} of the {len(salient):,} salient interactions are no larger than noise makes them."
        note("warn", "Some are noise.", text)
    elif salient:
        text = "Every salient interaction is larger than the numerical noise of the scores makes one."
        note("good", "Above the noise.", text)
    unsure = sum(effect.interval is not None and _holds_zero(effect.interval) for effect in salient)
    if unsure:
        text = f"{unsure:,} of the {len(salient):,} salient interactions have 0 in their 95\u202f% interval."
        note("warn", "Some have no sure sign.", text)
    return notes


def _players(found: Interactions) -> dict[str, Any]:
    text = f"{found.n} parts of the input are visible or masked; {2**found.n:,} ways in all."
    laid = found.player_map
    for code, words in ((-1, "is always visible"), (-2, "is always masked")):
        if laid is not None and bool((laid == code).any()):
            text += f" {percent(float((laid == code).double().mean()))} of the input is no part and {words}."
    if found.baseline:
        gone = "removed" if found.masking == "drop" else f"replaced (baseline: {found.baseline})"
        text += f" What is masked is {gone}."
    picture = None
    if found.pixels is not None and laid is not None:
        masks = [laid == player for player in range(found.n)]
        marks = [(*anchor(mask), str(player + 1)) for player, mask in enumerate(masks)]
        picture = _picture(found.pixels, PICTURE_SIDE, f"The image and its {found.n} parts", masks, marks)
    return {"players_text": text, "picture": picture, "names": found.player_names}


def _picture(
    pixels: Tensor,
    side: int,
    label: str,
    masks: list[Tensor],
    marks: list[tuple[float, float, str]],
    role: str = "",
    veil: Tensor | None = None,
) -> dict[str, Any]:
    height, width = pixels.shape[1:]
    letter = max(width, height) / 17
    return {
        "source": data_uri(pixels, side),
        "width": width,
        "height": height,
        "label": label,
        "outlines": [outline(mask) for mask in masks],
        "veil": "" if veil is None else outline(veil),
        "role": role,
        "letter": f"{letter:.1f}",
        "marks": [
            {"x": f"{x:.1f}", "y": f"{y + letter * 0.36:.1f}", "words": words} for x, y, words in marks
        ],
    }


def _effects(found: Interactions) -> dict[str, Any]:
    shown = found.top(SHOWN)
    largest = abs(shown[0].strength)
    text = f"The {len(shown)} strongest, largest first."
    if found.pixels is not None:
        text += " The parts of each are lit; the rest is faded."
    if found.draws is not None:
        text += f" Intervals: of the mean effect over {len(found.draws)} draws of input noise."
    return {"effects_text": text, "effects": [_effect(found, effect, largest) for effect in shown]}


def _effect(found: Interactions, effect: Effect, largest: float) -> dict[str, Any]:
    role, picture = effect.kind.lower(), None
    numbers = ", ".join(str(member + 1) for member in effect.members)
    label = f"{effect.kind} of {_word('part', len(effect.members))} {numbers}"
    if found.pixels is not None and found.player_map is not None:
        lit = sum(
            (found.player_map == member for member in effect.members[1:]),
            found.player_map == effect.members[0],
        )
        masks = [found.player_map == member for member in effect.members]
        picture = _picture(found.pixels, SMALL_SIDE, label, masks, [], role, ~lit)
    names = "; ".join(effect.players)
    plain = picture is None and len(names) <= NAMED
    return {
        "kind": effect.kind,
        "role": role,
        "strength": _signed(effect.strength),
        "share": f"{abs(effect.strength) / largest:.4f}",
        "names": names,
        "short": names if plain else f"{_word('part', len(effect.members))} {numbers}",
        "bar": f"{_signed(effect.interval[0])} to {_signed(effect.interval[1])}" if effect.interval else "",
        "weak": effect.below_floor,
        "picture": picture,
    }


def _strengths(found: Interactions, salient: list[Effect]) -> dict[str, Any]:
    curve = found.error_curve()
    strengths = found.sorted_strengths()
    worth = int((strengths > strengths[:1] / 1000).sum())
    sizes = range(1, found.n + 1)
    sums = found.strength_by_order()
    mean = sum(m * float(sums["AND"][m] + sums["OR"][m]) for m in sizes)
    everything = float(sums["AND"].sum() + sums["OR"].sum())
    text = f"{worth:,} interactions are stronger than a thousandth of the strongest."
    if everything:
        text += f" Weighted by their strength, one has {number(mean / everything, 2)} parts in the mean."
    error_chart = line_chart(
        [Series("error", [(k, 100 * e) for k, e in zip(curve.counts, curve.errors, strict=True)])],
        label="Relative error of the scores rebuilt from the strongest interactions, against how many are kept",
        x_label="interactions kept (logarithmic axis)",
        y_label="relative error, %",
        log_x=True,
        mark=(len(salient), 100 * found.error_curve([len(salient)]).errors[0], "the salient ones"),
    )
    order_chart = bar_chart(
        [(str(m), (float(sums["AND"][m]), float(sums["OR"][m]))) for m in sizes],
        ("AND", "OR"),
        label="Sum of the strengths of AND and of OR interactions by the number of their parts",
        x_label="parts in an interaction",
        y_label="sum of strengths",
    )
    figures = [
        {"caption": "What is left to explain", "svg": error_chart},
        {"caption": "Strengths, the largest first", "svg": _sorted_chart(found)},
        {"caption": "Strength by order", "svg": order_chart},
        {"caption": "Score by how much is visible", "svg": _scores_chart(found)},
    ]
    return {"figures": figures, "text": text}


def _scores_chart(found: Interactions) -> Any:
    sizes = subset_sizes(found.n)
    groups = [found.values[sizes == m] for m in range(found.n + 1)]
    lines = [
        Series("mean", [(m, float(group.mean())) for m, group in enumerate(groups)]),
        Series("largest", [(m, float(group.max())) for m, group in enumerate(groups)], "faint"),
        Series("smallest", [(m, float(group.min())) for m, group in enumerate(groups)], "dashed"),
    ]
    return line_chart(
        lines,
        label="Mean, largest and smallest score of the masked inputs, by how many parts are visible",
        x_label="parts visible",
        y_label=_score(found),
    )


def _sorted_chart(found: Interactions) -> Any:
    strengths = found.sorted_strengths().tolist()
    largest = strengths[0] if strengths else 0.0
    floor = [] if found.floor is None else [float(found.floor[1]), float(found.floor[-1])]
    lowest = max(min([DEPTH * largest, *(f / 2 for f in floor if f > 0)]), 1e-9 * largest)
    drawn = [(rank, size) for rank, size in enumerate(strengths, 1) if size >= lowest]
    kept = {round(len(drawn) ** (step / DRAWN)) for step in range(DRAWN + 1)} if drawn else {0}
    lines = [Series("strength of an interaction", [point for point in drawn if point[0] in kept])]
    if drawn:
        for value, order, role in zip(floor, (1, found.n), ("faint", "dashed"), strict=False):
            if value > 0:
                ends = [(1.0, value), (float(len(drawn)), value)]
                lines.append(Series(f"noise floor, order {order}", ends, role))
    return line_chart(
        lines,
        label="Strengths of all interactions in order, with the noise floor of the lowest and the highest order",
        x_label="rank (logarithmic axis)",
        y_label="|strength|",
        log_x=True,
        log_y=True,
        bound=(SALIENT * largest, "salient") if largest else None,
    )


def _settings(found: Interactions) -> dict[str, Any]:
    rows: list[tuple[str, str]] = []

    def row(name: str, value: object) -> None:
        if value not in (None, "", {}):
            rows.append((name, str(value)))

    row("model", found.model_name)
    row("class", " ".join(str(w) for w in (found.target, found.class_name) if w not in (None, "")))
    row("score", found.score.replace("_", "-"))
    row("baseline", found.baseline)
    row("masking", found.masking)
    row("masked inputs evaluated", f"{found.forwards:,}" if found.forwards else "")
    row("time", f"{number(found.seconds)} s" if found.seconds else "")
    row("bound of the residual", f"{percent(found.noise)} of |v(all) - v(none)|")
    row("largest residual", number(float(found.residual.abs().max())))
    row("sum of strengths", number(found.objective, 5))
    row("duality gap", "not known" if math.isnan(found.gap) else percent(found.gap, 2))
    row("solver converged", "yes" if found.converged else "no")
    row("noise of a score", "not measured" if found.sigma is None else number(found.sigma))
    if found.draws is not None:
        row("draws of input noise", f"{len(found.draws)}, standard deviation {number(found.input_noise)}")
    row("weights (SHA-256)", found.weights_digest)
    row("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items()))
    provenance = (
        "Harsanyi interactions with the sparse AND-OR split, after M. Li and Q. Zhang, “Does a Neural Network Really "
        "Encode Symbolic Concepts?”, ICML 2023, and X. Cheng et al., “Layerwise Change of Knowledge in Neural "
        "Networks”, ICML 2024. The noise floor of order m is the largest effect that independent errors of the "
        "scores make: sigma times 2 to the power m/2 times √(2 ln 2ⁿ⁺¹). Interactions explain this input, these parts "
        "and this way of masking."
    )
    return {"settings": rows, "provenance": provenance}


def _tile(name: str, value: str, detail: str) -> dict[str, str]:
    return {"name": name, "value": value, "detail": detail}


def _signed(value: float) -> str:
    return ("−" if value < 0 else "+") + number(abs(value))


def _word(singular: str, count: int) -> str:
    return singular if count == 1 else f"{singular}s"


def _holds_zero(interval: tuple[float, float]) -> bool:
    return interval[0] <= 0 <= interval[1]


def _class(found: Interactions, page: Page) -> str:
    """The explained class in words; "" where there is none."""
    if found.class_name or found.target is None:
        return found.class_name.partition(",")[0]
    return page.class_name(found.target).partition(",")[0]


def _score(found: Interactions) -> str:
    return found.score.replace("_", "-") or "score"


def _model(found: Interactions) -> str:
    return NAMES.get(found.model_name, found.model_name) or "the model"
