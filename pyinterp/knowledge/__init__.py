"""Knowledge: which interactions each layer of a network encodes, what later layers keep of them, forget and add."""

from pyinterp.knowledge.compare import compare_knowledge
from pyinterp.knowledge.layer_game import LayerGame, LayerValues
from pyinterp.knowledge.layer_knowledge import LayerKnowledge
from pyinterp.knowledge.layers import Layer, find_layers
from pyinterp.knowledge.measure import measure_knowledge
from pyinterp.knowledge.metrics import Estimate, Transfer, bootstrap, corrected, jaccard, transfer
from pyinterp.knowledge.probes import Probes, fit_probes

__all__ = [
    "Estimate",
    "Layer",
    "LayerGame",
    "LayerKnowledge",
    "LayerValues",
    "Probes",
    "Transfer",
    "bootstrap",
    "compare_knowledge",
    "corrected",
    "find_layers",
    "fit_probes",
    "jaccard",
    "measure_knowledge",
    "transfer",
]
