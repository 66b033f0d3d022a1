"""Sparse heads: a last layer that reads a few deep features per class, and what it tells about a model."""

from pyinterp.heads.audit import group_differences, repairs, shared_features, top_k_accuracy, top_samples
from pyinterp.heads.counterfactuals import WordFlips, counterfactual_words
from pyinterp.heads.dense import head_of
from pyinterp.heads.estimator import SparseHeadClassifier
from pyinterp.heads.head import SparseHead
from pyinterp.heads.path import fit_sparse_path
from pyinterp.heads.place import FeaturePlaces, locate_features
from pyinterp.heads.reading import (
    contributions,
    explain_margin,
    single_repairs,
    smallest_flip,
    smallest_flips,
)
from pyinterp.heads.refit import exactly, refit
from pyinterp.heads.single import feature_model
from pyinterp.heads.sparse_path import SparsePath
from pyinterp.heads.sparsity import anec, at_nec, ncc, random_features
from pyinterp.heads.suspects import suspects
from pyinterp.heads.visualise import FeaturePictures, visualise_features
from pyinterp.heads.words import TopWords, WordEffects, top_words, word_effects
from pyinterp.models.packages import require

__all__ = [
    "FeaturePictures",
    "FeaturePlaces",
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
    "exactly",
    "explain_margin",
    "feature_model",
    "fit_sparse_path",
    "group_differences",
    "head_of",
    "locate_features",
    "ncc",
    "random_features",
    "refit",
    "repairs",
    "shared_features",
    "single_repairs",
    "smallest_flip",
    "smallest_flips",
    "suspects",
    "top_k_accuracy",
    "top_samples",
    "top_words",
    "visualise_features",
    "word_effects",
]
