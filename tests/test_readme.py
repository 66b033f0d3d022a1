"""The documents tell the truth: their Python runs, and the commands, targets, extras, files and names exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import click
import pytest
import torch
import typer
from torch import nn

import pyinterp
import pyinterp.chains.visual  # which nothing else imports
from pyinterp import chains, features, games, heads, interactions, models
from pyinterp.chains import attribution, recipes
from pyinterp.chains.checks import STEPS
from pyinterp.cli import app
from pyinterp.models.photographs import crops

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/chains.md",
    "docs/interactions.md",
    "docs/knowledge.md",
    "docs/sparse_heads.md",
    "docs/spurious.md",
)


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The command lines in the documents' sh blocks, split into words, without comments."""
    lines = [
        line for document in DOCUMENTS for block in blocks(document, "sh") for line in block.splitlines()
    ]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(snippets: list[str], document: str, namespace: dict[str, object]) -> None:
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"{document}, python block {number + 1}", "exec"), namespace)


def take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every part of a search and its measurement, but briefly: the snippets are to run, not to find much."""
    monkeypatch.setitem(STEPS, "target", 4)
    monkeypatch.setattr(recipes, "PRUNE_TRIALS", 1)
    monkeypatch.setattr(recipes, "TUNE_STEPS", 4)
    monkeypatch.setattr(attribution, "CDRP_STEPS", 1)
    monkeypatch.setattr(attribution, "PATH_STEPS", 1)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block in one namespace, as a reader would paste them, in an empty folder; but few steps and crops."""
    snippets = blocks("README.md", "python")
    assert snippets
    take_few_steps(monkeypatch)
    few = {5: 1, 20: 5}
    monkeypatch.setattr(models, "crops", lambda photo, count, **options: crops(photo, few[count], **options))
    monkeypatch.setattr(pyinterp, "grid_players", lambda rows, cols: games.grid_players(1, 2))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    run(snippets, "README.md", namespace)


def test_the_python_of_the_document_on_chains_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the `model` and the batches it assumes: small ones."""
    snippets = blocks("docs/chains.md", "python")
    assert snippets
    take_few_steps(monkeypatch)
    filters = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*filters, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    model[-1].weight.data *= 100  # or no unit at all would do: images of noise look alike
    namespace: dict[str, object] = {"__name__": "document", "model": model}
    run(
        snippets,
        "docs/chains.md",
        namespace | {n: torch.randn(4, 3, 12, 12) for n in ("images", "fresh", "other")},
    )


def test_the_python_of_the_document_on_interactions_runs() -> None:
    """On the `model` and the `image` it assumes: small ones."""
    snippets = blocks("docs/interactions.md", "python")
    assert snippets
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    namespace: dict[str, object] = {"__name__": "document", "model": model.eval()}
    run(snippets, "docs/interactions.md", namespace | {"image": torch.randn(3, 12, 12)})


def test_the_python_of_the_document_on_sparse_heads_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the `model`, the `images` and the `labels` it assumes: small ones; in an empty folder: it writes pages."""
    monkeypatch.chdir(tmp_path)
    snippets = blocks("docs/sparse_heads.md", "python")
    assert snippets
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    namespace: dict[str, object] = {"__name__": "document", "model": model.eval()}
    namespace |= {"images": torch.randn(40, 3, 12, 12), "labels": torch.arange(40) % 4}
    run(snippets, "docs/sparse_heads.md", namespace)


@pytest.mark.filterwarnings("ignore:fit_probes. expected an accuracy above chance")
def test_the_python_of_the_document_on_knowledge_runs() -> None:
    """On the `model`, the `other` one, the `images` and the `labels` it assumes: small ones that know nothing."""
    snippets = blocks("docs/knowledge.md", "python")
    assert snippets
    torch.manual_seed(0)
    small = [
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        ).eval()
        for _ in range(2)
    ]
    namespace: dict[str, object] = {"__name__": "document", "model": small[0], "other": small[1]}
    namespace |= {"images": torch.randn(40, 3, 12, 12), "labels": torch.arange(40) % 4}
    run(snippets, "docs/knowledge.md", namespace)


def test_the_python_of_the_document_on_a_shortcut_runs() -> None:
    """On the `model` and the images it assumes: small ones, on which there is nothing to find."""
    snippets = blocks("docs/spurious.md", "python")
    assert snippets
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    images, labels = torch.randn(40, 3, 12, 12), torch.arange(40) % 4
    named = {"images": images, "labels": labels, "audit": images + 1, "audit_labels": labels}
    run(snippets, "docs/spurious.md", {"__name__": "document", "model": model.eval(), **named})


def test_the_questions_name_what_exists_and_all_that_is_public() -> None:
    table = (ROOT / "README.md").read_text().partition("| question | function |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`pyinterp\.([\w.]+)`", table))
    results = (pyinterp.Chain, pyinterp.Interactions, pyinterp.SparsePath, pyinterp.SparseHead)
    held = {f"{result.__name__}.{field.name}" for result in results for field in fields(result)}
    for name in named - held:
        assert attrgetter(name)(pyinterp)
    public = {f"models.{name}" for name in models.__all__}
    for room, names in (
        ("chains", chains.__all__),
        ("games", games.__all__),
        ("interactions", interactions.__all__),
        ("features", features.__all__),
        ("heads", heads.__all__),
    ):
        public |= {name if hasattr(pyinterp, name) else f"{room}.{name}" for name in names}
    assert public - named == set()


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


def check_script(words: list[str]) -> None:
    assert (ROOT / words[0]).is_file()
    for word in words[1:]:
        assert not word.startswith("--") or f'"{word}"' in (ROOT / words[0]).read_text(), f"no option {word}"


CHECKS = {
    "make": check_make,
    "pip": check_pip,
    "pyinterp": check_pyinterp,
    "python -m pyinterp": check_pyinterp,
    "python -m pytest": check_pytest,
    "python": check_script,
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
            file = (ROOT / document).parent / target
            assert target.startswith("https://") or file.exists(), f"{document}: {target}"


def test_the_make_targets_of_the_text_exist() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)`", (ROOT / document).read_text()):
            check_make([target])
