"""Dropped tokens: against the network's own layers fed by hand, and what can't be dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playing import (
    CLASSES,
    PATCH,
    SIZE,
    convnet,
    huggingface_vit,
    image,
    players_of,
    stirred,
    timm_vit,
    torchvision_vit,
)
from torch import Tensor, nn

from pyinterp.games import ImageGame, Players, box_players, grid_players
from pyinterp.games.drop import DropForward, find_tokens

CELLS = SIZE // PATCH
GRID = grid_players(2, 4)


def registers() -> nn.Module:
    return timm_vit(reg_tokens=3)


def feed_timm(model: Any, x: Tensor, keep: list[int]) -> Tensor:
    tokens = model._pos_embed(model.patch_embed(x[None]))
    return model.forward_head(model.norm(model.blocks(model.norm_pre(tokens[:, keep]))))


def feed_torchvision(model: Any, x: Tensor, keep: list[int]) -> Tensor:
    patches = model._process_input(x[None])
    tokens = torch.cat([model.class_token, patches], 1) + model.encoder.pos_embedding
    return model.heads(model.encoder.ln(model.encoder.layers(tokens[:, keep]))[:, 0])


def feed_huggingface(model: Any, x: Tensor, keep: list[int]) -> Tensor:
    tokens = model.vit.embeddings(x[None])[:, keep]
    for layer in model.vit.layers:
        tokens = layer(tokens)
    return model.classifier(model.vit.layernorm(tokens)[:, 0])


FAMILIES = [
    pytest.param(timm_vit, feed_timm, 1, id="timm"),
    pytest.param(registers, feed_timm, 4, id="timm with registers"),
    pytest.param(torchvision_vit, feed_torchvision, 1, id="torchvision"),
    pytest.param(huggingface_vit, feed_huggingface, 1, id="Hugging Face"),
]


def tokens_by_hand(players: Players, code: int, prefix: int) -> list[int]:
    """Class and register tokens, and the patches, row by row, of present players and kept background."""
    laid = players.over((SIZE, SIZE))
    present = {-1, *players_of(code, players.count)}
    cells = [(row, col) for row in range(CELLS) for col in range(CELLS)]
    kept = [i for i, (row, col) in enumerate(cells) if int(laid[row * PATCH, col * PATCH]) in present]
    return [*range(prefix), *(prefix + i for i in kept)]


@pytest.mark.parametrize(("build", "feed", "prefix"), FAMILIES)
@pytest.mark.parametrize(
    "players",
    [
        GRID,
        box_players([(0, 0, 4, 8), (8, 4, 16, 16), (0, 12, 8, 16)], size=(SIZE, SIZE)),
        box_players([(0, 0, 12, 4), (4, 8, 8, 12)], size=(SIZE, SIZE), background="mask"),
    ],
    ids=["grid", "kept background", "masked background"],
)
def test_subsets_are_the_tokens_fed_by_hand(
    build: Callable[[], nn.Module], feed: Callable[..., Tensor], prefix: int, players: Players
) -> None:
    model, x = build(), image()
    game = ImageGame(model, x, players, target=2, score="logit", masking="drop")
    with torch.no_grad():
        wanted = [
            float(feed(model, x, tokens_by_hand(players, code, prefix))[0, 2])
            for code in range(2**players.count)
        ]
    torch.testing.assert_close(game.values(), torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    mixed = torch.tensor([2**players.count - 1, 0, 1, 2, 0])
    torch.testing.assert_close(game.evaluate(mixed), torch.tensor(wanted)[mixed], rtol=1e-4, atol=1e-5)


def test_the_borders_of_a_grid_follow_the_patches() -> None:
    model, x = timm_vit(), image()
    for players, of_patches in (
        (grid_players(3, 2), [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]),
        (
            grid_players(1, 2, box=(0.3, 0.2, 0.8, 0.7), background="mask"),
            [[-2] * 4, [-2, 0, 1, -2], [-2, 0, 1, -2], [-2] * 4],
        ),
    ):
        game = ImageGame(model, x, players, target=2, score="logit", masking="drop")
        owner = torch.tensor(of_patches)
        pixels = [[of_patches[row // PATCH][col // PATCH] for col in range(SIZE)] for row in range(SIZE)]
        assert game.player_map.tolist() == pixels
        wanted = []
        for code in range(2**players.count):
            shown = torch.isin(owner.flatten(), torch.tensor(players_of(code, players.count)))
            keep = [0, *(1 + i for i in shown.nonzero().flatten().tolist())]
            with torch.no_grad():
                wanted.append(float(feed_timm(model, x, keep)[0, 2]))
        torch.testing.assert_close(game.values(), torch.tensor(wanted), rtol=1e-4, atol=1e-5)
        plain = ImageGame(model, x, players, target=2)
        assert plain.player_map.tolist() == players.over((SIZE, SIZE)).tolist() != pixels


@pytest.mark.parametrize(("build", "feed", "prefix"), FAMILIES)
def test_all_players_are_the_plain_forward(build: Callable[[], nn.Module], feed: Any, prefix: int) -> None:
    model, x = build(), image()
    game = ImageGame(model, x, GRID, target=1, score="logit", masking="drop")
    with torch.no_grad():
        answer: Any = model(x[None])
    logits = answer if isinstance(answer, Tensor) else answer.logits
    assert float(game.values()[-1]) == pytest.approx(float(logits[0, 1]), rel=1e-4)
    assert find_tokens(model, x).prefix == prefix and find_tokens(model, x).grid == (CELLS, CELLS)
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())


def test_the_result_says_which_game_was_played() -> None:
    played = ImageGame(timm_vit(), image(), GRID, masking="drop").play()
    other = ImageGame(timm_vit(), image(), GRID).play()
    assert (played.masking, played.baseline) == ("drop", "absent tokens")
    assert (other.masking, other.baseline) == ("replace", "zero") and other.digest != played.digest
    assert 0 < played.noise < 1e-4
    assert not torch.allclose(played.values, other.values, atol=0.01)


def test_the_blocks_see_half_of_the_tokens() -> None:
    model, seen = timm_vit(), [0, 0]
    game = ImageGame(model, image(), GRID, masking="drop")
    block = model.get_submodule("blocks.1")
    handle = block.register_forward_pre_hook(
        lambda module, args: seen.__setitem__(
            slice(None), [seen[0] + args[0].shape[0] * args[0].shape[1], seen[1] + 1]
        )
    )
    values = game.values(batch_size=32)
    handle.remove()
    assert seen[0] == 256 * (1 + CELLS * CELLS // 2)  # the class token, and half of the patches on average
    assert seen[1] <= 9 + 256 // 32  # one forward per number of tokens and batch
    again = game.values(batch_size=32, devices=["cpu", "cpu"])
    assert torch.equal(again, values)


class PerTokenCount(nn.Module):
    """Blocks over tokens whose weights fix their number, as an MLP-mixer's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, PATCH, PATCH)
        self.blocks = nn.ModuleList([Mixing(), Mixing()])
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens[:, :1], tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(1 + CELLS * CELLS, 1 + CELLS * CELLS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mix(tokens.transpose(1, 2)).transpose(1, 2)


def smeared() -> nn.Module:
    """A transformer whose stem lets neighbouring patches see each other."""
    model: Any = timm_vit()
    model.patch_embed.proj = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, PATCH, PATCH))
    return stirred(model)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (convnet, "without a stack of blocks"),
        (lambda: stirred(PerTokenCount()), "reach other tokens than their own|fails with some of its tokens"),
        (smeared, "reach other tokens than their own"),
    ],
)
def test_networks_without_tokens_to_drop_are_refused(build: Callable[[], nn.Module], words: str) -> None:
    model = build()
    with pytest.raises(ValueError, match=words) as caught:
        ImageGame(model, image(), GRID, masking="drop")
    assert "Use masking='replace'" in str(caught.value)
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())


