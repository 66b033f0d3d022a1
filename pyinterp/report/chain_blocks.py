"""The part of a report that shows one Chain: answer, images, fidelity, layers, curves, settings."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from pyinterp.report.page import NAMES, Block, Page, fragment
from pyinterp.report.plots import Series, dot_plot, line_chart, number, percent
from pyinterp.version import package_version

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain

PHOTOS_SHOWN = 24
KINDS = {"filter": "filters", "head": "heads", "neuron": "neurons"}
WHAT = {
    "scaled": "Each kept unit is multiplied by its score; everything else is removed.",
    "exact": "The kept units are exact copies of the network's own; everything else is removed.",
}


def chain_blocks(chain: Chain, page: Page) -> list[Block]:
    """The sections for one chain."""
    blocks = [Block("answer", "The answer", fragment("chain.html", "answer", _answer(chain)))]
    if chain.predictions:
        blocks.append(
            Block("images", "Image by image", fragment("chain.html", "images", _images(chain, page)))
        )
    return [
        *blocks,
        Block(
            "fidelity",
            "Against simpler choices",
            fragment("chain.html", "fidelity", _fidelity(chain)),
        ),
        Block("layers", "What is kept, layer by layer", fragment("chain.html", "layers", _layers(chain))),
        Block("run", "How it was found", fragment("shared.html", "charts", _curves(chain)), late=True),
        Block(
            "settings",
            "Settings and provenance",
            fragment("shared.html", "settings", _settings(chain)),
            late=True,
        ),
    ]


def chain_headline(chain: Chain) -> str:
    """What the chain found, as the heading of the page."""
    images = len(chain.predictions)
    same = round(chain.fidelity["images"]["agreement"] * images)
    share = f"{percent(chain.kept_fraction, 2)} of {_model(chain)}"
    if same == images:
        return f"{share} gives the same answer on {'the image' if images == 1 else f'all {images} images'}"
    return f"{share} gives the same answer on {same} of {images} images"


def _answer(chain: Chain) -> dict[str, Any]:
    kept, total = chain.kept_count, chain.unit_count
    here, bound = chain.fidelity["images"], chain.settings.get("target_kl")
    tiles = [
        _tile("Kept", percent(chain.kept_fraction), f"{kept:,} of {total:,} {_units(chain)}"),
        _tile(
            "Mean KL",
            number(here["kl"]),
            f"asked: at most {number(bound)}" if bound else "0 = no change",
        ),
        _tile("Same answer", percent(here["agreement"]), f"of the {len(chain.predictions)} images"),
    ]
    if chain.fidelity.get("held_out"):
        fresh = chain.fidelity["held_out"]
        tiles.append(
            _tile(
                "On fresh images", percent(fresh["agreement"]), f"same answer; mean KL {number(fresh['kl'])}"
            )
        )
    if chain.compact_info:
        info = chain.compact_info
        share = percent(info["parameters_after"] / info["parameters_before"])
        tiles.append(
            _tile(
                "As a network",
                share,
                f"of the parameters; {number(info['time_ratio'], 2)} times as fast",
            )
        )
    return {
        "sentence": _sentence(chain, kept, total),
        "notes": _notes(chain),
        "tiles": tiles,
        "asked": _asked(chain),
    }


def _tile(name: str, value: str, detail: str) -> dict[str, str]:
    return {"name": name, "value": value, "detail": detail}


def _sentence(chain: Chain, kept: int, total: int) -> str:
    here, images = chain.fidelity["images"], len(chain.predictions)
    same = round(here["agreement"] * images)
    how = "as exact copies" if chain.mode == "exact" else "each scaled by its score"
    return (
        f"{kept:,} of the {total:,} {_units(chain)} of {_model(chain)}, {how}, give the full network's top class on "
        f"{same} of {images} images; their answers differ from the full ones by a mean KL divergence of "
        f"{number(here['kl'])}."
    )


def _notes(chain: Chain) -> list[dict[str, str]]:
    notes = []
    if chain.bound_met and not chain.interrupted:
        notes.append({"kind": "good", "head": "The target is met.", "text": _met(chain)})
    elif chain.message:
        notes.append({"kind": "warn", "head": "", "text": chain.message})
    beaten = [name for name, row in chain.baselines.items() if row["kl"] <= chain.fidelity["images"]["kl"]]
    if beaten:
        names = ", ".join(beaten)
        notes.append(
            {
                "kind": "warn",
                "head": "A simpler choice does as well.",
                "text": f"At the same size per layer, {names} changes the answers no more than the chain does.",
            }
        )
    return notes


def _met(chain: Chain) -> str:
    settings = chain.settings
    if settings.get("target_kl") is not None:
        kl = number(chain.fidelity["images"]["kl"])
        return f"Mean KL {kl}, at most {number(settings['target_kl'])} was asked; the same top class on every image."
    return f"{percent(chain.kept_fraction)} is kept, at most {percent(settings['target_keep'])} was asked."


def _asked(chain: Chain) -> str:
    settings, count = chain.settings, len(chain.predictions)
    what = "image" if count == 1 else "images"
    goal = "a small sub-network that keeps the answers"
    if settings.get("target_kl") is not None:
        bound = number(settings["target_kl"])
        goal = f"the smallest sub-network whose answers stay within a mean KL divergence of {bound}"
    elif settings.get("target_keep") is not None:
        goal = f"the most faithful sub-network with {percent(settings['target_keep'])} of the units"
    fixed = "Its weights stay as they were trained."
    return f"Of {_model(chain)}, for {count} {what}: {goal}. {fixed} {WHAT[chain.mode]}"


def _images(chain: Chain, page: Page) -> dict[str, Any]:
    differs = [guess.full_class != guess.chain_class for guess in chain.predictions]
    shown = list(range(len(differs)))
    text = f"The chain gives the full network's top class on {differs.count(False)} of {len(differs)} images."
    if len(shown) > PHOTOS_SHOWN:
        shown = sorted(shown, key=lambda index: not differs[index])[:PHOTOS_SHOWN]
        text += f" {PHOTOS_SHOWN} are shown, those with another answer first."
    photos = [_verdict(index, chain.predictions[index], page) for index in shown]
    return {"photos": photos, "images_text": text}


def _verdict(index: int, guess: Any, page: Page) -> dict[str, Any]:
    photo = page.photo(index)
    rows = [
        ("Full", "full", guess.full_class, guess.full_probability),
        ("Chain", "chain", guess.chain_class, guess.chain_probability),
    ]
    return {
        "name": photo.name,
        "picture": photo.source,
        "same": guess.full_class == guess.chain_class,
        "rows": [
            {
                "who": who,
                "role": role,
                "label": page.class_name(label),
                "short": page.class_name(label).partition(",")[0],
                "text": f"{100 * probability:.0f}\u202f%",
                "share": f"{probability:.4f}",
            }
            for who, role, label, probability in rows
        ],
    }


def _fidelity(chain: Chain) -> dict[str, Any]:
    here = chain.fidelity["images"]
    rows = [("this chain", here["kl"], here["agreement"], True)]
    rows += [(name, row["kl"], row["agreement"], False) for name, row in chain.baselines.items()]
    rows = sorted(rows, key=lambda row: row[1] if math.isfinite(row[1]) else math.inf)
    bound = chain.settings.get("target_kl")
    figures = [
        {
            "caption": "Mean KL divergence from the full network (less is better)",
            "svg": dot_plot(
                [(name, kl, ours) for name, kl, _, ours in rows],
                label="Mean KL divergence of the chain and of other sub-networks of the same size",
                x_label="mean KL (logarithmic axis)",
                log=True,
                bound=(bound, "target") if bound else None,
            ),
        },
        {
            "caption": "Images with the full network's top class (more is better)",
            "svg": dot_plot(
                [(name, 100 * agreement, ours) for name, _, agreement, ours in rows],
                label="Agreement of the chain and of other sub-networks of the same size with the full network",
                x_label="% of the images",
                top=100,
            ),
        },
    ]
    table = [_fidelity_row(name, kl, agreement, ours) for name, kl, agreement, ours in rows]
    if chain.fidelity.get("held_out"):
        fresh = chain.fidelity["held_out"]
        table.insert(1, _fidelity_row("this chain, fresh images", fresh["kl"], fresh["agreement"], True))
    others = [row for row in rows if not row[3]]
    text = "No other sub-network was measured."
    if others:
        best = others[0]
        text = (
            "Every row keeps the same number of units in every layer; only the choice of units differs. The best other "
            f"choice, {best[0]}, reaches a mean KL of {number(best[1])} and agrees on {percent(best[2])} of the "
            f"images; the chain reaches {number(here['kl'])} and {percent(here['agreement'])}."
        )
    return {
        "fidelity_text": text,
        "fidelity_figures": figures,
        "fidelity_heads": ("mean KL", "same top class"),
        "fidelity_rows": table,
    }


def _fidelity_row(name: str, kl: float, agreement: float, ours: bool) -> dict[str, Any]:
    return {"name": name, "cells": (number(kl), percent(agreement)), "ours": ours}


def _layers(chain: Chain) -> dict[str, Any]:
    sites = [site for site in chain.sites if site.kind in KINDS]
    counts = {site.name: int(chain.kept[site.name].sum()) for site in sites}
    shares = [counts[site.name] / site.units for site in sites]
    top = next(mark for mark in (0.05, 0.1, 0.2, 0.25, 0.5, 1.0) if mark >= max(shares, default=1.0))
    closed = [name for name, gate in chain.layer_gates.items() if gate == 0]
    rows = [
        {
            "name": site.name,
            "kind": site.kind,
            "width": f"{share / top:.4f}",
            "text": f"{counts[site.name]:,} of {site.units:,}"
            if counts[site.name]
            else f"none of {site.units:,}",
            "closed": not counts[site.name],
        }
        for site, share in zip(sites, shares, strict=True)
    ]
    text = f"Units kept at every site, in the order of the network. A full bar is {percent(top)} of the site's units."
    if closed:
        text += f" Skipped as a whole: {', '.join(closed)}."
    elif chain.layer_gates:
        text += f" None of the {len(chain.layer_gates)} layers that can be skipped is skipped."
    return {"layers_text": text, "layers_top": percent(top), "layer_rows": rows}


def _curves(chain: Chain) -> dict[str, Any]:
    history = chain.history
    steps = history.get("step", [])
    bound = chain.settings.get("target_kl")
    breaks = _phases(history)
    line = [(bound, "target")] if bound else []
    figures = []
    for key, caption, y_label, log, share in (
        ("kl", "Difference from the full network", "mean KL", True, False),
        ("kept", "Units still open", "% of all units", True, True),
        ("loss", "Loss", "loss", False, False),
        ("agreement", "Images with the full network's top class", "% of the images", False, True),
    ):
        if not history.get(key):
            continue
        factor = 100 if share else 1
        points = [(step, factor * value) for step, value in zip(steps, history[key], strict=True)]
        chart = line_chart(
            [Series(caption, points)],
            label=f"{caption} over the steps of the search",
            x_label="step",
            y_label=y_label,
            log_y=log,
            bound=line[0] if line and key == "kl" else None,
            breaks=breaks,
        )
        figures.append({"caption": caption, "svg": chart})
    if history.get("kl") and history.get("kept"):
        points = [(100 * kept, kl) for kept, kl in zip(history["kept"], history["kl"], strict=True)]
        chart = line_chart(
            [Series("search", points, "faint")],
            label="Mean KL divergence against the share of units kept, along the search",
            x_label="% of units kept",
            y_label="mean KL",
            log_x=True,
            log_y=True,
            bound=line[0] if line else None,
            mark=(100 * chain.kept_fraction, chain.fidelity["images"]["kl"], "this chain"),
        )
        figures.append({"caption": "What each size costs, along the search", "svg": chart})
    seconds = f" in {number(history['seconds'][-1])} seconds" if history.get("seconds") else ""
    text = f"{int(steps[-1]):,} steps{seconds}." if steps else "No step was recorded."
    return {"figures": figures, "text": text}


def _phases(history: Mapping[str, list[Any]]) -> list[tuple[float, str]]:
    phases = history.get("phase", [])
    starts = [i for i in range(len(phases)) if i == 0 or phases[i] != phases[i - 1]]
    return [(history["step"][i], str(phases[i])) for i in starts] if len(starts) > 1 else []


def _settings(chain: Chain) -> dict[str, Any]:
    rows = [
        ("model", chain.model_name),
        ("input", " × ".join(map(str, chain.input_shape))),
        ("mode", chain.mode),
    ]
    rows += [
        (name.replace("_", " "), _plain(value)) for name, value in chain.settings.items() if name != "mode"
    ]
    rows += [
        ("weights (SHA-256)", chain.weights_digest),
        ("versions", f"pyinterp {package_version()}, torch {torch.__version__}, {_python()}"),
    ]
    provenance = (
        "Method: NeuroChains, after H. Zhao, T. Zhou, G. Long, J. Jiang and C. Zhang, “Extracting Local Reasoning "
        "Chains of Deep Neural Networks”, Transactions on Machine Learning Research, 2022. Scores of units and "
        "gates of layers are optimised to keep the full network's answers on the images; no weight is changed and no "
        "label is used. A chain explains these images: on others it may answer differently."
    )
    return {"settings": rows, "provenance": provenance}


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value))
    return str(value)


def _python() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _model(chain: Chain) -> str:
    """The model in words; its name in the settings is the one that loads it."""
    return NAMES.get(chain.model_name, chain.model_name)


def _units(chain: Chain) -> str:
    kinds = {site.kind for site in chain.sites if site.kind in KINDS}
    names = [word for kind, word in KINDS.items() if kind in kinds]
    return " and ".join(names) if len(names) < 3 else "filters, heads and neurons"
