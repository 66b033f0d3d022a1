"""Sparse heads: a last layer that reads a few deep features per class, and what it tells about a model."""

from typing import TYPE_CHECKING, Any

from pyinterp.heads.audit import group_differences, repairs, shared_features, top_k_accuracy, top_samples
from pyinterp.heads.counterfactuals import WordFlips, counterfactual_words
from pyinterp.heads.dense import dense_head, head_of
from pyinterp.heads.head import SparseHead
from pyinterp.heads.head_study import HeadStudy
from pyinterp.heads.illustrate import illustrate
from pyinterp.heads.path import fit_sparse_path
from pyinterp.heads.reading import (
    contributions,
    explain_margin,
    single_repairs,
    smallest_flip,
    smallest_flips,
    smallest_repair,
)
from pyinterp.heads.refit import exactly, refit
from pyinterp.heads.scored_words import TopWords
from pyinterp.heads.single import feature_model
from pyinterp.heads.sparse_path import SparsePath
from pyinterp.heads.sparsity import anec, at_nec, ncc, random_features
from pyinterp.heads.study import study_head
from pyinterp.heads.suspects import suspects
from pyinterp.heads.validation import held_rows
from pyinterp.heads.words import WordEffects, top_words, word_effects
from pyinterp.models.packages import require

if TYPE_CHECKING:
    from pyinterp.heads.estimator import SparseHeadClassifier

__all__ = [
    "HeadStudy",
    "SparseHead",
    "SparseHeadClassifier",
    "SparsePath",
    "TopWords",
    "WordEffects",
    "WordFlips",
    "anec",
    "at_nec",
    "contributions",
    "counterfactual_words",
    "dense_head",
    "exactly",
    "explain_margin",
    "feature_model",
    "fit_sparse_path",
    "group_differences",
    "head_of",
    "held_rows",
    "illustrate",
    "ncc",
    "random_features",
    "refit",
    "repairs",
    "shared_features",
    "single_repairs",
    "smallest_flip",
    "smallest_flips",
    "smallest_repair",
    "study_head",
    "suspects",
    "top_k_accuracy",
    "top_samples",
    "top_words",
    "word_effects",
]


def __getattr__(name: str) -> Any:
    """Load the estimator, and scikit-learn with it, when it is asked for."""
    if name == "SparseHeadClassifier":
        require("sklearn", name)
        from pyinterp.heads.estimator import SparseHeadClassifier

        return SparseHeadClassifier
    raise AttributeError(f"module 'pyinterp.heads' has no attribute {name!r}")
