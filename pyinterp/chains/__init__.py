"""Chains: the few filters, heads and layers that keep a network's answer on a few images (NeuroChains)."""

from pyinterp.chains.analysis import (
    SufficiencyCurve,
    minimality,
    necessity,
    overlap,
    stability,
    sufficiency_curve,
)
from pyinterp.chains.baselines import BASELINES, baseline_masks, measure_baselines
from pyinterp.chains.chain import Chain, Prediction
from pyinterp.chains.extract import extract_chain, extract_chains
from pyinterp.chains.penalty import PRESETS

__all__ = [
    "BASELINES",
    "PRESETS",
    "Chain",
    "Prediction",
    "SufficiencyCurve",
    "baseline_masks",
    "extract_chain",
    "extract_chains",
    "measure_baselines",
    "minimality",
    "necessity",
    "overlap",
    "stability",
    "sufficiency_curve",
]