def test_players_own_whole_patches() -> None:
    with pytest.raises(ValueError, match="players that own whole patches, got 3 of 16"):
        ImageGame(timm_vit(), image(), box_players([(0, 0, 6, 6)], size=(SIZE, SIZE)), masking="drop")
    with pytest.raises(ValueError, match="at least one of 4 x 4 patches each, got 5 x 1 cells"):
        ImageGame(timm_vit(), image(), grid_players(5, 1), masking="drop")
    with pytest.raises(ValueError, match="no baseline, got one"):
        ImageGame(timm_vit(), image(), GRID, masking="drop", baseline="mean")


def test_a_subset_without_any_token_is_refused() -> None:
    some = box_players([(0, 0, 8, 8), (8, 8, 16, 16)], size=(SIZE, SIZE))
    for averaging in (timm_vit(class_token=False, global_pool="avg"), timm_vit(global_pool="avg")):
        with pytest.raises(ValueError, match="a token in every subset"):
            ImageGame(averaging, image(), GRID, masking="drop")
        prefix = find_tokens(averaging, image()).prefix
        values = ImageGame(averaging, image(), some, target=2, score="logit", masking="drop").values()
        with torch.no_grad():
            wanted = [
                float(feed_timm(averaging, image(), tokens_by_hand(some, c, prefix))[0, 2]) for c in range(4)
            ]
        torch.testing.assert_close(values, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_a_failing_block_leaves_no_hook() -> None:
    model, x = timm_vit(), image()
    forward = DropForward(model, x, "blocks.0", torch.full((99,), -1))
    with pytest.raises((IndexError, RuntimeError)):
        forward(torch.tensor([0]))
    assert not model.get_submodule("blocks.0")._forward_pre_hooks
