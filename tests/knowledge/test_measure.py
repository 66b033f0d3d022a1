"""What layers know, on a network whose interactions are planted, and against the definitions on one that is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_net import Small, coloured
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from pyinterp.features.data import open_source
from pyinterp.games import grid_players
from pyinterp.heads import SparseHead
from pyinterp.knowledge import (
    LayerGame,
    LayerKnowledge,
    Probes,
    compare_knowledge,
    find_layers,
    fit_probes,
    measure_knowledge,
)

AND, OR = 0, 1
FIRST, SECOND = 0b0011, 0b1100  # the players of the planted AND, and those of the planted OR


class Planted(nn.Module):
    """On pixels of 0 and 1: ``first`` computes a AND b, ``second`` also c OR d, and the answer is the latter alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(2, 2)
        self.act = nn.ReLU()
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1]]))
            self.first.bias.copy_(torch.tensor([-1.0, -1, 0, 0]))
            self.second.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, -1, 1, 1]]))
            self.second.bias.zero_()
            self.fc.weight.copy_(torch.tensor([[0.0, 0], [0, 0.8]]))
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.act(self.first(x.flatten(1)))))


def head(*weights: float) -> SparseHead:
    """Of features as they are: the logit of class 1."""
    width = len(weights)
    return SparseHead(
        weights=torch.tensor([[0.0] * width, list(weights)]),
        bias=torch.zeros(2),
        mean=torch.zeros(width).double(),
        std=torch.ones(width).double(),
        family="multinomial",
        class_names=("no", "yes"),
        classifier_name="",
        model_digest="",
        origin={},
        version="",
    )


IMAGES, LABELS = torch.ones(8, 1, 2, 2), torch.tensor([0, 1] * 4)
PLAYERS = grid_players(2, 2)


def planted() -> tuple[Planted, Probes]:
    model = Planted().eval()
    layers = find_layers(model, torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]), ["act", "second"])
    return model, Probes(
        model=model,
        layers=layers,
        heads=(head(2.0, 0, 0, 0), head(1.5, 1.0)),
        width=64,
        rows=(0, 1),
        accuracy=torch.tensor([0.5, 0.75, 1.0]),
        chance=0.5,
        held=torch.arange(8),
        data_digest=open_source(IMAGES, None, 64).digest,
        fitted=8,
        labels=torch.ones(8, dtype=torch.int64),
        class_names=("no", "yes"),
        sample_names=tuple(f"image {i}" for i in range(8)),
        marks=model(IMAGES).detach().double().mean(1),
    )


def test_planted_interactions_are_found_layer_by_layer() -> None:
    model, probes = planted()
    found = measure_knowledge(
        model, IMAGES, players=PLAYERS, probes=probes, count=3, score="logit", noise=0.0, progress=False
    )
    wanted = torch.zeros(3, 2, 16)
    wanted[0, AND, FIRST] = 2
    wanted[1, AND, FIRST], wanted[1, OR, SECOND] = 1.5, 1
    wanted[2, OR, SECOND] = 0.8
    torch.testing.assert_close(found.effects, wanted.expand(3, -1, -1, -1), rtol=0, atol=2e-3)
    assert found.layers == ("act", "second", "output")
    assert found.salient.sum((2, 3)).tolist() == [[1, 2, 1]] * 3
    for part, amounts in (
        ("overlap", {(1, OR): 0.8, (2, OR): 0.8}),
        ("forget", {(0, AND): 2.0, (1, AND): 1.5, (1, OR): 0.2}),
        ("new", {(0, OR): 0.8}),
    ):
        estimate = getattr(found, part)()
        expected = torch.zeros(3, 2, 5)
        for (layer, kind), amount in amounts.items():
            expected[layer, kind, 2] = amount
        torch.testing.assert_close(estimate.value, expected.double(), rtol=0, atol=5e-3)
        torch.testing.assert_close(estimate.low, estimate.high, rtol=0, atol=1e-6)  # all images are alike
    torch.testing.assert_close(
        found.completeness().value, torch.tensor([0, 1, 1]).double(), rtol=0, atol=1e-2
    )
    redundancy = torch.tensor([1, 1.7 / 2.5, 0]).double()
    torch.testing.assert_close(found.redundancy().value, redundancy, rtol=0, atol=1e-2)
    steps = found.overlap("next", counts=True).value[:, :, 2]
    assert steps.tolist() == [[1, 0], [0, 1]]  # the AND lives one layer, the OR the next
    assert found.iou("next").value[1, OR, 2] == 1 and found.iou("next").value[1, AND, 2] == 0


