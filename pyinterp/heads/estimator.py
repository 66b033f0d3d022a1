"""SparseHeadClassifier: a sparse head as an estimator of scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.heads.head import SparseHead
from pyinterp.heads.path import fit_sparse_path
from pyinterp.heads.sparse_path import SparsePath

WHERE = "SparseHeadClassifier"
USUAL = 20  # features per class, as in the source of `fit_sparse_path`
USUAL_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


class SparseHeadClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier with a few features per class: `fit_sparse_path` and a choice from its path.

    With ``strength`` it is scikit-learn's ``LogisticRegression(C=1 / (strength * n_samples), l1_ratio=alpha,
    solver="saga")`` on standardised features. Two classes make a binary head with one row of weights.

    Args:
        features_per_class: The head whose mean number of features per class is nearest. If this and the next two are
            None: 20, or as many as the path has.
        within: Instead, the sparsest head whose accuracy on held-out samples is at most this much below the best.
        strength: Instead, the head of this lambda, which alone is fitted.
        alpha: 0 to 1, share of the penalty that makes zeros.
        n_lambdas: Points of the path.
        min_ratio: Last lambda over the first.
        tolerance: Aim of the relative KKT violation. None: 1e-4 for float32; 1e-9 for float64, where weighted samples
            then give what repeated ones do to 7 digits, in three to four times as many passes.
        grouped: All classes use a feature, or none does.
        validation_fraction: Share of the samples that ``within`` holds out.
        solver: As in `fit_sparse_path`.
        max_passes: Most readings of all rows for one lambda.
        random_state: Of the held-out samples, and of the solver "saga".

    Attributes:
        classes_: (K,) the labels.
        coef_: (K, n_features), for two classes (1, n_features): in units of X, not of standardised features.
        intercept_: (K,) or (1,).
        head_: The `SparseHead`; its class names are the labels as text.
        path_: The `SparsePath` from which it was chosen.
        n_features_in_: Columns of X.
        n_iter_: Readings of all rows, over the whole path.
    """

    def __init__(
        self,
        *,
        features_per_class: float | None = None,
        within: float | None = None,
        strength: float | None = None,
        alpha: float = 0.99,
        n_lambdas: int = 100,
        min_ratio: float = 1e-3,
        tolerance: float | None = None,
        grouped: bool = False,
        validation_fraction: float = 0.1,
        solver: str = "gram",
        max_passes: int = 2000,
        random_state: Any = None,
    ) -> None:
        self.features_per_class = features_per_class
        self.within = within
        self.strength = strength
        self.alpha = alpha
        self.n_lambdas = n_lambdas
        self.min_ratio = min_ratio
        self.tolerance = tolerance
        self.grouped = grouped
        self.validation_fraction = validation_fraction
        self.solver = solver
        self.max_passes = max_passes
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseHeadClassifier:
        """Fit a path to samples X (n_samples, n_features) with labels y of any kind, and choose a head.

        Args:
            X: float32 is worked on as such, all else in float64.
            y: (n_samples,).
            sample_weight: (n_samples,) >= 0. A whole number counts as so many copies of the sample, 0 as none.

        Raises:
            ValueError: Input that scikit-learn refuses too, labels of one class only, or more than one of
                features_per_class, within and strength.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        weights = None
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            counted = sample_weight > 0
            X, y, weights = X[counted], y[counted], sample_weight[counted]
            weights = torch.from_numpy(weights * (len(weights) / weights.sum()))
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            fix = "Bring samples of another one, with weights above 0."
            raise ValueError(explain(WHERE, "samples of at least two classes", "one class", fix))
        self.path_ = self._path(_tensor(X), torch.from_numpy(numbers), weights)
        self.head_ = self._choice(self.path_)
        linear = self.head_.to_linear()
        own = slice(1, None) if len(self.classes_) == 2 else slice(None)  # class 0 of two has zeros
        self.coef_ = linear.weight.detach().numpy()[own]
        self.intercept_ = linear.bias.detach().numpy()[own]
        self.n_iter_ = int(self.path_.passes.sum())
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits (n_samples, K); for two classes (n_samples,), above 0 for ``classes_[1]``."""
        logits = self._logits(X).numpy()
        return logits[:, 1] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n_samples, K) of the classes: the softmax of their logits."""
        return self._logits(X).softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The label (n_samples,) with the largest logit."""
        numbers = self._logits(X).argmax(1).numpy()
        return self.classes_[numbers]

    def _logits(self, X: Any) -> Tensor:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self.head_.logits(_tensor(X))

    def _path(self, features: Tensor, labels: Tensor, weights: Tensor | None) -> SparsePath:
        rules = ("features_per_class", "within", "strength")
        given = [name for name in rules if getattr(self, name) is not None]
        if len(given) > 1:
            fix = "Set the others to None."
            raise ValueError(explain(WHERE, f"at most one of {', '.join(rules)}", " and ".join(given), fix))
        wanted = self.features_per_class if given else USUAL
        return fit_sparse_path(
            features,
            labels,
            alpha=self.alpha,
            n_lambdas=self.n_lambdas,
            min_ratio=self.min_ratio,
            lambdas=None if self.strength is None else [self.strength],
            tolerance=USUAL_TOLERANCE[features.dtype] if self.tolerance is None else self.tolerance,
            max_features_per_class=wanted,
            family="binary" if len(self.classes_) == 2 else "multinomial",
            grouped=self.grouped,
            sample_weights=weights,
            validation=None if self.within is None else self.validation_fraction,
            solver=self.solver,
            max_passes=self.max_passes,
            seed=check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
            progress=False,
        )

    def _choice(self, path: SparsePath) -> SparseHead:
        if self.within is not None:
            head = path.select(within=self.within)
        elif self.features_per_class is not None:
            head = path.select(features_per_class=self.features_per_class)
        elif self.strength is not None:
            head = path.select(point=0)
        else:
            head = path.select(point=int((path.features_per_class - USUAL).abs().argmin()))
        return replace(head, class_names=tuple(map(str, self.classes_.tolist())))


def _tensor(array: np.ndarray) -> Tensor:
    """The same numbers; a copy of what can't be written to, which torch does not know."""
    return torch.from_numpy(np.require(array, requirements="W"))
