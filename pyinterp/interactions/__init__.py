"""Interactions: the AND and OR effects of players, and the indices that follow from them."""

from pyinterp.interactions.and_or import SparseAndOr, sparse_and_or, sparse_and_or_jointly
from pyinterp.interactions.harsanyi import harsanyi_and, harsanyi_or, reconstruct
from pyinterp.interactions.indices import banzhaf, fsii, shapley, sii, stii
from pyinterp.interactions.shapiq import to_shapiq

__all__ = [
    "SparseAndOr",
    "banzhaf",
    "fsii",
    "harsanyi_and",
    "harsanyi_or",
    "reconstruct",
    "shapley",
    "sii",
    "sparse_and_or",
    "sparse_and_or_jointly",
    "stii",
    "to_shapiq",
]
