"""HeadStudy: what a page about a sparse head shows, and nothing that it would have to compute."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from typing import Any

from torch import Tensor

from pyinterp.errors import explain
from pyinterp.heads.audit import Repair, SharedFeature
from pyinterp.heads.reading import Contribution, Flip
from pyinterp.storage import load_result, save_result

NAMED, CLASSES = 3, 10
"""Features per class, and classes, that a summary names."""


@dataclass(frozen=True, eq=False)
class PathCurve:
    """The path that a head was chosen from, P points.

    Attributes:
        lambdas: (P,) float64.
        features_per_class: (P,) float64.
        train_accuracy: (P,) float64.
        validation_accuracy: (P,) float64, or empty.
        kkt: (P,) float64.
        converged: (P,) bool.
        point: The chosen one; None if the head is none of them as it is (refitted, pruned, edited).
        densest_accuracy: Of the head with the most features, on the samples that are judged.
    """

    lambdas: Tensor
    features_per_class: Tensor
    train_accuracy: Tensor
    validation_accuracy: Tensor
    kkt: Tensor
    converged: Tensor
    point: int | None
    densest_accuracy: float


@dataclass(frozen=True)
class TopAccuracy:
    """How far decisions rest on their k largest contributions.

    Attributes:
        count: k.
        only: Accuracy with nothing else.
        without: Accuracy without them.
    """

    count: int
    only: float
    without: float


@dataclass(frozen=True)
class Sample:
    """One input in words.

    Attributes:
        number: Its row in the features.
        name: Of the file, or ``image 3``.
        label: Its class.
        predicted: What the head takes it for.
    """

    number: int
    name: str
    label: int
    predicted: int


@dataclass(frozen=True, eq=False)
class FeatureCard:
    """What one feature responds to.

    Attributes:
        feature: Its number.
        samples: Rows in which it is largest, largest first (T).
        values: z there: how many standard deviations above its average (T).
        places: (T or fewer, h, w) float32: where in the first samples it comes from, in its own unit; empty if unknown.
        visual: (3, H, W) uint8, a picture that was made to raise it; empty if there is none.
        visual_value: z on that picture, or None.
        lowest: Rows in which it is smallest, smallest first; only if it speaks against a class that shows it.
        lowest_values: z there.
    """

    feature: int
    samples: tuple[int, ...]
    values: tuple[float, ...]
    places: Tensor
    visual: Tensor
    visual_value: float | None = None
    lowest: tuple[int, ...] = ()
    lowest_values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Case:
    """Why one sample was decided as it was.

    Attributes:
        sample: Its row.
        label: Its class.
        predicted: The decision.
        against: The label of an error; the runner-up of a right decision.
        margin: Logit of `predicted` minus logit of `against`: bias + the shares of all features.
        bias: Difference of the biases.
        contributions: The largest shares.
        rest: Sum of the shares that are not listed.
        flip: The fewest features without which a right decision is another; few without which an error is right.
        repairs: Of an error: features each of whose removal alone makes it right, the clearest first.
    """

    sample: int
    label: int
    predicted: int
    against: int
    margin: float
    bias: float
    contributions: tuple[Contribution, ...]
    rest: float
    flip: Flip | None
    repairs: tuple[int, ...]

    @property
    def right(self) -> bool:
        """Whether the decision is the label."""
        return self.label == self.predicted


@dataclass(frozen=True, eq=False, repr=False)
class HeadStudy:
    """A sparse head, seen through the samples: its features, its decisions and its errors.

    Attributes:
        class_names: Of the K classes.
        width: d, the features that there are.
        used: (U,) int64, the features that any class uses.
        weights: (K, U), for standardised features.
        bias: (K,).
        typical: (K, U): mean z of each class's samples.
        judged: Samples that accuracies and cases are about.
        held_out: Whether the head was fitted to none of them.
        accuracy: On them.
        class_accuracy: (K,) float64, NaN for a class without any of them.
        class_samples: (K,) int64, how many of them are of each class.
        top: Accuracy by the largest contributions.
        dense_accuracy: Of the network's own last layer on the same samples; None if it has other classes.
        dense_top: Likewise; empty if it has other classes.
        curve: The path, if one was given.
        cards: Features in pictures, by number.
        samples: Those that cards and cases show, by number.
        pictures: (samples, 3, side, side) uint8, or (0, 3, 0, 0).
        carded: The classes whose strongest features have cards.
        shared: Features that two classes use with the same sign, the strongest.
        shared_count: How many such pairs there are in all.
        cases: Errors, surest first, then the right decisions with the smallest margins.
        errors: How many judged samples are wrong.
        repairs: Single features whose removal makes errors right, by kind of error, the most repaired first.
        repairable: How many errors some single feature repairs.
        model_name: As `models.load` takes it, or "".
        classifier_name: The layer whose input the features are, or "".
        model_digest: Of the network, or "".
        origin: How the head came to be; see `SparseHead`.
        version: Of pyinterp.
    """

    class_names: tuple[str, ...]
    width: int
    used: Tensor
    weights: Tensor
    bias: Tensor
    typical: Tensor
    judged: int
    held_out: bool
    accuracy: float
    class_accuracy: Tensor
    class_samples: Tensor
    top: tuple[TopAccuracy, ...]
    dense_accuracy: float | None
    dense_top: tuple[TopAccuracy, ...]
    curve: PathCurve | None
    cards: tuple[FeatureCard, ...]
    samples: tuple[Sample, ...]
    pictures: Tensor
    carded: tuple[int, ...]
    shared: tuple[SharedFeature, ...]
    shared_count: int
    cases: tuple[Case, ...]
    errors: int
    repairs: tuple[Repair, ...]
    repairable: int
    model_name: str
    classifier_name: str
    model_digest: str
    origin: dict[str, Any]
    version: str

    @property
    def features_per_class(self) -> float:
        """Non-zero weights over classes."""
        return float((self.weights != 0).sum()) / len(self.weights)

    def features_of(self, class_: int) -> list[tuple[int, float, float]]:
        """Of one class: (feature, weight, mean z of its samples) of all it uses, the largest |weight| first."""
        row = self.weights[class_]
        order = row.abs().argsort(dim=0, descending=True, stable=True)
        return [
            (int(self.used[i]), float(row[i]), float(self.typical[class_, i]))
            for i in order[row[order] != 0].tolist()
        ]

    def card(self, feature: int) -> FeatureCard | None:
        """Of one feature, if it has one."""
        return next((card for card in self.cards if card.feature == feature), None)

    def sample(self, number: int) -> Sample:
        """One of the shown samples by its row.

        Raises:
            ValueError: It is none of them.
        """
        found = next((sample for sample in self.samples if sample.number == number), None)
        if found is None:
            fix = "samples lists them."
            raise ValueError(explain("HeadStudy", "one of the shown samples", number, fix))
        return found

    def __repr__(self) -> str:
        return f"<HeadStudy: {self.summary().splitlines()[0].removesuffix('.')}>"

    def summary(self) -> str:
        """The head in a few sentences."""
        classes = len(self.weights)
        kind = "held-out samples" if self.held_out else "samples that it was fitted to"
        lines = [
            f"{classes} classes, {self.features_per_class:.1f} features per class, {len(self.used)} of {self.width} "
            f"in all.",
            f"Accuracy {100 * self.accuracy:.1f} % on {self.judged} {kind}"
            + (
                f"; the network's own layer {100 * self.dense_accuracy:.1f} %."
                if self.dense_accuracy is not None
                else "."
            ),
        ]
        if self.origin.get("converged") is False:
            lines.append(f"It is not optimal: KKT violation {self.origin['kkt']:.1e}.")
        if self.errors:
            lines.append(self._errors_in_words())
        if not len(self.used):
            only = self.class_names[int(self.bias.argmax())]
            return "\n".join([*lines, f"It uses no feature: it always answers {only}."])
        for class_ in self.carded[:CLASSES]:
            told = [f"{feature} ({weight:+.3g})" for feature, weight, _ in self.features_of(class_)[:NAMED]]
            lines.append(
                f"{self.class_names[class_]}: {'features ' + ', '.join(told) if told else 'no feature'}."
            )
        if classes > CLASSES:
            lines.append(f"... and {classes - CLASSES} more classes.")
        return "\n".join(lines)

    def _errors_in_words(self) -> str:
        alone = self.errors == 1
        counted = "1 error" if alone else f"{self.errors} errors"
        if not self.repairs:
            return f"{counted}; the removal of no single feature repairs {'it' if alone else 'one of them'}."
        best = self.repairs[0]
        share = "all" if best.repaired == best.errors else f"{best.repaired} of the"
        share = f"{share} {best.errors}" if best.errors > 1 else "the one"
        pair = f"'{self.class_names[best.label]}' taken for '{self.class_names[best.predicted]}'"
        which = "it" if alone else f"{self.repairable} of them"
        told = f"{counted}; the removal of a single feature repairs {which}"
        return f"{told} (feature {best.feature} repairs {share} {pair})."

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.safetensors`` and ``path.json``.

        Raises:
            OSError: They could not be written; older files are whole then.
        """
        plain, tensors = _taken_apart(self)
        for i, card in enumerate(self.cards):
            plain["cards"][i], own = _taken_apart(card)
            tensors |= {f"cards.{i}.{name}": value for name, value in own.items()}
        if self.curve is not None:
            plain["curve"], own = _taken_apart(self.curve)
            tensors |= {f"curve.{name}": value for name, value in own.items()}
        save_result("HeadStudy", path, tensors, plain)

    @staticmethod
    def load(path: str | PathLike[str]) -> HeadStudy:
        """Read what `save` wrote.

        Raises:
            ValueError: The files are not there, damaged, or of something else.
        """
        return load_result("HeadStudy", "a study of a head", path, _build)


