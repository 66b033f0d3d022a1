"""Loads the compiled kernels, or remembers why there are none and says so once.

Every op has a plain-torch reference, so a missing library is a supported state: slower, never wrong.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch  # first: the compiled module finds libtorch through it

OPS = (
    "gate",
    "gate_backward",
    "gated_affine",
    "gated_affine_backward",
    "subset_sum",
    "mask_inputs",
    "and_or_solve",
    "softmax_residual_",
    "elastic_prox",
    "gram_descent",
)

_REBUILD = "Rebuild with `pip install -e .` (PYINTERP_CUDA=1 insists on the CUDA kernels)."
_warned: set[str] = set()

_module: Any = None
_problem: str | None = None
try:
    from pyinterp import _C as _module  # type: ignore[attr-defined, no-redef]
except ImportError as error:
    missing = isinstance(error, ModuleNotFoundError) or "cannot import name '_C'" in str(error)
    _problem = "it was not built" if missing else f"it failed to load ({error})"
    if not missing:
        warnings.warn(
            f"pyinterp's compiled kernels cannot be used: {_problem}; plain torch runs instead. {_REBUILD}",
            stacklevel=2,
        )
        _warned.update(("cpu", "cuda"))


def has_kernel(op: str, device_type: str) -> bool:
    """Say whether `op` runs compiled code on `device_type` ("cpu" or "cuda")."""
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device_type)
    if key is None or not torch._C._dispatch_has_kernel(f"pyinterp::{op}"):
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"pyinterp::{op}", key)


def build_info() -> dict[str, Any]:
    """Say how the kernels were built and which ops they cover.

    Returns:
        ``{"compiled": bool, "problem": str | None, "ops": {"cpu": [...], "cuda": [...]}, "torch": running version}``
        and, when compiled, the entries of ``_C.build_info()``.
    """
    info: dict[str, Any] = {} if _module is None else dict(_module.build_info())
    info["compiled"] = _module is not None
    info["problem"] = _problem
    info["torch"] = torch.__version__
    info["ops"] = {device: [op for op in OPS if has_kernel(op, device)] for device in ("cpu", "cuda")}
    return info


def warn_reference(device_type: str) -> None:
    """Say once per device that plain torch runs where a kernel was meant to."""
    if device_type in _warned or device_type not in ("cpu", "cuda"):
        return
    _warned.add(device_type)
    reason = _problem or f"the library was built without {device_type.upper()} kernels"
    warnings.warn(
        f"pyinterp runs its ops in plain torch on {device_type}, which is slower: {reason}. {_REBUILD}",
        stacklevel=3,
    )
