"""The measured noise: its two ways, what half precision does to high orders, and when it can't be measured."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from playing import by_hand, convnet, image, log_odds, timm_vit
from torch import Tensor, nn

from pyinterp.games import ImageGame, grid_players
from pyinterp.games.noise import measure_noise

GRID = grid_players(2, 3)
CPU = torch.device("cpu")


def dividends(values: Tensor) -> Tensor:
    """I(S) = sum over T in S of (-1)^(|S| - |T|) v(T), in float64, one player after the other."""
    found = values.double().clone()
    for player in range(len(found).bit_length() - 1):
        pairs = found.view(-1, 2, 2**player)
        pairs[:, 1] -= pairs[:, 0]
    return found


def orders(count: int) -> Tensor:
    return torch.tensor([code.bit_count() for code in range(2**count)])


def test_the_noise_of_float32_is_the_distance_from_float64() -> None:
    model, x = convnet(), image()
    game = ImageGame(model, x, GRID, target=1)
    played = game.play()
    truth = by_hand(copy.deepcopy(model), x, GRID, lambda z: log_odds(z, 1), torch.zeros_like(x))
    wanted = (played.values.double() - torch.tensor(truth, dtype=torch.float64)).square().mean().sqrt()
    assert played.noise_precision == pytest.approx(float(wanted), rel=1e-3)
    assert played.noise == max(played.noise_order, played.noise_precision)
    assert 0 < played.noise < 1e-5 and played.noise_samples == 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("build", [convnet, timm_vit])
def test_half_precision_is_thousands_of_times_noisier(build: Any, dtype: torch.dtype) -> None:
    x = image()
    exact = ImageGame(build(), x, GRID, target=1).play()
    rough = ImageGame(build().to(dtype), x, GRID, target=1).play()
    assert rough.values.dtype == torch.float32 and rough.precision == str(dtype).removeprefix("torch.")
    assert rough.noise > 1000 * exact.noise


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_makes_high_order_effects_which_its_own_floor_catches(dtype: torch.dtype) -> None:
    """A network with effects of orders 1 and 2 alone: whatever comes out above is false."""

    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(24, 16, bias=False), nn.Linear(24, 16, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            cells = nn.functional.avg_pool2d(x, 8).flatten(1)
            z = (self.first(cells) * self.second(cells)).sum(1)
            return torch.stack([z, 0 * z], 1)

    players, count = grid_players(4, 2), 8
    x = image().repeat(1, 2, 1)
    torch.manual_seed(0)
    model = Pairs().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7)
    exact = ImageGame(model, x, players, target=0).play()
    rough = ImageGame(copy.deepcopy(model).to(dtype), x, players, target=0).play()
    order, threshold = orders(count), math.sqrt(2 * math.log(2 * 2**count))
    high = order >= 3

    def floor(sigma: float) -> Tensor:
        return sigma * 2 ** (order / 2) * threshold

    assert (dividends(exact.values).abs()[high] < floor(exact.noise)[high]).all()
    false = dividends(rough.values).abs()
    assert (false[high] > floor(exact.noise)[high]).double().mean() > 0.9
    assert (false[high] < floor(rough.noise)[high]).all()
    strong = (order == 2) & (dividends(exact.values).abs() > 2 * floor(rough.noise))
    assert strong.any() and (false[strong] > floor(rough.noise)[strong]).all()


def test_another_batch_order_shows_what_depends_on_the_batch() -> None:
    values = torch.zeros(64)
    codes = torch.randperm(64)
    generator = torch.Generator().manual_seed(0)

    def shaky(batch: Tensor) -> Tensor:
        return 0.01 * torch.randn(len(batch), generator=generator)

    noise = measure_noise(values, codes, shaky, "", CPU, 16)
    assert noise.order == pytest.approx(0.01 / 2**0.5, rel=0.3)
    assert noise.precision is None and noise.sigma == noise.order

    sizes: list[int] = []

    def counting(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return torch.zeros(len(batch))

    for size in (1, 2, 16, 64, 500):
        sizes.clear()
        measure_noise(values, codes, counting, "", CPU, size)
        assert sum(sizes) == 64 and sizes[0] != size


def test_a_network_that_insists_on_float32_says_so() -> None:
    class Insisting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = convnet()
            self.offset = torch.zeros(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            return self.inner(x + self.offset)

    game = ImageGame(Insisting().eval(), image(), GRID, target=1)
    with pytest.warns(UserWarning, match="higher precision.*float32 only"):
        played = game.play()
    assert played.noise_precision is None and played.noise == played.noise_order


def test_float64_needs_no_higher_precision_and_nothing_is_left_behind() -> None:
    model = convnet()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageGame(model, image(), GRID).play()
        played = ImageGame(copy.deepcopy(model).double(), image(), GRID).play()
    assert played.noise_precision is None and played.noise < 1e-13
    for name, value in model.state_dict().items():
        assert value.dtype == weights[name].dtype and torch.equal(value, weights[name])


def test_the_same_seed_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    game = ImageGame(convnet(), image(), grid_players(2, 4), target=1)
    one, two = (game.play(batch_size=16, noise_samples=20, seed=4) for _ in range(2))
    assert one.noise == two.noise and one.noise_samples == 20
    assert one.noise != game.play(batch_size=16, noise_samples=20, seed=5).noise
    with pytest.raises(ValueError, match="noise_samples >= 2"):
        game.play(noise_samples=1)
