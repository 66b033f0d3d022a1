"""Freed memory that is used again: pages are fetched once, and given back at the end."""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
from pathlib import Path

import pytest
import torch

from pyinterp.memory import reused_memory

glibc = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
needs_glibc = pytest.mark.skipif(not glibc, reason="only glibc has this limit")
NUMBERS = 12 << 20  # 48 MiB of float32, more than glibc keeps by itself


def faults(times: int = 8) -> int:
    """Pages that the system has to clear for so many tensors, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(NUMBERS).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@needs_glibc
def test_freed_memory_is_used_again_and_given_back_at_the_end() -> None:
    without = faults()
    with reused_memory():
        faults(1)
        within = faults()
        held = resident()
    assert within < without / 10
    assert held - resident() > 30 << 20
    assert faults() > without / 2


@needs_glibc
def test_the_last_one_out_gives_it_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with reused_memory():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with reused_memory():
        thread.start()
        entered.wait()
        faults(1)
    few = faults()
    leave.set()
    thread.join()
    assert few < faults() / 10


@needs_glibc
def test_it_ends_with_an_error_too() -> None:
    without = faults()
    with pytest.raises(KeyboardInterrupt), reused_memory():
        raise KeyboardInterrupt
    assert faults() > without / 2


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("no library should be asked"))
    with reused_memory():
        assert torch.ones(2).sum() == 2
