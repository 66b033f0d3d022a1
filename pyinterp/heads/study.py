"""study_head: a sparse head and its samples in, what a person wants to see of them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.audit import Repair, repairs, shared_features, top_k_accuracy
from pyinterp.heads.dense import dense_head
from pyinterp.heads.gallery import Gallery, no_pictures
from pyinterp.heads.head import SparseHead
from pyinterp.heads.head_study import Case, FeatureCard, HeadStudy, PathCurve, Sample, TopAccuracy
from pyinterp.heads.labels import labels_for
from pyinterp.heads.reading import explain_margin, single_repairs, smallest_flip, smallest_repair
from pyinterp.heads.sparse_path import SparsePath
from pyinterp.models.classifier import find_classifier
from pyinterp.models.identity import model_digest
from pyinterp.models.images import Preprocessor
from pyinterp.models.inputs import Inputs
from pyinterp.models.zoo import LoadedModel
from pyinterp.version import package_version

WHERE = "study_head"
CHUNK = 1 << 12
COUNTS = (1, 2, 3, 5, 10, 20, 50)
CLOSE = 4
"""Right decisions with a small margin that are shown."""
SHARES = 5
"""Contributions that are listed of a margin, and features with cards of what turns a decision."""
PAIRS = 12
"""Pairs of classes that share a feature, and kinds of repairs, whose features get cards."""


def study_head(
    model: nn.Module | LoadedModel,
    head: SparseHead,
    features: Features | Tensor,
    labels: Tensor | None = None,
    *,
    path: SparsePath | None = None,
    rows: Tensor | None = None,
    images: Any = None,
    preprocess: Preprocessor | None = None,
    example: Inputs | None = None,
    features_shown: int = 6,
    pictures: int = 5,
    side: int = 96,
    most_classes: int = 40,
    most_errors: int = 12,
) -> HeadStudy:
    """Look at a sparse head through samples: accuracies, the features of each class, errors and what repairs them.

    Args:
        model: The network that gave the features. With a `LoadedModel`, its own last layer is compared with the head if
            it has the head's classes; with a module, if the head's classes have no names and are as many.
        head: Multinomial or binary.
        features: (N, d), or what `extract_features` gave.
        labels: (N,) classes; None takes those of the features.
        path: That the head was chosen from.
        rows: The samples to judge the head by, to which it was not fitted; None: all, as fitted ones.
        images: What the features were extracted from: a tensor, what `load_images` gives, a list, or a folder.
        preprocess: PIL image -> (C, H, W); None takes that of a `LoadedModel`.
        example: Inputs to find the last layer with, for networks that take no images; see `find_classifier`. None takes
            the first of the images.
        features_shown: Features of each class with a card: its largest |weights|.
        pictures: On each card.
        side: Of a picture, in pixels, at most.
        most_classes: With cards; those with the lowest accuracy where there are more.
        most_errors: Shown, surest first; of more, half of the places are for those that a single feature repairs.
            `CLOSE` right decisions follow them.

    Raises:
        ValueError: Labels, rows, images or the model don't belong to the features; a head of numbers (gaussian).
        TypeError: ``model`` is no network; images of an unknown kind; features or labels of a wrong type.
    """
    values, given, names = _parts(features, labels, head)
    judged = torch.arange(len(values)) if rows is None else _checked_rows(rows, len(values))
    loaded = model if isinstance(model, LoadedModel) else None
    network = loaded.model if loaded else model
    if not isinstance(network, nn.Module):
        fix = "Pass the network that gave the features."
        raise TypeError(explain(WHERE, "a torch.nn.Module or a LoadedModel", type(network).__name__, fix))
    if head.model_digest and model_digest(network) != head.model_digest:
        fix = "Load the network that gave the features."
        raise ValueError(explain(WHERE, "the network of this head", "another", fix))
    gallery = None
    if images is not None:
        gallery = Gallery(images, names, preprocess or (loaded.preprocess if loaded else None))
    if example is None and gallery is not None:
        example = gallery.read([0, 0]).tensor
    classifier = find_classifier(network, example)
    dense = dense_head(classifier, head, loaded.classes if loaded else ())

    seen = _look(head, values, given, pictures)
    some, right = values[judged], given[judged]
    wrong = (seen.predicted[judged] != right).nonzero()[:, 0]
    accuracies, counts = _by_class(seen.predicted[judged] == right, right, head.classes)
    shared, mended = shared_features(head), repairs(head, some, right)
    repairable = {sample for one in mended for sample in one.samples}
    cases = _cases(head, some, right, seen.predicted[judged], most_errors, repairable)
    carded = _carded(accuracies, most_classes)
    wanted = _wanted(head, carded, features_shown, cases, shared[:PAIRS], mended[:PAIRS])
    cards = tuple(seen.card(feature, against) for feature, against in wanted.items()) if gallery else ()
    on_cards = {row for card in cards for row in card.samples + card.lowest}
    shown = sorted(on_cards | {int(judged[case.sample]) for case in cases})
    weights, bias = head.rows
    counts_k = [count for count in COUNTS if count <= values.shape[1]]
    class_names = tuple(head.name(k) for k in range(head.classes))
    return HeadStudy(
        class_names=class_names,
        width=values.shape[1],
        used=seen.used,
        weights=weights[:, seen.used],
        bias=bias,
        typical=seen.typical,
        judged=len(judged),
        held_out=rows is not None,
        accuracy=1 - len(wrong) / len(judged),
        class_accuracy=accuracies,
        class_samples=counts,
        top=_top(head, some, right, counts_k),
        dense_accuracy=None if dense is None else dense.accuracy(some, right),
        dense_top=() if dense is None else _top(dense, some, right, counts_k),
        curve=None if path is None else _curve(path, head, some, right),
        cards=cards,
        samples=tuple(Sample(row, names[row], int(given[row]), int(seen.predicted[row])) for row in shown),
        pictures=gallery.pictures(shown, side) if gallery else no_pictures(),
        carded=carded,
        shared=tuple(shared[:PAIRS]),
        shared_count=len(shared),
        cases=tuple(_at(case, int(judged[case.sample])) for case in cases),
        errors=len(wrong),
        repairs=tuple(_of_rows(one, judged) for one in mended[:PAIRS]),
        repairable=len(repairable),
        model_name=loaded.name if loaded else "",
        classifier_name=classifier.name,
        model_digest=head.model_digest,
        origin=head.origin,
        version=package_version(),
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one pass over all N samples gives.

    Attributes:
        predicted: (N,).
        used: (U,) features of the head.
        typical: (K, U) mean z by class.
        largest: z where each feature is largest, and these rows, both (T, U).
        smallest: Likewise.
    """

    predicted: Tensor
    used: Tensor
    typical: Tensor
    largest: tuple[Tensor, Tensor]
    smallest: tuple[Tensor, Tensor]

    def card(self, feature: int, against: bool) -> FeatureCard:
        """Without places and picture of its own; where it is smallest only if it speaks against a class."""
        place = int((self.used == feature).nonzero()[0, 0])
        values, samples = (tuple(part[:, place].tolist()) for part in self.largest)
        low, lowest = (tuple(part[:, place].tolist()) if against else () for part in self.smallest)
        nowhere, nothing = torch.zeros(0, 0, 0), torch.zeros(3, 0, 0, dtype=torch.uint8)
        return FeatureCard(feature, samples, values, nowhere, nothing, lowest=lowest, lowest_values=low)


