"""Deep features: what a network's last linear layer reads, and what each of them responds to."""

from pyinterp.features.extract import extract_features
from pyinterp.features.features import Features
from pyinterp.features.place import FeaturePlaces, locate_features
from pyinterp.features.visualise import FeaturePictures, visualise_features

__all__ = [
    "FeaturePictures",
    "FeaturePlaces",
    "Features",
    "extract_features",
    "locate_features",
    "visualise_features",
]
