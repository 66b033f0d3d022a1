"""Absent players as absent tokens: a vision transformer sees the patches that are present, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.players import Players
from pyinterp.models.graph import logits_of
from pyinterp.ops.mask_inputs import KEPT, MASKED


@dataclass(frozen=True)
class Tokens:
    """Where a vision transformer's tokens are.

    Attributes:
        block: Path of the module that gets them first with their positions in them, (N, tokens, dim).
        prefix: Class and register tokens in front.
        grid: (rows, columns) of the patches, which follow row by row.
    """

    block: str
    prefix: int
    grid: tuple[int, int]


@dataclass(frozen=True)
class DropForward:
    """The network on the tokens of the players that are present.

    Tokens are removed in front of the first block, so patches are embedded, with their positions, once per batch.
    Subsets with as many tokens run together.

    Attributes:
        model: In eval mode.
        x: (C, H, W), the whole image on the model's device.
        block: See `Tokens`.
        owner: (tokens,) int64 on the CPU, the player of each token; -1 always kept, -2 never there.
    """

    model: nn.Module
    x: Tensor
    block: str
    owner: Tensor

    def __call__(self, codes: Tensor) -> Tensor:
        shown = self.shown(codes.cpu())
        counts = shown.sum(1)
        groups = [(counts == count).nonzero().flatten() for count in counts.unique()]
        parts = [self._run(shown[rows].nonzero()[:, 1].view(len(rows), -1)) for rows in groups]
        if len(parts) == 1:
            return parts[0]
        order = torch.cat(groups).argsort()
        return torch.cat(parts)[order.to(parts[0].device)]

    def shown(self, codes: Tensor) -> Tensor:
        """(B, tokens) bool: the tokens of each subset."""
        present = (codes[:, None] >> self.owner.clamp(min=0) & 1).bool()
        return (present | (self.owner == KEPT)) & (self.owner != MASKED)

    def shown_counts(self, codes: Tensor) -> Tensor:
        """(B,) how many tokens each subset has; quick for very many."""
        sizes = torch.bincount(self.owner[self.owner >= 0])
        counts = torch.full_like(codes, int((self.owner == KEPT).sum()))
        for player, size in enumerate(sizes.tolist()):
            counts += size * (codes >> player & 1)
        return counts

    def _run(self, index: Tensor) -> Tensor:
        """Logits of subsets (B,) by their tokens (B, K)."""
        chosen = index.to(self.x.device)

        def choose(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return args[0][0].index_select(0, chosen.flatten()).view(*chosen.shape, -1), *args[1:]

        handle = self.model.get_submodule(self.block).register_forward_pre_hook(choose)
        try:
            return logits_of(self.model(self.x[None]))
        finally:
            handle.remove()


class _Reached(Exception):
    """Ends a forward pass in front of the first block."""


def find_tokens(model: nn.Module, x: Tensor) -> Tokens:
    """Find the tokens of a vision transformer by watching one image, and a few changed patches of it, on their way.

    Args:
        model: In eval mode.
        x: (C, H, W), on the model's device.

    Raises:
        ValueError: There is no stack of blocks that gets one token per patch.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    stacks = [module for module in model.modules() if isinstance(module, (nn.ModuleList, nn.Sequential))]
    firsts = {id(stack[0]): stack[0] for stack in stacks if len(stack)}
    embeddings = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride
    ]
    seen: dict[str, Any] = {}

    def note_patches(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen["grid"] = tuple(output.shape[2:])

    def note_tokens(module: nn.Module, args: tuple[Any, ...]) -> None:
        if "grid" in seen and args and isinstance(args[0], Tensor) and args[0].dim() == 3:
            seen["block"], seen["tokens"] = paths[id(module)], args[0]
            raise _Reached

    def tokens_of(images: Tensor) -> Tensor | None:
        seen.clear()
        handles = [module.register_forward_hook(note_patches) for module in embeddings]
        handles += [module.register_forward_pre_hook(note_tokens) for module in firsts.values()]
        try:
            model(images)
        except _Reached:
            return seen["tokens"].float()
        finally:
            for handle in handles:
                handle.remove()
        return None

    tokens = tokens_of(x[None])
    if tokens is None:
        raise _no_tokens("a network without a stack of blocks over (N, tokens, dim)")
    (rows, columns), block = seen["grid"], seen["block"]
    prefix = tokens.shape[1] - rows * columns
    height, width = x.shape[1] // max(rows, 1), x.shape[2] // max(columns, 1)
    if prefix < 0 or (height * rows, width * columns) != tuple(x.shape[1:]):
        raise _no_tokens(f"{tokens.shape[1]} tokens for {rows} x {columns} patches")
    for place in {0, rows * columns // 2, rows * columns - 1}:
        top, left = place // columns * height, place % columns * width
        changed = x.clone()
        changed[:, top : top + height, left : left + width] += 1
        after = tokens_of(changed[None])
        assert after is not None
        moved = (after - tokens).abs().amax(-1)[0]
        if (moved > 1e-3 * moved.max()).nonzero().flatten().tolist() != [prefix + place]:
            raise _no_tokens(f"patches that reach other tokens than their own in front of {block!r}")
    return Tokens(block, prefix, (rows, columns))


def lay(players: Players, tokens: Tokens, shape: tuple[int, ...]) -> Tensor:
    """(H, W) the player of each pixel; the cells of a grid are made of whole patches.

    Raises:
        ValueError: The map is of another size, or the grid has more rows or columns than there are patches.
    """
    if not players.stretch:
        return players.over(shape)
    rows, columns = tokens.grid
    try:
        patches = players.over(tokens.grid)
    except ValueError as error:
        cells = " x ".join(map(str, players.map.shape))
        fix = "Use fewer players or a larger box, or masking='replace'."
        wanted = f"a grid whose cells hold at least one of {rows} x {columns} patches each"
        raise ValueError(explain("masking='drop'", wanted, f"{cells} cells", fix)) from error
    tall, wide = shape[0] // rows, shape[1] // columns
    return patches.repeat_interleave(tall, 0).repeat_interleave(wide, 1)


def owners(tokens: Tokens, players: Tensor) -> Tensor:
    """(tokens,) the player of each token, from the player of each pixel.

    Raises:
        ValueError: A patch belongs to several players, or the empty subset would have no token at all.
    """
    (rows, columns), (height, width) = tokens.grid, players.shape
    patches = players.reshape(rows, height // rows, columns, width // columns).transpose(1, 2).flatten(2)
    shared = (patches != patches[..., :1]).any(-1)
    if shared.any():
        got = f"{int(shared.sum())} of {shared.numel()} patches with pixels of several"
        fix = f"Let the borders of the players follow the {rows} x {columns} patches."
        raise ValueError(explain("masking='drop'", "players that own whole patches", got, fix))
    owner = torch.cat([torch.full((tokens.prefix,), KEPT), patches[..., 0].flatten()])
    if not (owner == KEPT).any():
        raise _nothing_left()
    return owner


def check_drop(forward: DropForward, count: int, plain: Tensor) -> None:
    """Raise ValueError unless all tokens give the plain answer, and half the players and none of them give one at all.

    Args:
        forward: The game's.
        count: Number of players.
        plain: (1, classes), the network's answer on the image.
    """
    everything = replace(forward, owner=forward.owner.clamp(min=KEPT))
    try:
        everything(torch.tensor([2 ** ((count + 1) // 2) - 1]))
        whole = everything(torch.tensor([2**count - 1]))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise _no_tokens(f"one that fails with some of its tokens ({reason})") from error
    if not forward(torch.tensor([0])).isfinite().all():
        raise _nothing_left()
    bound = torch.finfo(plain.dtype).eps ** 0.5 * max(1.0, float(plain.abs().max()))
    if not float((whole - plain).abs().max()) <= bound:
        raise _no_tokens("one whose answer on all tokens is another than on the image")


def _no_tokens(got: str) -> ValueError:
    fix = "Use masking='replace'."
    wanted = "a vision transformer whose blocks take any number of tokens"
    return ValueError(explain("masking='drop'", wanted, got, fix))


def _nothing_left() -> ValueError:
    """Of the empty subset, in a network that averages the tokens of the patches."""
    fix = "Keep some background, or use masking='replace'."
    return ValueError(explain("masking='drop'", "a token in every subset", "none in the empty one", fix))