def _look(head: SparseHead, values: Tensor, labels: Tensor, pictures: int) -> _Seen:
    used, (weights, bias) = head.features_used, head.rows
    predicted, sums = [], torch.zeros(head.classes, len(used), dtype=torch.float64)
    largest = smallest = torch.zeros(0, len(used)), torch.zeros(0, len(used), dtype=torch.int64)
    for start in range(0, len(values), CHUNK):
        z = head.standardise(values[start : start + CHUNK], WHERE)
        predicted.append(torch.addmm(bias, z, weights.T).argmax(1))
        z = z[:, used]
        sums.index_add_(0, labels[start : start + CHUNK], z.double())
        rows = torch.arange(start, start + len(z))[:, None].expand_as(z)
        largest = _first(largest, z, rows, pictures, descending=True)
        smallest = _first(smallest, z, rows, pictures, descending=False)
    counts = torch.bincount(labels, minlength=head.classes).clamp_min(1)
    return _Seen(torch.cat(predicted), used, (sums / counts[:, None]).float(), largest, smallest)


def _first(
    kept: tuple[Tensor, Tensor], z: Tensor, rows: Tensor, count: int, descending: bool
) -> tuple[Tensor, Tensor]:
    """The first of what was kept and what is new, by value: values and rows (count, U)."""
    values, places = torch.cat([kept[0], z]), torch.cat([kept[1], rows])
    order = values.argsort(dim=0, descending=descending, stable=True)[:count]
    return values.gather(0, order), places.gather(0, order)


