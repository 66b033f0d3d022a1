"""mask_inputs against plain torch, against the definition, and against what users get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract import (
    Sample,
    check_brute_force,
    check_compile,
    check_cuda,
    check_determinism,
    check_layouts,
    check_registration,
)
from torch import Tensor

from pyinterp.ops import mask_inputs

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.uint8,
    torch.bool,
)
# Shape of x, axes of the map of players.
CASES = [
    ((3, 16, 16), 2),
    ((3, 7, 5), 2),
    ((1, 1, 1), 2),
    ((4, 6, 8), 2),
    ((2, 3, 4, 5), 3),
    ((12,), 1),
    ((5, 12), 1),
    ((3, 9), 2),
    ((3, 0, 4), 2),
    ((0, 4, 4), 2),
]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def plain(x: Tensor, baseline: Tensor, players: Tensor, codes: Tensor) -> Tensor:
    bits = codes.view(-1, *[1] * players.dim()) >> players.clamp(min=0) & 1
    shown = torch.where(players < 0, players == -1, bits.bool())
    return torch.where(shown.view(len(codes), *[1] * (x.dim() - players.dim()), *players.shape), x, baseline)


def brute_force(x: np.ndarray, baseline: np.ndarray, players: np.ndarray, codes: np.ndarray) -> np.ndarray:
    y = np.empty((len(codes), *x.shape), x.dtype)
    for sample, *index in np.ndindex(y.shape):
        player = int(players[tuple(index[x.ndim - players.ndim :])])
        present = player == -1 or (player >= 0 and (int(codes[sample]) // 2**player) % 2 == 1)
        y[(sample, *index)] = (x if present else baseline)[tuple(index)]
    return y


def values(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


def arguments(
    shape: tuple[int, ...], axes: int, dtype: torch.dtype = torch.float32, batch: int = 9, run: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, baseline = values(shape, dtype), values(shape, dtype)
    over = shape[len(shape) - axes :]
    ids = torch.randint(-2, 62, (int(np.prod(over)) // run + 1,)).repeat_interleave(run)
    players = ids[: int(np.prod(over))].reshape(over)
    return x, baseline, players, torch.randint(0, 2**62, (batch,))


@pytest.mark.parametrize("run", [1, 30])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "axes"), CASES, ids=str)
def test_every_dtype_and_layout(
    shape: tuple[int, ...], axes: int, dtype: torch.dtype, run: int, device: str
) -> None:
    args = [t.to(device) for t in arguments(shape, axes, dtype, run=run)]
    wanted = plain(*args)
    for layout in LAYOUTS if len(shape) == 3 and axes == 2 else LAYOUTS[:1]:
        got = mask_inputs(*args, memory_format=layout)
        assert got.dtype == dtype
        assert got.stride() == torch.empty(got.shape, device="meta").to(memory_format=layout).stride()
        assert torch.equal(got, wanted)


@pytest.mark.parametrize(("shape", "axes"), CASES[:8], ids=str)
def test_contract(shape: tuple[int, ...], axes: int, device: str) -> None:
    sample = Sample(arguments(shape, axes), ())
    check_brute_force(mask_inputs, brute_force, sample, device)
    check_determinism(mask_inputs, sample, device)
    check_compile(mask_inputs, sample, device)
    raw = tuple(t.to(device) for t in sample.args)
    check_registration([(torch.ops.pyinterp.mask_inputs.default, (*raw, False))])
    if axes == 2 and len(shape) == 3:
        check_registration([(torch.ops.pyinterp.mask_inputs.default, (*raw, True))])
    if device == "cuda":
        check_cuda(mask_inputs, sample)


def test_strides_of_the_input_do_not_matter(device: str) -> None:
    check_layouts(mask_inputs, plain, Sample(arguments((3, 8, 6), 2), ()), device)
    x, baseline, players, codes = (t.to(device) for t in arguments((3, 8, 6), 2))
    strided = (
        x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        baseline[:, :1, :1].expand_as(x),
        players.T.contiguous().T,
        codes[::2],
    )
    for layout in LAYOUTS:
        assert torch.equal(mask_inputs(*strided, memory_format=layout), plain(*strided))


def test_compiles_with_inductor(device: str) -> None:
    def masked(*args: Tensor) -> Tensor:
        return mask_inputs(*args, memory_format=torch.channels_last) * 2

    check_compile(masked, Sample(arguments((3, 8, 8), 2), ()), device, backend="inductor")


def test_many_tiles_and_threads(device: str) -> None:
    for run in (1, 40):
        args = [t.to(device) for t in arguments((3, 130, 90), 2, batch=5, run=run)]
        for layout in LAYOUTS:
            got = mask_inputs(*args, memory_format=layout)
            assert torch.equal(got, plain(*args))
            threads = torch.get_num_threads()
            try:
                torch.set_num_threads(3)
                assert torch.equal(mask_inputs(*args, memory_format=layout), got)
            finally:
                torch.set_num_threads(threads)


def test_an_empty_batch(device: str) -> None:
    x, baseline, players, codes = (t.to(device) for t in arguments((3, 4, 4), 2))
    for layout in LAYOUTS:
        assert mask_inputs(x, baseline, players, codes[:0], memory_format=layout).shape == (0, 3, 4, 4)


def test_all_present_is_the_input_and_all_absent_the_baseline(device: str) -> None:
    x, baseline, players, _ = (t.to(device) for t in arguments((3, 6, 6), 2))
    players = players.clamp(min=0)
    codes = torch.tensor([2**62 - 1, 0], device=device)
    assert torch.equal(mask_inputs(x, baseline, players, codes), torch.stack([x, baseline]))


def test_kept_and_masked_positions_ignore_the_code(device: str) -> None:
    x, baseline = torch.ones(1, 3, device=device), torch.zeros(1, 3, device=device)
    players = torch.tensor([-1, -2, 61], device=device)
    codes = torch.tensor([0, 2**62 - 1, 2**61, -1, 2**62, -(2**63)], device=device)
    shown = mask_inputs(x, baseline, players, codes)[:, 0].tolist()
    assert shown == [[1, 0, 0], [1, 0, 1], [1, 0, 1], [1, 0, 1], [1, 0, 0], [1, 0, 0]]


def test_bits_of_players_without_a_position_change_nothing(device: str) -> None:
    x, baseline, _, codes = (t.to(device) for t in arguments((3, 4, 4), 2))
    players = torch.arange(16, device=device).reshape(4, 4) % 4
    assert torch.equal(
        mask_inputs(x, baseline, players, codes), mask_inputs(x, baseline, players, codes & 15)
    )


def test_nan_is_copied_not_computed_with(device: str) -> None:
    x = torch.full((1, 4), float("nan"), device=device)
    players = torch.tensor([0, 0, 1, 1], device=device)
    y = mask_inputs(x, torch.zeros_like(x), players, torch.tensor([0, 1], device=device))
    assert (y[0] == 0).all()
    assert y[1, 0].isnan().tolist() == [True, True, False, False]


def test_the_result_has_no_gradient(device: str) -> None:
    x, baseline, players, codes = (t.to(device) for t in arguments((3, 4, 4), 2))
    y = mask_inputs(x.requires_grad_(), baseline.requires_grad_(), players, codes)
    assert not y.requires_grad


X = torch.zeros(3, 4, 5)
MAP = torch.zeros(4, 5, dtype=torch.int64)
CODES = torch.arange(2)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (TypeError, "real or integer x, got torch.complex64", lambda: mask_inputs(X + 0j, X, MAP, CODES)),
        (ValueError, r"a baseline like x.* got .*\(3, 4\)", lambda: mask_inputs(X, X[..., 0], MAP, CODES)),
        (ValueError, "a baseline like x.* got torch.float64", lambda: mask_inputs(X, X.double(), MAP, CODES)),
        (ValueError, r"int64 players .* got torch.int64 \(4,\)", lambda: mask_inputs(X, X, MAP[:, 0], CODES)),
        (
            ValueError,
            r"int64 players .* got .*\(2, 4, 5\)",
            lambda: mask_inputs(X, X, MAP.expand(2, 4, 5), CODES),
        ),
        (ValueError, r"last axes of x, \(5,\), got", lambda: mask_inputs(X[0, 0], X[0, 0], MAP, CODES)),
        (ValueError, "int64 players .* got torch.int32", lambda: mask_inputs(X, X, MAP.int(), CODES)),
        (ValueError, "int64 codes .* got torch.float32", lambda: mask_inputs(X, X, MAP, CODES.float())),
        (ValueError, "int64 codes .* got torch.int32", lambda: mask_inputs(X, X, MAP, CODES.int())),
        (ValueError, r"int64 codes .* got .*\(1, 2\)", lambda: mask_inputs(X, X, MAP, CODES[None])),
        (ValueError, r"int64 codes .* got .*\(\)", lambda: mask_inputs(X, X, MAP, CODES[0])),
        (ValueError, "one device, got cpu, cpu, meta", lambda: mask_inputs(X, X, MAP.to("meta"), CODES)),
        (
            ValueError,
            "memory format of images",
            lambda: mask_inputs(X, X, MAP, CODES, memory_format=torch.preserve_format),
        ),
        (
            ValueError,
            "three axes",
            lambda: mask_inputs(X[0], X[0], MAP, CODES, memory_format=torch.channels_last),
        ),
        (
            ValueError,
            "players .height, width.",
            lambda: mask_inputs(X, X, MAP[0], CODES, memory_format=torch.channels_last),
        ),
    ],
)
def test_errors_say_what_was_expected(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]


def test_a_player_without_a_bit_is_refused() -> None:
    for player in (62, 63, 64, -3):
        players = MAP.clone()
        players[2, 3] = player
        with pytest.raises(RuntimeError, match="0 to 61"):
            mask_inputs(X, X, players, CODES)
