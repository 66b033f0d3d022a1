"""What the build decides, and what it finds: on made-up machines, so the answers hold on every other too."""

from __future__ import annotations

import importlib
import os
import re
import site
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import build_plan  # noqa: E402
import toolchain  # noqa: E402


def plan(
    env: dict[str, str], nvcc: str | None = None, cores: int = 2, memory_gb: float = 24
) -> build_plan.Plan:
    return build_plan.plan_build(env, nvcc, cores, memory_gb)


def test_the_toolkit_decides_by_default() -> None:
    assert plan({}, nvcc="13.0") == (("8.0", "9.0+PTX"), "nvcc 13.0 found", 2)
    assert plan({"PYINTERP_CUDA": "auto"}, nvcc="13.0").archs == ("8.0", "9.0+PTX")
    assert plan({}) == ((), "no nvcc found", 2)


def test_the_user_decides_otherwise() -> None:
    assert plan({"PYINTERP_CUDA": "0"}, nvcc="13.0") == ((), "PYINTERP_CUDA=0", 2)
    assert plan({"PYINTERP_CUDA": "1"}, nvcc="12.8").archs == ("8.0", "9.0+PTX")


def test_a_visible_gpu_plays_no_part() -> None:
    for visible in ("", "0", "-1"):
        assert plan({"CUDA_VISIBLE_DEVICES": visible}, nvcc="13.0") == plan({}, nvcc="13.0")
        assert plan({"CUDA_VISIBLE_DEVICES": visible}) == plan({})


@pytest.mark.parametrize("text", ["7.5;9.0a+PTX", "7.5 9.0a+PTX", "7.5,9.0a+PTX", " 7.5; 9.0a+PTX "])
def test_architectures_are_read_as_torch_reads_them(text: str) -> None:
    assert plan({"TORCH_CUDA_ARCH_LIST": text}, nvcc="13.0").archs == ("7.5", "9.0a+PTX")


def test_gencode() -> None:
    assert build_plan.gencode(("8.0", "9.0+PTX")) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]


def test_jobs_fit_cores_and_memory() -> None:
    assert plan({}, cores=64, memory_gb=7.9).jobs == 7
    assert plan({}, cores=4, memory_gb=0.5).jobs == 1
    assert plan({"MAX_JOBS": "3"}, cores=64, memory_gb=7.9).jobs == 3


@pytest.mark.parametrize(
    ("env", "nvcc", "message"),
    [
        ({"PYINTERP_CUDA": "yes"}, None, "expected PYINTERP_CUDA=0, 1 or auto, got 'yes'"),
        ({"PYINTERP_CUDA": "1"}, None, "expected nvcc on PATH or in CUDA_HOME for PYINTERP_CUDA=1, got none"),
        (
            {"TORCH_CUDA_ARCH_LIST": "Hopper"},
            "13.0",
            "expected TORCH_CUDA_ARCH_LIST like '8.0;9.0.PTX', got 'Hopper'",
        ),
        ({"MAX_JOBS": "0"}, None, "expected MAX_JOBS to be a whole number >= 1, got '0'"),
        ({"MAX_JOBS": "all"}, None, "expected MAX_JOBS to be a whole number >= 1, got 'all'"),
    ],
)
def test_errors_say_what_to_do(env: dict[str, str], nvcc: str | None, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        plan(env, nvcc)


def make_torch(site_folder: Path, version: str) -> Path:
    folder = site_folder / "torch"
    (folder / "include" / "torch" / "headeronly").mkdir(parents=True)
    (folder / "version.py").write_text(
        f"from typing import Optional\n\n__version__ = '{version}'\ncuda = None\n"
    )
    return folder


def hide_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Point the target environment at an empty folder and take torch off sys.path, as pip's isolation does."""
    target = tmp_path / "site-packages"
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(target)])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return target


def test_the_torch_of_the_target_environment_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = hide_torch(monkeypatch, tmp_path)
    assert toolchain.find_torch() is None
    folder = make_torch(target, "2.13.0+cpu")
    assert toolchain.find_torch() == toolchain.Torch(folder, "2.13.0+cpu")


@pytest.mark.parametrize(
    ("version", "new_enough"), [("2.9.1", False), ("2.10.0", True), ("3.0.0a0+git12", True)]
)
def test_versions_are_compared_as_numbers(tmp_path: Path, version: str, new_enough: bool) -> None:
    assert (toolchain.read_torch(make_torch(tmp_path, version)) is not None) == new_enough


def test_torch_is_asked_for_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = importlib.import_module("build_backend")
    monkeypatch.chdir(ROOT)
    assert not [name for name in backend._torch_requirement() if "torch" in name]
    target = hide_torch(monkeypatch, tmp_path)
    assert backend._torch_requirement() == ["torch>=2.10"]
    make_torch(target, "2.9.1")
    assert backend._torch_requirement() == ["torch>=2.10"]


def make_nvcc(folder: Path, release: str) -> Path:
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then '
        f'echo "Cuda compilation tools, release {release}, V{release}.88"; '
        f"""else echo '#$ LIBRARIES=  "-L{folder}/lib/stubs" "-L{folder}/lib"' >&2; fi\n"""
    )
    nvcc.chmod(0o755)
    return nvcc


def test_nvcc_is_asked_where_its_toolkit_lies(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    in_home, on_path = make_nvcc(home, "13.0"), make_nvcc(elsewhere, "12.8")
    system = {"PATH": f"{elsewhere / 'bin'}{os.pathsep}/bin"}
    assert toolchain.find_nvcc(system) == (
        str(on_path),
        "12.8",
        [f"{elsewhere}/lib/stubs", f"{elsewhere}/lib"],
    )
    found = toolchain.find_nvcc({**system, "CUDA_HOME": str(home)})
    assert found == (str(in_home), "13.0", [f"{home}/lib/stubs", f"{home}/lib"])


def test_a_link_to_nvcc_elsewhere_is_followed(tmp_path: Path) -> None:
    real = make_nvcc(tmp_path / "toolkit", "13.0")
    link = tmp_path / "bin" / "nvcc"
    link.parent.mkdir()
    link.symlink_to(real)
    found = toolchain.find_nvcc({"PATH": f"{link.parent}{os.pathsep}/bin"})
    assert found is not None
    assert found.library_dirs == [f"{tmp_path}/toolkit/lib/stubs", f"{tmp_path}/toolkit/lib"]


def test_a_broken_nvcc_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "nvcc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert toolchain.find_nvcc({"PATH": str(broken.parent)}) is None


def test_metadata_needs_no_torch() -> None:
    """Installers read name and version before anything is built, where torch may not be importable."""
    script = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['setup.py', '--name', '--version']; "
    )
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        script + "runpy.run_path('setup.py', run_name='__main__')",
    ]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert said.stdout.splitlines()[-2:] == ["pyinterp", version[1]]
