"""SparsePath: the heads of a regularisation path, with what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from pyinterp.heads.head import SparseHead
from pyinterp.heads.select import choose
from pyinterp.storage import load_result, save_result


@dataclass(frozen=True, eq=False, repr=False)
class SparsePath:
    """Linear heads from empty to dense; each minimises, for its lambda,

        mean_i w_i loss(W z_i + b, y_i) + lambda * (alpha * norm(W) + (1 - alpha) / 2 * ||W||_F^2)

    over weights W (classes x features) and biases b, for standardised features z = (x - mean) / std. norm is the sum of
    absolute values or, grouped, of the lengths of the columns. The loss is the cross-entropy of a softmax
    (multinomial), of a sigmoid (binary, one row of weights), or half the squared error summed over targets (gaussian).

    Attributes:
        lambdas: (P,) float64, falling.
        weights: (P, K, d), in units of z; 0 for constant features.
        biases: (P, K); for "multinomial" their mean is 0, as a softmax leaves it open.
        kkt: (P,) float64: the largest distance of a gradient from what optimality asks, over lambda * alpha (alpha at
            least 0.001); 0 at the optimum.
        objective: (P,) float64, penalty included.
        converged: (P,) bool: whether kkt is at most `tolerance`.
        passes: (P,) int64: how often all rows were read.
        train_loss: (P,) float64, without penalty.
        train_accuracy: (P,) float64, weighted with the sample weights, as `train_loss` is; empty for gaussian.
        validation_loss: (P,) float64, without penalty; empty without validation rows. Weighted with the sample weights
            where these rows have them: a share held back has, other samples given for validation have none.
        validation_accuracy: (P,) float64, weighted likewise; empty without validation rows and for gaussian.
        mean: (d,) float64, of the training rows.
        std: (d,) float64, population; 0 for constant features.
        alpha: Share of the penalty that makes zeros.
        family: "multinomial", "binary" or "gaussian".
        grouped: Whether a feature is used by all classes or by none.
        tolerance: Aim of `kkt`.
        samples: Training rows.
        validation_samples: Rows held back or given for validation.
        stopped: Why the path ends: "grid", "max_features_per_class" or "interrupted".
        settings: The other arguments; and "curvatures", with which the search at the lambda after each point starts.
        class_names: Of the K classes, or empty.
        classifier_name: The layer whose input the features are, or "".
        model_digest: Of the network that gave the features, or "".
        version: Of pyinterp.
    """

    lambdas: Tensor
    weights: Tensor
    biases: Tensor
    kkt: Tensor
    objective: Tensor
    converged: Tensor
    passes: Tensor
    train_loss: Tensor
    train_accuracy: Tensor
    validation_loss: Tensor
    validation_accuracy: Tensor
    mean: Tensor
    std: Tensor
    alpha: float
    family: str
    grouped: bool
    tolerance: float
    samples: int
    validation_samples: int
    stopped: str
    settings: dict[str, Any]
    class_names: tuple[str, ...]
    classifier_name: str
    model_digest: str
    version: str

    def __len__(self) -> int:
        """Number of points."""
        return len(self.lambdas)

    @property
    def features_per_class(self) -> Tensor:
        """(P,) float64: non-zero weights over classes (NEC, the number of effective concepts)."""
        return (self.weights != 0).sum((1, 2)).double() / self.weights.shape[1]

    @property
    def features_used(self) -> Tensor:
        """(P,) int64: features that any class uses."""
        return (self.weights != 0).any(1).sum(1)

    def __repr__(self) -> str:
        return f"<SparsePath: {self.summary().splitlines()[0].removesuffix('.')}>"

    def summary(self) -> str:
        """The path in a few sentences."""
        used, points = self.features_per_class, len(self)
        lines = [
            f"{points} points, lambda {float(self.lambdas[0]):.3g} to {float(self.lambdas[-1]):.3g}; "
            f"{float(used[0]):.1f} to {float(used[-1]):.1f} of {self.weights.shape[2]} features per class "
            f"({self.weights.shape[1]} rows, {self.samples} samples, {self.family}, alpha {self.alpha:g}"
            f"{', grouped' if self.grouped else ''}).",
        ]
        if self.stopped != "grid":
            lines.append(f"It ends early: {self.stopped}.")
        missed = (~self.converged).nonzero()[:, 0].tolist()
        if missed:
            named = ", ".join(f"{i} (kkt {_above(float(self.kkt[i]), self.tolerance)})" for i in missed[:5])
            more = ", ..." if len(missed) > 5 else ""
            lines.append(
                f"{len(missed)} points did not reach the tolerance {self.tolerance:g}: {named}{more}. "
                f"{remedy(self)}"
            )
        else:
            lines.append(f"Every point is optimal to a KKT violation of {float(self.kkt.max()):.1e}.")
        if len(self.validation_accuracy):
            best = int(self.validation_accuracy.argmax())
            lines.append(
                f"Best validation accuracy {100 * float(self.validation_accuracy[best]):.1f} % "
                f"({self.validation_samples} samples) at {float(used[best]):.1f} features per class."
            )
        return "\n".join(lines)

    def select(
        self,
        *,
        features_per_class: float | None = None,
        within: float | None = None,
        best: str | None = None,
        point: int | None = None,
    ) -> SparseHead:
        """Choose one head, by exactly one rule.

        Args:
            features_per_class: The one whose mean number of non-zero weights per class is nearest. A path that
                reaches no such number gives its densest head, with a warning; one that was ended early is an error.
            within: The sparsest one whose validation accuracy is at most this much below the best (0.05: five points).
            best: "accuracy": the highest validation accuracy, the sparsest of equals first; "loss": the lowest
                validation loss, without the penalty.
            point: By its place on the path.

        Raises:
            ValueError: No rule or several; a rule that asks for validation samples, where there are none; a path that
                was ended before the wanted number of features.
        """
        return choose(self, features_per_class, within, best, point)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.safetensors`` (weights as their non-zero entries) and ``path.json``.

        Raises:
            OSError: They could not be written; older files are whole then.
        """
        used = self.weights.flatten().nonzero()[:, 0]
        tensors = {name: getattr(self, name) for name in _TENSORS if name != "weights"}
        tensors |= {"entries": used, "values": self.weights.flatten()[used]}
        plain = {name: value for name, value in _plain(self).items() if name not in _TENSORS}
        save_result("SparsePath", path, tensors, {**plain, "shape": list(self.weights.shape)})

    @staticmethod
    def load(path: str | PathLike[str]) -> SparsePath:
        """Read what `save` wrote.

        Raises:
            ValueError: The files are not there, damaged, or of something else.
        """
        return load_result("SparsePath", "a sparse path", path, _build)


