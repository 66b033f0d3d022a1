"""Probes: what is told of those that say little, and which classes of the network they stand for."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from small_net import Small, coloured, trained
from torch import Tensor, nn

from pyinterp.games import grid_players
from pyinterp.heads import fit_sparse_path
from pyinterp.knowledge import Probes, fit_probes, measure_knowledge


@pytest.fixture(scope="module")
def small() -> Small:
    return trained()


def test_probes_near_chance_are_told(small: Small) -> None:
    images, labels = coloured()
    mixed = labels[torch.randperm(90, generator=torch.Generator().manual_seed(2))]
    with pytest.warns(UserWarning, match="an accuracy above chance .*numbered as the network's classes"):
        probes = fit_probes(small, images, mixed, layers=["low"], progress=False)
    assert "output" in probes.near_chance


def test_they_are_kept_on_disk(small: Small, tmp_path: Path) -> None:
    images, labels = coloured()
    probes = fit_probes(small, images, labels, layers=["low", "high"], progress=False)
    probes.save(tmp_path / "probes")
    again = Probes.load(tmp_path / "probes", small)
    assert again.summary() == probes.summary() and again.names == probes.names
    with torch.no_grad():
        assert torch.equal(again.network()(images[:5]), probes.network()(images[:5]))
    given: dict[str, Any] = {"count": 2, "players": grid_players(1, 2), "progress": False}
    found = measure_knowledge(small, images, probes=again, **given)
    assert torch.equal(found.effects, measure_knowledge(small, images, probes=probes, **given).effects)
    with pytest.raises(ValueError, match="the network of these probes, got another"):
        Probes.load(tmp_path / "probes", Small().eval())


def test_a_layer_that_says_nothing_is_named(small: Small) -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing, self.fc = nn.Threshold(1e9, 0.5), nn.Linear(192, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.nothing(x)
            return self.fc(x.flatten(1))

    images, labels = coloured()
    with pytest.raises(
        ValueError, match=r"no probe for layer 'nothing'.* a feature that differs between samples"
    ):
        fit_probes(Dead().eval(), images, labels, layers=["nothing"], progress=False)


def test_a_probe_that_does_not_converge_is_told(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = coloured()
    short = partial(fit_sparse_path, max_passes=3)
    monkeypatch.setattr(import_module("pyinterp.knowledge.probes"), "fit_sparse_path", short)
    with pytest.warns(UserWarning, match=r"probes that converge, got low \(KKT violation"):
        fit_probes(small, images, labels, layers=["low"], progress=False)


def test_absent_classes_and_classes_that_the_network_does_not_know(small: Small) -> None:
    images, labels = coloured()
    some = labels != 1
    probes = fit_probes(small, images[some], labels[some], layers=["low"], progress=False)
    assert probes.rows == (0, 2) and probes.class_names == ("0", "2") and probes.names == ("low", "output")
    with pytest.warns(
        UserWarning, match=r"no such name or number \(5, 6, 7\). The last layer is the probe of 'low'"
    ):
        probes = fit_probes(small, images, labels + 5, layers=["low"], progress=False)
    assert probes.rows is None and probes.names == ("low",) and probes.class_names == ("5", "6", "7")


def test_a_folder_that_is_a_file_and_a_share_that_is_a_word_are_refused(small: Small, tmp_path: Path) -> None:
    images, labels = coloured()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="a folder to keep files in, got the file"):
        fit_probes(small, images, labels, layers=["low"], folder=tmp_path / "file", progress=False)
    with pytest.raises(TypeError, match="held_out as a share or as numbers, got 'a'"):
        fit_probes(small, images, labels, layers=["low"], held_out="a", progress=False)  # type: ignore[arg-type]


def test_another_seed_fits_other_probes_beside_those_that_are_kept(small: Small, tmp_path: Path) -> None:
    images, labels = coloured()
    given: dict[str, Any] = {"layers": ["low"], "folder": tmp_path, "progress": False}
    first = fit_probes(small, images, labels, **given)
    other = fit_probes(small, images, labels, seed=1, **given)
    assert not torch.equal(first.held, other.held)
    assert torch.equal(fit_probes(small, images, labels, **given).heads[0].weights, first.heads[0].weights)
