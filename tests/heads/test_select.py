"""Every rule of `SparsePath.select` takes the point that a look at all points gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_heads import growing, small_path

from pyinterp.heads import SparsePath

COUNTS = [0, 1, 4, 3, 6, 9, 12]
ACCURACY = [0.3, 0.5, 0.8, 0.85, 0.9, 0.9, 0.88]


def judged(accuracy: list[float] = ACCURACY, **others: Any) -> SparsePath:
    values = torch.tensor(accuracy, dtype=torch.float64)
    losses = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.7, 0.9, 1.0], dtype=torch.float64)
    given = {"validation_accuracy": values, "validation_loss": losses, "validation_samples": 50}
    return small_path(growing(COUNTS), **{**given, **others})


@pytest.mark.parametrize("wanted", [0.1, 0.4, 1, 1.6, 2, 2.2, 3.7, 4.5, 6])
def test_features_per_class_takes_the_nearest(wanted: float) -> None:
    path = judged()
    distances = [abs(count / 2 - wanted) for count in COUNTS]
    head = path.select(features_per_class=wanted)
    assert head.origin["point"] == distances.index(min(distances))
    assert head.features_per_class == COUNTS[head.origin["point"]] / 2


@pytest.mark.parametrize("within", [0.0, 0.02, 0.05, 0.1, 0.3, 0.7, 1.0])
def test_within_takes_the_sparsest_of_the_good(within: float) -> None:
    good = [i for i, a in enumerate(ACCURACY) if a >= max(ACCURACY) - within - 1e-12]
    expected = min(good, key=lambda i: (COUNTS[i], i))
    assert judged().select(within=within).origin["point"] == expected


def test_within_counts_points_as_a_person_does() -> None:
    assert 0.8 - 0.1 > 0.7  # as floats go
    path = judged([0.0, 0.7, 0.75, 0.8, 0.8, 0.8, 0.8])
    assert path.select(within=0.1).origin["point"] == 1


def test_best() -> None:
    assert judged().select(best="accuracy").origin["point"] == 4
    assert judged().select(best="loss").origin["point"] == 3
    # Points 2 and 3 are equally good, and 3 is sparser.
    assert judged([0.1, 0.2, 0.9, 0.9, 0.5, 0.5, 0.5]).select(best="accuracy").origin["point"] == 3


@pytest.mark.parametrize("point", [0, 3, 6, -1, -7])
def test_point(point: int) -> None:
    path = judged(train_accuracy=torch.linspace(0, 0.6, 7, dtype=torch.float64), class_names=("a", "b"))
    head, place = path.select(point=point), range(7)[point]
    assert torch.equal(head.weights, path.weights[place]) and head.class_names == ("a", "b")
    assert head.weights.data_ptr() != path.weights[place].data_ptr()
    expected = {"point": place, "lambda": float(path.lambdas[place]), "alpha": 0.99, "grouped": False}
    expected |= {
        "kkt": 0.0,
        "converged": True,
        "samples": 100,
        "train_accuracy": float(path.train_accuracy[place]),
    }
    expected |= {
        "validation_accuracy": ACCURACY[place],
        "validation_loss": float(path.validation_loss[place]),
    }
    assert head.origin == expected


def test_a_path_that_ends_before_says_so() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judged().select(features_per_class=6)
    with pytest.warns(UserWarning, match=r"reaches 7 features per class, got 6\.0") as told:
        assert judged().select(features_per_class=7).origin["point"] == 6
    assert told[0].filename == __file__
    for stopped in ("max_features_per_class", "interrupted"):
        with pytest.raises(ValueError, match=r"reaches 7 features per class, got 6\.0"):
            judged(stopped=stopped).select(features_per_class=7)
        assert judged(stopped=stopped).select(features_per_class=5.9).origin["point"] == 6


EMPTY = torch.zeros(0, dtype=torch.float64)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no rule": (
        lambda: judged().select(),
        "expected one of features_per_class, within, best, point, got none",
    ),
    "two rules": (lambda: judged().select(within=0.1, point=2), "got within and point"),
    "no such best": (lambda: judged().select(best="auc"), "best='accuracy' or best='loss', got 'auc'"),
    "within 2": (lambda: judged().select(within=2), "within between 0 and 1, got 2"),
    "within nan": (lambda: judged().select(within=float("nan")), "within between 0 and 1, got nan"),
    "within words": (lambda: judged().select(within="a"), "within between 0 and 1, got 'a'"),  # type: ignore[arg-type]
    "features in words": (lambda: judged().select(features_per_class="a"), "above 0, got 'a'"),  # type: ignore[arg-type]
    "a point in words": (lambda: judged().select(point="a"), "a point 0 to 6, got 'a'"),  # type: ignore[arg-type]
    "no features": (lambda: judged().select(features_per_class=0), "above 0, got 0"),
    "point 7": (lambda: judged().select(point=7), "a point 0 to 6, got 7"),
    "point 1.5": (lambda: judged().select(point=1.5), "a point 0 to 6, got 1.5"),  # type: ignore[arg-type]
    "point -8": (lambda: judged().select(point=-8), "a point 0 to 6, got -8"),
    "no validation": (lambda: small_path(growing(COUNTS)).select(within=0.1), "validation samples, got none"),
    "numbers": (
        lambda: judged(validation_accuracy=EMPTY, family="gaussian").select(within=0.1),
        "expected classes, got numbers as labels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rules_are_named(case: str) -> None:
    call, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        call()


def test_numbers_can_be_chosen_by_loss() -> None:
    path = judged(validation_accuracy=EMPTY, family="gaussian")
    assert path.select(best="loss").origin["point"] == 3
