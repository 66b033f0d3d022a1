"""Interactions: AND and OR effects of the parts of an input (Harsanyi interactions), exact over all 2^n subsets."""

from pyinterp.interactions.and_or import SparseAndOr, sparse_and_or, sparse_and_or_jointly
from pyinterp.interactions.extract import extract_interactions, interactions_from_values
from pyinterp.interactions.harsanyi import harsanyi_and, harsanyi_or, reconstruct
from pyinterp.interactions.indices import banzhaf, fsii, shapley, sii, stii
from pyinterp.interactions.interactions import Effect, Interactions
from pyinterp.interactions.intervals import Intervals
from pyinterp.interactions.metrics import ErrorCurve, error_curve, noise_floor, strength_by_order
from pyinterp.interactions.shapiq import to_shapiq

__all__ = [
    "Effect",
    "ErrorCurve",
    "Interactions",
    "Intervals",
    "SparseAndOr",
    "banzhaf",
    "error_curve",
    "extract_interactions",
    "fsii",
    "harsanyi_and",
    "harsanyi_or",
    "interactions_from_values",
    "noise_floor",
    "reconstruct",
    "shapley",
    "sii",
    "sparse_and_or",
    "sparse_and_or_jointly",
    "stii",
    "strength_by_order",
    "to_shapiq",
]
