"""The scores of all subsets, with their numerical noise and what was played."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.storage import replace_files

FORMAT = "pyinterp.values.1"
FIX = "Choose a file in a folder that exists and has room."


@dataclass(frozen=True, eq=False)
class GameValues:
    """A game that was played.

    Attributes:
        values: (2^n,) scores, float32 (float64 of a float64 model); bit i of an index says that player i is present.
        noise: Standard deviation of the numerical error of one score; the larger of the next two. An error of sigma in
            v becomes sigma * 2^(|S|/2) in I(S).
        noise_order: By a second forward in batches of another order and size.
        noise_precision: Against a forward in the next higher precision; None where there was none.
        noise_samples: Subsets that were evaluated again for it.
        names: Of the n players.
        game: The kind of game, e.g. "ImageGame".
        target: The class.
        target_name: Its name, or its number.
        score: "log_odds", "logit", "probability" or the name of a callable.
        baseline: What stands for an absent player: "zero", "mean", "blur", "given", "absent tokens", "mask token".
        masking: "replace" or "drop".
        precision: Of the network, e.g. "float32".
        batch_size: Subsets per forward.
        forwards: Subsets evaluated, those for the noise included.
        seconds: It took; less than all where a checkpoint held a part.
        digest: SHA-256 of the model, the input, the players and all else that makes the game.
    """

    values: Tensor
    noise: float
    noise_order: float
    noise_precision: float | None
    noise_samples: int
    names: tuple[str, ...]
    game: str
    target: int | None
    target_name: str
    score: str
    baseline: str
    masking: str
    precision: str
    batch_size: int
    forwards: int
    seconds: float
    digest: str

    @property
    def count(self) -> int:
        """How many players there are."""
        return len(self.names)

    def summary(self) -> str:
        """A few lines for people."""
        full, empty = float(self.values[-1]), float(self.values[0])
        return (
            f"{self.game}: {self.count} players, {self.forwards:,} forwards in {self.seconds:.1f} s "
            f"({self.precision}, {self.batch_size} at once)\n"
            f"{self.score} of {self.target_name}: {full:.4g} with all players, {empty:.4g} without any "
            f"(baseline {self.baseline}, masking {self.masking})\n"
            f"numerical noise of one score: {self.noise:.2g}"
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file, replaced in one go or not at all.

        Raises:
            OSError: It can't be written.
        """
        plain = asdict(replace(self, values=self.values.new_empty(0)))
        del plain["values"]
        told = {"format": FORMAT, "plain": json.dumps(plain)}
        packed = save({"values": self.values.cpu().contiguous()}, told)
        replace_files("GameValues.save", {Path(path): packed}, FIX)

    @staticmethod
    def load(path: str | PathLike[str]) -> GameValues:
        """Read what `save` wrote; the values are on the CPU.

        Raises:
            ValueError: There is no such file, or it is damaged.
        """
        try:
            with safe_open(Path(path), "pt") as file:
                told = file.metadata() or {}
                if told.get("format") != FORMAT:
                    raise ValueError("a file that GameValues.save of this version has not written")
                plain, values = json.loads(told["plain"]), file.get_tensor("values")
            plain["names"] = tuple(plain["names"])
            if set(plain) | {"values"} != {field.name for field in fields(GameValues)}:
                raise ValueError("other entries than this version writes")
            if tuple(values.shape) != (2 ** len(plain["names"]),):
                raise ValueError(f"{len(values)} values for {len(plain['names'])} players")
            return GameValues(values=values, **plain)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            fix = "Play the game and save it again."
            raise ValueError(
                explain("GameValues.load", f"the values of a game at {path}", error, fix)
            ) from error