def _parts(
    features: Features | Tensor, labels: Tensor | None, head: SparseHead
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Values, labels and names, checked."""
    values, given = labels_for(WHERE, head, features, labels)
    known = features.names if isinstance(features, Features) else ()
    return values, given, known or tuple(f"image {i}" for i in range(len(values)))


def _checked_rows(rows: Tensor, count: int) -> Tensor:
    rows = torch.as_tensor(rows).long().cpu().flatten()
    if not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= count:
        fix = "Pass the numbers of the samples that were held out."
        got = "none" if not len(rows) else f"{int(rows.min())} to {int(rows.max())}"
        raise ValueError(explain(WHERE, f"rows between 0 and {count - 1}", got, fix))
    return rows


def _by_class(hits: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=classes)
    right = torch.bincount(labels[hits], minlength=classes)
    return right.double() / counts, counts


def _top(
    head: SparseHead, features: Tensor, labels: Tensor, counts: Sequence[int]
) -> tuple[TopAccuracy, ...]:
    found = top_k_accuracy(head, features, labels, counts)
    return tuple(TopAccuracy(count, only, without) for count, (only, without) in found.items())


def _curve(path: SparsePath, head: SparseHead, features: Tensor, labels: Tensor) -> PathCurve:
    point = head.origin.get("point")
    same = point is not None and point < len(path) and torch.equal(path.weights[point], head.weights)
    return PathCurve(
        path.lambdas,
        path.features_per_class,
        path.train_accuracy,
        path.validation_accuracy,
        path.kkt,
        path.converged,
        point if same else None,
        path.select(point=int(path.features_per_class.argmax())).accuracy(features, labels),
    )


def _cases(
    head: SparseHead, features: Tensor, labels: Tensor, predicted: Tensor, most: int, repairable: set[int]
) -> list[Case]:
    """Errors, then right decisions that nearly weren't; samples are numbered as the features that are given."""
    margins = []
    for start in range(0, len(features), CHUNK):
        logits = head.logits(features[start : start + CHUNK])
        got, label = predicted[start : start + CHUNK], labels[start : start + CHUNK]
        others = logits.scatter(1, got[:, None], -torch.inf)
        rival = torch.where(got == label, others.argmax(1), label)
        margins.append((logits.gather(1, got[:, None]) - logits.gather(1, rival[:, None]))[:, 0])
    margin, wrong = torch.cat(margins), predicted != labels
    surest = torch.where(wrong, margin, -torch.inf).argsort(descending=True, stable=True)
    errors = _shown(surest[: int(wrong.sum())].tolist(), most, repairable)
    close = torch.where(wrong, torch.inf, margin).argsort(stable=True)
    chosen = errors + close[: min(CLOSE, int((~wrong).sum()))].tolist()
    return [_case(head, features[i], i, int(labels[i]), int(predicted[i])) for i in chosen]


def _shown(errors: list[int], most: int, repairable: set[int]) -> list[int]:
    """Of errors, surest first: half of the places for the surest, half for those that a feature repairs, if any."""
    surest = (most + 1) // 2
    others = sorted(errors[surest:], key=lambda sample: sample not in repairable)[: most - surest]
    return [sample for sample in errors if sample in {*errors[:surest], *others}]


def _case(head: SparseHead, row: Tensor, sample: int, label: int, predicted: int) -> Case:
    wrong = label != predicted
    told = explain_margin(head, row, predicted, label if wrong else None)
    return Case(
        sample=sample,
        label=label,
        predicted=predicted,
        against=told.against,
        margin=told.margin,
        bias=told.bias,
        contributions=told.contributions[:SHARES],
        rest=sum(one.share for one in told.contributions[SHARES:]),
        flip=smallest_repair(head, row, label) if wrong else smallest_flip(head, row),
        repairs=tuple(single_repairs(head, row, label)) if wrong else (),
    )


def _carded(accuracy: Tensor, most: int) -> tuple[int, ...]:
    """All classes, or those with the lowest accuracy."""
    worst = torch.where(accuracy.isnan(), torch.inf, accuracy).argsort(stable=True)[:most]
    return tuple(sorted(worst.tolist()))


def _wanted(
    head: SparseHead,
    classes: Sequence[int],
    each: int,
    cases: Sequence[Case],
    *pairs: Sequence[Any],
) -> dict[int, bool]:
    """The features that get cards, rising, and whether they speak against a class that shows them."""
    weights, _ = head.rows
    found = {one.feature for some in pairs for one in some}
    found |= {one.feature for case in cases for one in case.contributions}
    found |= {feature for case in cases for feature in case.repairs[:SHARES]}
    found |= {feature for case in cases if case.flip for feature in case.flip.features[:SHARES]}
    against = set()
    for class_ in classes:
        row = weights[class_]
        top = row.abs().argsort(descending=True, stable=True)[:each]
        found |= set(top[row[top] != 0].tolist())
        against |= set(top[row[top] < 0].tolist())
    return {feature: feature in against for feature in sorted(found)}


def _at(case: Case, row: int) -> Case:
    return replace(case, sample=row)


def _of_rows(repair: Repair, judged: Tensor) -> Repair:
    return replace(repair, samples=tuple(judged[list(repair.samples)].tolist()))
