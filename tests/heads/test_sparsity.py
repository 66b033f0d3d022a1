"""NEC, ANEC and NCC by direct counting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_heads import ROWS, by_hand, growing, samples, small_head, small_path

from pyinterp.heads import anec, at_nec, ncc, random_features
from pyinterp.heads import head as module


@pytest.mark.parametrize("wanted", [0.1, 0.5, 1, 1.4, 2, 3.3, 5, 7])
@pytest.mark.parametrize("seed", range(3))
def test_at_nec_cuts_the_first_dense_enough_head(wanted: float, seed: int) -> None:
    counts = [0, 2, 7, 6, 13, 21]
    path = small_path(growing(counts, rows=3, width=7, seed=seed))
    head = at_nec(path, wanted)
    point = next(i for i, count in enumerate(counts) if count / 3 >= wanted)
    count = max(1, round(3 * wanted))
    assert int((head.weights != 0).sum()) == count and head.origin["point"] == point
    kept = sorted((abs(float(w)) for w in path.weights[point].flatten()), reverse=True)[:count]
    expected = torch.where(path.weights[point].abs() >= kept[-1], path.weights[point], 0.0)
    assert torch.equal(head.weights, expected)
    assert head.origin["cut_to"] == wanted and not {"kkt", "converged"} & set(head.origin)


def test_anec_is_the_accuracy_of_each_cut_head() -> None:
    path, x = small_path(growing([0, 6, 12, 24], rows=4, width=7)), samples(0, 40)
    y = torch.arange(40) % 4
    found = anec(path, x, y, levels=(1, 3, 4.5))
    assert list(found) == [1, 3, 4.5]
    for level, accuracy in found.items():
        head = at_nec(path, level)
        rows = [by_hand(head, row) for row in x]
        hits = sum(int(row.index(max(row)) == label) for row, label in zip(rows, y.tolist(), strict=True))
        assert accuracy == hits / 40
    assert len(set(found.values())) > 1


def test_anec_is_nan_where_the_path_ends_before() -> None:
    path, x = small_path(growing([0, 6, 20], rows=4, width=7)), samples(0, 40)
    y = torch.arange(40) % 4
    said = r"anec: expected a path that reaches 30 .*, got at most 5\.0: NaN at 10, 15, 20, 25, 30\."
    with pytest.warns(UserWarning, match=said) as told:
        found = anec(path, x, y)
    assert told[0].filename == __file__
    assert list(found) == [5, 10, 15, 20, 25, 30]
    assert found.pop(5) == at_nec(path, 5).accuracy(x, y)
    assert all(math.isnan(accuracy) for accuracy in found.values())


@pytest.mark.parametrize("share", [0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("family", ROWS)
def test_ncc_counts_features_of_decisions(family: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 4)
    head, x = small_head(family=family, width=9), samples(0, 10, width=9)
    head.weights[0] = 0  # one class that uses nothing, where there are several
    if family == "binary":
        head.weights[0, [2, 4, 5]] = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    total = 0
    for z in head.standardise(x):
        for row in head.weights:
            parts = sorted((abs(float(a * b)) for a, b in zip(row, z, strict=True)), reverse=True)
            count = 0
            while sum(parts[:count]) < share * sum(parts) - 1e-12:
                count += 1
            total += count
    assert ncc(head, x, share) == total / (10 * len(head.weights))


def test_ncc_of_one_feature_is_one_and_of_none_zero() -> None:
    head, x = small_head(width=7), samples(0, 6)
    only = replace(head, weights=torch.eye(4, 7, dtype=torch.float64).roll(2, 1))
    assert ncc(only, x, 0.5) == ncc(only, x, 1.0) == 1
    assert ncc(replace(head, weights=0 * head.weights), x) == 0


def test_random_features_mix_all_features() -> None:
    x = samples(0, 2000, 12)
    found = random_features(x, 5, seed=3)
    assert found.shape == (2000, 5) and found.dtype == x.dtype
    mixture = torch.linalg.lstsq(x, found).solution
    torch.testing.assert_close(x @ mixture, found)
    assert (mixture.abs() > 1e-3).double().mean() > 0.9
    torch.testing.assert_close(random_features(x[:7], 5, seed=3), found[:7])
    assert not torch.allclose(random_features(x, 5, seed=4), found)
    assert random_features(x.float()).shape == x.shape and random_features(x.float()).dtype == torch.float32


PATH = small_path(growing([0, 6, 9], rows=3, width=7))
HEAD, X, Y = small_head(), samples(0, 5), torch.zeros(5, dtype=torch.int64)
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "nec beyond": (lambda: at_nec(PATH, 3.1), ValueError, r"reaches 3\.1 features per class, got at most 3\.0"),
    "nec 0": (lambda: at_nec(PATH, 0), ValueError, "at_nec: expected features_per_class above 0, got 0"),
    "nec nan": (lambda: at_nec(PATH, float("nan")), ValueError, "above 0, got nan"),
    "share 0": (lambda: ncc(HEAD, X, 0), ValueError, "a share above 0, at most 1, got 0"),
    "share 2": (lambda: ncc(HEAD, X, 2), ValueError, "at most 1, got 2"),
    "no samples": (lambda: ncc(HEAD, X[:0]), ValueError, "at least one sample, got none"),
    "another width": (lambda: ncc(HEAD, X[:, :3]), ValueError, r"features \(N, 7\), got \(5, 3\)"),
    "level 0": (lambda: anec(PATH, X, Y, (0, 1)), ValueError, "features_per_class above 0, got 0"),
    "labels beyond": (lambda: anec(PATH, X, Y + 3, (1,)), ValueError, "anec: expected labels 0 to 2, got 3 to 3"),
    "width 0": (lambda: random_features(X, 0), ValueError, "a width of at least 1, got 0"),
    "whole numbers": (lambda: random_features(X.long()), TypeError, "a float tensor .*, got torch.int64"),
    "one row": (lambda: random_features(X[0]), ValueError, r"features \(N, d\), got \(7,\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, kind, said = BAD[case]
    with pytest.raises(kind, match=said):
        call()