def test_the_output_alone_needs_no_labels(tmp_path: Path) -> None:
    model = Planted().eval()
    given: dict[str, Any] = {
        "players": PLAYERS,
        "layers": "output",
        "count": 3,
        "score": "logit",
        "noise": 0.0,
    }
    found = measure_knowledge(model, IMAGES, progress=False, **given)
    wanted = torch.zeros(2, 16)
    wanted[OR, SECOND] = 0.8
    torch.testing.assert_close(found.effects[:, 0], wanted.expand(3, -1, -1), rtol=0, atol=2e-3)
    assert found.layers == ("output",) and found.labels.tolist() == [1, 1, 1]
    assert found.accuracy.isnan().all() and found.completeness().value.tolist() == [1]
    assert len(set(found.image_names)) == 3
    kept = measure_knowledge(model, IMAGES, folder=tmp_path, progress=False, **given)
    again = measure_knowledge(model, IMAGES, folder=tmp_path, progress=False, **given)
    assert torch.equal(kept.effects, again.effects) and again.forwards < kept.forwards


def test_the_output_alone_takes_no_labels() -> None:
    model, given = Planted().eval(), {"players": PLAYERS, "layers": "output", "progress": False}
    with pytest.raises(ValueError, match=r'no labels for layers="output", got labels or class_names'):
        measure_knowledge(model, IMAGES, LABELS, count=2, **given)
    with pytest.raises(ValueError, match="images that can be counted, got a stream"):
        measure_knowledge(model, iter([IMAGES]), count=2, **given)
    with pytest.raises(ValueError, match="a count of at most 8 images, got 9"):
        measure_knowledge(model, IMAGES, count=9, **given)
    with pytest.raises(ValueError, match="train"):
        measure_knowledge(Planted(), IMAGES, count=2, **given)


def test_two_functions_are_compared() -> None:
    """The later one has lost an AND and gained an OR."""
    model, other = Planted().eval(), Planted().eval()
    with torch.no_grad():
        model.fc.weight[1] = torch.tensor([1.0, 0.5])
        other.fc.weight[1] = torch.tensor([0.0, 2.0])
    found = compare_knowledge(
        model,
        other,
        IMAGES[:3],
        [1, 1, 1],
        names=("whole", "pruned"),
        players=PLAYERS,
        score="logit",
        noise=0.0,
        progress=False,
    )
    assert found.layers == ("whole", "pruned")
    assert found.overlap("next").value[0, :, 2].tolist() == pytest.approx([0, 0.5], abs=5e-3)
    assert found.forget("next").value[0, :, 2].tolist() == pytest.approx([1, 0], abs=5e-3)
    assert found.new("next").value[0, :, 2].tolist() == pytest.approx([0, 1.5], abs=5e-3)
    same = compare_knowledge(model, model, IMAGES[:2], players=PLAYERS, progress=False)
    assert same.completeness().value.tolist() == [1, 1] and same.redundancy().value.tolist() == [0, 0]


def test_what_is_measured_is_told(measured: LayerKnowledge) -> None:
    assert measured.layers == ("low", "high", "output") and measured.n == 4
    assert measured.labels.bincount().tolist() == [2, 2, 2]
    assert float(measured.accuracy[-1]) > 0.8 and measured.judged == 18
    assert measured.chance == pytest.approx(1 / 3)
    text = measured.summary()
    assert (
        "completeness" in text and "output" in text and repr(measured).startswith("<LayerKnowledge: 3 layers")
    )
    stability = measured.stability()
    assert stability.value.shape == (3, 5) and float(stability.value[2, 1]) > 0
    assert measured.forwards >= 6 * 4 * 16


def test_a_run_is_gone_on_with(small: Small, tmp_path: Path) -> None:
    images, labels = coloured()
    told: list[Any] = []
    given: dict[str, Any] = {"players": PLAYERS, "count": 3, "layers": ["low"], "folder": tmp_path}
    first = measure_knowledge(small, images, labels, progress=False, **given)
    again = measure_knowledge(small, images, labels, progress=told.append, **given)
    assert torch.equal(first.effects, again.effects) and torch.equal(first.accuracy, again.accuracy)
    assert told[-1]["done"] == told[-1]["total"] == 3 * 16


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": 19}, "a count of at most 18 images, got 19"),
        ({"count": 1}, "a count of 2 or more, got 1"),
        ({"threshold": 2}, "a threshold from 0 to 1, got 2"),
        ({"players": grid_players(5, 5)}, "at most 20 players, got 25"),
        ({"labels": torch.arange(90) % 3 - 1}, "labels from 0 on, got -1"),
        ({"class_names": ["a", "b"]}, "a class name for each label, got 2, and the label 2"),
        ({"layers": ["lwo"]}, "Near it: 'low'"),
        ({"labels": torch.zeros(90).long()}, "two classes or more, got one, '0'"),
        ({"labels": torch.arange(90)}, "two samples of each class or more, got one of 0, 1, 2, 3, 4, ..."),
        ({"labels": None}, r"labels \(N,\) of classes, got none"),
        ({"draws": 1}, "draws of 0 or at least 5, got 1"),
        ({"noise": -1}, "noise"),
        ({"score": "Logit"}, "one of the scores log_odds, logit, probability, got 'Logit'"),
        ({"baseline": "black"}, "'black'"),
        ({"batch_size": 0}, "batch_size of 1 or more, got 0"),
        ({"count": 3.0}, "a count of 2 or more, got 3.0"),
        ({"threshold": True}, "a threshold from 0 to 1, got True"),
        ({"class_names": ["a", "b", "a"]}, "class names that differ, got 'a' twice"),
    ],
)
def test_what_does_not_fit_is_told(small: Small, given: dict[str, Any], said: str) -> None:
    images, labels = coloured()
    with pytest.raises(ValueError, match=said):
        measure_knowledge(
            small, images, **{"labels": labels, "players": PLAYERS, "count": 3, "progress": False, **given}
        )


