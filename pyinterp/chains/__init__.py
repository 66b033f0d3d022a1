"""Chains: the few filters, heads and layers that keep a network's answer on a few images (NeuroChains)."""

from pyinterp.chains.analysis import minimality, necessity, overlap, stability, sufficiency_curve
from pyinterp.chains.baselines import BASELINES, baseline_masks, measure_baselines
from pyinterp.chains.chain import Chain, Prediction
from pyinterp.chains.curve import SufficiencyCurve
from pyinterp.chains.extract import extract_chain, extract_chains
from pyinterp.chains.flow import ChainFlow
from pyinterp.chains.penalty import PRESETS
from pyinterp.chains.visual import measure_flow

__all__ = [
    "BASELINES",
    "PRESETS",
    "Chain",
    "ChainFlow",
    "Prediction",
    "SufficiencyCurve",
    "baseline_masks",
    "extract_chain",
    "extract_chains",
    "measure_baselines",
    "measure_flow",
    "minimality",
    "necessity",
    "overlap",
    "stability",
    "sufficiency_curve",
]
