"""What everything over 2^n subsets shares: sizes, names and the check of values."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.errors import explain

_SHOWN = 5
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def subset_sizes(n: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (2^n,) int64: how many players each subset has."""
    sizes = torch.zeros(1, dtype=torch.int64, device=device)
    for _ in range(n):
        sizes = torch.cat([sizes, sizes + 1])
    return sizes


def players_in(code: int) -> tuple[int, ...]:
    """Return the players of the subset with index `code`, in rising order."""
    return tuple(i for i in range(code.bit_length()) if code >> i & 1)


def check_values(where: str, values: Tensor, name: str = "values") -> int:
    """Check one finite number per subset along the last axis, and return the number of players.

    Raises:
        TypeError: `values` holds no floating-point numbers.
        ValueError: The last dimension is no power of two, or numbers are NaN or infinite (it says for which subsets).
    """
    if values.dtype not in _FLOATS:
        expected = f"float32, float64, float16 or bfloat16 {name}"
        raise TypeError(explain(where, expected, values.dtype, "Convert them, for example with .double()."))
    size = values.shape[-1] if values.dim() else 0
    if size < 1 or size & (size - 1):
        fix = "Give one number for each of the 2^n subsets of n players; bit i of an index says that player i is in."
        raise ValueError(explain(where, f"{name} of shape (..., 2^n)", tuple(values.shape), fix))
    # A compiled graph can't branch on numbers.
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(values).all()):
        fix = "Look at what the game returns for these subsets."
        raise ValueError(explain(where, f"finite {name}", _strangers(values), fix))
    return int(size).bit_length() - 1


def _strangers(values: Tensor) -> str:
    """Word the first subsets whose numbers are NaN or infinite."""
    places = torch.nonzero(~torch.isfinite(values))
    words = []
    for place in places[:_SHOWN].tolist():
        row = f" of game {tuple(place[:-1])}" if len(place) > 1 else ""
        players = ", ".join(map(str, players_in(place[-1])))
        words.append(f"{values[tuple(place)].item()} for players {{{players}}}{row}")
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return "; ".join(words) + more
