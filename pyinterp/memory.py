"""How much memory is left, which errors mean that it was too little, and freed memory that is used again."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, as in malloc.h
_MOST, _USUAL = 1 << 30, 1 << 25
_users, _lock = 0, threading.Lock()
_TOO_LITTLE = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TOO_LITTLE)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Tensors of up to 1 GiB on the CPU take memory that others have freed, instead of fresh pages of the system.

    A network's feature maps are made and freed layer by layer; what is larger than 32 MiB (often less) glibc gives back
    at once and fetches again, and the system then clears every page: up to half of the time of a network with large
    maps. While one of these is open the process keeps what it frees; the end of the last one gives it back, and leaves
    the limit at 32 MiB, the largest one that glibc chooses by itself; an older glibc allows no more. Without
    glibc nothing changes. It is a setting of the process, of its other threads too, and takes the place of
    MALLOC_MMAP_THRESHOLD_.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set_limit(_MOST)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _set_limit(_USUAL)


def _set_limit(size: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    if not library.mallopt(_MMAP_THRESHOLD, size):  # before glibc 2.35
        library.mallopt(_MMAP_THRESHOLD, _USUAL)
    library.mallopt(_TRIM_THRESHOLD, min(2 * size, 2**31 - 1))  # what is free at the end of the heap
    if size == _USUAL:
        library.malloc_trim(ctypes.c_size_t(0))


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
