"""A game's scores on disk while it is played: one safetensors file, replaced in one go or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.storage import replace_files

FORMAT = "pyinterp.game.1"
FIX = "Choose a file in a folder that exists and has room."
EVERY = 30.0  # seconds between two writes


class Scores:
    """The scores of all subsets so far, and which are there; with a path also on disk.

    Args:
        count: 2^n.
        dtype: Of the scores.
        identity: What tells this game from others, part by part; see `Game.identity`.
        path: A file to go on from, and to write to; it need not exist.
        shape: Of one score.

    Attributes:
        values: (2^n, *shape) on the CPU.
        done: (2^n,) bool.

    Raises:
        ValueError: The file is damaged, no checkpoint, or one of another game; its folder does not exist.
    """

    def __init__(
        self,
        count: int,
        dtype: torch.dtype,
        identity: Mapping[str, str],
        path: str | PathLike[str] | None = None,
        shape: tuple[int, ...] = (),
    ) -> None:
        self.values = torch.zeros(count, *shape, dtype=dtype)
        self.done = torch.zeros(count, dtype=torch.bool)
        self._identity, self._path = dict(identity), None if path is None else Path(path)
        if self._path is not None:
            if self._path.exists():
                self._read(self._path)
            else:
                self.write()  # a path that can't be written is told before the work, not after
        self._written = time.monotonic()

    def keep(self, codes: Tensor, scores: Tensor) -> None:
        """Take the scores (B, *shape) of the subsets (B,) in, and write them out every now and then."""
        self.values[codes] = scores.to(self.values.dtype)
        self.done[codes] = True
        if time.monotonic() - self._written > EVERY:
            self.write()

    def write(self) -> None:
        """Bring the file up to date: written beside it, and moved into its place."""
        if self._path is None:
            return
        told = {"format": FORMAT, "identity": json.dumps(self._identity)}
        packed = save({"values": self.values, "done": self.done}, told)
        replace_files("checkpoint", {self._path: packed}, FIX)
        self._written = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                told = file.metadata() or {}
                if told.get("format") != FORMAT:
                    raise ValueError("a file that no game of this version has written")
                values, done = file.get_tensor("values"), file.get_tensor("done")
                identity = dict(json.loads(told["identity"]))
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            fix = "Delete it to start anew, or choose another path."
            raise ValueError(
                explain("checkpoint", f"the checkpoint of a game at {path}", error, fix)
            ) from error
        parts = [
            name for name in {**identity, **self._identity} if identity.get(name) != self._identity.get(name)
        ]
        if parts or values.shape != self.values.shape or values.dtype != self.values.dtype:
            got = f"one of another game (it differs in {', '.join(parts) or 'size'})"
            fix = "Choose another path, or delete the file to start anew."
            raise ValueError(explain("checkpoint", f"a checkpoint of this game at {path}", got, fix))
        self.values, self.done = values.clone(), done.clone()
