"""Freed memory that is used again: pages are fetched once, and given back at the end."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyinterp.memory import reused_memory

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PAGES = 8 * (48 << 20) // 4096  # of eight tensors of 48 MiB, more than glibc keeps by itself
COUNT = """
import json, os, resource, threading
import torch
from pathlib import Path
from pyinterp.memory import reused_memory

def faults(times=8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(12 << 20).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

faults(1)
found = {"without": faults()}
with reused_memory():
    faults(1)
    found["within"], held = faults(), resident()
found["given_back"] = held - resident()
found["after"] = faults()
entered, leave = threading.Event(), threading.Event()
def other():
    with reused_memory():
        entered.set()
        leave.wait()
thread = threading.Thread(target=other)
with reused_memory():
    thread.start()
    entered.wait()
    faults(1)
found["while_another_has_it"] = faults()
leave.set()
thread.join()
found["after_both"] = faults()
try:
    with reused_memory():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    found["after_an_interruption"] = faults()
print(json.dumps(found))
"""


def refuses() -> str:
    """Why the pages can't be counted here; empty where they can."""
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return "only glibc has this limit"
    library = ctypes.CDLL(None)
    library.gnu_get_libc_version.restype = ctypes.c_char_p
    if tuple(map(int, library.gnu_get_libc_version().split(b".")[:2])) < (2, 35):
        return "glibc before 2.35 allows no larger limit"
    return "huge pages: there is little to count" if HUGE.exists() and "[always]" in HUGE.read_text() else ""


REFUSED = refuses()


@pytest.mark.skipif(bool(REFUSED), reason=REFUSED)
def test_freed_memory_is_used_again_and_given_back_by_the_last_one_out() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["without"] > PAGES / 2, found
    for name in ("after", "after_both", "after_an_interruption"):  # of the first tensor at least
        assert found[name] > PAGES / 16, found
    for name in ("within", "while_another_has_it"):
        assert found[name] < PAGES / 4, found
    assert found["given_back"] > 30 << 20, found


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("no library should be asked"))
    with reused_memory():
        assert torch.ones(2).sum() == 2
