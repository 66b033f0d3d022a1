"""See what a trained vision network computes: chains, interactions, what layers know, sparse heads."""

from typing import TYPE_CHECKING, Any

from pyinterp import chains, features, games, heads, interactions, knowledge, models, ops
from pyinterp.chains import Chain, extract_chain, extract_chains
from pyinterp.features import Features, extract_features
from pyinterp.games import ImageGame, box_players, grid_players, segment_players
from pyinterp.heads import SparseHead, SparsePath, fit_sparse_path
from pyinterp.interactions import (
    Interactions,
    SparseAndOr,
    extract_interactions,
    harsanyi_and,
    harsanyi_or,
    interactions_from_values,
    sparse_and_or,
)
from pyinterp.knowledge import LayerKnowledge, compare_knowledge, measure_knowledge

if TYPE_CHECKING:
    from pyinterp.report import write_report

__all__ = [
    "Chain",
    "Features",
    "ImageGame",
    "Interactions",
    "LayerKnowledge",
    "SparseAndOr",
    "SparseHead",
    "SparsePath",
    "box_players",
    "chains",
    "compare_knowledge",
    "extract_chain",
    "extract_chains",
    "extract_features",
    "extract_interactions",
    "features",
    "fit_sparse_path",
    "games",
    "grid_players",
    "harsanyi_and",
    "harsanyi_or",
    "heads",
    "interactions",
    "interactions_from_values",
    "knowledge",
    "measure_knowledge",
    "models",
    "ops",
    "segment_players",
    "sparse_and_or",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load the report, and Jinja2 with it, when it is asked for."""
    if name == "write_report":
        from pyinterp.report import write_report

        return write_report
    raise AttributeError(f"module 'pyinterp' has no attribute {name!r}")
