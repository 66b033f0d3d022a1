"""Sparse heads: the deep features of a network, and a last layer that reads a few of them per class."""

from pyinterp.heads.extract import extract_features
from pyinterp.heads.features import Features

__all__ = ["Features", "extract_features"]
