"""What a result was measured on."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import torch

from pyinterp._extension import build_info


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Date, processor, instruction set, threads, GPU if one was used, build and torch."""
    on_gpu = torch.cuda.is_available() and (device is None or device.type == "cuda")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "torch": torch.__version__,
        "build": build_info(),
    }


def _processor() -> str:
    """The model that Linux tells, else what Python knows."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
