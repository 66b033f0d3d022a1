"""Effects of words, against a model whose features are known word by word, scikit-learn and all subsets."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import Any

import pytest
import torch
from bag_of_words import TEXTS, BagOfWords, tokenizer
from torch import Tensor

from pyinterp.features import Features, extract_features
from pyinterp.features.ridge import weighted_ridge
from pyinterp.games import TextGame
from pyinterp.heads.single import feature_model
from pyinterp.heads.words import WordEffects, top_words, word_effects
from pyinterp.models.text import encode_texts

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def planted() -> tuple[BagOfWords, Any, Features]:
    torch.manual_seed(0)
    model, words = BagOfWords().eval(), tokenizer()
    return model, words, extract_features(model, encode_texts(words, TEXTS))


def expected(model: BagOfWords, words: Any, features: Features, text: str, j: int) -> Tensor:
    """(n,) what each word adds to mean feature j < 4: its vector over the length, with both marks."""
    ids = words(text)["input_ids"][1:-1]
    return model.vectors.weight[ids, j].detach().double() / (len(ids) + 2) / features.std[j]


def test_effects_are_the_word_vectors(planted: tuple[BagOfWords, Any, Features]) -> None:
    model, words, features = planted
    found = word_effects(model, words, TEXTS, features, [3, 0], samples=100, ridge=1e-9, progress=False)
    assert [one.text for one in found] == TEXTS
    z = (features.values.double() - features.mean) / features.std
    for row, one in enumerate(found):
        assert one.words == tuple(TEXTS[row].split()) and one.features == (3, 0)
        assert [one.text[a:b] for a, b in one.spans] == list(one.words)
        torch.testing.assert_close(one.z, z[row, [3, 0]], rtol=1e-5, atol=1e-5)
        for column, j in enumerate(one.features):
            truth = expected(model, words, features, one.text, j)
            torch.testing.assert_close(one.single[:, column], truth, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one.linear[:, column], truth, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.explained, torch.ones(2).double(), rtol=0, atol=1e-6)
    bad = found[0]
    assert int(bad.single[:, 0].argmax()) == 3 and int(bad.single[:, 0].count_nonzero()) == 1


def test_slopes_of_an_and_come_to_those_of_all_subsets(planted: tuple[BagOfWords, Any, Features]) -> None:
    model, words, features = planted
    (one,) = word_effects(
        model, words, TEXTS[:1], features, [4], samples=20000, ridge=1e-6, batch_size=5000, progress=False
    )
    rows, weights, answers = [], [], []
    for k in range(4):
        subsets = list(combinations(range(4), k))
        for subset in subsets:
            rows.append([float(i in subset) for i in range(4)])
            weights.append(kernel(k, 4) / len(subsets))
            answers.append([float({1, 3} <= set(subset)) / float(features.std[4])])
    slopes, share = weighted_ridge(*(torch.tensor(x).double() for x in (rows, answers, weights)), 1e-9)
    torch.testing.assert_close(one.linear, slopes, rtol=0.05, atol=0.05)
    torch.testing.assert_close(one.explained, share, rtol=0.05, atol=0)
    torch.testing.assert_close(one.single[:, 0] * features.std[4], torch.tensor([0.0, 1, 0, 1]).double())


def kernel(k: int, n: int) -> float:
    """LIME's: sqrt(exp(-d^2 / 25^2)), d = 100 times the cosine distance."""
    distance = 100 * (1 - (k / n) ** 0.5)
    return float(torch.tensor(-(distance**2) / 25**2).double().exp().sqrt())


def test_ridge_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 5, generator=generator).double().round()
    y = torch.randn(40, 3, generator=generator).double() + x @ torch.randn(5, 3, generator=generator).double()
    w = torch.rand(40, generator=generator).double() + 0.1
    slopes, explained = weighted_ridge(x, y, w, 0.7)
    peer = linear_model.Ridge(alpha=0.7).fit(x, y, sample_weight=w)
    torch.testing.assert_close(slopes, torch.as_tensor(peer.coef_).T, rtol=1e-9, atol=1e-12)
    for column in range(3):
        single = linear_model.Ridge(alpha=0.7).fit(x, y[:, column], sample_weight=w)
        assert float(explained[column]) == pytest.approx(single.score(x, y[:, column], sample_weight=w))
    assert weighted_ridge(x, torch.ones(40, 1).double(), w, 1.0)[1].tolist() == [1.0]


def test_same_seed_same_effects_and_the_model_stays(planted: tuple[BagOfWords, Any, Features]) -> None:
    model, words, features = planted
    before = copy.deepcopy(model.state_dict())
    runs = [
        word_effects(model, words, TEXTS, features, [4], seed=seed, samples=50, progress=False)
        for seed in (1, 1, 2)
    ]
    same = [torch.stack([one.linear.sum() for one in run]) for run in runs]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.fc._forward_hooks and not model.training


