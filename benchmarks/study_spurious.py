"""Do the tools find a shortcut that we planted ourselves, and nothing in a network without it?

python benchmarks/study_spurious.py --out FILE
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.environment import environment
from benchmarks.planted import KINDS, PLANS, Kind, Planted, in_mark, plant, train
from pyinterp.features import extract_features
from pyinterp.features.place import locate_features
from pyinterp.heads import (
    SparseHead,
    fit_sparse_path,
    group_differences,
    head_of,
    refit,
    repairs,
    shared_features,
    single_repairs,
    smallest_flip,
    suspects,
    top_samples,
)
from pyinterp.models.classifier import find_classifier

SEEDS = {"digits": 8, "faces": 10}
CARRIES = 0.1  # of all that the mark adds to the logit of its class
LOOKED_AT, RANDOM_DRAWS, TOP = 24, 20, 10
WITHOUT = "sparse_without_moved_suspects"
CELLS, COARSE = (8, 8), (4, 4)


class Case:
    """One network with all that the tools get to see, and the truth that they don't see."""

    def __init__(self, planted: Planted, kind: Kind, seed: int) -> None:
        self.planted, self.target = planted, planted.plan.target
        self.network = train(planted, kind, seed)
        rows = planted.train
        self.train_features = self.features(planted.images(kind, rows))
        self.train_marks, self.train_labels = planted.has_mark(kind, rows), planted.labels[rows]
        self.path = fit_sparse_path(
            self.train_features,
            self.train_labels,
            max_features_per_class=2 * planted.plan.features_per_class,
            tolerance=1e-3,
            progress=False,
        )
        self.head = self.path.select(features_per_class=planted.plan.features_per_class)
        classifier = find_classifier(self.network, planted.plain[:2])
        self.dense = head_of(classifier, self.head.mean, self.head.std)
        self.train_images = planted.images(kind, rows)
        self.audit = {kind: self.features(planted.images(kind, planted.audit)) for kind in KINDS}
        self.test = {kind: self.features(planted.images(kind, planted.test)) for kind in KINDS}
        self.audit_labels, self.test_labels = planted.labels[planted.audit], planted.labels[planted.test]
        self.moves = self._moves()
        others = (self.head.weights.sum(0) - self.head.weights[self.target]) / (self.head.classes - 1)
        self.effects = (self.head.weights[self.target] - others) * self.moves
        order = self.effects.argsort(descending=True)
        share = self.effects / self.effects.clamp_min(0).sum()
        # Where nothing was planted nothing carries, though many features see a bright corner.
        self.carriers = [int(j) for j in order if kind == "biased" and share[j] >= CARRIES]
        self.used = self.head.features_used.tolist()

    def features(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, d)."""
        return extract_features(self.network, images, progress=False).values

    def _moves(self) -> Tensor:
        """(d,): how many standard deviations the mark moves each feature, on average over the test images."""
        rows = self.planted.test
        pair = (self.features(images[rows]) for images in (self.planted.marked, self.planted.plain))
        with_mark, without = map(self.head.standardise, pair)
        return (with_mark - without).mean(0)

    def accuracies(self, head: SparseHead) -> dict[str, float]:
        """On the test images of each kind."""
        return {kind: head.accuracy(self.test[kind], self.test_labels) for kind in KINDS}


def tools(case: Case, kind: Kind) -> dict[str, Any]:
    """What each tool of the library says of the audit images of a kind."""
    head, features, labels, target = case.head, case.audit[kind], case.audit_labels, case.target
    found = suspects(head, features, labels)
    repaired: dict[int, int] = {}
    for one in repairs(head, features, labels):
        repaired[one.feature] = repaired.get(one.feature, 0) + one.repaired
    others = labels != target
    taken = head.predict(features[others]) == target
    marks = case.planted.has_mark(kind, case.planted.audit)[others]
    first: dict[str, int | None] = {
        "suspects": found[0].feature if found else None,
        "repairs": max(repaired, key=lambda j: repaired[j], default=None),
        "group_differences_of_errors": _first_difference(head, features[others], taken, target),
        "group_differences_of_marks": _first_difference(head, features[others], marks, target),
    }
    return {
        "errors": int((head.predict(features) != labels).sum()),
        "suspects": len(found),
        "suspects_that_carry": sum(one.feature in case.carriers for one in found),
        "any_suspect": bool(found),
        "found": [
            {
                "feature": one.feature,
                "class": one.class_,
                "repaired": one.repaired,
                "broken": one.broken,
                "p_value": one.p_value,
                "carrier": one.feature in case.carriers,
                "moved_by_mark": float(case.moves[one.feature]),
            }
            for one in found
        ],
        "first_is_carrier": {
            name: j in case.carriers if case.carriers and j is not None else None for name, j in first.items()
        },
    }


def _first_difference(head: SparseHead, features: Tensor, group: Tensor, class_: int) -> int | None:
    """The feature that speaks most more for a class in the group."""
    if min(int(group.sum()), int((~group).sum())) < 2:
        return None
    found = [one for one in group_differences(head, features, group, class_) if one.difference > 0]
    return found[0].feature if found else None


def without_errors(case: Case) -> dict[str, Any]:
    """What can be seen in the training images alone: their marks, steady places, and features that classes share."""
    top = {j: top_samples(case.train_features, j, TOP) for j in case.used}
    marked = {j: float(case.train_marks[rows].double().mean()) for j, rows in top.items()}
    places = locate_features(case.network, case.train_images, case.used, method="map")
    coarse = functional.adaptive_avg_pool2d(places.scores, COARSE)
    peaks = coarse.flatten(2).argmax(2)
    steady = {}
    for i, j in enumerate(case.used):
        cells = peaks[top[j], i]
        steady[j] = float((cells == cells.mode().values).double().mean())
    others = [j for j in case.used if j not in case.carriers]
    ranked = sorted(case.used, key=lambda j: -steady[j])
    shared = shared_features(case.head)
    return {
        "top_samples_marked": {
            "carriers": mean([marked[j] for j in case.carriers]),
            "others": mean([marked[j] for j in others]),
            "all_samples": float(case.train_marks.double().mean()),
        },
        "steady_place": {
            "carriers": mean([steady[j] for j in case.carriers]),
            "others": mean([steady[j] for j in others]),
            "first_is_carrier": ranked[0] in case.carriers if case.carriers else None,
        },
        "shared_features_first_is_carrier": shared[0].feature in case.carriers
        if case.carriers and shared
        else None,
    }


def places(case: Case) -> dict[str, float | None]:
    """How often the highest score lies in the mark, on test images of other classes."""
    rows = case.planted.test[case.test_labels != case.target][:LOOKED_AT]
    others = [j for j in case.used if j not in case.carriers]
    groups = {"first": case.carriers[:1], "carriers": case.carriers, "others": others}
    result: dict[str, float | None] = {}
    for method in ("occlusion", "map"):
        for name, images in (("marked", case.planted.marked[rows]), ("plain", case.planted.plain[rows])):
            found = locate_features(case.network, images, case.used, method=method, cells=CELLS)
            inside = in_mark(
                case.planted.mark_share, (found.scores.shape[2], found.scores.shape[3])
            ).flatten()
            hits = inside[found.scores.flatten(2).argmax(2)].double().mean(0)
            rates = dict(zip(case.used, hits.tolist(), strict=True))
            result[f"{method}_chance"] = float(inside.double().mean())
            for group, members in groups.items():
                result[f"{method}_{name}_{group}"] = mean([rates[j] for j in members])
    return result


def errors(case: Case, generator: torch.Generator) -> dict[str, Any]:
    """How many errors that the moved mark makes are explained by a carrier, and by as many other features."""
    features, labels, head = case.test["moved"], case.test_labels, case.head
    before = head.predict(case.test["clean"])
    wrong = (head.predict(features) == case.target) & (labels != case.target) & (before == labels)
    caused = wrong.nonzero()[:, 0].tolist()
    flips = [smallest_flip(head, features[i]) for i in caused]
    flips_of = [set(flip.features) if flip else set() for flip in flips]
    repairs_of = [set(single_repairs(head, features[i], int(labels[i]))) for i in caused]
    others = [j for j in case.used if j not in case.carriers]
    draws = [_draw(others, len(case.carriers), generator) for _ in range(RANDOM_DRAWS)]

    def share(sets: list[set[int]], chosen: Sequence[int]) -> float | None:
        return mean([float(bool(one & set(chosen))) for one in sets if chosen])

    return {
        "caused": len(caused),
        "of": int((labels != case.target).sum()),
        "smallest_flip_has_carrier": share(flips_of, case.carriers),
        "smallest_flip_has_random": mean([share(flips_of, draw) for draw in draws]),
        "smallest_flip_size": mean([float(len(one)) for one in flips_of]),
        "single_repair_is_carrier": share(repairs_of, case.carriers),
        "single_repair_is_random": mean([share(repairs_of, draw) for draw in draws]),
        "one_feature_repairs": mean([float(bool(one)) for one in repairs_of]),
    }


def removals(case: Case, generator: torch.Generator) -> dict[str, Any]:
    """Accuracy on the test images, of heads without what the audit has found and without other features."""
    head, dense, audit, labels = case.head, case.dense, case.audit, case.audit_labels
    found = {kind: [one.feature for one in suspects(head, audit[kind], labels)] for kind in KINDS}
    dense_found = [one.feature for one in suspects(dense, audit["moved"], labels)]
    gone = found["moved"]
    by_weight = dense.weights[case.target].abs().argsort(descending=True)
    draws = [
        case.accuracies(head.without(_draw(case.used, len(gone), generator))) for _ in range(RANDOM_DRAWS)
    ]
    fitted = refit(head, case.train_features, case.train_labels)
    heads = {
        "sparse": head,
        "sparse_without_field_suspects": head.without(found["field"]),
        WITHOUT: head.without(gone),
        "sparse_without_carriers": head.without(case.carriers),
        "refitted": fitted,
        "refitted_without_moved_suspects": refit(head.without(gone), case.train_features, case.train_labels),
        "dense": dense,
        "dense_without_as_many_by_weight": dense.without(by_weight[: len(gone)]),
        "dense_without_the_same": dense.without(gone),
        "dense_without_its_suspects": dense.without(dense_found),
    }
    table: dict[str, Any] = {name: case.accuracies(one) for name, one in heads.items()}
    table["sparse_without_random"] = {kind: mean([draw[kind] for draw in draws]) for kind in KINDS}
    order = case.effects.argsort(descending=True)
    return {
        "accuracy": table,
        "dense_suspects": len(dense_found),
        "by_carriers_removed": {str(k): case.accuracies(head.without(order[:k])) for k in range(6)},
    }


def _draw(numbers: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    order = torch.randperm(len(numbers), generator=generator)
    return [numbers[i] for i in order[:count].tolist()]


def study(name: str, kind: Kind, seed: int) -> dict[str, Any]:
    """One network: planted (trained on "biased" images) or control (on "clean" ones)."""
    start = time.perf_counter()
    case = Case(plant(PLANS[name], seed), kind, seed)
    generator = torch.Generator().manual_seed(seed)
    effects = case.effects.clamp_min(0)
    row = {
        "data": name,
        "trained_on": kind,
        "seed": seed,
        "features_per_class": case.head.features_per_class,
        "used": len(case.used),
        "carriers": len(case.carriers),
        "carriers_over_used": len(case.carriers) / len(case.used),
        "effect": float(case.effects.sum()),
        "effect_of_first": float(effects.max() / effects.sum()) if effects.any() else None,
        "tools": {kind: tools(case, kind) for kind in KINDS},
        "without_errors": without_errors(case),
        "places": places(case),
        "errors": errors(case, generator),
        "removals": removals(case, generator),
    }
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that there are; None for none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def brief(row: dict[str, Any]) -> dict[str, Any]:
    """What tells one network from the others; the rest is in the summary."""
    kept = {key: row[key] for key in ("data", "trained_on", "seed", "carriers", "effect", "seconds")}
    found = {kind: row["tools"][kind]["found"] for kind in KINDS if row["tools"][kind]["found"]}
    accuracy = {name: row["removals"]["accuracy"][name]["moved"] for name in ("sparse", WITHOUT, "dense")}
    return {**kept, "suspects": found, "accuracy_on_moved": accuracy}


def rounded(tree: Any) -> Any:
    """Numbers with four digits."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    return float(f"{tree:.4g}") if isinstance(tree, float) else tree


