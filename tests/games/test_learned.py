"""learn_baseline: weaker interactions, a planted baseline found again, the model left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyinterp.games import Game, ImageGame, grid_players, learn_baseline
from pyinterp.games.players import Players


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.Dropout(), nn.Flatten(), nn.Linear(6 * 36, 3)
    ).eval()


class Planted(nn.Module):
    """Of rows with values t: z = sum of 1 where t > 0.8, else -4 (t - r)^2: with an image of ones, r is the answer."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Buffer(rows)

    def forward(self, images: Tensor) -> Tensor:
        t = images[:, 0, :, 0]
        return torch.where(t > 0.8, 1.0, -4 * (t - self.rows) ** 2).sum(1, keepdim=True)


def strength(game: Game) -> float:
    """Sum over non-empty S of |sum over T in S of (-1)^(|S| - |T|) v(T)|, from the definition."""
    values = game.values(batch_size=16).double().tolist()
    players = range(game.count)
    total = 0.0
    for order in range(1, game.count + 1):
        for chosen in combinations(players, order):
            effect = 0.0
            for size in range(order + 1):
                for part in combinations(chosen, size):
                    effect += (-1) ** (order - size) * values[sum(2**i for i in part)]
            total += abs(effect)
    return total


IMAGE = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("start", ["zero", "mean"])
@pytest.mark.parametrize("batch_size", [5, 64])
def test_interactions_become_weaker(start: str, batch_size: int) -> None:
    model, players = network(), grid_players(2, 3)
    learned = learn_baseline(model, IMAGE, players, target=1, start=start, steps=15, batch_size=batch_size)
    before = strength(ImageGame(model, IMAGE, players, target=1, baseline=start))
    after = strength(ImageGame(model, IMAGE, players, target=1, baseline=learned))
    assert after < 0.95 * before


def test_a_planted_baseline_is_found() -> None:
    rows = torch.tensor([0.05, 0.1, 0.14, 0.02])
    image = torch.ones(1, 4, 4)
    image[:, :, 3] = 0
    learned = learn_baseline(
        Planted(rows).eval(),
        image,
        grid_players(4, 1),
        target=1,
        score="logit",
        reach=0.2,
        steps=100,
    )
    torch.testing.assert_close(learned[0, :, 0], rows, atol=2e-3, rtol=0)
    assert torch.equal(learned, learned[:, :, :1].expand(1, 4, 4))


def test_colours_stay_within_reach_and_within_the_image() -> None:
    players = grid_players(2, 2)
    image = IMAGE - 0.5
    low, high = image.amin((1, 2))[:, None, None], image.amax((1, 2))[:, None, None]
    near = learn_baseline(network(), image, players, steps=10, rate=0.2)
    assert (near.abs() <= 0.1 * (high - low) + 1e-6).all()
    assert near.abs().max() > 0.05
    wide = learn_baseline(network(), image, players, steps=10, rate=5.0, reach=1.0)
    assert (wide >= low - 1e-6).all() and (wide <= high + 1e-6).all()


def test_the_gradient_is_that_of_the_strength() -> None:
    """One tiny step changes the strength by what the gradient says: a small rate never makes it worse."""
    model, players = network().double(), grid_players(2, 2)
    image = IMAGE.double()
    games = [
        ImageGame(
            model,
            image,
            players,
            baseline=learn_baseline(model, image, players, steps=steps, rate=1e-4),
        )
        for steps in (0, 1, 5, 10)
    ]
    strengths = [strength(game) for game in games]
    assert strengths == sorted(strengths, reverse=True)
    assert len(set(strengths)) == len(strengths)


def test_background_stays_as_it_is() -> None:
    ids = torch.tensor([[0, 1], [-1, -2]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    players = Players(ids, ("a", "b"))
    start = torch.rand(2, 8, 8)
    learned = learn_baseline(network(), IMAGE, players, start=start, steps=3)
    assert torch.equal(learned[:, ids < 0], start[:, ids < 0])
    for i in range(2):
        assert learned[:, ids == i].std(1).max() < 1e-6


def state(model: nn.Module) -> tuple[dict[str, Tensor], list[tuple[bool, bool]], list[bool]]:
    grads = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return copy.deepcopy(model.state_dict()), grads, [module.training for module in model.modules()]


def unchanged(model: nn.Module, before: Any) -> bool:
    now = state(model)
    return now[1:] == before[1:] and all(
        torch.equal(value, now[0][name]) for name, value in before[0].items()
    )


def stop_after(calls: int, error: type[BaseException]) -> Callable[[Any], None]:
    left = [calls]

    def progress(_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    return progress


def test_the_model_comes_back_as_it_was() -> None:
    model, players = network(), grid_players(2, 2)
    model[0].weight.requires_grad_(False)
    before = state(model)
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context:
            learned = learn_baseline(model, IMAGE, players, steps=2)
        assert unchanged(model, before)
        assert not learned.requires_grad and not learned.is_inference()
    with pytest.raises(ZeroDivisionError):
        learn_baseline(model, IMAGE, players, steps=2, progress=stop_after(2, ZeroDivisionError))
    assert unchanged(model, before)


def test_ctrl_c_gives_the_best_so_far() -> None:
    model, players = network(), grid_players(2, 2)
    with pytest.warns(UserWarning, match="expected 50 steps, got Ctrl-C after 5"):
        learned = learn_baseline(
            model, IMAGE, players, batch_size=16, progress=stop_after(11, KeyboardInterrupt)
        )
    games = [ImageGame(model, IMAGE, players, baseline=baseline) for baseline in (learned, "zero")]
    assert strength(games[0]) < strength(games[1])


def test_no_steps_give_the_start_and_the_same_call_the_same_baseline() -> None:
    players = grid_players(2, 2)
    assert torch.allclose(
        learn_baseline(network(), IMAGE - 0.5, players, steps=0), torch.zeros(2, 8, 8), atol=1e-6
    )
    runs = [learn_baseline(network(), IMAGE, players, steps=4) for _ in range(2)]
    assert torch.equal(*runs)


def test_batches_are_halved_where_memory_runs_out() -> None:
    model, players = network(), grid_players(2, 2)
    wanted = learn_baseline(model, IMAGE, players, steps=3)

    def refuse(_: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError

    with model.register_forward_pre_hook(refuse):
        got = learn_baseline(model, IMAGE, players, steps=3)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("at most 16 players, got 20, which take 105,906,176 forwards", {"players": grid_players(4, 5)}),
        ("steps >= 0", {"steps": -1}),
        ("rate > 0", {"rate": 0.0}),
        ("rate > 0", {"rate": float("nan")}),
        (r"reach within \(0, 1\]", {"reach": 1.5}),
        ("batch_size >= 1", {"batch_size": 0}),
        ("a target from 0 to 2", {"target": 3}),
        ("a baseline by name", {"start": "grey"}),
    ],
)
def test_errors_say_what_was_expected(words: str, options: dict[str, Any]) -> None:
    options = {"players": grid_players(2, 2), **options}
    with pytest.raises(ValueError, match=words):
        learn_baseline(network(), IMAGE, **options)
