"""The documents tell the truth: their Python runs, and the commands, targets, extras and files they name exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from pyinterp.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The command lines in the documents' sh blocks, split into words, without comments."""
    lines = [
        line for document in DOCUMENTS for block in blocks(document, "sh") for line in block.splitlines()
    ]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block in one namespace, as a reader would paste them, in an empty folder."""
    snippets = blocks("README.md", "python")
    assert snippets
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"README.md, python block {number + 1}", "exec"), namespace)


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(targets)


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    project = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"\[([a-z,]+)\]", " ".join(words)):
        for name in extra.split(","):
            assert re.search(rf"^{name} = \[", project, re.MULTILINE), f"no extra {name}"


def check_pyinterp(words: list[str]) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group | typer.core.TyperGroup)
    command = group.commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}


def check_pytest(words: list[str]) -> None:
    for word in words:
        assert "/" not in word or (ROOT / word).exists(), f"no file {word}"


CHECKS = {
    "make": check_make,
    "pip": check_pip,
    "pyinterp": check_pyinterp,
    "python -m pyinterp": check_pyinterp,
    "python -m pytest": check_pytest,
}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_exist(words: list[str]) -> None:
    line = " ".join(words)
    name = next((name for name in CHECKS if line.startswith(f"{name} ")), None)
    assert name is not None, f"a kind of command that this test can't check: {line}"
    CHECKS[name](words[len(name.split()) :])


def test_the_links_lead_to_files() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{document}: {target}"


def test_the_make_targets_of_the_text_exist() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)`", (ROOT / document).read_text()):
            check_make([target])
