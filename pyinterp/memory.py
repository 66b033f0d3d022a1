"""How much memory is left, for the choice of a batch size, and which errors mean that it was too little."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_TOO_LITTLE = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TOO_LITTLE)


def held_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far on ``device``; 0 where that can't be known."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    if device.type != "cpu" or sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on ``device``, within the container's limit if there is one; None if that can't be known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    found = [_available(), _left_in_container()]
    return min((value for value in found if value is not None), default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * found[0] if found else None


def _left_in_container() -> int | None:
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):  # no cgroup, or "max": no limit
        return None
