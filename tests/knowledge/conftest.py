"""A small network for three colours, and what is measured of it."""

from __future__ import annotations

import pytest
from small_net import Small, coloured, trained

from pyinterp.games import grid_players
from pyinterp.knowledge import LayerKnowledge, measure_knowledge


@pytest.fixture(scope="module")
def small() -> Small:
    return trained()


@pytest.fixture(scope="module")
def measured(small: Small) -> LayerKnowledge:
    images, labels = coloured()
    return measure_knowledge(
        small, images, labels, players=grid_players(2, 2), count=6, draws=5, progress=False
    )
