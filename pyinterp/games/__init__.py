"""Games over the parts of an input: players, what stands for an absent one, and the scores of all subsets."""

from pyinterp.games.feature import FeatureGame
from pyinterp.games.game import Game
from pyinterp.games.image import ImageGame
from pyinterp.games.masking import dataset_mean, make_baseline, mask_token_baseline
from pyinterp.games.players import Players, box_players, feature_players, grid_players, token_players
from pyinterp.games.text import TextGame
from pyinterp.games.values import GameValues

__all__ = [
    "FeatureGame",
    "Game",
    "GameValues",
    "ImageGame",
    "Players",
    "TextGame",
    "box_players",
    "dataset_mean",
    "feature_players",
    "grid_players",
    "make_baseline",
    "mask_token_baseline",
    "token_players",
]
