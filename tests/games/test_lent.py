"""What a game borrows: the model and torch's settings, which come back as they were, and the shared prefix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from playing import convnet, image
from torch import Tensor, nn

from pyinterp.games import ImageGame, grid_players
from pyinterp.games import image as images
from pyinterp.games.prefix import SharedPrefix

GRID = grid_players(2, 3)


def test_the_model_comes_back_as_it_was() -> None:
    model = convnet()
    weights = {name: (value.data_ptr(), value._version) for name, value in model.named_parameters()}
    hooks = {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    calls: list[int] = []

    def stop(logits: Tensor) -> Tensor:
        calls.append(len(logits))
        assert torch.is_inference_mode_enabled()
        if len(calls) == 3:
            raise KeyboardInterrupt
        return logits[:, 0]

    with pytest.raises(KeyboardInterrupt):
        ImageGame(model, image(), GRID, score=stop).values()
    assert {name: (value.data_ptr(), value._version) for name, value in model.named_parameters()} == weights
    assert {name: len(module._forward_pre_hooks) for name, module in model.named_modules()} == hooks
    assert not model.training and all(value.requires_grad for value in model.parameters())


SETTINGS = {
    "as torch starts": "pass",
    "older": "torch.set_float32_matmul_precision('medium')",
    "newer": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
}
LOOK = """
import sys, torch
sys.path.insert(0, "tests/games")
from playing import convnet, image
from pyinterp.games import ImageGame, grid_players
from pyinterp.models import trace

def kinds():
    b = torch.backends
    return [k.fp32_precision for k in (b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn, b.mkldnn.matmul, b.mkldnn.conv)]

def older():
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None

def score(logits):
    seen.append((kinds(), older()))
    if len(seen) == 4:
        raise KeyboardInterrupt
    return logits[:, 0]

{setting}
before, seen = (kinds(), older()), []
try:
    ImageGame(convnet(), image(), grid_players(2, 3), score=score).values()
except KeyboardInterrupt:
    pass
assert (kinds(), older()) == before, "settings changed"
assert len(seen) == 4 and all(found == ["ieee"] * 5 for found, _ in seen), seen
assert before[1] is None or all(found == (False, "highest") for _, found in seen), seen
seen.clear()
ImageGame(convnet(), image(), grid_players(1, 2), score=score, allow_tf32=True)
assert seen == [before]
"""


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_float32_is_float32_and_the_settings_come_back(setting: str) -> None:
    """In a process of its own: torch keeps these settings in ways that a test can't undo."""
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK.replace("{setting}", setting)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert said.returncode == 0, said.stderr


def test_autocast_around_a_game_changes_nothing() -> None:
    model, x = convnet(), image()
    plain = ImageGame(model, x, GRID).values(batch_size=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ImageGame(model, x, GRID).values(batch_size=16), plain)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_shared_prefix_gives_the_same_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: bool
) -> None:
    asked: list[int] = []
    answer = SharedPrefix.__call__

    def counted(self: SharedPrefix, codes: Tensor) -> Tensor:
        asked.append(len(codes))
        return answer(self, codes)

    monkeypatch.setattr(SharedPrefix, "__call__", counted)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 3),
    ).eval()
    players, x = grid_players(2, 4), torch.randn(3, 32, 32)
    plain = ImageGame(model, x, players, target=1).values()
    assert asked == []
    monkeypatch.setattr(images, "LONG", 0.0)
    without = ImageGame(model, x, players, target=1, shared_prefix=False).values()
    assert asked == [] and torch.allclose(without, plain, atol=1e-5)
    path = tmp_path / "game" if checkpoint else None
    played = ImageGame(model, x, players, target=1).play(checkpoint=path)
    assert sum(asked) >= 256 + 64
    torch.testing.assert_close(played.values, plain, rtol=1e-4, atol=1e-5)
    assert 0 < played.noise_precision < 1e-5  # type: ignore[operator]


def test_a_network_without_a_graph_is_played_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = convnet()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if float(x.sum()) > -1e9 else x

    monkeypatch.setattr(images, "LONG", 0.0)
    with pytest.warns(UserWarning, match="SharedPrefix"):
        values = ImageGame(Branching().eval(), image(), GRID, target=1).values()
    torch.testing.assert_close(values, ImageGame(convnet(), image(), GRID, target=1).values())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "memory for what subsets share",
        ),
        (KeyError("attn"), "what subsets share to be computed once, got KeyError: 'attn'. Every subset"),
    ],
)
def test_tables_that_cannot_be_built_are_done_without(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(images, "LONG", 0.0)
    monkeypatch.setattr(SharedPrefix, "build", fail)
    game = ImageGame(convnet(), image(), GRID, target=1)
    with pytest.warns(UserWarning, match=words) as caught:
        values = game.values()
    assert len(caught) == 1
    assert torch.allclose(values, game.evaluate(torch.arange(64)), atol=1e-5)


def test_ctrl_c_ends_the_building_of_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "LONG", 0.0)
    monkeypatch.setattr(SharedPrefix, "build", stop)
    with pytest.raises(KeyboardInterrupt):
        ImageGame(convnet(), image(), GRID).values()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_shares_nothing(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    built: list[object] = []
    monkeypatch.setattr(images, "LONG", 0.0)
    monkeypatch.setattr(SharedPrefix, "build", lambda *args, **options: built.append(args))
    ImageGame(convnet().to(dtype), image(), GRID, target=1).values()
    assert not built
    ImageGame(convnet(), image(), GRID, target=1).values()
    assert len(built) == 1
