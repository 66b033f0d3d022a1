"""What the commands share: options, folders, saving, and errors in one line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pyinterp.errors import explain

USER_ERROR, TARGET_MISSED, INTERRUPTED = 1, 3, 130
ROOM = 10 << 20  # bytes: a result and its report take a few million

Out = Annotated[Path, typer.Option(help="Folder for the results; it is made if need be.", file_okay=False)]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]
Model = Annotated[
    str,
    typer.Option(
        help="default, or a name of timm or torchvision (timm:NAME, torchvision:NAME, hf-hub:OWNER/NAME)."
    ),
]


def make_folder(folder: Path, more: int = 0) -> None:
    """Make the folder and try to write into it before the long work, so that a wrong path costs nothing.

    Args:
        folder: To make, if need be.
        more: Bytes beyond those of a result and its report that it is to have room for.
    """
    wanted = f"a folder with room for {(ROOM + more) >> 20:,} MB"
    fix = "Free some space, or choose another folder."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OSError(explain("--out", wanted, f"{folder} ({error.strerror})", fix)) from error
    if free < ROOM + more:
        raise OSError(explain("--out", wanted, f"{folder} ({free >> 20:,} MB free)", fix))


def save_result(found: Any, path: Path) -> None:
    """Save a result; where that fails, in the folder for temporary files: it took minutes to find."""
    try:
        found.save(path)
    except OSError as error:
        spare = Path(tempfile.mkdtemp(prefix="pyinterp-"))
        try:
            found.save(spare / path.name)
        except OSError:
            shutil.rmtree(spare, ignore_errors=True)
            raise error from None
        raise OSError(f"{error} Until then the result is kept as {spare / path.name}.") from error


def say(text: str) -> None:
    typer.echo(text)


@contextmanager
def told(debug: bool) -> Iterator[None]:
    """Turn an exception into one line on stderr and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt as stop:
        typer.echo(f"pyinterp: {str(stop) or 'interrupted.'}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, (ValueError, TypeError, ImportError, OSError)):
            words = f"{type(error).__name__}: {words} (a fault of the program; --debug shows where)"
        typer.echo(f"pyinterp: {words}", err=True)
        raise typer.Exit(USER_ERROR) from None
