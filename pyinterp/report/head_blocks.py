"""The part of a report that shows a HeadStudy: answer, path, classes, errors, what classes share, settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pyinterp.report.head_cards import Gallery, signed
from pyinterp.report.head_features import class_cards, other_cards
from pyinterp.report.page import NAMES, Block, Page, fragment
from pyinterp.report.plots import Series, line_chart, number, percent

if TYPE_CHECKING:
    from torch import Tensor

    from pyinterp.heads.head_study import HeadStudy, PathCurve, TopAccuracy

LOSS = 0.05  # below the network's own layer: told as a warning
ENOUGH = 30  # samples, before a comparison is praised
NAMED = 5  # classes in a sentence


def head_blocks(study: HeadStudy, page: Page) -> list[Block]:
    """The sections for one sparse head."""
    gallery = Gallery(study)
    part, both = partial(fragment, "head.html"), partial(fragment, "shared.html")
    # Features are linked to where they are shown first: the cards come before all that mentions them.
    classes, others = class_cards(study, gallery), other_cards(study, gallery)
    blocks = [
        Block("answer", "The answer", part("answer", _answer(study) | {"defs": gallery.definitions()})),
        Block("path", "How few features are enough", both("charts", _charts(study))),
    ]
    if len(study.used):
        blocks.append(Block("classes", "The features of each class", part("classes", classes)))
    blocks.append(Block("decisions", _decisions_title(study), part("decisions", _decisions(study, gallery))))
    if study.repairs or study.shared:
        title = "What one feature does to several classes"
        blocks.append(Block("features", title, part("tables", _tables(study, gallery))))
    if others["features"]:
        title = "Other features that decide" + (" errors" if study.errors else "")
        blocks.append(Block("others", title, part("others", others)))
    return [
        *blocks,
        Block("settings", "Settings and provenance", both("settings", _settings(study)), late=True),
    ]


def head_headline(study: HeadStudy, page: Page) -> str:
    """What was found, as the heading of the page."""
    right = f"{percent(study.accuracy)} right on {_judged(study)}"
    if not len(study.used):
        return f"A head of {_model(study)} that uses no feature: {right}"
    few, classes = number(study.features_per_class, 2), len(study.weights)
    told = f"{few} {'feature' if few == '1' else 'features'} per class tell {classes} classes apart"
    return f"{told} in {_model(study)}: {right}"


def _answer(study: HeadStudy) -> dict[str, Any]:
    classes, used = len(study.weights), len(study.used)
    sentence = (
        f"A last layer that reads {number(study.features_per_class)} features per class, {used:,} of the "
        f"{study.width:,} that {_model(study)} has, gives {percent(study.accuracy)} of {_judged(study)} "
        f"their right class out of {classes}."
    )
    low, high = _wilson(study.accuracy, study.judged)
    tiles = [
        _tile("Per class", number(study.features_per_class), "features in the mean"),
        _tile("In use", f"{used:,}", f"of {study.width:,} features"),
        _tile(
            f"Accuracy on {_judged(study)}",
            percent(study.accuracy),
            f"95\u202f%: {percent(low, 2)} to {percent(high, 2)}",
        ),
    ]
    if study.dense_accuracy is not None:
        detail = f"the network's own layer, {study.width:,} features per class, on the same samples"
        tiles.append(_tile("Dense", percent(study.dense_accuracy), detail))
    elif study.curve is not None:
        most = float(study.curve.features_per_class.max())
        if most > study.features_per_class:
            detail = f"the path's densest head, {number(most)} features per class, on the same samples"
            tiles.append(_tile("Densest", percent(study.curve.densest_accuracy), detail))
    if study.errors:
        text = f"of {_errors(study.errors)}: right when one feature is taken away"
        tiles.append(_tile("Repaired", f"{study.repairable:,}", text))
    return {"sentence": sentence, "notes": _notes(study), "tiles": tiles}


def _notes(study: HeadStudy) -> list[dict[str, str]]:
    notes = []

    def note(kind: str, head: str, text: str) -> None:
        notes.append({"kind": kind, "head": head, "text": text})

    if not study.held_out:
        text = "The accuracy is that on the samples the head was fitted to; on others it may be lower."
        note("warn", "Nothing was held out.", text)
    if not len(study.used):
        text = (
            f"It always answers {study.class_names[int(study.bias.argmax())]}, as a rule the commonest class. "
            "Choose a head with more features per class."
        )
        note("warn", "This head uses no feature.", text)
    unseen = _named(study, study.class_samples == 0)
    if unseen:
        kind = "held-out sample" if study.held_out else "sample"
        note("warn", f"No {kind} of: {unseen}.", "Nothing here tells how well these classes are recognised.")
    if study.origin.get("converged") is False:
        text = f"The head misses its optimum by a KKT violation of {number(study.origin['kkt'])}."
        note("warn", "The solver has not converged.", text)
    if study.dense_accuracy is not None:
        lost = study.dense_accuracy - study.accuracy
        text = f"The network's own layer is right on {percent(study.dense_accuracy)} of the same samples."
        if lost > LOSS:
            note("warn", f"{number(100 * lost, 2)} points are lost.", text)
        elif study.judged >= ENOUGH:
            note(
                "good", "As good as the dense layer." if lost > 0 else "No worse than the dense layer.", text
            )
    idle = _named(study, (study.weights == 0).all(1))
    if idle and len(study.used) and len(study.weights) > 2:
        note("warn", "Some classes use no feature.", f"They are what is left: {idle}.")
    return notes


def _named(study: HeadStudy, which: Tensor) -> str:
    """The classes that a mask (K,) marks, the first few by name."""
    names = [study.class_names[k] for k in which.nonzero()[:, 0].tolist()]
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _judged(study: HeadStudy) -> str:
    kind = "held-out sample" if study.held_out else "sample"
    return f"{study.judged:,} {kind}{'' if study.judged == 1 else 's'}"


def _errors(count: int) -> str:
    return f"{count:,} error{'' if count == 1 else 's'}"


def _charts(study: HeadStudy) -> dict[str, Any]:
    figures = []
    text = ""
    if study.curve is not None:
        figures.append({"caption": "Accuracy along the path", "svg": _path_chart(study, study.curve)})
        text = _path_text(study, study.curve)
    most = max(2, int((study.weights != 0).sum(1).max()))
    lines = _top_lines("sparse", study.top, most, ("main", "second"))
    dense = [one for one in study.dense_top if one.count <= most]
    if dense:
        lines += _top_lines("dense", dense, most, ("faint", "dashed"))
    chart = line_chart(
        lines,
        label="Accuracy with only the largest contributions of each decision, and without them",
        x_label="largest contributions of a decision (logarithmic axis)",
        y_label="accuracy, %",
        log_x=True,
        top=100,
    )
    figures.append({"caption": "How many features a decision rests on", "svg": chart})
    text += (
        " A decision rests on few features if these alone reach the full accuracy, and little is left without. Taken "
        "away are features of the predicted class; those that only its rivals use stay."
    )
    return {"figures": figures, "text": text.strip()}


def _top_lines(name: str, found: Sequence[TopAccuracy], most: int, roles: tuple[str, str]) -> list[Series]:
    """Accuracies with only the largest contributions and without them; beyond ``most`` there are none."""
    by_count = {min(one.count, most): one for one in found}
    return [
        Series(f"{name}: these alone", [(k, 100 * one.only) for k, one in by_count.items()], roles[0]),
        Series(f"{name}: without them", [(k, 100 * one.without) for k, one in by_count.items()], roles[1]),
    ]


def _path_text(study: HeadStudy, curve: PathCurve) -> str:
    first, last = float(curve.features_per_class[0]), float(curve.features_per_class[-1])
    text = (
        f"{len(curve.lambdas)} heads were fitted, with {number(first)} to {number(last)} features per class: each the "
        "optimum for one strength of the penalty."
    )
    missed = int((~curve.converged).sum())
    if missed:
        text += f" {missed} of them, ringed, are not optimal yet."
    accuracy = curve.validation_accuracy
    if len(accuracy):
        best = float(accuracy.max())
        enough = accuracy >= best - 0.01
        fewest = float(curve.features_per_class[enough].min())
        text += (
            f" The best of them is right on {percent(best)} of the held-out samples; {number(fewest)} features per "
            "class come within one point of that."
        )
    return text


def _path_chart(study: HeadStudy, curve: PathCurve) -> Any:
    # Along the path a feature may leave again: by lambda the line would run to and fro.
    order = curve.features_per_class.argsort(stable=True).tolist()

    def points(accuracy: Tensor) -> list[tuple[float, float]]:
        return [(float(curve.features_per_class[i]), 100 * float(accuracy[i])) for i in order]

    shown = points(curve.train_accuracy)
    lines = [Series("fitted samples", shown, "faint")]
    if len(curve.validation_accuracy):
        shown = points(curve.validation_accuracy)
        lines.insert(0, Series("held-out samples", shown))
    missed = [point for point, i in zip(shown, order, strict=True) if not curve.converged[i]]
    return line_chart(
        lines,
        label="Accuracy of the heads of the path against their features per class",
        x_label="features per class (logarithm of 1 + x)",
        y_label="accuracy, %",
        zero_x=True,
        top=100,
        mark=None if curve.point is None else (*shown[order.index(curve.point)], "this head"),
        open_points=(missed, "not converged") if missed else None,
    )


def _decisions_title(study: HeadStudy) -> str:
    return "Errors, and what would repair them" if study.errors else "The closest decisions"


def _decisions(study: HeadStudy, gallery: Gallery) -> dict[str, Any]:
    wrong = [case for case in study.cases if not case.right]
    close = [case for case in study.cases if case.right]
    text = f"No error among {_judged(study)}."
    left = study.errors - len(wrong)
    if study.errors:
        shown = f"{len(wrong):,} of {_errors(study.errors)}" if left else _errors(study.errors)
        text = f"{shown}, the surest first, with the largest contributions to each."
    if left:
        mended = study.repairable - sum(bool(case.repairs) for case in wrong)
        text += (
            " Half of them are the surest of all; the others are those that a single feature repairs, as far as there "
            f"are such. Of the {left:,} that are not shown, {mended:,} would be repaired like that."
        )
    return {
        "text": text,
        "errors": [gallery.case(case) for case in wrong],
        "close_text": "Right, by the smallest margins:" if close else "",
        "close": [gallery.case(case) for case in close],
    }


def _tables(study: HeadStudy, gallery: Gallery) -> dict[str, Any]:
    names = study.class_names
    repairs = [
        {
            "cells": (names[one.label], names[one.predicted], f"{one.repaired:,} of {one.errors:,}"),
            "feature": gallery.mention(one.feature),
        }
        for one in study.repairs
    ]
    shared = [
        {
            "cells": tuple(
                f"{names[k]} ({signed(weight, 2)})"
                for k, weight in zip(one.classes, one.weights, strict=True)
            ),
            "feature": gallery.mention(one.feature),
        }
        for one in study.shared
    ]
    more = study.shared_count - len(study.shared)
    return {
        "repairs": repairs,
        "shared": shared,
        "more": f"{more:,} weaker pairs are not shown." if more else "",
    }


def _settings(study: HeadStudy) -> dict[str, Any]:
    rows: list[tuple[str, str]] = []

    def row(name: str, value: object) -> None:
        if value not in (None, "", {}, []):
            rows.append((name, str(value)))

    origin = study.origin
    row("model", study.model_name)
    row("features of", f"what {study.classifier_name} reads" if study.classifier_name else "")
    row("lambda", number(origin["lambda"]) if "lambda" in origin else "")
    row("alpha", origin.get("alpha"))
    row("grouped", _yes_or_no(origin.get("grouped")))
    row("samples fitted to", origin.get("samples"))
    row("KKT violation", number(origin["kkt"]) if "kkt" in origin else "")
    row("converged", _yes_or_no(origin.get("converged")))
    row("refitted", "yes" if origin.get("refitted") else "")
    row("features removed by hand", ", ".join(map(str, origin.get("removed", []))))
    row("weights edited by hand", len(origin.get("edits", [])) or "")
    row("network (SHA-256)", study.model_digest)
    row("version", study.version)
    provenance = (
        "A sparse linear head on deep features, after E. Wong, S. Santurkar and A. Madry, “Leveraging Sparse Linear "
        "Layers for Debuggable Deep Networks”, ICML 2021: the elastic net on features in units of their standard "
        "deviation. A feature that is removed takes its average. Where decisions come from can be read from the head "
        "exactly; what a feature stands for can't, and pictures of its largest values are a hint only."
    )
    return {"settings": rows, "provenance": provenance}


def _yes_or_no(value: bool | None) -> str:
    return "" if value is None else ("yes" if value else "no")


def _wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of Wilson for a share of independent samples."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _tile(name: str, value: str, detail: str) -> dict[str, str]:
    return {"name": name, "value": value, "detail": detail}


def _model(study: HeadStudy) -> str:
    return NAMES.get(study.model_name, study.model_name) or "the model"
