"""Changes of single words, against loops over all of them on a model whose features are known word by word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from bag_of_words import TEXTS, BagOfWords, tokenizer

from pyinterp.features import Features, extract_features
from pyinterp.heads.counterfactuals import counterfactual_words
from pyinterp.heads.head import SparseHead
from pyinterp.heads.words import ScoredWord, TopWords
from pyinterp.models.classifier import features_of, find_classifier
from pyinterp.models.text import encode_texts

pytest.importorskip("transformers")
LISTS = [
    TopWords(3, (ScoredWord("bad", 2.0, 3),), (), 9),
    TopWords(0, (ScoredWord("good", 1.0, 2), ScoredWord("plot", 0.5, 2)), (ScoredWord("long", -1.0, 3),), 9),
    TopWords(1, (ScoredWord("not", 1.0, 1),), (), 9),
]


@pytest.fixture(scope="module")
def planted() -> tuple[BagOfWords, Any, Features, SparseHead]:
    torch.manual_seed(0)
    model, words = BagOfWords().eval(), tokenizer()
    features = extract_features(model, encode_texts(words, TEXTS))
    head = SparseHead(
        weights=torch.tensor([[-0.5, 0, 0, 2.0, 0], [0.5, 0, 0, -2.0, 0]]),
        bias=torch.tensor([0.0, 0.1]),
        mean=features.mean,
        std=features.std,
        family="multinomial",
        class_names=("bad", "good"),
        classifier_name=features.classifier_name,
        model_digest=features.model_digest,
        origin={},
        version="",
    )
    return model, words, features, head


def by_loops(model: BagOfWords, words: Any, head: SparseHead, text: str) -> list[tuple[str, str, str, int]]:
    """(word, replacement, changed sentence, class after) of every change; class 0 is moved by what lowers 3 or
    raises 0."""
    classifier = find_classifier(model, encode_texts(words, TEXTS))

    def decide(sentence: str) -> int:
        ids = encode_texts(words, [sentence])
        return int(head.predict(features_of(model, classifier, ids))[0])

    against = {0: ["good", "plot"], 1: ["bad", "long"]}[decide(text)]
    parts, found = text.split(), []
    for i, word in enumerate(parts):
        if not word.isalnum():
            continue
        for new in ["", *against]:
            changed = " ".join([*parts[:i], *([new] if new else []), *parts[i + 1 :]])
            if new != word.lower():
                found.append((word, new, changed, decide(changed)))
    return found


def test_every_change_is_tried_and_verified(planted: tuple[BagOfWords, Any, Features, SparseHead]) -> None:
    model, words, features, head = planted
    found = counterfactual_words(model, words, TEXTS, head, LISTS, batch_size=7)
    assert found.texts == tuple(TEXTS) and found.decisions == tuple(head.predict(features.values).tolist())
    assert set(found.decisions) == {0, 1}
    flips = []
    for number, text in enumerate(TEXTS):
        changes = by_loops(model, words, head, text)
        assert found.tried[number] == len(changes)
        before = found.decisions[number]
        flips += [(number, *one[:3], before, one[3]) for one in changes if one[3] != before]
    assert flips
    assert sorted(flips) == sorted(
        (one.sentence, one.word, one.replacement, one.text, one.before, one.after) for one in found.flips
    )
    assert found.rate == len({one[0] for one in flips}) / len(TEXTS)
    assert found.change_rate == pytest.approx(len(flips) / sum(found.tried))
    assert {one.feature for one in found.flips if not one.replacement} <= {None}
    assert {one.feature for one in found.flips if one.replacement == "bad"} == {3}
    first, *lines = found.summary().splitlines()
    assert first.startswith(f"{100 * found.rate:.0f} % of 6 sentences turn")
    assert len(lines) == len({one[0] for one in flips})
    shown = found.flips[0]
    assert lines[0] == f"  {head.name(shown.before)} -> {head.name(shown.after)}: {shown.text}"


def test_deleting_the_planted_word_turns_the_decision(
    planted: tuple[BagOfWords, Any, Features, SparseHead],
) -> None:
    model, words, _, head = planted
    found = counterfactual_words(model, words, ["the film is bad"], head, [])
    assert [(one.word, one.replacement, one.text) for one in found.flips] == [("bad", "", "the film is")]
    assert found.rate == 1 and found.change_rate == 0.25 and found.tried == (4,)


def test_what_cannot_be_tried_is_left_out(planted: tuple[BagOfWords, Any, Features, SparseHead]) -> None:
    model, words, _, head = planted
    alone = counterfactual_words(model, words, ["bad"], head, [])
    assert (alone.tried, alone.flips, alone.rate, alone.change_rate) == ((0,), (), 0.0, 0.0)
    two = replace(LISTS[1], aligned=(ScoredWord("good good", 1.0, 2),))
    full = "bad " * 9 + "bad"
    found = counterfactual_words(model, words, [full], head, [two])
    assert found.tried == (10,)  # deletions alone: a replacement by two words would be a token too long


def test_binary_heads_and_unused_features(planted: tuple[BagOfWords, Any, Features, SparseHead]) -> None:
    model, words, _, head = planted
    binary = replace(
        head, weights=head.weights[1:] - head.weights[:1], bias=head.bias[1:] - head.bias[:1], family="binary"
    )
    both = [counterfactual_words(model, words, TEXTS, one, LISTS) for one in (head, binary)]
    assert both[0] == both[1]
    assert counterfactual_words(model, words, TEXTS, head, LISTS[2:]) == counterfactual_words(
        model, words, TEXTS, head, []
    )


def test_counterfactual_refusals(planted: tuple[BagOfWords, Any, Features, SparseHead]) -> None:
    model, words, _, head = planted

    def ask(texts: Any = TEXTS, head: SparseHead = head, lists: Any = (), model: Any = model) -> None:
        counterfactual_words(model, words, texts, head, lists)

    with pytest.raises(ValueError, match=r"a feature \(0 to 4\)"):
        ask(lists=[replace(LISTS[0], feature=5)])
    with pytest.raises(ValueError, match="in the words: expected words that the tokenizer knows, got 'zyx'"):
        ask(lists=[replace(LISTS[0], aligned=(ScoredWord("zyx", 1.0, 1),))])
    with pytest.raises(ValueError, match="words that the tokenizer knows, got 'zyx' in sentence 1"):
        ask(["bad", "the zyx"])
    with pytest.raises(ValueError, match="sentences with words"):
        ask([""])
    with pytest.raises(ValueError, match="a head of classes"):
        ask(head=replace(head, family="gaussian"))
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="the network that the features come from, got another"):
        ask(model=BagOfWords().eval())