def test_a_game_of_one_feature(planted: tuple[BagOfWords, Any, Features]) -> None:
    model, words, features = planted
    single = feature_model(model, features, 4, encode_texts(words, TEXTS))
    values = TextGame(single, words, TEXTS[0], target=0).values(progress=False)
    both = torch.tensor([float(code & 10 == 10) for code in range(16)]).double()
    z = (both - features.mean[4]) / features.std[4]
    torch.testing.assert_close(values.double(), z, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_effects_on_a_gpu(planted: tuple[BagOfWords, Any, Features]) -> None:
    model, words, features = planted
    ask = {"samples": 20, "progress": False}
    here = word_effects(model, words, TEXTS, features, [0, 4], **ask)
    there = word_effects(copy.deepcopy(model).cuda(), words, TEXTS, features, [0, 4], **ask)
    for one, two in zip(here, there, strict=True):
        torch.testing.assert_close(one.linear, two.linear, rtol=1e-3, atol=1e-4)


def effects_of(words: list[str], values: list[float]) -> WordEffects:
    n = len(words)
    column = torch.tensor(values).double()[:, None]
    spans = tuple((0, 0) for _ in words)
    zero = torch.zeros(1).double()
    return WordEffects(" ".join(words), tuple(words), spans, (7,), zero, -column, column, zero + n)


def test_top_words_are_means_beyond_percentiles() -> None:
    effects = [effects_of(["Soup", "the", "bus", "!"], [2.0, 0.1, -1.0, 9.0]), effects_of(["soup"], [4.0])]
    (top,) = top_words(effects, percentile=60)
    assert top.feature == 7 and top.words == 3
    assert [(one.word, one.effect, one.count) for one in top.aligned] == [("soup", 3.0, 2)]
    assert [(one.word, one.effect, one.count) for one in top.anti_aligned] == [("bus", -1.0, 1)]
    (single,) = top_words(effects, percentile=100, by="single")
    assert [one.word for one in single.anti_aligned] == ["soup"]
    (often,) = top_words(effects, at_least=2)
    assert (often.words, often.anti_aligned) == (1, ())
    assert top.summary().splitlines() == [
        "Feature 7, of 3 words:",
        "  raised by soup (+3.00, 2x)",
        "  lowered by bus (-1.00, 1x)",
    ]


def test_the_planted_word_is_found(planted: tuple[BagOfWords, Any, Features]) -> None:
    model, words, features = planted
    effects = word_effects(model, words, TEXTS, features, samples=100, ridge=1e-6, progress=False)
    tops = top_words(effects, percentile=90)
    assert [top.feature for top in tops] == [0, 1, 2, 3, 4]
    truths = [
        float(expected(model, words, features, text, 3).max()) for text in TEXTS if "bad" in text.lower()
    ]
    (bad,) = tops[3].aligned
    assert (bad.word, bad.count) == ("bad", 3)
    assert bad.effect == pytest.approx(sum(truths) / 3, rel=1e-4)


def test_refusals(planted: tuple[BagOfWords, Any, Features]) -> None:
    model, words, features = planted

    def ask(texts: Any = TEXTS, numbers: Any = (3,), **options: Any) -> None:
        word_effects(options.pop("model", model), words, texts, features, numbers, progress=False, **options)

    for numbers in ([5], [-1]):
        with pytest.raises(ValueError, match="word_effects: expected a feature 0 to 4"):
            ask(numbers=numbers)
    with pytest.raises(ValueError, match="at least one feature, got none"):
        ask(numbers=[])
    with pytest.raises(TypeError, match="whole number"):
        ask(numbers=[0.5])
    with pytest.raises(ValueError, match="sentences with words, got sentence 1: ' '"):
        ask(["the film", " "])
    with pytest.raises(ValueError, match="words that the tokenizer knows, got 'zyx' in sentence 0"):
        ask(["the zyx film"])
    with pytest.raises(ValueError, match="at most 12 tokens, as the model takes them, got 22 in sentence 0"):
        ask(["bad " * 20])
    with pytest.raises(TypeError, match="a list of strings, got one string"):
        ask("the film")
    with pytest.raises(ValueError, match="at least one sentence"):
        ask([])
    for options in ({"samples": 0}, {"ridge": 0.0}, {"ridge": float("inf")}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ask(**options)
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="the network that the features come from, got another"):
        ask(model=BagOfWords().eval())
    longer = tokenizer(200)
    with pytest.raises(ValueError, match="at most 62 words, got 63 in sentence 0"):
        word_effects(model, longer, ["bad " * 63], features, [3], progress=False)
    one = effects_of(["soup"], [1.0])
    for bad, options, match in (
        ([], {}, "got none"),
        ([one], {"by": "lime"}, "by"),
        ([one], {"percentile": 20}, "percentile"),
        ([one], {"at_least": 2}, "met at least 2 times"),
    ):
        with pytest.raises(ValueError, match=match):
            top_words(bad, **options)
