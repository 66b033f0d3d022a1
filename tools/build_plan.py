"""What setup.py builds: a pure function of environment variables, nvcc's version and the machine's size."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

ARCHS = "8.0;9.0+PTX"


class Plan(NamedTuple):
    """The CUDA architectures to build for (none: CPU only), the reason, and the number of jobs at once."""

    archs: tuple[str, ...]
    reason: str
    jobs: int


def plan_build(env: Mapping[str, str], nvcc: str | None, cores: int, memory_gb: float) -> Plan:
    """Decide from the environment variables and nvcc's version alone: a visible GPU plays no part."""
    wish = env.get("PYINTERP_CUDA") or "auto"
    archs = tuple(re.split(r"[;,\s]+", env.get("TORCH_CUDA_ARCH_LIST", "").strip() or ARCHS))
    jobs = env.get("MAX_JOBS") or str(max(1, min(cores, int(memory_gb))))  # one compilation needs up to 1 GB
    if wish not in ("0", "1", "auto"):
        sys.exit(
            f"pyinterp: expected PYINTERP_CUDA=0, 1 or auto, got {wish!r}. Set one of these, or unset it."
        )
    if not all(re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", arch) for arch in archs):
        sys.exit(
            f"pyinterp: expected TORCH_CUDA_ARCH_LIST like {ARCHS!r}, got {';'.join(archs)!r}. Use numbers."
        )
    if not re.fullmatch(r"[1-9]\d*", jobs):
        sys.exit(
            f"pyinterp: expected MAX_JOBS to be a whole number >= 1, got {jobs!r}. Set one, or unset it."
        )
    if wish == "1" and nvcc is None:
        sys.exit(
            "pyinterp: expected nvcc on PATH or in CUDA_HOME for PYINTERP_CUDA=1, got none. "
            "Install the CUDA toolkit, set CUDA_HOME to it, or set PYINTERP_CUDA=0."
        )
    if wish == "0" or nvcc is None:
        return Plan((), "PYINTERP_CUDA=0" if wish == "0" else "no nvcc found", int(jobs))
    return Plan(archs, f"nvcc {nvcc} found", int(jobs))


def gencode(archs: tuple[str, ...]) -> list[str]:
    """nvcc's options for architectures such as 8.0 (machine code) and 9.0+PTX (machine code and PTX)."""
    flags = []
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        codes = [f"sm_{number}", f"compute_{number}"] if arch.endswith("+PTX") else [f"sm_{number}"]
        flags += [f"-gencode=arch=compute_{number},code={code}" for code in codes]
    return flags
