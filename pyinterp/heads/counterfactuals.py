"""Sentences changed in one word: which changes turn the decision of a head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.heads.head import SparseHead
from pyinterp.heads.labels import require_classes
from pyinterp.heads.scored_words import TopWords
from pyinterp.heads.single import require_same_network
from pyinterp.heads.words import word_spans
from pyinterp.models.classifier import find_classifier, reading_features
from pyinterp.models.text import encode_texts

WHERE = "counterfactual_words"
SHOWN = 10  # sentences in a summary


@dataclass(frozen=True)
class WordFlip:
    """A change of one word that turned a decision.

    Attributes:
        sentence: Which one.
        word: What stood there.
        replacement: What stands there now; "" if the word was deleted.
        feature: Whose list the replacement is from; None for deletions.
        before: The class before.
        after: The class after.
        text: The changed sentence.
    """

    sentence: int
    word: str
    replacement: str
    feature: int | None
    before: int
    after: int
    text: str


@dataclass(frozen=True)
class WordFlips:
    """What single changes of words did to the decisions of a head; every one was run through the network.

    Attributes:
        texts: The sentences.
        decisions: The class of each.
        tried: How many changes of each were tried.
        flips: The changes that turned a decision, sentence by sentence.
        class_names: Of the head's classes.
    """

    texts: tuple[str, ...]
    decisions: tuple[int, ...]
    tried: tuple[int, ...]
    flips: tuple[WordFlip, ...]
    class_names: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Share of the sentences that at least one change turned."""
        return len({flip.sentence for flip in self.flips}) / len(self.texts)

    @property
    def change_rate(self) -> float:
        """Share of the changes that turned a decision: how well the words were chosen."""
        return len(self.flips) / max(sum(self.tried), 1)

    def summary(self) -> str:
        """The rates in a sentence, and the first flip of each of a few sentences."""
        lines = [
            f"{100 * self.rate:.0f} % of {len(self.texts)} sentences turn with one word changed; "
            f"{100 * self.change_rate:.1f} % of {sum(self.tried)} changes do it."
        ]
        first = {flip.sentence: flip for flip in reversed(self.flips)}
        for sentence in sorted(first)[:SHOWN]:
            flip = first[sentence]
            lines.append(f"  {self.class_names[flip.before]} -> {self.class_names[flip.after]}: {flip.text}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Change:
    sentence: int
    word: str
    replacement: str
    feature: int | None
    text: str


def counterfactual_words(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    head: SparseHead,
    words: Sequence[TopWords],
    *,
    batch_size: int = 64,
) -> WordFlips:
    """Change sentences in one word, and see which changes turn the decision of a head.

    Every word is deleted, and replaced by each word of the lists that speak against the decision: for the predicted
    class a and the runner-up b, the aligned words of features with W_bj > W_aj and the anti-aligned words of those with
    W_bj < W_aj. If the head reads what the lists say it reads, many sentences turn. To compare a sparse head with the
    dense one (`head_of`, or the last of the path), call it once for each, with the `top_words` of its own features.

    Args:
        model: The network that the features come from, in eval mode: takes what the tokenizer gives by keyword.
        tokenizer: Its tokenizer, a fast one.
        texts: Sentences.
        head: Multinomial or binary.
        words: From `top_words`; of features without weight for the two classes nothing is taken.
        batch_size: Sentences per forward.

    Returns:
        The flips. Changes that would make a sentence empty or longer than the model takes are not tried.

    Raises:
        ValueError: A sentence that is empty, too long, or has unknown words; a list with unknown words or of a feature
            that the head does not have; another network's head; a head of numbers.
        TypeError: Something of another type.
    """
    require_classes("counterfactual_words", head)
    for one in words:
        head.feature_number(one.feature)
    listed = sorted({word.word for one in words for word in (*one.aligned, *one.anti_aligned)})
    if listed:
        encode_texts(tokenizer, listed, f"{WHERE}, in the words")
    encoded = encode_texts(tokenizer, texts, WHERE)
    require_same_network(WHERE, head, model)
    classifier = find_classifier(model, encoded)

    with reading_features(model, classifier) as read:

        def logits(some: Sequence[str]) -> Tensor:
            parts = [some[i : i + batch_size] for i in range(0, len(some), batch_size)]
            return torch.cat([head.logits(read(encode_texts(tokenizer, part, WHERE))) for part in parts])

        before = logits(texts)
        top = before.topk(2, 1).indices.tolist()
        changes: list[_Change] = []
        for number, (text, (a, b)) in enumerate(zip(texts, top, strict=True)):
            changes += _changes(tokenizer, number, text, _against(head, words, a, b))
        after = logits([one.text for one in changes]).argmax(1).tolist() if changes else []
    tried = Counter(change.sentence for change in changes)
    flips = tuple(
        WordFlip(change.sentence, change.word, change.replacement, change.feature, was, now, change.text)
        for change, now in zip(changes, after, strict=True)
        if now != (was := top[change.sentence][0])
    )
    return WordFlips(
        texts=tuple(texts),
        decisions=tuple(a for a, _ in top),
        tried=tuple(tried[i] for i in range(len(texts))),
        flips=flips,
        class_names=tuple(head.name(k) for k in range(head.classes)),
    )


def _against(head: SparseHead, words: Sequence[TopWords], a: int, b: int) -> list[tuple[str, int]]:
    """(word, feature) that speak for class b against a; each word once."""
    weights, _ = head.rows
    found: dict[str, int] = {}
    for one in words:
        gain = float(weights[b, one.feature] - weights[a, one.feature])
        for word in (one.aligned if gain > 0 else one.anti_aligned) if gain else ():
            found.setdefault(word.word, one.feature)
    return list(found.items())


def _changes(tokenizer: Any, number: int, text: str, candidates: list[tuple[str, int]]) -> list[_Change]:
    spans = word_spans(tokenizer, text)
    found = []
    for start, end in spans:
        word = text[start:end]
        if not any(map(str.isalnum, word)):
            continue
        if len(spans) > 1:
            shorter = " ".join((text[:start] + text[end:]).split())
            found.append(_Change(number, word, "", None, shorter))
        for other, feature in candidates:
            if other != word.lower():
                found.append(_Change(number, word, other, feature, text[:start] + other + text[end:]))
    lengths = [len(ids) for ids in tokenizer([one.text for one in found])["input_ids"]] if found else []
    return [one for one, length in zip(found, lengths, strict=True) if length <= tokenizer.model_max_length]
