"""Deep features: what a network's last linear layer reads, for many inputs."""

from pyinterp.features.extract import extract_features
from pyinterp.features.features import Features

__all__ = ["Features", "extract_features"]
