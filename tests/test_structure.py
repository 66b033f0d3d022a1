"""The house rules that a machine can read: who may import whom, what stays optional, how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pyinterp"
RESULTS = {
    *("chains.chain", "chains.curve", "chains.flow"),
    *("heads.head_study", "heads.scored_words", "interactions.interactions", "interactions.subsets"),
    "knowledge.layer_knowledge",
}

# Room -> what it may import of pyinterp: rooms, or single modules of them. Kernels know no models, models know no
# methods, methods know no plots, and the report knows only results.
MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "storage": {"errors"},
    "progress": {"errors"},
    "memory": set(),
    "_extension": {"_C", "errors"},
    "ops": {"_extension", "errors"},
    "models": {"ops", "errors"},
    "games": {"models", "ops", "errors", "storage", "progress", "memory"},
    "interactions": {"games", "models", "ops", "errors", "storage", "version", "progress"},
    "features": {"ops", "models", "errors", "storage", "progress", "memory"},
    "elastic": {"features.statistics", "ops", "errors", "memory"},
    "heads": {
        "elastic",
        "features",
        "games",
        "models",
        "ops",
        "errors",
        "storage",
        "version",
        "progress",
        "memory",
    },
    "chains": {"models", "ops", "errors", "storage", "memory"},
    "knowledge": {
        "interactions",
        "games",
        "features",
        "heads",
        "models",
        "errors",
        "storage",
        "version",
        "progress",
    },
    "distributed": {"errors"},
    "report": {*RESULTS, "errors", "storage", "version"},
    "testing": {"models", "ops", "errors"},
    "cli": {
        "report",
        "chains",
        "games",
        "interactions",
        "knowledge",
        "features",
        "heads",
        "distributed",
        "models",
        "_extension",
        "errors",
        "version",
    },
    "__main__": {"cli"},
}
OPTIONAL = (
    "timm",
    "torchvision",
    "transformers",
    "matplotlib",
    "skimage",
    "sklearn",
    "typer",
    "rich",
    "jinja2",
    "ray",
    "shapiq",
)
CUDA_HEADERS = {"cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h"}
SHIM = "torch/csrc/inductor/aoti_torch/c/shim.h"  # the C functions under the stable API, as stable as it is
MAX_LINES = 400


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_of(source: str, package: tuple[str, ...]) -> list[str]:
    """The pyinterp modules that a file imports when it runs, wherever in the file, as `room.module` names."""
    found = []
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if is_for_types_only(node):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
    return [name.removeprefix("pyinterp.") for name in found if name.startswith("pyinterp.")]


def strangers(path: Path, source: str) -> list[str]:
    """What a file imports of pyinterp and may not."""
    room = room_of(path)
    package = ("pyinterp", *path.relative_to(PACKAGE).parts[:-1])
    allowed = MAY_IMPORT.get(room, set()) | {room}
    return [
        name
        for name in imports_of(source, package)
        if not any(name == place or name.startswith(f"{place}.") for place in allowed)
    ]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
    assert strangers(path, path.read_text()) == []


def test_a_wrong_import_is_seen() -> None:
    ops, report = PACKAGE / "ops" / "gate.py", PACKAGE / "report" / "html.py"
    assert strangers(ops, "from pyinterp.models import zoo") == ["models.zoo"]
    assert strangers(ops, "def f():\n    from ..chains.extract import extract_chain") == [
        "chains.extract.extract_chain"
    ]
    assert strangers(ops, "import pyinterp.models.zoo") == ["models.zoo"]
    assert strangers(ops, "from .. import chains") == ["chains"]
    assert strangers(report, "from pyinterp.chains.extract import extract_chain") == [
        "chains.extract.extract_chain"
    ]
    assert strangers(report, "from pyinterp.chains.chain import Chain") == []
    assert strangers(report, "if TYPE_CHECKING:\n    from pyinterp.models import LoadedModel") == []


SOURCES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cuh", ".cpp", ".cu"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_kernels_use_only_the_stable_part_of_torch(path: Path) -> None:
    includes = re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)
    assert includes or path.suffix in (".h", ".cuh")
    for kind, name in includes:
        local = kind == '"' and ((path.parent / name).is_file() or (ROOT / "csrc" / name).is_file())
        standard = kind == "<" and re.fullmatch(r"[a-z_0-9]+|immintrin\.h", name) is not None
        torch = name.startswith(("torch/csrc/stable/", "torch/headeronly/")) or name == SHIM
        python = path.name == "module.cpp" and name.startswith("pybind11/")
        cuda = path.is_relative_to(ROOT / "csrc" / "cuda") and name in CUDA_HEADERS
        assert local or standard or torch or python or cuda, f"{path.relative_to(ROOT)} includes {name}"


@pytest.fixture(scope="module")
def fresh_import() -> tuple[float, set[str]]:
    """CPU seconds that `import pyinterp` adds to `import torch`, and the top-level packages it adds."""
    script = (
        "import sys, time, torch; before, start = set(sys.modules), time.process_time(); import pyinterp; "
        "print(time.process_time() - start, *{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert said.returncode == 0, said.stderr
    seconds, *names = said.stdout.split()
    return float(seconds), set(names)


def test_nothing_optional_is_imported(fresh_import: tuple[float, set[str]]) -> None:
    assert "pyinterp" in fresh_import[1]
    assert fresh_import[1].isdisjoint(OPTIONAL)


def test_importing_is_quick(fresh_import: tuple[float, set[str]]) -> None:
    assert fresh_import[0] < 2


def test_files_are_short() -> None:
    folders = ("pyinterp", "csrc", "tests", "benchmarks", "tools", "examples")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    paths += [ROOT / "setup.py", ROOT / "CMakeLists.txt", ROOT / "Makefile"]
    kinds = (".py", ".cpp", ".cu", ".h", ".cuh", ".sh", ".txt", ".js", "")
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in paths
        if path.is_file() and path.suffix in kinds
    }
    assert lines["setup.py"] <= 120
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
