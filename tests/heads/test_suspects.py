"""suspects: against loops written from the definition, exact fractions, and planted features."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import comb

import pytest
import torch
from torch import Tensor

from pyinterp.heads import SparseHead
from pyinterp.heads.suspects import Suspect, _sign_test, suspects


def make_head(weights: Tensor, bias: Tensor | None = None, family: str = "multinomial") -> SparseHead:
    classes, width = weights.shape
    return SparseHead(
        weights=weights,
        bias=torch.zeros(classes) if bias is None else bias,
        mean=torch.zeros(width, dtype=torch.float64),
        std=torch.ones(width, dtype=torch.float64),
        family=family,
        class_names=(),
        classifier_name="",
        model_digest="",
        origin={},
        version="",
    )


def shortcut(seed: int, count: int = 300, strength: float = 3.0) -> tuple[SparseHead, Tensor, Tensor]:
    """Three classes with a feature each, and feature 3, a coin that speaks for class 1; feature 4 is used by none."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    features = 0.3 * torch.randn(count, 5, generator=generator)
    features[torch.arange(count), labels] += 1
    features[:, 3] = (torch.rand(count, generator=generator) < 0.3).float()
    weights = torch.zeros(3, 5)
    weights[:, :3] = 2 * torch.eye(3)
    weights[1, 3] = strength
    return make_head(weights), features, labels


def slow(head: SparseHead, features: Tensor, labels: Tensor, level: float) -> list[Suspect]:
    """Every feature taken away in turn, every sample predicted again."""
    found: list[Suspect] = []
    while True:
        right = head.predict(features) == labels
        best: Suspect | None = None
        for j in head.features_used.tolist():
            now = head.without(j).predict(features) == labels
            repaired, broken = (now & ~right).nonzero()[:, 0].tolist(), int((right & ~now).sum())
            n = len(repaired) + broken
            tail = Fraction(sum(comb(n, i) for i in range(len(repaired), n + 1)), 2**n)
            p = min(1.0, float(tail * len(head.features_used)))
            gain = len(repaired) - broken
            if gain > (best.repaired - best.broken if best else 0) and p <= level:
                taken = head.predict(features)[repaired].mode().values
                best = Suspect(j, int(taken), len(repaired), broken, p, tuple(repaired))
        if best is None:
            return found
        found.append(best)
        head = head.without(best.feature)


def equal(found: list[Suspect], wanted: list[Suspect]) -> bool:
    close = [a.p_value == pytest.approx(b.p_value, rel=1e-9) for a, b in zip(found, wanted, strict=True)]
    return all(close) and [replace(a, p_value=0) for a in found] == [replace(b, p_value=0) for b in wanted]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.05, 1.0])
def test_equals_its_definition(seed: int, level: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(4, 12, generator=generator)
    weights *= torch.rand(4, 12, generator=generator) < 0.4
    weights[:, :3] = 2 * torch.randn(4, 3, generator=generator)
    head = make_head(weights, torch.randn(4, generator=generator))
    features = torch.randn(200, 12, generator=generator)
    # Labels of a head without some features: those are wrong, and there is much to find.
    labels = head.without([0, 1, 2]).predict(features)
    found = suspects(head, features, labels, level=level)
    assert found
    assert equal(found, slow(head, features, labels, level))


def test_a_shortcut_is_found_and_named() -> None:
    head, features, labels = shortcut(0)
    found = suspects(head, features, labels)
    assert [(one.feature, one.class_) for one in found] == [(3, 1)]
    after = head.without([one.feature for one in found]).accuracy(features, labels)
    gain = (found[0].repaired - found[0].broken) / len(labels)
    assert after == pytest.approx(head.accuracy(features, labels) + gain)
    assert after > 0.9 > head.accuracy(features, labels)
    assert all(features[i, 3] == 1 and labels[i] != 1 for i in found[0].samples)


def test_two_features_with_one_shortcut_are_found_one_after_the_other() -> None:
    """Either alone decides, so that the removal of one repairs little while the other is there."""
    head, features, labels = shortcut(1)
    features[:, 4] = features[:, 3]
    weights = head.weights.clone()
    weights[1, 4] = 1.7
    found = suspects(replace(head, weights=weights), features, labels)
    assert [one.feature for one in found] == [3, 4]


def test_what_goes_with_the_label_is_no_suspect() -> None:
    """The same feature on samples that share the flaw of the training set: it helps there."""
    head, features, labels = shortcut(2)
    features[:, 3] = (labels == 1).float()
    assert suspects(head, features, labels) == []


def test_features_that_mean_nothing_are_rarely_reported() -> None:
    """Labels by chance: every removal helps and hurts alike."""
    generator = torch.Generator().manual_seed(0)
    false = 0
    for _ in range(100):
        head = make_head(torch.randn(3, 8, generator=generator))
        features = torch.randn(60, 8, generator=generator)
        labels = torch.randint(3, (60,), generator=generator)
        false += bool(suspects(head, features, labels))
    assert false <= 10  # 5 are allowed on average; more than 10 have a probability of 1 %


def test_a_binary_head_equals_the_one_with_two_rows() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(1, 6, generator=generator)
    features = torch.randn(100, 6, generator=generator)
    one = make_head(weights, torch.tensor([0.3]), "binary")
    two = make_head(torch.cat([0 * weights, weights]), torch.tensor([0.0, 0.3]))
    labels = one.without([0, 1]).predict(features)
    found = suspects(one, features, labels)
    assert found and found == suspects(two, features, labels)


@pytest.mark.parametrize(("more", "fewer"), [(1, 0), (5, 5), (10, 2), (120, 80), (0, 4)])
def test_the_sign_test_is_exact(more: int, fewer: int) -> None:
    n = more + fewer
    wanted = Fraction(sum(comb(n, i) for i in range(more, n + 1)), 2**n)
    assert _sign_test(more, fewer) == pytest.approx(float(wanted), rel=1e-10)


def test_nothing_to_find() -> None:
    head, features, labels = shortcut(4)
    assert suspects(head.without(list(range(5))), features, labels) == []


@pytest.mark.parametrize("level", [0.0, 1.5, float("nan")])
def test_a_level_out_of_range_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match=r"suspects: expected a level above 0"):
        suspects(*shortcut(0), level=level)


def test_other_bad_input_is_refused() -> None:
    head, features, labels = shortcut(0)
    with pytest.raises(
        ValueError, match=r"suspects: expected one label .*, got \(299,\) for features \(300, 5\)"
    ):
        suspects(head, features, labels[:-1])
    with pytest.raises(ValueError, match=r"suspects: expected one label .*, got \(0,\)"):
        suspects(head, features[:0], labels[:0])
    with pytest.raises(ValueError, match="suspects: expected labels 0 to 2, got 1 to 3"):
        suspects(head, features, labels + 1)
    with pytest.raises(TypeError, match=r"suspects: expected a tensor of class numbers, got torch\.float32"):
        suspects(head, features, labels.float())
    with pytest.raises(TypeError, match="suspects: expected a tensor of features, or Features, got ndarray"):
        suspects(head, features.numpy(), labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"suspects: expected features \(N, 5\)"):
        suspects(head, features[:, :4], labels)
    with pytest.raises(ValueError, match=r"a head of classes, got one of numbers"):
        suspects(replace(head, family="gaussian"), features, labels)
