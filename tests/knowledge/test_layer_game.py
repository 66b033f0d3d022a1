"""Scores of all layers from one forward: equal to one game per layer, with and without shared prefixes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyinterp.games import grid_players
from pyinterp.games.image import ImageGame
from pyinterp.games.prefix import SharedPrefix
from pyinterp.knowledge import LayerGame, Probes, fit_probes
from pyinterp.knowledge.taps import reduced

pytestmark = pytest.mark.filterwarnings("ignore:fit_probes. expected an accuracy above chance")

K = 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.high, self.fc = nn.Conv2d(4, 6, 3, padding=1), nn.Linear(6, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.high(self.act(self.low(x)))).mean((2, 3)))


def coloured(count: int = 60, size: int = 12) -> tuple[Tensor, Tensor]:
    """Images in which the strongest channel is the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % K
    images = torch.randn(count, 3, size, size, generator=generator)
    images[torch.arange(count), labels] += 0.8
    return images, labels


@pytest.fixture(scope="module")
def probes() -> Probes:
    torch.manual_seed(0)
    images, labels = coloured()
    return fit_probes(Net().eval(), images, labels, layers=["low", "high"], width=64)


def alone(probes: Probes, layer: int) -> nn.Module:
    """A network that answers with one probe."""

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.probe = probes.model, probes.heads[layer].to_linear()

        def forward(self, x: Tensor) -> Tensor:
            x = self.net.low(x)
            if layer:
                x = self.net.high(torch.relu(x))
            return self.probe(reduced(x, probes.layers[layer], 64))

    return Alone().eval()


def test_scores_are_those_of_one_game_per_layer(probes: Probes) -> None:
    image, players = coloured()[0][7], grid_players(2, 2)
    found = LayerGame(probes, image, players, 1).play_layers(progress=False, noise_samples=8)
    assert found.values.shape == (3, 16) and found.sigma.shape == (3,)
    for layer, network in enumerate([alone(probes, 0), alone(probes, 1), probes.model]):
        one = ImageGame(network, image, players, target=1).play(progress=False, noise_samples=8)
        torch.testing.assert_close(found.values[layer], one.values, rtol=1e-5, atol=1e-5)
        assert 0.2 < float(found.sigma[layer]) / one.noise < 5


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_other_scores(probes: Probes, score: str) -> None:
    image, players = coloured()[0][7], grid_players(2, 2)
    game = LayerGame(probes, image, players, 2, score=score)
    one = ImageGame(probes.model, image, players, target=2, score=score)
    codes = torch.arange(16)
    torch.testing.assert_close(game.evaluate(codes)[:, 2], one.evaluate(codes))


def test_shared_prefixes_give_the_same(probes: Probes) -> None:
    """The tables hold the maps that are read off, too."""
    image, players = coloured(size=48)[0][7], grid_players(3, 3)
    network, map_ = probes.network(), players.over((48, 48))
    prefix = SharedPrefix.build(network, image, torch.zeros_like(image), map_)
    assert prefix is not None and prefix.plan.gain > 1.05
    game = LayerGame(probes, image, players, 0, shared_prefix=False)
    codes = torch.arange(512)
    torch.testing.assert_close(prefix(codes), game.logits(codes), rtol=1e-4, atol=1e-4)


def test_a_game_is_gone_on_with(probes: Probes, tmp_path: Any) -> None:
    image, players = coloured()[0][7], grid_players(2, 2)
    game = LayerGame(probes, image, players, 1)
    file = tmp_path / "game.safetensors"
    first = game.values(checkpoint=file, progress=False)
    assert first.shape == (16, 3)
    told: list[Any] = []
    assert torch.equal(game.values(checkpoint=file, progress=told.append), first) and not told
    with pytest.raises(ValueError, match="one of another game"):
        LayerGame(probes, image, players, 2).values(checkpoint=file, progress=False)


def test_nan_of_one_layer_is_told(probes: Probes) -> None:
    broken = replace(
        probes, heads=(replace(probes.heads[0], bias=torch.full((K,), torch.nan)), probes.heads[1])
    )
    with pytest.raises(ValueError, match="finite"):
        LayerGame(broken, coloured()[0][0], grid_players(2, 2), 0)


def test_on_every_device(device: str) -> None:
    """Probes are fitted and games are played where the network is; the numbers are those of the CPU."""
    images, labels = coloured()
    players = grid_players(2, 2)
    torch.manual_seed(0)
    net = Net().eval()
    here = fit_probes(net, images, labels, layers=["low"], width=64, progress=False)
    wanted = LayerGame(here, images[7], players, 1).play_layers(progress=False, noise_samples=8)
    there = fit_probes(net.to(device), images, labels, layers=["low"], width=64, progress=False)
    found = LayerGame(there, images[7], players, 1).play_layers(progress=False, noise_samples=8)
    assert found.values.device.type == "cpu"
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-3, atol=1e-3)
