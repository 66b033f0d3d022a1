"""Collects bench_*.py from this folder, and adds the repository to the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch._inductor.config

sys.path.insert(0, str(Path(__file__).parents[1]))
torch._inductor.config.compile_threads = 1  # one kernel per graph: workers would start for nothing


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    named_by_user = parent.session.isinitpath(file_path)  # pytest then collects it by itself
    if file_path.match("bench_*.py") and not named_by_user:
        return pytest.Module.from_parent(parent, path=file_path)
    return None
