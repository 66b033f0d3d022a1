"""Explanations of one sample: exact sums, and smallest changes against a search over all sets of features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from math import fsum
from typing import Any

import pytest
import torch
from small_heads import by_hand, samples, small_head
from torch import Tensor

from pyinterp.heads import (
    SparseHead,
    contributions,
    explain_margin,
    removal,
    single_repairs,
    smallest_flip,
    smallest_flips,
    smallest_repair,
)
from pyinterp.heads.reading import Flip

CLASSES = {"multinomial": 4, "binary": 2}


def best(logits: list[float]) -> int:
    return logits.index(max(logits))


# ---- contributions and margins


@pytest.mark.parametrize("family", CLASSES)
def test_contributions_and_biases_make_the_margin(family: str) -> None:
    head, x = small_head(family=family), samples(0, 12)
    _, bias = head.rows
    for a in range(head.classes):
        for b in range(head.classes):
            parts = contributions(head, x, a, b)
            assert parts.shape == x.shape
            logits = head.logits(x)
            torch.testing.assert_close(parts.sum(1) + bias[a] - bias[b], logits[:, a] - logits[:, b])
    j, i = 3, 5
    z = (float(x[i, j]) - float(head.mean[j])) / float(head.std[j])
    expected = (float(head.rows[0][1, j]) - float(head.rows[0][0, j])) * z
    assert float(contributions(head, x, 1, 0)[i, j]) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", CLASSES)
def test_a_margin_is_the_sum_of_what_is_shown(family: str, dtype: torch.dtype) -> None:
    for seed in range(6):
        head, x = small_head(seed, family, dtype=dtype), samples(seed, 1)[0]
        logits = by_hand(head, x)
        found = explain_margin(head, x)
        assert found.class_ == best(logits)
        assert found.against == max(
            (k for k in range(len(logits)) if k != found.class_), key=logits.__getitem__
        )
        near = 1e-5 if dtype == torch.float32 else 1e-12
        assert found.margin == pytest.approx(logits[found.class_] - logits[found.against], abs=near)
        assert fsum([found.bias, *(one.share for one in found.contributions)]) == pytest.approx(
            found.margin, abs=1e-13
        )
        weights, _ = head.rows
        used = [j for j in range(7) if float(weights[found.class_, j]) != float(weights[found.against, j])]
        assert sorted(one.feature for one in found.contributions) == used
        assert all(
            one.share == pytest.approx(one.weight * one.value, abs=1e-15) for one in found.contributions
        )
        sizes = [abs(one.share) for one in found.contributions]
        assert sizes == sorted(sizes, reverse=True)


def test_the_two_classes_can_be_chosen() -> None:
    head, x = small_head(class_names=("a", "b", "c", "d")), samples(3, 1)
    logits = by_hand(head, x[0])
    order = sorted(range(4), key=lambda k: -logits[k])
    chosen = explain_margin(head, x, "c", "b")
    assert (chosen.class_, chosen.against) == (2, 1)
    assert chosen.margin == pytest.approx(logits[2] - logits[1])
    assert explain_margin(head, x, class_=order[2]).against == order[0]
    assert explain_margin(head, x, against=order[0]).class_ == order[1]


# ---- smallest flips


def smallest_by_search(head: SparseHead, x: Tensor, to: int | None) -> int | None:
    """The size of the smallest set of features without which the class (or ``to``) is above the predicted one."""
    top = best(by_hand(head, x))
    rivals = [to] if to is not None else [k for k in range(head.classes) if k != top]
    for size in range(1, len(x) + 1):
        for some in combinations(range(len(x)), size):
            logits = by_hand(head, x, some)
            if any(logits[k] > logits[top] + 1e-9 for k in rivals):
                return size
    return None


def check_flip(head: SparseHead, x: Tensor, found: Flip | None, to: int | None) -> int | None:
    size = smallest_by_search(head, x, to)
    assert (None if found is None else len(found.features)) == size
    if found is not None:
        before, after = by_hand(head, x), by_hand(head, x, found.features)
        assert (found.before, found.after) == (best(before), best(after)) and found.after != found.before
        assert after[found.rival] > after[found.before]
        assert to is None or found.rival == to
        gaps = [before[found.before] - before[found.rival]]
        for place in range(len(found.features)):
            rest = by_hand(head, x, found.features[: place + 1])
            gaps.append(rest[found.before] - rest[found.rival])
        shares = [a - b for a, b in pairwise(gaps)]
        assert all(a >= b - 1e-9 for a, b in pairwise(shares)) and shares[-1] > 0
    return size


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("used", [0.4, 1.0])
def test_a_smallest_flip_is_smallest_and_flips(family: str, used: float) -> None:
    sizes = set()
    for seed in range(25):
        head, x = small_head(seed, family, width=6, used=used), samples(seed, 1, width=6)[0]
        sizes.add(check_flip(head, x, smallest_flip(head, x), None))
    assert {1, 2, None} <= sizes if used < 1 else {1, 2} <= sizes


def test_a_flip_to_a_chosen_class() -> None:
    thirds, sizes = 0, set()
    for seed in range(25):
        head, x = small_head(seed, width=6, rows=3), samples(seed, 1, width=6)[0]
        top = best(by_hand(head, x))
        for to in {0, 1, 2} - {top}:
            found = smallest_flip(head, x, to)
            sizes.add(check_flip(head, x, found, to))
            thirds += found is not None and found.after != to
    assert thirds and {None, 1, 2} <= sizes


def test_a_tie_is_no_flip() -> None:
    """Whole numbers: without feature 2 the two classes are equal, without 0 and 2 the second is above."""
    head = small_head(rows=2, width=4)
    weights = torch.tensor([[1, 0, 2, 0], [0, 0, 0, 0]], dtype=torch.float64)
    bias = torch.tensor([-1, 0], dtype=torch.float64)
    head = replace(head, weights=weights, bias=bias, mean=torch.zeros(4).double(), std=torch.ones(4).double())
    for swapped in (False, True):
        one = replace(head, weights=weights.flip(0), bias=bias.flip(0)) if swapped else head
        found = smallest_flip(one, torch.ones(4))
        assert found == Flip((2, 0), int(swapped), int(not swapped), int(not swapped))


def test_many_flips_at_once_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = small_head(5), samples(5, 40)
    expected = [smallest_flip(head, row) for row in x]
    assert smallest_flips(head, x) == expected and sum(one is not None for one in expected) > 20
    monkeypatch.setattr(removal, "ENTRIES_AT_ONCE", 3 * 2 * head.weights.numel())
    assert smallest_flips(head, x) == expected
    predicted = head.predict(x).tolist()
    to_first = [
        None if top == 0 else smallest_flip(head, row, 0) for row, top in zip(x, predicted, strict=True)
    ]
    assert smallest_flips(head, x, to=0) == to_first and any(to_first)


def test_a_head_without_features_has_no_flip() -> None:
    head = small_head()
    assert smallest_flip(replace(head, weights=0 * head.weights), samples(0, 1)[0]) is None


# ---- single repairs


@pytest.mark.parametrize("family", CLASSES)
def test_single_repairs_are_found_by_trying_each_feature(family: str) -> None:
    counts = set()
    for seed in range(25):
        head, x = small_head(seed, family), samples(seed, 1)[0]
        top = best(by_hand(head, x))
        for label in set(range(head.classes)) - {top}:
            leads = {}
            for j in range(7):
                logits = by_hand(head, x, (j,))
                others = [logits[k] for k in range(head.classes) if k != label]
                leads[j] = logits[label] - max(others)
            expected = sorted((j for j in leads if leads[j] > 1e-9), key=lambda j: -leads[j])
            assert single_repairs(head, x, label) == expected
            counts.add(len(expected))
    assert {0, 1, 2} <= counts


def test_a_repair_may_lie_in_the_right_class_alone() -> None:
    """The label's own negative weight holds it down, on a feature that the predicted class does not use."""
    weights = torch.tensor([[1.0, 0, 0], [0, 0, -3], [0, 0, 0]]).double()
    head = replace(small_head(rows=3, width=3), weights=weights, bias=torch.tensor([0, 1.5, 0]).double(),
                   mean=torch.zeros(3).double(), std=torch.ones(3).double())  # fmt: skip
    assert single_repairs(head, torch.ones(3), 1) == [2]
    assert single_repairs(head, torch.ones(3), 2) == []


