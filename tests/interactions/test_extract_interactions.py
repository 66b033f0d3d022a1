"""From a network and an image to its interactions: the whole way on small networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pyinterp.games import ImageGame, grid_players
from pyinterp.interactions import Effect, Interactions, extract_interactions
from pyinterp.interactions.subsets import subset_sizes
from pyinterp.models.zoo import LoadedModel


class Net(nn.Module):
    """A conv network in which parts of the image do act together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=2)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x).relu().amax((2, 3)))


def preprocess(image: Image.Image) -> Tensor:
    small = image.convert("RGB").resize((16, 12))
    levels = torch.tensor(list(small.tobytes()), dtype=torch.float32).reshape(12, 16, 3)
    return levels.permute(2, 0, 1) / 127.5 - 1


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    net = Net().eval()
    net.last.weight.data.mul_(8)
    return net


PLAYERS = grid_players(2, 3)


def test_the_effects_are_those_of_the_game(net: Net) -> None:
    image = torch.randn(3, 12, 16)
    found = extract_interactions(net, image, PLAYERS, target=2, score="logit", baseline="blur")
    game = ImageGame(net, image, PLAYERS, target=2, score="logit", baseline="blur")
    torch.testing.assert_close(found.values, game.values(), rtol=1e-4, atol=1e-4)
    allowed = 0.04 * abs(float(found.values[-1] - found.values[0]))
    assert float(found.residual.abs().max()) <= allowed + 1e-4
    assert found.objective == pytest.approx(
        float(found.and_[1:].abs().sum() + found.or_[1:].abs().sum()), rel=1e-4
    )
    assert not found.or_[subset_sizes(6) <= 1].any()
    assert found.sigma is not None and 0 < found.sigma < 1e-4
    assert (found.target, found.score, found.baseline, found.masking) == (2, "logit", "blur", "replace")
    assert (found.model_name, found.class_name, len(found.weights_digest)) == ("Net", "", 64)
    assert found.forwards >= 64 and found.seconds > 0
    assert found.player_map is not None and found.player_map.shape == (12, 16)
    assert set(found.versions) == {"pyinterp", "torch"}


def test_twelve_parts_and_the_predicted_class_are_the_default(net: Net) -> None:
    image = torch.randn(1, 3, 12, 16)
    found = extract_interactions(net, image)
    assert found.n == 12 and len(found.values) == 4096
    assert found.target == int(net(image).argmax())
    assert found.score == "log_odds"


def test_a_picture_is_shown_as_it_is_seen(net: Net, tmp_path: Path) -> None:
    picture = Image.new("RGB", (32, 24), (200, 100, 0))
    picture.paste((0, 0, 255), (0, 0, 16, 24))
    picture.save(tmp_path / "a.png")
    loaded = LoadedModel("small", net, preprocess, ("a", "b", "c", "d"), (3, 12, 16))  # type: ignore[arg-type]
    found = extract_interactions(loaded, tmp_path / "a.png", PLAYERS)
    assert found.pixels is not None and found.pixels.shape == (3, 12, 16)
    assert found.pixels[:, 6, 14].tolist() == [200, 100, 0]
    assert (found.model_name, found.class_name) == ("small", "abcd"[found.target or 0])
    found.save(tmp_path / "found")
    again = Interactions.load(tmp_path / "found")
    assert again.player_map is not None and found.player_map is not None
    assert torch.equal(again.player_map, found.player_map) and torch.equal(again.pixels, found.pixels)  # type: ignore[arg-type]


def test_draws_of_input_noise_give_intervals(net: Net, tmp_path: Path) -> None:
    image, file = torch.randn(3, 12, 16), tmp_path / "scores"
    options = {"draws": 3, "input_noise": 0.05, "seed": 4}
    found = extract_interactions(net, image, PLAYERS, checkpoint=file, **options)  # type: ignore[arg-type]
    assert found.draws is not None and found.draws.shape == (3, 2, 64)
    assert found.forwards >= 4 * 64
    names = [path.name for path in tmp_path.iterdir()]
    assert sorted(names) == ["scores", "scores-draw1", "scores-draw2", "scores-draw3"]
    spread = found.intervals()
    assert float(spread.std.max()) > 0
    strongest = found.top(1)[0]
    assert strongest.interval is not None and strongest.interval[0] < strongest.interval[1]
    again = extract_interactions(net, image, PLAYERS, **options)  # type: ignore[arg-type]
    assert again.draws is not None
    torch.testing.assert_close(again.draws, found.draws, rtol=1e-3, atol=1e-3)
    other = extract_interactions(net, image, PLAYERS, **(options | {"seed": 5}))  # type: ignore[arg-type]
    assert other.draws is not None
    assert float((other.draws - found.draws).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 1}, "draws of 0 or at least 2"),
        ({"draws": -2}, "draws of 0 or at least 2"),
        ({"draws": 3, "input_noise": 0.0}, "input_noise > 0"),
        ({"target": 4}, "target from 0 to 3"),
        ({"score": "odds"}, "one of the scores"),
        ({"players": grid_players(5, 5)}, "at most 20 players, got 25 players: 33,554,432 forwards"),
        ({"players": grid_players(40, 1), "max_players": 50}, "pixels for the grid"),
    ],
)
def test_what_can_not_be_played_is_refused(net: Net, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        extract_interactions(net, torch.randn(3, 12, 16), **({"players": PLAYERS} | options))  # type: ignore[arg-type]


def test_half_precision_makes_false_effects_of_high_order_and_the_floor_shows_them() -> None:
    """A linear network has effects of single players only; whatever else there is comes from rounding."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 64), nn.Linear(64, 2)).eval()
    net[1].bias.data += 30  # large features leave few bits for their changes; they cancel in the scores
    net[2].weight.data -= net[2].weight.data.mean(1, keepdim=True)
    image = torch.randn(3, 20, 20) + 0.5

    def false_effects(dtype: torch.dtype) -> list[Effect]:
        found = extract_interactions(
            net.to(dtype), image.to(dtype), grid_players(2, 5), target=1, score="logit"
        ).and_only()
        single = [effect for effect in found.salient(threshold=0.3) if len(effect.members) == 1]
        assert single and not any(effect.below_floor for effect in single)
        return [effect for effect in found.salient() if len(effect.members) > 1]

    assert false_effects(torch.float32) == []
    false = false_effects(torch.float16)
    assert len(false) > 20 and max(len(effect.members) for effect in false) > 6
    assert sum(effect.below_floor for effect in false) >= 0.95 * len(false)


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (ValueError, r"noise in \[0, 1\), got 2", {"noise": 2}),
        (TypeError, r"as noise, got 'a'", {"noise": "a"}),
        (ValueError, r"draws of 0 or at least 2, got 2.5", {"draws": 2.5}),
        (TypeError, r"whole number as seed, got 'a'", {"seed": "a", "draws": 2}),
    ],
)
def test_what_can_be_refused_before_the_first_forward_is(
    error: type[Exception], words: str, options: dict[str, Any]
) -> None:
    class Unasked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the network was asked")

    with pytest.raises(error, match=words):
        extract_interactions(Unasked().eval(), torch.zeros(3, 16, 16), **options)


def test_more_players_than_can_be_split_are_refused_before_they_are_played(net: Net) -> None:
    asked = []
    net.register_forward_hook(lambda *_: asked.append(1))
    with pytest.raises(ValueError, match=r"at most 20 players, got 21"):
        extract_interactions(net, torch.zeros(3, 24, 24), grid_players(3, 7), max_players=21)
    assert len(asked) == 1
