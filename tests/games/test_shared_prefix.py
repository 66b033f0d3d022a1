"""The shared prefix gives the plain forward's logits, shares the weights, and knows when it does not pay."""

from __future__ import annotations

import copy

import pytest
import torch
from shared_nets import NETS, PLAYERS, SIZE, grid, net
from torch import Tensor, nn

from pyinterp.games import prefix as prefix_module
from pyinterp.games import reach
from pyinterp.games.cuts import Cut, Plan, possible_cuts
from pyinterp.games.prefix import SharedPrefix
from pyinterp.models import trace
from pyinterp.ops.mask_inputs import mask_inputs


def image_of(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, baseline = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=generator)
    return image, baseline


@torch.no_grad()
def plain(model: nn.Module, players: Tensor, codes: Tensor) -> Tensor:
    logits: Tensor = model(mask_inputs(*image_of(), players, codes))
    return logits


@pytest.mark.parametrize("players", PLAYERS.values(), ids=PLAYERS.keys())
@pytest.mark.parametrize("name", NETS)
def test_every_cut_gives_the_plain_answer(name: str, players: Tensor) -> None:
    """Not only the cheapest plan: every place that counts as a cut, alone and behind another."""
    model = net(name)
    traced = trace(model, image_of()[0][None])
    count = int(players.max()) + 1
    codes = torch.randperm(2**count)[:20]
    wanted = plain(model, players, codes)
    cuts = [cut for cut in possible_cuts(traced, players) if cut.rows < 2**count]
    assert cuts

    def masked(codes: Tensor) -> Tensor:
        return mask_inputs(*image_of(), players, codes)

    for before, cut in zip([None, *cuts], cuts, strict=False):
        nested = (cut,) if before is None or cut.colours is None else (before, cut)
        found = SharedPrefix(traced, masked, Plan(nested, 2.0), batch_size=12)(codes)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["residual", "dense", "mlp"])
def test_the_plan_gives_the_plain_answer_in_any_batch(name: str) -> None:
    model, players = net(name), PLAYERS["stains"]
    before = copy.deepcopy(model.state_dict())
    prefix = SharedPrefix.build(model, *image_of(), players)
    assert prefix is not None and prefix.plan.gain > 1
    codes = torch.randperm(128)
    torch.testing.assert_close(prefix(codes), plain(model, players, codes), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(prefix(codes[:3]), prefix(codes)[:3], rtol=1e-10, atol=1e-12)
    assert prefix(codes[:0]).shape == (0, 5)
    assert not prefix(codes[:1]).requires_grad
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_weights_are_shared() -> None:
    model = net("mlp")
    prefix = SharedPrefix.build(model, *image_of(), PLAYERS["2x3"])
    codes = torch.arange(64)
    assert prefix is not None
    with torch.no_grad():
        model[3].weight.zero_()  # type: ignore[index]
    assert torch.equal(prefix(codes), model[3].bias.expand(64, -1))  # type: ignore[index]


def test_columns_of_a_table_share_the_first_linear_map() -> None:
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3)).double().eval()
    row, mean = torch.randn(2, 6, dtype=torch.float64)
    players = torch.tensor([0, 1, -1, 2, -2, 1])
    traced = trace(model, row[None])
    cut = next(iter(possible_cuts(traced, players)))
    assert cut.colours is None and cut.rows == 4
    codes = torch.arange(8)
    masked = lambda codes: mask_inputs(row, mean, players, codes)
    with torch.no_grad():
        wanted = model(masked(codes))
    torch.testing.assert_close(SharedPrefix(traced, masked, Plan((cut,), 2.0), 32)(codes), wanted)


class Squared(nn.Module):
    """Before the linear map stands something that is no affine function, or one of another dtype."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear, self.head = kind, nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "square":
            x = x * x
        elif self.kind == "whole":
            x = torch.div(x, 0.3, rounding_mode="floor")
        else:
            x = x.to(torch.int64).to(torch.float32)
        return self.head(self.linear(x).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["square", "whole", "integer"])
def test_what_is_not_affine_is_no_sum_of_responses(kind: str) -> None:
    traced = trace(Squared(kind).eval(), torch.randn(1, 6))
    assert list(possible_cuts(traced, torch.arange(6))) == []


class Pooled(nn.Module):
    """Its first operation looks at the whole image, and not linearly."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.amax((2, 3)))  # type: ignore[no-any-return]


def test_nothing_to_share() -> None:
    image, baseline = (value.float() for value in image_of())
    assert SharedPrefix.build(Pooled().eval(), image, baseline, grid(2, 3)) is None


def test_few_evaluations_do_not_pay() -> None:
    assert SharedPrefix.build(net("residual"), *image_of(), grid(2, 3), evaluations=2) is None


def test_one_player_does_not_pay() -> None:
    assert (
        SharedPrefix.build(net("residual"), *image_of(), torch.zeros(SIZE, SIZE, dtype=torch.int64)) is None
    )


def test_no_players_is_refused() -> None:
    with pytest.raises(ValueError, match="SharedPrefix: expected a map with players, got none"):
        SharedPrefix.build(net("mlp"), *image_of(), torch.full((SIZE, SIZE), -1))


def test_a_wrong_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If convolutions were taken to look at one position alone, the comparison at the start would notice."""
    monkeypatch.setitem(
        reach._RULES,
        torch.ops.aten.conv2d,
        lambda node, known: reach.Reach(
            known.reach[node.args[0]].map[:, -node.meta["val"].shape[2] :, -node.meta["val"].shape[3] :],
            (2, 3),
        ),
    )
    with pytest.warns(UserWarning, match="SharedPrefix: expected the plain forward's logits"):
        assert SharedPrefix.build(net("dilation"), *image_of(), PLAYERS["stains"]) is None


class Branching(nn.Module):
    """Its path depends on the values of its images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_model_without_a_graph_is_left_to_the_plain_forward() -> None:
    with pytest.warns(UserWarning, match="SharedPrefix: expected a model with a graph, got one of which"):
        assert SharedPrefix.build(Branching().eval(), *image_of(), grid(2, 3)) is None


def test_a_model_in_train_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval mode"):
        SharedPrefix.build(net("residual").train(), *image_of(), grid(2, 3))


def test_tables_hold_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many images are computed up to a cut as it has rows, whatever the batch size."""
    seen: list[int] = []
    original = prefix_module._Table.store

    def store(self: prefix_module._Table, rows: Tensor, value: Tensor) -> None:
        seen.append(len(rows))
        original(self, rows, value)

    monkeypatch.setattr(prefix_module._Table, "store", store)
    players = grid(3, 4)
    traced = trace(net("strides"), image_of()[0][None])
    cuts: list[Cut] = [cut for cut in possible_cuts(traced, players) if cut.rows == 16]
    SharedPrefix(traced, lambda codes: mask_inputs(*image_of(), players, codes), Plan((cuts[0],), 2.0), 7)
    assert seen == [7, 7, 2]


def test_on_the_model_s_device(device: str) -> None:
    model = net("residual").float().to(device)
    image, baseline = (value.float().to(device) for value in image_of())
    players = grid(3, 4)
    prefix = SharedPrefix.build(model, image, baseline, players)
    codes = torch.arange(0, 4096, 41)
    assert prefix is not None
    with torch.no_grad():
        wanted = model(mask_inputs(image, baseline, players.to(device), codes.to(device)))
    torch.testing.assert_close(prefix(codes), wanted, rtol=1e-4, atol=1e-5)
    assert prefix(codes.to(device)).device == image.device