def _taken_apart(thing: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Values for JSON, and tensors."""
    values = {field.name: getattr(thing, field.name) for field in fields(thing)}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    plain = {
        name: [_entry(one) for one in value] if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in tensors
    }
    return plain, tensors


def _entry(value: Any) -> Any:
    known = (TopAccuracy, Sample, Case, SharedFeature, Repair)
    return asdict(value) if isinstance(value, known) else value


def _build(plain: dict[str, Any], tensors: dict[str, Tensor]) -> HeadStudy:
    def own(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}

    cards = []
    for i, card in enumerate(plain["cards"]):
        known = _tuples(card, "samples", "values", "lowest", "lowest_values")
        cards.append(FeatureCard(**known, **own(f"cards.{i}.")))
    curve = plain["curve"]
    nested: dict[str, Any] = {
        "class_names": tuple(plain["class_names"]),
        "carded": tuple(plain["carded"]),
        "top": tuple(TopAccuracy(**one) for one in plain["top"]),
        "dense_top": tuple(TopAccuracy(**one) for one in plain["dense_top"]),
        "samples": tuple(Sample(**one) for one in plain["samples"]),
        "shared": tuple(SharedFeature(**_tuples(one, "classes", "weights")) for one in plain["shared"]),
        "repairs": tuple(Repair(**_tuples(one, "samples")) for one in plain["repairs"]),
        "cases": tuple(_case(one) for one in plain["cases"]),
        "cards": tuple(cards),
        "curve": None if curve is None else PathCurve(**curve, **own("curve.")),
    }
    plain_tensors = {name: value for name, value in tensors.items() if "." not in name}
    return HeadStudy(**{**plain, **nested, **plain_tensors})


def _tuples(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return entry | {name: tuple(entry[name]) for name in names}


def _case(entry: dict[str, Any]) -> Case:
    case = Case(**_tuples(entry, "repairs"))
    shares = tuple(Contribution(**one) for one in entry["contributions"])
    flip = None if entry["flip"] is None else Flip(**_tuples(entry["flip"], "features"))
    return replace(case, contributions=shares, flip=flip)
