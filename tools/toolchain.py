"""What the build finds on the machine: a torch to build against (never imported) and nvcc."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import site
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

OLDEST_TORCH = (2, 10)


class Torch(NamedTuple):
    """A torch on disk: its package folder and its version."""

    folder: Path
    version: str


class Nvcc(NamedTuple):
    """A CUDA compiler: its path, its version, and the folders its toolkit's libraries lie in."""

    path: str
    version: str
    library_dirs: list[str]


def read_torch(folder: Path) -> Torch | None:
    """Describe the torch in `folder`; None unless it is a torch >= 2.10 with headers."""
    version_file = folder / "version.py"
    if not version_file.is_file() or not (folder / "include" / "torch" / "headeronly").is_dir():
        return None
    found = re.search(r"^__version__.*?['\"]((\d+)\.(\d+)[^'\"]*)", version_file.read_text(), re.MULTILINE)
    if found is None or (int(found[2]), int(found[3])) < OLDEST_TORCH:
        return None
    return Torch(folder, found[1])


def find_torch() -> Torch | None:
    """The torch of the target environment, else the one that pip fetched for this build, else None.

    pip's build isolation hides the target environment from sys.path, but its folders are where they were.
    """
    folders = [Path(path) / "torch" for path in site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(Path(site.getusersitepackages()) / "torch")
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent)
    return next((torch for torch in map(read_torch, folders) if torch is not None), None)


def find_nvcc(env: Mapping[str, str]) -> Nvcc | None:
    """The nvcc of CUDA_HOME or CUDA_PATH, else of PATH, else of /usr/local/cuda, else None."""
    homes = [env[name] for name in ("CUDA_HOME", "CUDA_PATH") if env.get(name)]
    places = [*(f"{home}/bin" for home in homes), env.get("PATH", os.defpath), "/usr/local/cuda/bin"]
    path = shutil.which("nvcc", path=os.pathsep.join(places))
    if path is None:
        return None
    version = re.search(r"release (\d+\.\d+)", _ask(path, "--version"))
    # nvcc may be a link or a wrapper script far from its toolkit, so let it say itself where it links from.
    libraries = re.search(
        r"LIBRARIES=(.*)", _ask(path, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull)
    )
    if version is None or libraries is None:
        return None
    return Nvcc(path, version[1], re.findall(r'"-L([^"]+)"', libraries[1]))


def _ask(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
