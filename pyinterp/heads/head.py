"""SparseHead: a linear layer that reads a few features per class, in units that people can compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from pyinterp.elastic.families import FAMILIES
from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.given import values_of
from pyinterp.heads.labels import labels_for
from pyinterp.heads.number import checked_number, whole
from pyinterp.models.classifier import find_classifier, with_classifier
from pyinterp.models.graph import require_eval
from pyinterp.models.identity import model_digest
from pyinterp.models.inputs import Inputs
from pyinterp.storage import load_result, save_result

ROWS_AT_ONCE = 1 << 12
MEASURED = ("kkt", "converged", "train_accuracy", "validation_accuracy", "validation_loss")
"""What `SparseHead.origin` says of the weights as they were fitted, and of no others."""


@dataclass(frozen=True, eq=False, repr=False)
class SparseHead:
    """logits = W z + b for standardised features z = (x - mean) / std; z is 0 for constant features.

    Attributes:
        weights: (K, d).
        bias: (K,).
        mean: (d,) float64.
        std: (d,) float64; 0 for constant features.
        family: "multinomial" (K classes), "binary" (K = 1, the logit of class 1) or "gaussian" (K targets).
        class_names: Of the classes, or empty.
        classifier_name: The layer whose input the features are, or "".
        model_digest: Of the network that gave the features, or "".
        origin: How it came to be: lambda, kkt, accuracies, edits, ...
        version: Of pyinterp.
    """

    weights: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    family: str
    class_names: tuple[str, ...]
    classifier_name: str
    model_digest: str
    origin: dict[str, Any]
    version: str

    def __post_init__(self) -> None:
        rows, width = (*self.weights.shape, 0, 0)[:2]
        if self.family not in FAMILIES or (self.family == "binary" and rows != 1):
            got = f"{rows} rows of weights, {self.family!r}"
            fix = f"The families are {', '.join(FAMILIES)}; a binary head has one row."
            raise ValueError(explain("SparseHead", "weights of a known family", got, fix))
        shapes = [tuple(tensor.shape) for tensor in (self.weights, self.bias, self.mean, self.std)]
        if shapes != [(rows, width), (rows,), (width,), (width,)]:
            got = ", ".join(map(str, shapes))
            fix = "Pass one bias per row, and one mean and deviation per column."
            raise ValueError(explain("SparseHead", "weights (K, d), bias (K,), mean and std (d,)", got, fix))

    @property
    def features_per_class(self) -> float:
        """Non-zero weights over rows of weights (NEC)."""
        return float((self.weights != 0).sum()) / len(self.weights)

    @property
    def features_used(self) -> Tensor:
        """The features (numbers, rising) that any class uses."""
        return (self.weights != 0).any(0).nonzero()[:, 0]

    @property
    def classes(self) -> int:
        """Number of classes, or of targets."""
        return 2 if self.family == "binary" else len(self.weights)

    def name(self, number: int) -> str:
        """The name of a class."""
        if number < len(self.class_names):
            return self.class_names[number]
        return f"{'target' if self.family == 'gaussian' else 'class'} {number}"

    def class_number(self, wanted: SupportsIndex | str) -> int:
        """The number of a class, given as such or by its name.

        Raises:
            ValueError: There is no such class.
        """
        number = whole(wanted)
        if isinstance(wanted, str) and wanted in self.class_names[: self.classes]:
            number = self.class_names.index(wanted)
        if number is not None and 0 <= number < self.classes:
            return number
        known = f"0 to {self.classes - 1}"
        if self.class_names:
            more = ", ..." if self.classes > 10 else ""
            known += f", or {', '.join(map(repr, self.class_names[: min(10, self.classes)]))}{more}"
        raise ValueError(explain("SparseHead", f"a class ({known})", repr(wanted), "Pass one of them."))

    def feature_number(self, feature: SupportsIndex) -> int:
        """The number of a feature, checked.

        Raises:
            ValueError: There is no such feature.
        """
        number, width = whole(feature), self.weights.shape[1]
        if number is None or not 0 <= number < width:
            fix = "Pass one of them."
            raise ValueError(explain("SparseHead", f"a feature (0 to {width - 1})", repr(feature), fix))
        return number

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Weights (classes, d) and biases (classes,); class 0 of a binary head has zeros."""
        if self.family != "binary":
            return self.weights, self.bias
        return torch.cat([0 * self.weights, self.weights]), torch.cat([0 * self.bias, self.bias])

    def standardise(self, features: Tensor | Features, where: str = "SparseHead.standardise") -> Tensor:
        """(N, d) features -> z, on the CPU and in the dtype of the weights.

        Args:
            features: (N, d), or what `extract_features` gave.
            where: Who asks, for errors.

        Raises:
            TypeError: No features.
            ValueError: Another shape; NaN or infinity (the rows are named).
        """
        chunks = [z for _, z in self.chunks(where, features)]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def chunks(self, where: str, features: Tensor | Features) -> Iterator[tuple[slice, Tensor]]:
        """`standardise` for some thousand rows after the other, each time with the rows that these are."""
        features = self.require_features(where, features)
        scale = torch.where(self.std > 0, 1 / self.std, 0.0)
        for start in range(0, max(1, len(features)), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            z = (features[rows].detach().to("cpu", torch.float64) - self.mean) * scale
            if not bool(z.sum().isfinite()):
                bad = ((~z.isfinite()).any(1).nonzero()[:, 0] + start).tolist()
                named = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
                fix = "Look at these samples; leave them out, or mend the network or the data behind them."
                raise ValueError(explain(where, "finite features", f"NaN or infinity in rows {named}", fix))
            yield rows, z.to(self.weights.dtype)

    def require_features(self, where: str, features: Tensor | Features) -> Tensor:
        """The features as a tensor; TypeError or ValueError, in the name of ``where``, unless they are (N, d)."""
        values, width = values_of(where, features), self.weights.shape[1]
        if values.dim() != 2 or values.shape[1] != width:
            fix = "Extract them with the network that the head belongs to."
            raise ValueError(explain(where, f"features (N, {width})", tuple(values.shape), fix))
        return values

    def logits(self, features: Tensor | Features, where: str = "SparseHead.logits") -> Tensor:
        """(N, d) features -> (N, classes), on the CPU; arguments and errors as in `standardise`."""
        weights, bias = self.rows
        return torch.cat([torch.addmm(bias, z, weights.T) for _, z in self.chunks(where, features)])

    def predict(self, features: Tensor | Features, where: str = "SparseHead.predict") -> Tensor:
        """(N, d) features -> (N,) classes; the targets (N, K) of a gaussian head. Otherwise as `standardise`."""
        logits = self.logits(features, where)
        return logits if self.family == "gaussian" else logits.argmax(1)

    def accuracy(
        self,
        features: Tensor | Features,
        labels: Tensor | None = None,
        where: str = "SparseHead.accuracy",
    ) -> float:
        """Share of samples whose label is predicted.

        Args:
            features: (N, d), or what `extract_features` gave.
            labels: (N,); None takes those of the features.
            where: Who asks, for errors.

        Raises:
            TypeError: Features or labels of a wrong type.
            ValueError: Shapes that don't fit, labels that are no classes of this head, or a head of numbers.
        """
        values, labels = labels_for(where, self, features, labels)
        return float((self.predict(values, where) == labels).double().mean())

    def edit(self, feature: int, class_: int | str, weight: float) -> SparseHead:
        """A head with another weight of one feature for one class; 0 takes the feature away from it.

        Args:
            feature: Its number.
            class_: A class, by number or name.
            weight: In logits per standard deviation of the feature.

        Raises:
            ValueError: There is no such class or feature; class 0 of a binary head; a feature that was constant, so
                that no weight of it changes anything; a weight that is not finite.
        """
        feature, row = self.feature_number(feature), self.row_number("SparseHead.edit", class_)
        weight = checked_number(
            "SparseHead.edit", "a finite weight", weight, math.isfinite, "Pass 0 to remove it."
        )
        if weight and not self.std[feature]:
            fix = "It had one value in all training samples, so that the head can't read it."
            raise ValueError(explain("SparseHead.edit", "a feature that varies", f"feature {feature}", fix))
        weights = self.weights.clone()
        weights[row, feature] = weight
        edits = [*self.origin.get("edits", []), [feature, self.class_number(class_), weight]]
        return changed(self, weights, edits=edits)

    def without(self, features: int | Iterable[int] | Tensor) -> SparseHead:
        """A head in which no class uses these features (numbers): they count as average in every sample.

        Raises:
            ValueError: There is no such feature.
        """
        given = features.tolist() if hasattr(features, "tolist") else features
        numbers = [self.feature_number(j) for j in (given if isinstance(given, Iterable) else [given])]
        weights = self.weights.clone()
        weights[:, numbers] = 0
        return changed(self, weights, removed=[*self.origin.get("removed", []), *numbers])

    def row_number(self, where: str, class_: int | str) -> int:
        """The row of `weights` that speaks for a class; ``where`` names who asks.

        Raises:
            ValueError: There is no such class; class 0 of a binary head, which has no weights of its own.
        """
        number = self.class_number(class_)
        if self.family != "binary":
            return number
        if number == 0:
            fix = "Its logit decides alone: what speaks for class 0 has a negative weight for class 1."
            raise ValueError(explain(where, f"{self.name(1)} of a binary head", self.name(0), fix))
        return 0

    def to_linear(self) -> nn.Linear:
        """The same head for features x as the network computes them: weights W / std, biases b - W (mean / std).

        It gives what `logits` gives; a binary head has two outputs, of which the first is 0.
        """
        weights, bias = self.rows
        raw = weights.double() * torch.where(self.std > 0, 1 / self.std, 0.0)
        layer = nn.Linear(weights.shape[1], len(weights), dtype=weights.dtype)
        with torch.no_grad():
            layer.weight.copy_(raw)
            layer.bias.copy_(bias.double() - raw @ self.mean)
        return layer

    def attach(self, model: nn.Module, example: Inputs | None = None) -> nn.Module:
        """A copy of the network with this head as its last layer; all other weights are shared, ``model`` is untouched.

        The copy is a network like any other: chains and interactions can be extracted from it. A binary head gives
        two logits, of which the first is 0.

        Args:
            model: The network that the features come from, in eval mode.
            example: As in `find_classifier`.

        Raises:
            ValueError: It is another network, its last layer reads another number of features, or it can't be
                exchanged.
        """
        require_eval(model)
        if self.model_digest and model_digest(model) != self.model_digest:
            fix = "Attach it to the network and weights that gave the features."
            raise ValueError(explain("SparseHead.attach", "the network of this head", "another", fix))
        classifier = find_classifier(model, example)
        width = self.weights.shape[1]
        if classifier.features != width:
            got = f"{classifier.features} read by {classifier.name!r}"
            fix = "Attach it to the network that gave the features."
            raise ValueError(explain("SparseHead.attach", f"{width} features", got, fix))
        own = next(classifier.layer.parameters())
        return with_classifier(model, self.to_linear().to(own.device, own.dtype), example)

    def __repr__(self) -> str:
        return f"<SparseHead: {self.summary().splitlines()[0].removesuffix('.')}>"

    def summary(self) -> str:
        """The head in a few sentences."""
        width, used = self.weights.shape[1], len(self.features_used)
        noun = "target" if self.family == "gaussian" else "class"
        words = [
            f"{self.classes} {noun}{'s' if noun == 'target' else 'es'}, {self.features_per_class:.1f} features per "
            f"{noun}, {used} of {width} in all."
        ]
        for key, text in (
            ("validation_accuracy", "Validation accuracy"),
            ("train_accuracy", "Accuracy on the training samples"),
        ):
            if self.origin.get(key) is not None:
                words.append(f"{text} {100 * self.origin[key]:.1f} %.")
        if self.origin.get("converged") is False:
            words.append(
                f"It is not optimal: KKT violation {self.origin['kkt']:.1e}; summary() of its path says what helps."
            )
        for key, noun, verb in (("edits", "weights", "edited"), ("removed", "features", "removed")):
            if self.origin.get(key):
                words.append(f"{len(self.origin[key])} {noun} {verb} by hand.")
        return "\n".join(words)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.safetensors`` and ``path.json``.

        Raises:
            OSError: They could not be written; older files are whole then.
        """
        tensors = {"weights": self.weights, "bias": self.bias, "mean": self.mean, "std": self.std}
        plain = {key: value for key, value in vars(self).items() if key not in tensors}
        save_result("SparseHead", path, tensors, plain)

    @staticmethod
    def load(path: str | PathLike[str]) -> SparseHead:
        """Read what `save` wrote.

        Raises:
            ValueError: The files are not there, damaged, or of something else.
        """
        return load_result("SparseHead", "a sparse head", path, _build)


def changed(head: SparseHead, weights: Tensor, bias: Tensor | None = None, **origin: Any) -> SparseHead:
    """The head with other weights (K, d): what was measured of the old ones is dropped, ``origin`` is noted."""
    kept = {key: value for key, value in head.origin.items() if key not in MEASURED}
    bias = head.bias if bias is None else bias
    return replace(head, weights=weights, bias=bias, origin={**kept, **origin})


def _build(plain: dict[str, Any], tensors: dict[str, Tensor]) -> SparseHead:
    plain["class_names"] = tuple(plain["class_names"])
    return SparseHead(**{**tensors, **plain})
