"""The compiled library is a choice: what it covers is told, and without it everything still runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pyinterp import _extension

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_build_info_tells_what_runs() -> None:
    info = _extension.build_info()
    assert set(info["ops"]) == {"cpu", "cuda"}
    if info["compiled"]:
        assert info["ops"]["cpu"] == list(_extension.OPS)
        assert info["problem"] is None
        assert info["torch_target"] == "2.10"
        assert bool(info["ops"]["cuda"]) == info["cuda"]
    else:
        assert info["ops"] == {"cpu": [], "cuda": []}
        assert info["problem"]


def test_only_cpu_and_cuda_have_kernels() -> None:
    assert not _extension.has_kernel("gate", "mps")
    assert not _extension.has_kernel("no_such_op", "cpu")


def test_missing_library_is_said_once() -> None:
    done = run(
        "import sys; sys.modules['pyinterp._C'] = None\n"
        "import torch, pyinterp.ops as ops\n"
        "for _ in range(3): ops.gate(torch.ones(2, 3), torch.ones(3))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("plain torch on cpu") == 1
    assert "pip install -e ." in done.stderr


def test_broken_library_is_said_once_and_survived() -> None:
    done = run(
        "import sys, importlib.abc\n"
        "class Broken(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'pyinterp._C': raise ImportError('undefined symbol: xyz')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import torch, pyinterp.ops as ops\n"
        "for _ in range(3): ops.gate(torch.ones(2, 3), torch.ones(3))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("undefined symbol: xyz") == 1
