"""Interactions: the AND and OR effects of players, and the indices that follow from them."""

from pyinterp.interactions.harsanyi import harsanyi_and, harsanyi_or, reconstruct

__all__ = ["harsanyi_and", "harsanyi_or", "reconstruct"]
