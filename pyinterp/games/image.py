"""ImageGame: the parts of an image, and the score of a network that sees some of them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.drop import DropForward, check_drop, find_tokens, lay, owners
from pyinterp.games.forward import (
    Forward,
    MaskedForward,
    full_float32,
    is_channels_last,
    plain_numerics,
)
from pyinterp.games.masking import Baseline, make_baseline
from pyinterp.games.network import NetworkGame, as_module, in_one_line
from pyinterp.games.players import Players, require_players
from pyinterp.games.prefix import SharedPrefix
from pyinterp.games.scores import Score
from pyinterp.memory import is_out_of_memory
from pyinterp.models import LoadedModel, load_images
from pyinterp.models.identity import tensor_digest
from pyinterp.models.inputs import place_of

LONG = 5.0
"""Seconds that plain forwards must take before the shared prefix, whose tables cost some, is tried."""


class ImageGame(NetworkGame):
    """The score of a class when a network sees only some parts of an image.

    v(S) = score(model(x_S)), where x_S shows the image where the players of S are, and the baseline elsewhere; or, with
    ``masking="drop"``, where a vision transformer gets the tokens of S alone.

    Args:
        model: Maps images (N, C, H, W) to logits, or to an object with ``.logits``, in eval mode; or what
            `models.load` gives.
        image: (C, H, W) or (1, C, H, W), preprocessed; with a `LoadedModel` also a PIL image or a path.
        players: Which parts there are; see `grid_players`, `segment_players`, `box_players`.
        target: The class; None is the one predicted on the image.
        score: "log_odds" of the class, log(p / (1 - p)), computed stably from the logits; "logit", "probability"; or a
            callable, logits (B, classes) -> (B,).
        baseline: What stands for an absent player: "zero", "mean", "blur", or a tensor; see `make_baseline`.
        masking: "replace" paints absent players over with the baseline. "drop" removes their tokens in front of the
            first block of a vision transformer, which has no baseline and is another game, at about half the cost.
            The borders of `grid_players` then follow the patches; other players must own whole patches.
        allow_tf32: Let GPUs round float32 products to TF32. An error in v(S) grows by 2^(|S|/2) in interactions.
        shared_prefix: Where plain forwards would take 5 seconds or more, compute what subsets share in the first
            layers once, if that pays; equal within float rounding. See `pyinterp.games.prefix`. Not in float16 and
            bfloat16, where sums in another order would differ by up to 4e-2.

    Attributes:
        image: (C, H, W), as the model gets it.
        player_map: (H, W) int64 on the CPU, the player of each pixel; see `Players`.

    Raises:
        ValueError: The players do not fit the image, or the image the model; there is no such class, score, baseline
            or masking; the model is in train mode or its answer is not finite; or, for "drop", it has no tokens that
            can be dropped, or a patch belongs to several players.
        TypeError: Something of another type.
    """

    def __init__(
        self,
        model: nn.Module | LoadedModel,
        image: Any,
        players: Players,
        *,
        target: int | None = None,
        score: Score = "log_odds",
        baseline: Baseline = "zero",
        masking: Literal["replace", "drop"] = "replace",
        allow_tf32: bool = False,
        shared_prefix: bool = True,
    ) -> None:
        loaded = model if isinstance(model, LoadedModel) else None
        network = as_module("ImageGame", model.model if isinstance(model, LoadedModel) else model)
        device, dtype = place_of(network)
        self.image = _as_image(image, loaded).to(device, dtype)
        players = require_players("ImageGame", players, "grid_players(3, 4)")
        self.player_map = players.over(tuple(self.image.shape[1:]))
        if masking not in ("replace", "drop"):
            fix = 'Pass "replace", or "drop" for vision transformers.'
            raise ValueError(explain("ImageGame", "a masking by name", repr(masking), fix))
        super().__init__(
            players.names,
            network,
            lambda own: own(self.image[None]),
            given=f"an image of shape {tuple(self.image[None].shape)}",
            target=target,
            score=score,
            allow_tf32=allow_tf32,
            classes=() if loaded is None else loaded.classes,
        )
        self.masking, self.shared_prefix = masking, shared_prefix
        self._drop: tuple[str, Tensor] | None = None
        if masking == "drop":
            if not isinstance(baseline, str) or baseline != "zero":
                fix = "Leave it out: absent tokens need none."
                raise ValueError(explain("masking='drop'", "no baseline", "one", fix))
            self._baseline, self.baseline = self.image, "absent tokens"
            with full_float32(allow_tf32), plain_numerics(device):
                tokens = find_tokens(network, self.image)
                self.player_map = lay(players, tokens, tuple(self.image.shape[1:]))
                self._drop = (tokens.block, owners(tokens, self.player_map))
                check_drop(DropForward(network, self.image, *self._drop), self.count, self._plain)
        else:
            self._baseline = make_baseline(self.image, baseline)
            self.baseline = baseline if isinstance(baseline, str) else "given"

    def _forward(self, model: nn.Module) -> Forward:
        device, dtype = place_of(model)
        image = self.image.to(device, dtype)
        if self._drop is not None:
            return DropForward(model, image, *self._drop)
        baseline, players = self._baseline.to(device, dtype), self.player_map.to(device)
        return MaskedForward(model, image, baseline, players, channels_last=is_channels_last(model))

    def _faster(self, model: nn.Module, plain: Forward, evaluations: int) -> Forward:
        if not isinstance(plain, MaskedForward) or not self.shared_prefix or evaluations < 2:
            return plain
        if plain.x.dtype in (torch.float16, torch.bfloat16):
            return plain
        device = plain.x.device
        if evaluations * _seconds(plain, device) < LONG:
            return plain
        try:
            with torch.autocast(device.type, enabled=False):
                shared = SharedPrefix.build(
                    model, plain.x, plain.baseline, self.player_map, evaluations=evaluations
                )
        except Exception as error:
            fix = "Every subset takes a whole forward instead. shared_prefix=False asks for that."
            wanted, got = "what subsets share to be computed once", in_one_line(error)
            if is_out_of_memory(error):
                wanted, got = "memory for what subsets share", "too little of it"
            warnings.warn(explain("ImageGame", wanted, got, fix), stacklevel=2)
            return plain
        return shared or plain

    def _parts(self) -> Mapping[str, str]:
        return {
            "image": tensor_digest(self.image),
            "player map": tensor_digest(self.player_map),
            "baseline": tensor_digest(self._baseline),
            "masking": self.masking,
        }

    def _order(self) -> Tensor:
        """With dropped tokens, subsets of as many tokens together, the most frequent numbers first."""
        codes = super()._order()
        if self._drop is None:
            return codes
        counts = DropForward(self.model, self.image, *self._drop).shown_counts(codes)
        often = torch.bincount(counts)[counts]
        return codes[(often * (counts.max() + 1) + counts).argsort(stable=True, descending=True)]

    def _played(self) -> dict[str, Any]:
        return {**super()._played(), "baseline": self.baseline, "masking": self.masking}


def _seconds(forward: Forward, device: torch.device) -> float:
    """Per subset, of small batches."""
    codes = torch.arange(4)
    with plain_numerics(device):
        forward(codes)[0, 0].item()
        start = time.perf_counter()
        forward(codes)[0, 0].item()
    return (time.perf_counter() - start) / len(codes)


def _as_image(image: Any, loaded: LoadedModel | None) -> Tensor:
    """(C, H, W), finite; a float64 tensor stays one."""
    if isinstance(image, Tensor):
        batch = image[None] if image.dim() == 3 else image
        channels = None if loaded is None else (loaded.input_shape[0], None, None)
        load_images(batch, expected_shape=channels)
        found = batch.detach()
    elif loaded is None:
        fix = "Preprocess it, or pass what pyinterp.models.load returns as the model."
        raise TypeError(explain("ImageGame", "an image tensor (C, H, W)", type(image).__name__, fix))
    else:
        found = load_images(image, loaded.preprocess, expected_shape=loaded.input_shape).tensor
    if len(found) != 1:
        raise ValueError(explain("ImageGame", "one image", f"{len(found)}", "Play one game per image."))
    return found[0]
