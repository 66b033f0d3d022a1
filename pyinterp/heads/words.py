"""Which words of sentences drive deep features: one sentence at a time, and over many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features.features import Features
from pyinterp.features.ridge import weighted_ridge
from pyinterp.games.text import TextGame, word_places
from pyinterp.heads.head import SparseHead
from pyinterp.heads.scored_words import ScoredWord, TopWords
from pyinterp.heads.single import moments_of, require_same_network
from pyinterp.models.classifier import with_classifier
from pyinterp.models.text import encode_texts
from pyinterp.ops.mask_inputs import MOST_PLAYERS
from pyinterp.progress import Progress, Ticker

WHERE = "word_effects"
_KERNEL_WIDTH = 0.25  # LIME's, for texts


@dataclass(frozen=True, eq=False)
class WordEffects:
    """What the n words of a sentence do to m deep features, in their standard deviations; all on the CPU, float64.

    Attributes:
        text: The sentence.
        words: (n) as they stand in it.
        spans: (n) where: text[start:end].
        features: (m) their numbers.
        z: (m,) the features on the whole sentence.
        single: (n, m) what each feature loses when one word alone is masked.
        linear: (n, m) LIME's slopes: what a word adds on average over sentences with other words masked too.
        explained: (m,) share of a feature's variance over these sentences that the slopes explain.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    features: tuple[int, ...]
    z: Tensor
    single: Tensor
    linear: Tensor
    explained: Tensor


def word_effects(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    source: SparseHead | Features,
    features: Sequence[int] | None = None,
    *,
    samples: int = 500,
    ridge: float = 1.0,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress = None,
) -> list[WordEffects]:
    """Which words of sentences drive deep features.

    Absent words become the tokenizer's mask token, as in `TextGame`. Each feature is read two ways: with one word
    absent at a time; and as LIME does, by a ridge regression on which words are present, over the sentence and random
    subsets of k of its n words, k uniform below n, weighted by exp(-d^2 / (2 * 0.25^2)) with d = 1 - sqrt(k / n). All
    features are read from the same n + 1 + samples subsets of each sentence.

    Args:
        model: The network that the features come from, in eval mode: takes what the tokenizer gives by keyword.
        tokenizer: Its tokenizer, a fast one with a mask token.
        texts: Sentences of at most 62 words.
        source: What knows mean and std of the features: a `SparseHead`, or `Features`.
        features: Their numbers; None takes those that the head uses, or all that vary.
        samples: Random subsets per sentence.
        ridge: The penalty of the regression, above 0.
        batch_size: Subsets per forward.
        seed: Of the subsets.
        progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}.

    Raises:
        ValueError: A sentence that is empty, too long, or has unknown words; no such feature, or a constant one;
            another network's features; an option out of range.
        TypeError: Something of another type.

    Source: Ribeiro, Singh, Guestrin, "Why Should I Trust You?", 2016.
    """
    chosen = _chosen(source, features)
    mean, std = moments_of(WHERE, source, chosen)
    _check_options(samples, ridge, batch_size)
    encoded = encode_texts(tokenizer, texts, WHERE)
    split = [word_spans(tokenizer, text) for text in texts]
    _require_playable(split, texts)
    require_same_network(WHERE, source, model)
    deep = with_classifier(model, nn.Identity(), encoded)
    generator = torch.Generator().manual_seed(seed)
    ticker = Ticker(progress, len(texts), 0, "sentences")
    found: list[WordEffects] = []
    with closing(ticker):
        for text, spans in zip(texts, split, strict=True):
            count = len(spans)
            present = torch.cat([_one_absent(count), _subsets(count, samples, generator)])
            game = TextGame(deep, tokenizer, text, "words", target=0, score="logit")
            codes = (present << torch.arange(count)).sum(1)
            answers = [game.logits(part)[:, chosen].double().cpu() for part in codes.split(batch_size)]
            z = (torch.cat(answers) - mean) / std
            single = z[0] - z[1 : count + 1]
            drawn = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(count + 1, len(z))])
            linear, explained = _lime(present[drawn].double(), z[drawn], ridge)
            words = tuple(text[start:end] for start, end in spans)
            found.append(WordEffects(text, words, tuple(spans), chosen, z[0], single, linear, explained))
            ticker(1)
    return found


