"""Interactions: AND and OR effects of the parts of an input (Harsanyi interactions), exact over all 2^n subsets."""

from pyinterp.interactions.and_or import SparseAndOr, sparse_and_or
from pyinterp.interactions.extract import extract_interactions, interactions_from_values
from pyinterp.interactions.harsanyi import harsanyi_and, harsanyi_or, reconstruct
from pyinterp.interactions.interactions import Effect, Interactions
from pyinterp.interactions.intervals import Intervals
from pyinterp.interactions.metrics import ErrorCurve, error_curve, noise_floor, strength_by_order

__all__ = [
    "Effect",
    "ErrorCurve",
    "Interactions",
    "Intervals",
    "SparseAndOr",
    "error_curve",
    "extract_interactions",
    "harsanyi_and",
    "harsanyi_or",
    "interactions_from_values",
    "noise_floor",
    "reconstruct",
    "sparse_and_or",
    "strength_by_order",
]
