"""The PEP 517 backend: setuptools, plus the choice of the torch to build against.

pip builds in an isolated environment. Where the target environment has a torch, this backend asks for no
second one, and setup.py builds against the headers of the first. Where it has none, or too old a one, pip
is asked for one: only the ABI-stable part of torch is used, so a library built with any torch >= 2.10 runs on
every other.
"""

from __future__ import annotations

import sys
from typing import Any

from setuptools import __version__ as setuptools_version
from setuptools import build_meta
from toolchain import OLDEST_TORCH, find_torch

OLDEST_SETUPTOOLS = 77  # the first that reads `license = "MIT"`
ConfigSettings = dict[str, Any] | None

if int(setuptools_version.split(".")[0]) < OLDEST_SETUPTOOLS:
    sys.exit(
        f"pyinterp: expected setuptools >= {OLDEST_SETUPTOOLS} to build, got {setuptools_version}. "
        "Run `pip install -U setuptools`, or leave out --no-build-isolation."
    )


def _torch_requirement() -> list[str]:
    return [] if find_torch() else ["torch>=" + ".".join(map(str, OLDEST_TORCH))]


def get_requires_for_build_wheel(config_settings: ConfigSettings = None) -> list[str]:
    """Equivalent to setuptools' hook, plus torch where the target environment has none."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_torch_requirement()]


def get_requires_for_build_editable(config_settings: ConfigSettings = None) -> list[str]:
    """Equivalent to setuptools' hook, plus torch where the target environment has none."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_torch_requirement()]


get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_sdist = build_meta.build_sdist
build_wheel = build_meta.build_wheel
build_editable = build_meta.build_editable
