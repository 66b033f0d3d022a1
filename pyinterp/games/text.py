"""TextGame: the words or tokens of a sentence, and the score of a classifier that sees some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.checks import require_tensor
from pyinterp.games.forward import Forward, MaskedForward
from pyinterp.games.masking import mask_token_baseline
from pyinterp.games.network import NetworkGame, as_module
from pyinterp.games.players import Players, require_players, token_players
from pyinterp.games.scores import Score
from pyinterp.models.identity import tensor_digest
from pyinterp.models.inputs import place_of


class TextGame(NetworkGame):
    """The score of a class when a text classifier sees only some words of a sentence.

    Args:
        model: A sequence classifier of Hugging Face: takes ``input_ids`` and what else the tokenizer gives, returns an
            object with ``.logits``; in eval mode.
        tokenizer: Its tokenizer.
        text: The sentence.
        players: "words", "tokens", or the result of `token_players` for the L tokens of the sentence. Tokens that mark
            start and end never play.
        baseline: "mask_token", or (L,) int64 token ids that stand for absent tokens.
        target: The class; None is the one predicted for the sentence.
        score: See `ImageGame`.
        allow_tf32: See `ImageGame`.

    Attributes:
        tokens: The L tokens as words.

    Raises:
        ValueError: The players or the baseline do not fit the sentence, there is no mask token, no such class or score,
            the model is in train mode or its answer is not finite.
        TypeError: Something of another type.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        text: str,
        players: Players | str = "words",
        *,
        baseline: Tensor | str = "mask_token",
        target: int | None = None,
        score: Score = "log_odds",
        allow_tf32: bool = False,
    ) -> None:
        network = as_module("TextGame", model)
        device = place_of(network)[0]
        encoded = tokenizer(text, return_tensors="pt")
        self.ids = encoded["input_ids"][0].to(device)
        self._others = {name: value[0] for name, value in encoded.items() if name != "input_ids"}
        self.tokens = tuple(tokenizer.convert_ids_to_tokens(self.ids.tolist()))
        if isinstance(players, str):
            chosen = _players(players, encoded, tokenizer, self.tokens)
        else:
            chosen = require_players("TextGame", players, 'token_players(tokens), or "words" or "tokens"')
        self._map = chosen.over(tuple(self.ids.shape))
        self.baseline = baseline if isinstance(baseline, str) else "given"
        self._baseline = _baseline(baseline, self.ids, tokenizer)
        names = getattr(getattr(network, "config", None), "id2label", None) or {}
        super().__init__(
            chosen.names,
            network,
            lambda own: own(
                input_ids=self.ids[None],
                **{name: value[None].to(device) for name, value in self._others.items()},
            ),
            given=f"{len(self.ids)} tokens",
            target=target,
            score=score,
            allow_tf32=allow_tf32,
            classes=[str(names[i]) for i in sorted(names)],
        )

    def _forward(self, model: nn.Module) -> Forward:
        device = place_of(model)[0]
        others = {name: value.to(device) for name, value in self._others.items()}
        ids, baseline, players = (value.to(device) for value in (self.ids, self._baseline, self._map))
        return MaskedForward(model, ids, baseline, players, name="input_ids", others=others)

    def _parts(self) -> Mapping[str, str]:
        parts = {"tokens": self.ids, "player map": self._map, "baseline": self._baseline, **self._others}
        return {name: tensor_digest(value) for name, value in parts.items()}

    def _played(self) -> dict[str, Any]:
        return {**super()._played(), "baseline": self.baseline, "masking": "replace"}


def _players(kind: str, encoded: Any, tokenizer: Any, tokens: tuple[str, ...]) -> Players:
    special = tokenizer.get_special_tokens_mask(
        encoded["input_ids"][0].tolist(), already_has_special_tokens=True
    )
    places = [i for i, is_special in enumerate(special) if not is_special]
    if kind == "tokens":
        return token_players(tokens, places)
    if kind != "words":
        fix = 'Pass "words", "tokens" or the result of token_players.'
        raise ValueError(explain("TextGame", "players by name", repr(kind), fix))
    if not getattr(tokenizer, "is_fast", False):
        fix = 'Pass players="tokens", or the result of token_players.'
        raise ValueError(explain("TextGame", "a fast tokenizer, which knows its words", "a slow one", fix))
    return token_players(tokens, list(word_places(encoded, places).values()))


def word_places(encoded: Any, places: Iterable[int]) -> dict[int, list[int]]:
    """Word -> where its tokens are, in the order of the sentence: the players "words" of a `TextGame`.

    Args:
        encoded: What a fast tokenizer gives for one sentence.
        places: Of the tokens that are part of the sentence.
    """
    words = encoded.word_ids(0)
    groups: dict[int, list[int]] = {}
    for place in places:
        groups.setdefault(words[place], []).append(place)
    return groups


def _baseline(baseline: Tensor | str, ids: Tensor, tokenizer: Any) -> Tensor:
    if isinstance(baseline, str):
        if baseline != "mask_token":
            fix = 'Pass "mask_token" or a tensor of token ids.'
            raise ValueError(explain("TextGame", "a baseline by name", repr(baseline), fix))
        return mask_token_baseline(ids, tokenizer)
    fix = 'Pass "mask_token" or a tensor of token ids.'
    require_tensor("TextGame", "a baseline by name or as a tensor", baseline, fix)
    if baseline.shape != ids.shape or baseline.dtype != torch.int64:
        got = f"{baseline.dtype} {tuple(baseline.shape)}"
        fix = "Give one token id per token of the sentence."
        raise ValueError(explain("TextGame", f"an int64 baseline of shape {tuple(ids.shape)}", got, fix))
    return baseline.to(ids.device)
