"""Networks and images: load them by name, see what can be gated, take their graph."""

from pyinterp.models.graph import TracedModel, trace
from pyinterp.models.images import ImageSet, load_images
from pyinterp.models.photographs import crops, photographs
from pyinterp.models.sites import Site, sites
from pyinterp.models.zoo import LoadedModel, load

__all__ = [
    "ImageSet",
    "LoadedModel",
    "Site",
    "TracedModel",
    "crops",
    "load",
    "load_images",
    "photographs",
    "sites",
    "trace",
]
