"""``pyinterp knowledge``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyinterp.cli.common import Debug, Device, Model, Out, make_folder, save_result, say, told
from pyinterp.cli.data import Data, class_folders, grid_of, photograph_crops, require_classes, unlabelled
from pyinterp.cli.interactions_command import BaselineName, ScoreName
from pyinterp.errors import explain

if TYPE_CHECKING:
    from pyinterp.games.image import ImageGame
    from pyinterp.knowledge.probes import Probes
    from pyinterp.models import LoadedModel

ALONE = "output"


def knowledge(
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder with one sub-folder of images per class; with --layers output any folder of images.",
            show_default="crops of five photographs",
        ),
    ] = None,
    model: Model = "default",
    players: Annotated[
        str | None,
        typer.Option(
            help="Rows and columns of the grid of parts; n parts take 2^n forwards of each image.",
            show_default="3x4; 3x3 for the photographs",
        ),
    ] = None,
    layers: Annotated[
        str,
        typer.Option(
            help="auto, stages, or names of modules, set apart by commas; or output, the answer alone, without probes."
        ),
    ] = "auto",
    images: Annotated[
        int | None,
        typer.Option(
            help="How many images to explain.",
            min=2,
            show_default="30 or all; 10 photographs",
        ),
    ] = None,
    score: Annotated[
        ScoreName, typer.Option(help="What is explained: of the class the log-odds, logit or probability.")
    ] = ScoreName.log_odds,
    baseline: Annotated[
        BaselineName, typer.Option(help="What masked parts are replaced by.")
    ] = BaselineName.zero,
    draws: Annotated[
        int,
        typer.Option(
            help="Play again on this many noisy copies of each image, for stability: 5 or more.", min=0
        ),
    ] = 0,
    held_out: Annotated[
        float, typer.Option(help="Share of each class's images that no probe sees: these are explained.")
    ] = 0.2,
    max_players: Annotated[int, typer.Option(help="Refuse more parts than this.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the choice of images, and of the noise.")] = 0,
    out: Out = Path("knowledge"),
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Find which interactions each layer has, which of them the last one keeps, and which it adds.

    Writes what is measured and report.html into --out. Example:

        pyinterp knowledge --model default --data photos/ --players 3x4 --images 30 --out results

    What layers compute, probes and scores are kept there too, and the same command goes on from them.
    """
    with told(debug):
        usual_players, usual_images = ("3x3", 10) if data is None else ("3x4", 30)
        rows, columns = grid_of(players or usual_players)
        alone = layers.strip() == ALONE
        if data is None:
            found = photograph_crops()
        else:
            found = unlabelled(data) if alone else class_folders(data)
        if not alone:
            require_classes(found.counts, "A probe")
        images = _count(found.counts, None if alone else held_out, seed, images, usual_images)
        if rows * columns > max_players:
            fix = "Ask for fewer parts, or raise --max-players."
            got = f"{rows * columns}, whose 2^{rows * columns} subsets take as many forwards of each image"
            raise ValueError(explain("--players", f"at most {max_players} parts", got, fix))
        from pyinterp.knowledge.play import DRAWS

        if 0 < draws < DRAWS:
            fix = "Fewer say little of a spread: ask for 10, or for 0 to leave stability out."
            raise ValueError(explain("--draws", f"0 or at least {DRAWS} noisy copies", draws, fix))
        make_folder(out)
        import torch

        from pyinterp import models
        from pyinterp.features.data import require_readable
        from pyinterp.games.game import duration
        from pyinterp.games.image import ImageGame
        from pyinterp.games.players import grid_players
        from pyinterp.knowledge.layer_game import LayerGame
        from pyinterp.knowledge.measure import measure_knowledge
        from pyinterp.report import write_report

        loaded = models.load(model, device=device)
        if found.source is not None and not alone and not any(out.glob("layers-*.json")):
            require_readable(found.source)
        classes = "" if alone else f" of {len(found.counts)} classes"
        say(f"{loaded.name}: {sum(found.counts.values()):,} images{classes}")
        grid, blank = grid_players(rows, columns), torch.zeros(loaded.input_shape)
        own: dict[str, Any] = {"folder": out, "seed": seed}
        with _kept_in(out):
            if alone:
                own["layers"] = ALONE
                game = ImageGame(loaded, blank, grid, target=0)
            else:
                own["probes"] = _probes(loaded, found, layers, held_out, out, seed)
                game = LayerGame(own["probes"], blank, grid, 0)
            total = images * (1 + draws) * 2 ** (rows * columns)
            begun = ", less what is kept from before" if any(out.glob("game-*")) else ""
            say(f"{total:,} masked images, about {duration(total * _seconds(game))}{begun}")
            known = measure_knowledge(
                loaded,
                found.images,
                players=grid,
                count=images,
                score=score.value,
                baseline=baseline.value,
                draws=draws,
                max_players=max_players,
                **own,
            )
        save_result(known, out / "knowledge")
        say(known.summary())
        report = write_report(known, out / "report.html")
        say(f"Report: {report.resolve()}")


def _probes(loaded: LoadedModel, found: Data, layers: str, held_out: float, out: Path, seed: int) -> Probes:
    """Fitted, with what is to be said of them."""
    from pyinterp.knowledge.probes import fit_probes

    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        probes = fit_probes(
            loaded,
            found.images,
            found.labels,
            class_names=found.class_names,
            layers=_layers(layers),
            held_out=held_out,
            folder=out,
            seed=seed,
        )
    say(probes.summary())
    for note in noted:
        if "expected classes of the network" not in str(note.message):  # the summary says it too
            say(str(note.message))
    return probes


def _seconds(game: ImageGame) -> float:
    """Per masked image."""
    import torch

    codes = torch.arange(min(16, 2**game.count))
    game.evaluate(codes).sum().item()
    start = time.perf_counter()
    game.evaluate(codes).sum().item()
    return (time.perf_counter() - start) / len(codes)


def _layers(text: str) -> Any:
    """ "auto", "stages", or a list of names."""
    return text if text in ("auto", "stages") else [name.strip() for name in text.split(",") if name.strip()]


def _count(counts: dict[str, int], held_out: float | None, seed: int, asked: int | None, usual: int) -> int:
    """How many images to explain: those asked for, or the usual number as far as there are so many.

    Only held-out ones are explained; with ``held_out`` None, any.
    """
    total = there = sum(counts.values())
    if held_out is not None:
        if not 0 < held_out < 1:
            fix = "Pass 0.2 to hold back a fifth."
            raise ValueError(explain("--held-out", "a share between 0 and 1", held_out, fix))
        import torch

        from pyinterp.heads import held_rows

        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(list(counts.values())))
        there = len(held_rows(labels, held_out, seed))
    images = min(usual, there) if asked is None else asked
    if not 2 <= images <= there:
        of = "" if held_out is None else f", with {there} of {total:,} held out"
        fix = (
            "Ask for fewer, or add images."
            if held_out is None
            else "Ask for fewer, hold more out, or add images."
        )
        raise ValueError(explain("--images", f"2 to {there} images", f"{images}{of}", fix))
    return images


@contextmanager
def _kept_in(out: Path) -> Iterator[None]:
    """Words for what an earlier run has left in the folder, and for what this one leaves."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command goes on from what is kept in {out}."
        ) from None
    except ValueError as error:
        kept = [file.name for file in out.iterdir() if file.name in str(error)]
        if not kept:
            raise
        fix = "delete it, or choose another --out."
        raise ValueError(f"{error} An earlier run into {out} has left {kept[0]} there: {fix}") from error
