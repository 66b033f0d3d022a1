"""mask_inputs: a batch of partly masked inputs, straight from the integer codes of subsets of players."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.ops._common import register

KEPT, MASKED = -1, -2
MOST_PLAYERS = (
    62  # bits 62 and 63 of a code stand for MASKED and KEPT: both kernels shift it by `player & 63`
)


def _empty(x: Tensor, codes: Tensor, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((codes.shape[0], *x.shape), dtype=x.dtype, device=x.device, memory_format=layout)


def _reference(x: Tensor, baseline: Tensor, players: Tensor, codes: Tensor, channels_last: bool) -> Tensor:
    torch._assert_async(
        ((players >= MASKED) & (players < MOST_PLAYERS)).all(),
        f"players must be {MASKED} (masked), {KEPT} (kept) or 0 to {MOST_PLAYERS - 1}",
    )
    slots = torch.arange(64, device=x.device)
    shown = ((codes & (2**MOST_PLAYERS - 1))[:, None] >> slots & 1).bool()
    shown[:, KEPT & 63] = True
    shown = shown[:, players & 63]
    shown = shown.reshape(codes.shape[0], *[1] * (x.dim() - players.dim()), *players.shape)
    return _empty(x, codes, channels_last).copy_(torch.where(shown, x, baseline))


def _fake(x: Tensor, baseline: Tensor, players: Tensor, codes: Tensor, channels_last: bool) -> Tensor:
    return _empty(x, codes, channels_last)


_mask_inputs = register(
    "mask_inputs",
    "(Tensor x, Tensor baseline, Tensor players, Tensor codes, bool channels_last) -> Tensor",
    _reference,
    _fake,
)


def mask_inputs(
    x: Tensor,
    baseline: Tensor,
    players: Tensor,
    codes: Tensor,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Mask `x` once per subset of players: position p shows `x` where bit players[p] of the code is set.

    Args:
        x: (C..., P...), for example an image (channels, height, width), token ids (length,) or a row of columns
            (D,); any dtype of 1, 2, 4 or 8 bytes.
        baseline: Like `x`: what stands where a player is absent.
        players: (P...) int64, the last axes of `x`: the player of each position, 0 to 61; -1 always shows `x`, -2
            always `baseline`.
        codes: (B,) int64, one subset each: bit i is set where player i is present. Bits of players that have no
            position, and the two highest, change nothing.
        memory_format: ``torch.contiguous_format``, or ``torch.channels_last`` for `x` with three axes.

    Returns:
        (B, C..., P...) in the dtype of `x`; it never requires a gradient.

    Equivalent to ``torch.where(codes.view(B, 1, ...) >> players & 1, x, baseline)``, without the mask in memory.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit.
        TypeError: `x` is complex.
        RuntimeError: A player is none of the above (on CUDA an assertion on the device).
    """
    _check(x, baseline, players, codes, memory_format)
    channels_last = memory_format == torch.channels_last
    return _mask_inputs(x.detach(), baseline.detach(), players, codes, channels_last)


def _check(
    x: Tensor, baseline: Tensor, players: Tensor, codes: Tensor, memory_format: torch.memory_format
) -> None:
    if x.is_complex() or x.element_size() > 8:
        fix = "Convert it, for example with .float()."
        raise TypeError(explain("mask_inputs", "real or integer x", x.dtype, fix))
    if baseline.shape != x.shape or baseline.dtype != x.dtype:
        got = f"{baseline.dtype} {tuple(baseline.shape)}"
        fix = "Expand and convert it: baseline.to(x).expand_as(x)."
        raise ValueError(explain("mask_inputs", f"a baseline like x, {x.dtype} {tuple(x.shape)}", got, fix))
    trailing = tuple(x.shape[x.dim() - players.dim() :]) if players.dim() <= x.dim() else tuple(x.shape)
    if players.dtype != torch.int64 or tuple(players.shape) != trailing:
        wanted = f"int64 players of the shape of the last axes of x, {tuple(x.shape)}"
        got = f"{players.dtype} {tuple(players.shape)}"
        fix = "Give one player per position: (height, width) for an image (channels, height, width)."
        raise ValueError(explain("mask_inputs", wanted, got, fix))
    if codes.dtype != torch.int64 or codes.dim() != 1:
        got = f"{codes.dtype} {tuple(codes.shape)}"
        fix = "Bit i of a code says whether player i is present: torch.arange(2**n) are all subsets."
        raise ValueError(explain("mask_inputs", "int64 codes of shape (B,)", got, fix))
    if not x.device == baseline.device == players.device == codes.device:
        got = ", ".join(str(t.device) for t in (x, baseline, players, codes))
        fix = "Move baseline, players and codes to the device of x."
        raise ValueError(explain("mask_inputs", "all tensors on one device", got, fix))
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        fix = "Pass torch.contiguous_format or torch.channels_last."
        raise ValueError(explain("mask_inputs", "a memory format of images", memory_format, fix))
    if memory_format == torch.channels_last and (x.dim(), players.dim()) != (3, 2):
        wanted = "x with three axes and players (height, width) for channels_last"
        got = f"{tuple(x.shape)} and {tuple(players.shape)}"
        fix = "Only images (channels, height, width) can be channels-last."
        raise ValueError(explain("mask_inputs", wanted, got, fix))
