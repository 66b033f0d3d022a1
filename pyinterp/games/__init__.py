"""Games over the parts of an input: players, what stands for an absent one, and the scores of all subsets."""

from pyinterp.games.masking import dataset_mean, make_baseline, mask_token_baseline
from pyinterp.games.players import Players, box_players, feature_players, grid_players, token_players

__all__ = [
    "Players",
    "box_players",
    "dataset_mean",
    "feature_players",
    "grid_players",
    "make_baseline",
    "mask_token_baseline",
    "token_players",
]