# ---- smallest repairs


def smallest_repair_by_search(head: SparseHead, x: Tensor, label: int) -> int | None:
    """The size of the smallest set of features without which the label is above all other classes."""
    for size in range(1, len(x) + 1):
        for some in combinations(range(len(x)), size):
            logits = by_hand(head, x, some)
            if all(logits[label] > logits[k] + 1e-9 for k in range(head.classes) if k != label):
                return size
    return None


@pytest.mark.parametrize("family", CLASSES)
def test_a_smallest_repair_gives_the_label_and_says_whether_it_is_smallest(family: str) -> None:
    sizes, thirds = set(), 0
    for seed in range(40):
        head, x = small_head(seed, family, used=0.9), samples(seed, 1)[0]
        top = best(by_hand(head, x))
        for label in set(range(head.classes)) - {top}:
            found, size = smallest_repair(head, x, label), smallest_repair_by_search(head, x, label)
            sizes.add(size)
            if found is None:
                assert size is None or (size > 2 and family == "multinomial")
                continue
            assert size is not None and best(by_hand(head, x, found.features)) == label
            assert (found.before, found.after, found.rival) == (top, label, label)
            assert len(found.features) == size or (len(found.features) > size > 2 and not found.smallest)
            flip = smallest_flip(head, x, label)
            thirds += flip is not None and flip.after != label
    assert {None, 1, 2} <= sizes
    if family == "multinomial":
        assert thirds > 5 and 3 in sizes