def remedy(path: SparsePath) -> str:
    """What helps where points missed the tolerance."""
    early = path.passes[~path.converged] < path.settings["max_passes"]
    if path.weights.dtype == torch.float32 and bool(early.any()):
        return (
            "Searches ended at the precision of float32: pass float64 features (features.values.double()), "
            "or raise the tolerance."
        )
    return "Raise max_passes, or the tolerance."


def _above(kkt: float, tolerance: float) -> str:
    """A violation in two digits, in four where these are the tolerance's."""
    return f"{kkt:.3e}" if f"{kkt:.1e}" == f"{tolerance:.1e}" else f"{kkt:.1e}"


_TENSORS = (
    *("lambdas", "weights", "biases", "kkt", "objective", "converged", "passes"),
    *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "mean", "std"),
)


def _plain(path: SparsePath) -> dict[str, Any]:
    return {field.name: getattr(path, field.name) for field in fields(path) if field.name not in _TENSORS}


def _build(plain: dict[str, Any], tensors: dict[str, Tensor]) -> SparsePath:
    shape = plain.pop("shape")
    weights = tensors["values"].new_zeros(shape)
    weights.view(-1)[tensors.pop("entries")] = tensors.pop("values")
    plain["class_names"] = tuple(plain["class_names"])
    return SparsePath(**{**tensors, **plain, "weights": weights})
