"""Audits of many samples against loops over samples, classes and features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from small_heads import by_hand, draws, samples, small_head
from torch import Tensor

from pyinterp.heads import (
    SparseHead,
    group_differences,
    removal,
    repairs,
    shared_features,
    single_repairs,
    top_k_accuracy,
    top_samples,
)
from pyinterp.heads import head as module

CLASSES = ("multinomial", "binary")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(removal, "ENTRIES_AT_ONCE", 50)


def labels_of(count: int, classes: int) -> Tensor:
    return torch.randint(0, classes, (count,), generator=draws(5))


# ---- shared features


@pytest.mark.parametrize("at_least", [0.0, 0.5])
def test_shared_features_are_all_pairs_of_one_sign(at_least: float) -> None:
    head = small_head(rows=5)
    expected = {}
    for j in range(7):
        for a in range(5):
            for b in range(a + 1, 5):
                one, other = float(head.weights[a, j]), float(head.weights[b, j])
                if one * other > 0 and min(abs(one), abs(other)) >= at_least:
                    expected[j, (a, b)] = (one, other)
    found = shared_features(head, at_least)
    assert {(s.feature, s.classes): s.weights for s in found} == expected and len(found) == len(expected)
    smaller = [min(map(abs, s.weights)) for s in found]
    assert smaller == sorted(smaller, reverse=True) and found
    assert len(shared_features(head, smaller[2])) == 3  # the limit itself belongs to them


def test_a_binary_head_shares_nothing() -> None:
    assert shared_features(small_head(family="binary")) == []


# ---- top samples


def test_top_samples() -> None:
    x = torch.tensor([[0.0, 3], [0, 1], [0, 3], [0, 2]])
    assert top_samples(x, 1, 3) == [0, 2, 3]
    assert top_samples(x, 1, 2, lowest=True) == [1, 3]
    assert top_samples(x, 0) == [0, 1, 2, 3]


# ---- repairs


@pytest.mark.parametrize("family", CLASSES)
def test_repairs_are_found_by_trying_each_feature_on_each_error(family: str) -> None:
    head, x = small_head(2, family), samples(2, 40)
    y = labels_of(40, head.classes)
    errors: dict[tuple[int, int], int] = {}
    expected: dict[tuple[int, int, int], list[int]] = {}
    for i, label in enumerate(y.tolist()):
        logits = by_hand(head, x[i])
        got = logits.index(max(logits))
        if got != label:
            errors[label, got] = errors.get((label, got), 0) + 1
            for j in range(7):
                without = by_hand(head, x[i], (j,))
                if without[label] > max(v for k, v in enumerate(without) if k != label):
                    expected.setdefault((j, label, got), []).append(i)
    found = repairs(head, x, y)
    assert {(r.feature, r.label, r.predicted): list(r.samples) for r in found} == expected and expected
    assert all(r.errors == errors[r.label, r.predicted] and r.repaired == len(r.samples) for r in found)
    assert [r.repaired for r in found] == sorted((len(v) for v in expected.values()), reverse=True)
    for one in found[:5]:
        assert all(one.feature in single_repairs(head, x[i], one.label) for i in one.samples)


def test_nothing_to_repair() -> None:
    head, x = small_head(), samples(0, 20)
    assert repairs(head, x, head.predict(x)) == []


# ---- groups


@pytest.mark.parametrize(("family", "class_"), [("multinomial", 2), ("binary", 1), ("gaussian", 0)])
def test_group_differences_are_welchs(family: str, class_: int) -> None:
    head, x = small_head(family=family), samples(0, 50)
    group = torch.arange(50) % 3 == 0
    row = head.weights[0 if family == "binary" else class_]
    found = group_differences(head, x, group, class_)
    assert sorted(one.feature for one in found) == row.nonzero()[:, 0].tolist()
    for one in found:
        j = one.feature
        shares = float(row[j]) * (x[:, j] - head.mean[j]).numpy() / float(head.std[j])
        inside, outside = shares[group.numpy()], shares[~group.numpy()]
        assert one.inside == pytest.approx(np.mean(inside)) and one.outside == pytest.approx(np.mean(outside))
        welch = ttest_ind(inside, outside, equal_var=False).statistic
        assert one.difference / one.error == pytest.approx(welch)
    sizes = [abs(one.difference) for one in found]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) > 2


def test_a_planted_shortcut_is_the_largest_difference() -> None:
    head, x = small_head(), samples(0, 200)
    group = torch.arange(200) < 50
    x[group, 4] += 5
    head = head.edit(4, 0, 1.0)
    assert group_differences(head, x, group, 0)[0].feature == 4


# ---- top k


def top_k_by_hand(head: SparseHead, x: Tensor, y: Tensor, count: int) -> tuple[float, float]:
    only = rest = 0
    for i, label in enumerate(y.tolist()):
        logits = by_hand(head, x[i])
        row = head.weights[0 if head.family == "binary" else logits.index(max(logits))]
        z = (x[i] - head.mean) / head.std
        used = [j for j in range(len(z)) if row[j] != 0]
        top = sorted(used, key=lambda j: -abs(float(row[j] * z[j])))[:count]
        kept = by_hand(head, x[i], tuple(set(range(len(z))) - set(top)))
        left = by_hand(head, x[i], tuple(top))
        only += kept.index(max(kept)) == label
        rest += left.index(max(left)) == label
    return only / len(y), rest / len(y)


@pytest.mark.parametrize("family", CLASSES)
def test_top_k_accuracy_by_loops(family: str) -> None:
    head, x = small_head(1, family, width=8), samples(1, 60, width=8)
    y = torch.where(torch.arange(60) % 4 > 0, head.predict(x), labels_of(60, head.classes))
    found = top_k_accuracy(head, x, y, counts=(1, 2, 4, 50))
    assert found == {count: top_k_by_hand(head, x, y, count) for count in (1, 2, 4, 50)}
    assert len(set(found.values())) > 2


# ---- bad input

HEAD, X, Y = small_head(), samples(0, 6), torch.zeros(6, dtype=torch.int64)
NUMBERS, TWO = small_head(family="gaussian"), small_head(family="binary")
SOME = torch.arange(6) < 3
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "shared by numbers": (lambda: shared_features(NUMBERS), ValueError, "shared_features: expected a head of classes"),
    "a feature beyond": (lambda: top_samples(X, 7), ValueError, r"one of them, got \(6, 7\) and 7"),
    "a feature below": (lambda: top_samples(X, -1), ValueError, r"got \(6, 7\) and -1"),
    "top of nobody": (lambda: top_samples(X[:0], 0), ValueError, r"one of them, got \(0, 7\) and 0"),
    "top of an array": (lambda: top_samples(X.numpy(), 0), TypeError, "top_samples: expected .*, got ndarray"),  # type: ignore[arg-type]
    "one row": (lambda: top_samples(X[0], 0), ValueError, r"got \(7,\) and 0"),
    "no samples wanted": (lambda: top_samples(X, 0, 0), ValueError, "a count of at least 1, got 0"),
    "repairs of numbers": (lambda: repairs(NUMBERS, X, Y), ValueError, "repairs: expected a head of classes"),
    "repairs of other labels": (lambda: repairs(HEAD, X, Y + 4), ValueError, "labels 0 to 3, got 4 to 4"),
    "repairs of fewer labels": (lambda: repairs(HEAD, X, Y[:5]), ValueError, r"got \(5,\) for features \(6, 7\)"),
    "repairs of an array": (lambda: repairs(HEAD, X.numpy(), Y), TypeError, "repairs: .*got ndarray"),  # type: ignore[arg-type]
    "top k of float labels": (lambda: top_k_accuracy(HEAD, X, Y.float()), TypeError, "got torch.float32"),
    "top k of no k": (lambda: top_k_accuracy(HEAD, X, Y, ()), ValueError, r"counts of at least 1, got \(\)\."),
    "top k of one k": (lambda: top_k_accuracy(HEAD, X, Y, 5), ValueError, "counts of at least 1, got 5. Pass a list"),  # type: ignore[arg-type]
    "top 1.5": (lambda: top_k_accuracy(HEAD, X, Y, [1.5]), ValueError, r"counts of at least 1, got \[1\.5\]"),  # type: ignore[list-item]
    "top 0": (lambda: top_k_accuracy(HEAD, X, Y, (0, 1)), ValueError, r"counts of at least 1, got \(0, 1\)"),
    "top k of nobody": (lambda: top_k_accuracy(HEAD, X[:0], Y[:0]), ValueError, r"got \(0,\) for features \(0, 7\)"),
    "a group of numbers": (lambda: group_differences(HEAD, X, Y, 0), ValueError, r"\(6,\), got torch.int64 \(6,\)"),
    "a short group": (lambda: group_differences(HEAD, X, SOME[:5], 0), ValueError, r"got torch.bool \(5,\)"),
    "a group in a list": (lambda: group_differences(HEAD, X, [True] * 6, 0), ValueError, "got list"),  # type: ignore[arg-type]
    "a group of one": (lambda: group_differences(HEAD, X, torch.arange(6) < 1, 0), ValueError, "outside, got 1 and 5"),
    "a group of all": (lambda: group_differences(HEAD, X, torch.arange(6) < 6, 0), ValueError, "outside, got 6 and 0"),
    "class 0 of two": (lambda: group_differences(TWO, X, SOME, 0), ValueError, "class 1 of a binary head, got class 0"),
    "an unknown class": (lambda: group_differences(HEAD, X, SOME, 4), ValueError, "got 4"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, kind, said = BAD[case]
    with pytest.raises(kind, match=said):
        call()
