"""Networks, images and texts: load them by name, see what can be gated, take their graph, exchange the last layer."""

from pyinterp.models.classifier import Classifier, features_of, find_classifier, with_classifier
from pyinterp.models.graph import TracedModel, trace
from pyinterp.models.images import ImageSet, load_images
from pyinterp.models.photographs import crops, photographs
from pyinterp.models.sites import Site, sites
from pyinterp.models.text import LoadedText, SentenceEncoder, load_text
from pyinterp.models.zoo import LoadedModel, load

__all__ = [
    "Classifier",
    "ImageSet",
    "LoadedModel",
    "LoadedText",
    "SentenceEncoder",
    "Site",
    "TracedModel",
    "crops",
    "features_of",
    "find_classifier",
    "load",
    "load_images",
    "load_text",
    "photographs",
    "sites",
    "trace",
    "with_classifier",
]