class Shifted(Sampler[int]):
    """The first sample first, the others one further at each pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter([0, *(torch.arange(1, 90).roll(self.passes).tolist())])

    def __len__(self) -> int:
        return 90


def test_images_that_come_in_another_order_are_noticed(small: Small) -> None:
    images, labels = coloured()
    loader = DataLoader(TensorDataset(images, labels), batch_size=30, sampler=Shifted())
    with pytest.raises(ValueError, match="got others: the network answers otherwise"):
        measure_knowledge(small, loader, layers=["low"], players=PLAYERS, count=3, progress=False)


def test_images_are_those_of_the_probes(small: Small) -> None:
    images, labels = coloured()
    probes = fit_probes(small, images, labels, layers=["low"], progress=False)
    for others in (images.flip(0), images[:20]):
        with pytest.raises(ValueError, match="the images that the probes were fitted to, got others"):
            measure_knowledge(small, others, probes=probes, players=PLAYERS, count=3)
    with pytest.raises(ValueError, match="probes, or labels, class_names and layers, got both"):
        measure_knowledge(small, images, labels, probes=probes, players=PLAYERS, count=3)
    loader = DataLoader(TensorDataset(images, labels), 32, shuffle=True)
    with pytest.raises(ValueError, match=r"a DataLoader that shuffles|got others"):
        measure_knowledge(small, loader, layers=["low"], players=PLAYERS, count=3, progress=False)
    ordered = DataLoader(TensorDataset(images, labels), 32)
    found = measure_knowledge(small, ordered, layers=["low"], players=PLAYERS, count=3, progress=False)
    wanted = measure_knowledge(
        small, images, labels, layers=["low"], players=PLAYERS, count=3, progress=False
    )
    torch.testing.assert_close(found.effects, wanted.effects, rtol=1e-3, atol=1e-3)
    assert torch.equal(found.labels, wanted.labels)


def test_other_settings_go_into_the_same_folder(small: Small, tmp_path: Path) -> None:
    """Features and probes are kept; scores of other players, baselines and layers have files of their own."""
    images, labels = coloured()
    given: dict[str, Any] = {"count": 2, "folder": tmp_path, "progress": False}
    for more in (
        {"players": PLAYERS, "layers": ["low"]},
        {"players": grid_players(1, 3), "layers": ["low"]},
        {"players": PLAYERS, "layers": ["low"], "baseline": "mean"},
        {"players": PLAYERS, "layers": ["high"]},
    ):
        alone = measure_knowledge(small, images, labels, **{**given, **more, "folder": None})
        kept = measure_knowledge(small, images, labels, **{**given, **more})
        torch.testing.assert_close(kept.effects, alone.effects)


def test_draws_differ_from_image_to_image(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    shifts: list[Tensor] = []
    plain = LayerGame.__init__

    def noted(self: LayerGame, probes: Probes, image: Tensor, *others: Any, **more: Any) -> None:
        shifts.append(image)
        plain(self, probes, image, *others, **more)

    monkeypatch.setattr(LayerGame, "__init__", noted)
    images = torch.zeros(90, 3, 8, 8) + torch.linspace(0, 1, 90)[:, None, None, None]
    measure_knowledge(
        small, images, coloured()[1], layers=["low"], players=PLAYERS, count=2, draws=5, progress=False
    )
    noise = [one - one.mean() for one in shifts if float(one.std()) > 1e-4]
    assert len(noise) == 10
    assert all(float((a - b).abs().max()) > 1e-3 for i, a in enumerate(noise) for b in noise[:i])


def test_probes_of_another_network_are_refused(small: Small) -> None:
    _, probes = planted()
    with pytest.raises(ValueError, match="probes of this network, got those of another"):
        measure_knowledge(small, IMAGES, probes=probes)