def leaves(tree: dict[str, Any], stem: str = "") -> dict[str, bool | float]:
    """Numbers and answers by their dotted names; lists, words and missing answers are left out."""
    found: dict[str, bool | float] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{stem}{key}.")
        elif isinstance(value, (bool, int, float)):
            found[f"{stem}{key}"] = value
    return found


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds: mean and 95 % interval (Student's t) of numbers; how many times yes, of how many answers."""
    from scipy.stats import t

    flat = [leaves({key: value for key, value in row.items() if key != "seed"}) for row in rows]
    result: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in flat for key in row):
        values = [row[key] for row in flat if key in row]
        if isinstance(values[0], bool):
            result[key] = {"yes": sum(values), "of": len(values)}
            continue
        numbers = torch.tensor(values, dtype=torch.float64)
        entry = {"mean": round(float(numbers.mean()), 4), "of": len(values)}
        if len(values) > 1:
            half = float(t.ppf(0.975, len(values) - 1)) * float(numbers.std()) / len(values) ** 0.5
            entry |= {"low": round(entry["mean"] - half, 4), "high": round(entry["mean"] + half, 4)}
        result[key] = entry
    return result


def show(name: str, summaries: dict[str, dict[str, Any]]) -> None:
    """Print what was measured, planted and control side by side."""
    print(f"\n{name:<62}" + "".join(f"{kind:>26}" for kind in summaries))
    for key in next(iter(summaries.values())):
        cells = [_words(one.get(key)) for one in summaries.values()]
        print(f"{key:<62}" + "".join(f"{cell:>26}" for cell in cells))


def _words(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    if "yes" in entry:
        return f"{entry['yes']} of {entry['of']}"
    between = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
    return f"{entry['mean']:.3f}{between}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, help="networks per data set and kind")
    options = parser.parse_args()
    start = time.perf_counter()
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for name, count in SEEDS.items():
        for trained_on, label in (("biased", "planted"), ("clean", "control")):
            mine = [study(name, trained_on, seed) for seed in range(options.seeds or count)]  # type: ignore[arg-type]
            found.setdefault(name, {})[label] = summarise(mine)
            rows += mine
        show(name, found[name])
    report = {
        "suite": "spurious",
        **environment(),
        "seconds": round(time.perf_counter() - start, 1),
        "plans": {name: asdict(plan) for name, plan in PLANS.items()},
        "summary": found,
        "networks": [brief(row) for row in rows],
    }
    options.out.write_text(json.dumps(rounded(report), indent=1, allow_nan=False) + "\n")
    print(f"\n{report['seconds']} s")


if __name__ == "__main__":
    main()