def top_words(
    effects: Sequence[WordEffects],
    *,
    percentile: float = 99.0,
    by: str = "linear",
    at_least: int = 1,
) -> tuple[TopWords, ...]:
    """The words that drive each feature most over many sentences: means per word, beyond a percentile of all words.

    Words count as one whatever their case; what has no letter and no digit is left out.

    Args:
        effects: What `word_effects` gave, all for the same features.
        percentile: Words at or above this percentile of all words' effects, and above 0, are aligned; at or below
            100 - percentile, and below 0, anti-aligned.
        by: "linear" or "single"; see `WordEffects`.
        at_least: Leave out words that were met less often.

    Returns:
        One per feature.

    Raises:
        ValueError: No sentence, different features, no word that often, or an option out of range.
    """
    where = "top_words"
    if not effects or len({one.features for one in effects}) > 1:
        got = "none" if not effects else "effects on different features"
        fix = "Pass the list that one call of word_effects gave."
        raise ValueError(explain(where, "effects of sentences on the same features", got, fix))
    if by not in ("linear", "single"):
        raise ValueError(explain(where, 'by "linear" or "single"', repr(by), "Choose one of them."))
    if not 50 <= percentile <= 100:
        fix = "Pass 99 for the top hundredth of the words."
        raise ValueError(explain(where, "a percentile from 50 to 100", percentile, fix))
    rows: dict[str, list[Tensor]] = {}
    for one in effects:
        for word, row in zip(one.words, one.linear if by == "linear" else one.single, strict=True):
            if any(map(str.isalnum, word)):
                rows.setdefault(word.lower(), []).append(row)
    counts = {word: len(some) for word, some in rows.items() if len(some) >= at_least}
    if not counts:
        fix = "Pass more sentences, or a smaller at_least."
        raise ValueError(explain(where, f"words that are met at least {at_least} times", "none", fix))
    means = torch.stack([torch.stack(rows[word]).mean(0) for word in counts])
    upper, lower = (torch.quantile(means, share / 100, dim=0) for share in (percentile, 100 - percentile))
    listed = list(counts.items())

    def scored(column: Tensor, wanted: Tensor, sign: int) -> tuple[ScoredWord, ...]:
        order = (sign * column).argsort(dim=0, descending=True, stable=True)
        return tuple(
            ScoredWord(listed[i][0], float(column[i]), listed[i][1]) for i in order.tolist() if wanted[i]
        )

    return tuple(
        TopWords(
            feature,
            scored(column, (column >= upper[place]) & (column > 0), 1),
            scored(column, (column <= lower[place]) & (column < 0), -1),
            len(listed),
        )
        for place, (feature, column) in enumerate(zip(effects[0].features, means.T, strict=True))
    )


def _chosen(source: SparseHead | Features, features: Sequence[int] | None) -> tuple[int, ...]:
    if features is not None:
        chosen = tuple(features)
    elif isinstance(source, SparseHead):
        chosen = tuple(source.features_used.tolist())
    else:
        chosen = tuple((~source.constant).nonzero()[:, 0].tolist())
    if not chosen:
        fix = "Pass the numbers of some, or a head that uses some."
        raise ValueError(explain(WHERE, "at least one feature", "none", fix))
    return chosen


def _check_options(samples: int, ridge: float, batch_size: int) -> None:
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(explain(WHERE, f"{name} of at least 1", value, "Pass a whole number."))
    if not 0 < ridge < math.inf:
        raise ValueError(explain(WHERE, "a ridge above 0", ridge, "LIME takes 1."))


def word_spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where the words of a sentence are, text[start:end], in the order of the players of its `TextGame`.

    Raises:
        ValueError: The tokenizer is a slow one.
    """
    if not getattr(tokenizer, "is_fast", False):
        fix = "Load it with AutoTokenizer, which prefers fast ones."
        raise ValueError(explain(WHERE, "a fast tokenizer, which knows its words", "a slow one", fix))
    encoded = tokenizer(text)
    marks = tokenizer.get_special_tokens_mask(encoded["input_ids"], already_has_special_tokens=True)
    places = [i for i, special in enumerate(marks) if not special]
    return [_trimmed(text, *encoded.word_to_chars(word)) for word in word_places(encoded, places)]


def _require_playable(spans: Sequence[Sequence[Any]], texts: Sequence[str]) -> None:
    for number, (some, text) in enumerate(zip(spans, texts, strict=True)):
        if len(some) > MOST_PLAYERS:
            fix = "Split the text into sentences."
            got = f"{len(some)} in sentence {number}: {text[:40]!r}"
            raise ValueError(explain(WHERE, f"sentences of at most {MOST_PLAYERS} words", got, fix))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without the blanks that some tokenizers count to a word."""
    word = text[start:end]
    return start + len(word) - len(word.lstrip()), end - len(word) + len(word.rstrip())


def _lime(present: Tensor, z: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Slopes (n, m) and R^2 (m,) of z (S, m) on which words are present (S, n)."""
    distance = 1 - present.mean(1).sqrt()
    return weighted_ridge(present, z, torch.exp(-distance.square() / (2 * _KERNEL_WIDTH**2)), ridge)


def _one_absent(count: int) -> Tensor:
    """(1 + n, n) int64: all words, then all but one."""
    return 1 - torch.cat([torch.zeros(1, count), torch.eye(count)]).long()


def _subsets(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """(samples, n) int64: how many words are present is uniform from 0 to n - 1, which ones too."""
    sizes = torch.randint(count, (samples, 1), generator=generator)
    return (torch.rand(samples, count, generator=generator).argsort(1).argsort(1) < sizes).long()
