"""A network beside its chain, beside a quantised one, and what of two functions does not fit together."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import Compose, ToTensor

from pyinterp import Chain, extract_chain
from pyinterp.games import grid_players
from pyinterp.knowledge import LayerKnowledge, compare_knowledge
from pyinterp.models.zoo import LoadedModel

PLAYERS = grid_players(2, 2)


class Colours(nn.Module):
    """The logit of class k is the mean of channel k, by filters 2k and 2k + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 3)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[range(6), [0, 0, 1, 1, 2, 2]] = 1.0
            self.conv.bias.zero_()  # type: ignore[union-attr]
            self.fc.weight.zero_()
            self.fc.weight[[0, 0, 1, 1, 2, 2], range(6)] = 2.0
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Colours:
    return Colours().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.2


@pytest.fixture(scope="module")
def chain(net: Colours, images: Tensor) -> Chain:
    return extract_chain(net, images, mode="exact", target_kl=0.05, max_steps=60, progress=False)


def compared(first: nn.Module, second: nn.Module, images: Tensor, **options: Any) -> LayerKnowledge:
    given: dict[str, Any] = {"players": PLAYERS, "progress": False, **options}
    return compare_knowledge(first, second, images, **given)


def test_a_network_and_its_chain(net: Colours, chain: Chain, images: Tensor) -> None:
    small = chain.compact(net, images)
    found = compared(net, small, images, names=("network", "chain"), score="logit")
    assert found.layers == ("network", "chain")
    kept = float(chain.kept["conv"].double().mean())
    assert 0 < kept <= 1 and 0 < float(found.completeness("next").value[0]) <= 1
    # Each class has a filter or two: a chain with fewer has less of the same interactions.
    share = float(found.strength().value[1].sum() / found.strength().value[0].sum())
    lost = float(found.redundancy("next").value[0])
    assert lost == pytest.approx(1 - share, abs=0.02)


def test_a_little_noise_in_the_weights_changes_little(net: Colours, images: Tensor) -> None:
    rounded = copy.deepcopy(net)
    with torch.no_grad():
        for value in rounded.parameters():
            value.copy_((value * 64 + 0.3).round() / 64 * 1.001)
    found = compared(net, rounded, images)
    assert float(found.completeness("next").value[0]) > 0.98
    iou = found.iou("next").value[0]
    assert float(iou[iou.isfinite()].min()) > 0.9


def test_checkpoints_are_compared_with_the_last(net: Colours, images: Tensor) -> None:
    """The weights grow by a third of what they are in the end."""
    steps = [copy.deepcopy(net) for _ in range(2)]
    for step, network in enumerate(steps, 1):
        with torch.no_grad():
            network.fc.weight *= step / 3
    names = ("early", "late", "end")
    found = compared(steps[0], [steps[1], net], images, names=names, score="logit", noise=0.0)
    assert found.layers == names and found.of_networks and found.model_name == "3 networks"
    assert found.completeness().value.tolist() == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)
    assert found.completeness("next").value.tolist() == pytest.approx([1 / 2, 2 / 3], abs=0.01)
    assert found.redundancy().value.tolist() == pytest.approx([0, 0, 0], abs=0.01)
    with pytest.raises(ValueError, match="names of 3 networks, got"):
        compared(steps[0], [steps[1], net], images)


def test_classes_are_those_that_the_first_predicts(net: Colours, images: Tensor, tmp_path: Path) -> None:
    found = compared(net, net, images, folder=tmp_path)
    assert found.labels.tolist() == net(images).argmax(1).tolist()
    again = compared(net, net, images, folder=tmp_path)
    assert torch.equal(found.effects, again.effects)
    assert compared(net, net, images, targets=torch.zeros(4).long()).labels.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"targets": [0, 1]}, r"compare_knowledge: expected 4 classes, got \(2,\)"),
        ({"targets": torch.zeros(4)}, "torch.float32"),
        ({"targets": [0, 1, 2, 3]}, "a target from 0 to 2, got 3"),
        ({"names": ("a", "b", "c")}, "names of 2 networks, got"),
        ({"names": "ab"}, "names of 2 networks, got 'ab'"),
        ({"draws": 1}, "compare_knowledge: expected draws of 0 or at least 5, got 1"),
        ({"draws": 5, "input_noise": 0}, "input_noise > 0"),
    ],
)
def test_what_does_not_fit_is_told(net: Colours, images: Tensor, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compared(net, net, images, **given)


def test_functions_have_as_many_classes(net: Colours, images: Tensor) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    with pytest.raises(ValueError, match="as many classes, got 3 and 5"):
        compared(net, other, images)


def test_one_image_has_no_interval(net: Colours, images: Tensor) -> None:
    with pytest.raises(ValueError, match="two images or more, got 1"):
        compared(net, net, images[:1])


def test_networks_that_read_images_in_other_ways_are_refused(net: Colours, images: Tensor) -> None:
    first = LoadedModel("a", net, ToTensor(), ("x", "y", "z"), (3, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another preprocessing"):
        compared(first, replace(first, preprocess=Compose([ToTensor()])), images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another classes"):
        compared(first, replace(first, classes=("x", "z", "y")), images)  # type: ignore[arg-type]


def test_networks_are_networks_in_eval_mode(net: Colours, images: Tensor) -> None:
    with pytest.raises(TypeError, match="a network, got str"):
        compared(net, "resnet50", images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eval"):
        compared(net, Colours(), images)
