"""SparseHead: a linear layer that reads a few features per class, in units that people can compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models.classifier import Classifier, with_classifier
from pyinterp.models.identity import model_digest
from pyinterp.storage import load_result, save_result


@dataclass(frozen=True, eq=False)
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
        return self.class_names[number] if self.class_names else f"class {number}"

    def class_number(self, wanted: int | str) -> int:
        """The number of a class, given as such or by its name.

        Raises:
            ValueError: There is no such class.
        """
        if isinstance(wanted, str) and wanted in self.class_names:
            return self.class_names.index(wanted)
        if isinstance(wanted, int) and 0 <= wanted < self.classes:
            return wanted
        known = ", ".join(self.class_names[:10]) if self.class_names else f"0 to {self.classes - 1}"
        raise ValueError(explain("SparseHead", f"a class ({known})", repr(wanted), "Pass one of them."))

    def feature_number(self, feature: int) -> int:
        """The number of a feature, checked.

        Raises:
            ValueError: There is no such feature.
        """
        width = self.weights.shape[1]
        if not 0 <= feature < width:
            raise ValueError(
                explain("SparseHead", f"a feature 0 to {width - 1}", feature, "Pass one of them.")
            )
        return int(feature)

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Weights (classes, d) and biases (classes,); class 0 of a binary head has zeros."""
        if self.family != "binary":
            return self.weights, self.bias
        return torch.cat([0 * self.weights, self.weights]), torch.cat([0 * self.bias, self.bias])

    def standardise(self, features: Tensor) -> Tensor:
        """(N, d) features -> z."""
        width = self.weights.shape[1]
        if features.dim() != 2 or features.shape[1] != width:
            fix = "Extract them with the network that the head belongs to."
            raise ValueError(explain("SparseHead", f"features (N, {width})", tuple(features.shape), fix))
        scale = torch.where(self.std > 0, 1 / self.std, 0.0)
        z = (features.detach().double().cpu() - self.mean) * scale
        return z.to(self.weights.dtype)

    def logits(self, features: Tensor) -> Tensor:
        """(N, d) features -> (N, classes)."""
        weights, bias = self.rows
        return torch.addmm(bias, self.standardise(features), weights.T)

    def predict(self, features: Tensor) -> Tensor:
        """(N, d) features -> (N,) classes; the targets (N, K) of a gaussian head."""
        logits = self.logits(features)
        return logits if self.family == "gaussian" else logits.argmax(1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of samples whose label (N,) is predicted."""
        return float((self.predict(features) == labels.cpu()).double().mean())

    def edit(self, feature: int, class_: int | str, weight: float) -> SparseHead:
        """A head with another weight of one feature for one class; 0 takes the feature away from it.

        Raises:
            ValueError: There is no such class or feature; class 0 of a binary head.
        """
        feature, row = self.feature_number(feature), self.class_number(class_)
        if self.family == "binary":
            if row == 0:
                fix = "Edit class 1: its logit decides alone, and what speaks for 0 has a negative weight."
                raise ValueError(explain("SparseHead.edit", "class 1 of a binary head", 0, fix))
            row = 0
        weights = self.weights.clone()
        weights[row, feature] = weight
        edits = [*self.origin.get("edits", []), [feature, row, weight]]
        return replace(self, weights=weights, origin={**self.origin, "edits": edits})

    def without(self, features: int | list[int] | Tensor) -> SparseHead:
        """A head in which no class uses these features: they count as average in every sample.

        Raises:
            ValueError: There is no such feature.
        """
        numbers = [self.feature_number(int(j)) for j in torch.as_tensor(features).reshape(-1)]
        weights = self.weights.clone()
        weights[:, numbers] = 0
        removed = [*self.origin.get("removed", []), *numbers]
        return replace(self, weights=weights, origin={**self.origin, "removed": removed})

    def to_linear(self) -> nn.Linear:
        """The same head for features as the network computes them: weights W / std, biases b - W (mean / std)."""
        return _linear(*self._folded(self.weights, self.bias))

    def attach(self, model: nn.Module, example: Any = None) -> nn.Module:
        """A copy of the network with this head as its last layer; all other weights are shared, ``model`` is untouched.

        The copy is a network like any other: chains and interactions can be extracted from it. A binary head gives
        two logits, of which the first is 0.

        Args:
            model: The network that the features come from.
            example: As in `find_classifier`.

        Raises:
            ValueError: It is another network, or its last layer can't be exchanged.
        """
        if self.model_digest and model_digest(model) != self.model_digest:
            fix = "Attach it to the network and weights that gave the features."
            raise ValueError(explain("SparseHead.attach", "the network of this head", "another", fix))
        like = next(model.parameters(), self.weights)
        return with_classifier(model, _linear(*self._folded(*self.rows)).to(like), example)

    def summary(self) -> str:
        """The head in a few sentences."""
        width, used = self.weights.shape[1], len(self.features_used)
        words = [
            f"{self.classes} classes, {self.features_per_class:.1f} features per class, {used} of {width} in all."
        ]
        for key, text in (
            ("validation_accuracy", "Validation accuracy"),
            ("train_accuracy", "Accuracy on the training samples"),
        ):
            if self.origin.get(key) is not None:
                words.append(f"{text} {100 * self.origin[key]:.1f} %.")
        if self.origin.get("converged") is False:
            words.append(
                f"It is not optimal: KKT violation {self.origin['kkt']:.1e}; raise max_passes for this path."
            )
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

    def _folded(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        scale = torch.where(self.std > 0, 1 / self.std, 0.0)
        raw = weights.double() * scale
        return raw.to(weights.dtype), (bias.double() - raw @ self.mean).to(bias.dtype)


def head_of(
    classifier: Classifier, mean: Tensor, std: Tensor, class_names: tuple[str, ...] = ()
) -> SparseHead:
    """A network's own last layer, in the units of standardised features: what a sparse head is compared with.

    Args:
        classifier: See `find_classifier`.
        mean: (d,), as in the sparse head.
        std: (d,), as in the sparse head.
        class_names: One per class, or none.
    """
    layer: Any = classifier.layer
    weights = layer.weight.detach().flatten(1).double().cpu()
    raw = torch.zeros(len(weights)).double() if layer.bias is None else layer.bias.detach().double().cpu()
    return SparseHead(
        weights=(weights * std).float(),
        bias=(raw + weights @ mean).float(),
        mean=mean,
        std=std,
        family="multinomial",
        class_names=class_names,
        classifier_name=classifier.name,
        model_digest="",
        origin={"from": "the network's own last layer"},
        version="",
    )


def _linear(weights: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weights.shape[1], len(weights), dtype=weights.dtype)
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.copy_(bias)
    return layer


def _build(plain: dict[str, Any], tensors: dict[str, Tensor]) -> SparseHead:
    plain["class_names"] = tuple(plain["class_names"])
    return SparseHead(**{**tensors, **plain})
