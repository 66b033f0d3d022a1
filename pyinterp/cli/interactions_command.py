"""``pyinterp interactions``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from pyinterp.cli.common import Debug, Device, Model, Out, make_folder, save_result, say, told
from pyinterp.cli.data import grid_of
from pyinterp.errors import explain


class ScoreName(Enum):
    """What is read off the logits."""

    log_odds = "log_odds"
    logit = "logit"
    probability = "probability"


class BaselineName(Enum):
    """What masked parts are replaced by."""

    zero = "zero"
    mean = "mean"
    blur = "blur"


class Masking(Enum):
    """How parts are masked."""

    replace = "replace"
    drop = "drop"


def interactions(
    image: Annotated[
        Path | None, typer.Option(help="An image file.", show_default="the photograph chelsea, a cat")
    ] = None,
    model: Model = "default",
    players: Annotated[
        str, typer.Option(help="Rows and columns of the grid of parts; n parts take 2^n forwards.")
    ] = "3x4",
    target: Annotated[
        str | None, typer.Option(help="A class, by name or number.", show_default="the predicted one")
    ] = None,
    score: Annotated[
        ScoreName, typer.Option(help="What is explained: of the class the log-odds, logit or probability.")
    ] = ScoreName.log_odds,
    baseline: Annotated[
        BaselineName, typer.Option(help="What masked parts are replaced by.")
    ] = BaselineName.zero,
    masking: Annotated[
        Masking, typer.Option(help="replace; or drop: a vision transformer gets no tokens for them.")
    ] = Masking.replace,
    draws: Annotated[
        int, typer.Option(help="Play again on this many noisy copies of the image, for intervals.", min=0)
    ] = 0,
    max_players: Annotated[int, typer.Option(help="Refuse more parts than this.", min=1)] = 20,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A file for the scores so far: run again to go on.",
            show_default="scores.safetensors in --out, removed at the end",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise of --draws.")] = 0,
    out: Out = Path("interactions"),
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Find which parts of an image act together, as AND and OR effects on the score of a class.

    Writes the interactions and report.html into --out. Example:

        pyinterp interactions --model default --image cat.jpg --players 3x4 --out results
    """
    with told(debug):
        rows, cols = grid_of(players)
        picture = _picture(image)
        make_folder(out)
        from pyinterp import models
        from pyinterp.games.players import grid_players
        from pyinterp.interactions import extract
        from pyinterp.report import write_report

        loaded = models.load(model, device=device)
        options: dict[str, Any] = {"score": score.value, "baseline": baseline.value, "masking": masking.value}
        options |= {"target": _class(target, loaded.classes), "draws": draws, "seed": seed}
        options["max_players"] = max_players
        if rows * cols <= max_players:  # else it is refused
            say(f"{loaded.name}: {2 ** (rows * cols) * (1 + draws):,} masked images")
        grid = grid_players(rows, cols)
        with _scores(checkpoint, out) as path:
            found = extract.extract_interactions(loaded, picture, grid, checkpoint=path, **options)
            save_result(found, out / "interactions")
            say(found.summary())
            report = write_report(found, out / "report.html", classes=loaded.classes)
        say(f"Report: {report.resolve()}")


@contextmanager
def _scores(checkpoint: Path | None, out: Path) -> Iterator[Path]:
    """The file for the scores so far. Where none was asked for it is in ``out``, and is removed after success."""
    path = checkpoint or out / "scores.safetensors"
    try:
        yield path
    except KeyboardInterrupt:
        if not path.exists():
            raise
        raise KeyboardInterrupt(
            f"interrupted; the same command goes on from the scores so far, in {path}."
        ) from None
    except ValueError as error:
        if checkpoint is not None or not str(error).startswith("checkpoint:"):
            raise
        left = f"An earlier run into {out}, which did not finish, has left it there:"
        fix = f"delete {out / 'scores*.safetensors'}, or choose another --out."
        raise ValueError(f"{error} {left} {fix}") from error
    if checkpoint is None:
        for file in (path, *out.glob("scores-draw*.safetensors")):
            file.unlink(missing_ok=True)


def _picture(image: Path | None) -> Any:
    """What was asked for, or the photograph of the demo."""
    from pyinterp import models

    if image is None:
        return models.photographs()["chelsea"]
    if not image.is_file():
        fix = "Check the path."
        raise ValueError(explain("--image", "an image file", f"no file {image}", fix))
    return image


def _class(text: str | None, classes: Sequence[str]) -> int | None:
    """A class by its number, its name, or one of its names ("tabby" of "tabby, tabby cat")."""
    if text is None:
        return None
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    wanted = text.strip().lower()
    names = [[name.lower(), *(part.strip().lower() for part in name.split(","))] for name in classes]
    found = [index for index, known in enumerate(names) if wanted in known]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = ", ".join(f"{index} ({classes[index]})" for index in found)
        fix = "Give the number of one of them."
        raise ValueError(explain("--target", "one class", f"{text!r}, which {numbers} are called", fix))
    close = difflib.get_close_matches(wanted, sorted({part for known in names for part in known}), 3, 0.6)
    fix = (
        f"Close names: {', '.join(close)}." if close else "Give its number, or a name of the model's classes."
    )
    raise ValueError(explain("--target", f"a class of the model (0 to {len(classes) - 1})", repr(text), fix))