def test_large_repairs_are_found_and_told_from_smallest_ones() -> None:
    """Four features hold class 1 above the label, four others class 2: eight must go, of which each class asks four."""
    weights = torch.zeros(3, 9).double()
    weights[1, :4] = weights[2, 4:8] = 1
    bias = torch.tensor([0.5, 0, 0]).double()
    plain = {"mean": torch.zeros(9).double(), "std": torch.ones(9).double()}
    head = replace(small_head(rows=3, width=9), weights=weights, bias=bias, **plain)
    found = smallest_repair(head, torch.ones(9), 0)
    assert found is not None and sorted(found.features) == list(range(8)) and not found.smallest
    one_rival = replace(head, weights=weights[:2], bias=bias[:2])
    found = smallest_repair(one_rival, torch.ones(9), 0)
    assert found is not None and sorted(found.features) == [0, 1, 2, 3] and found.smallest


# ---- bad input

HEAD, X = small_head(class_names=("cat", "dog", "cow", "hen")), samples(0, 3)
TOP = int(HEAD.predict(X[:1]))
NUMBERS = small_head(family="gaussian")
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "two samples": (lambda: explain_margin(HEAD, X), r"the features \(d,\) of one sample, got \(3, 7\)"),
    "a list": (lambda: smallest_flip(HEAD, [0.0] * 7), "of one sample, got list"),  # type: ignore[arg-type]
    "a scalar": (lambda: single_repairs(HEAD, X[0, 0], 1), r"of one sample, got \(\)"),
    "another width": (lambda: smallest_flip(HEAD, X[0, :5]), r"features \(N, 7\), got \(1, 5\)"),
    "one row of many": (lambda: smallest_flips(HEAD, X[0]), r"features \(N, 7\), got \(7,\)"),
    "margin with itself": (
        lambda: explain_margin(HEAD, X[0], 1, "dog"),
        "expected two classes, got dog twice",
    ),
    "margin of an unknown class": (lambda: explain_margin(HEAD, X[0], "cod"), "got 'cod'"),
    "contributions against an unknown class": (lambda: contributions(HEAD, X, 0, 4), "got 4"),
    "a flip to where it is": (
        lambda: smallest_flip(HEAD, X[0], TOP),
        f"other than the predicted one, got {TOP}",
    ),
    "a flip to an unknown class": (lambda: smallest_flips(HEAD, X, 9), "got 9"),
    "a repair of what is right": (
        lambda: single_repairs(HEAD, X[0], TOP),
        "a misclassified sample, got one of",
    ),
    "a smallest repair of what is right": (
        lambda: smallest_repair(HEAD, X[0], TOP),
        "smallest_repair: expected a misclassified sample, got one of",
    ),
    "margin of numbers": (
        lambda: explain_margin(NUMBERS, X[0]),
        "explain_margin: expected a head of classes",
    ),
    "flip of numbers": (lambda: smallest_flip(NUMBERS, X[0]), "smallest_flip: expected a head of classes"),
    "flips of numbers": (lambda: smallest_flips(NUMBERS, X), "smallest_flips: expected a head of classes"),
    "repairs of numbers": (
        lambda: single_repairs(NUMBERS, X[0], 0),
        "single_repairs: expected a head of classes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        call()
