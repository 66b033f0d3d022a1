"""The network's own last layer for the classes of a sparse head, if it has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pyinterp.heads.head import SparseHead, head_of
from pyinterp.models.classifier import Classifier
from pyinterp.models.packages import require

IMAGENET = 1000
_SYNSET = re.compile(r"n\d{8}")


def dense_head(
    classifier: Classifier, head: SparseHead, model_classes: Sequence[str] = ()
) -> SparseHead | None:
    """The rows of the network's own layer that are the head's classes, for the same standardised features.

    Classes are matched by their names, whole or one of several ("tabby" of "tabby, tabby cat"), in any case; by
    ImageNet's numbers of WordNet (n02123045); or, where the head's have no names, by their order.

    Args:
        classifier: See `find_classifier`.
        head: Whose classes, mean and deviation.
        model_classes: Of the network.

    Returns:
        None if some class is not known to the network, or two are the same to it.
    """
    rows = _rows(head.class_names, model_classes, classifier.classes)
    if rows is None or len(rows) != head.classes or head.family == "gaussian":
        return None
    whole = head_of(classifier, head.mean, head.std, head.class_names)
    return replace(whole, weights=whole.weights[rows], bias=whole.bias[rows])


def _rows(names: Sequence[str], known: Sequence[str], classes: int) -> list[int] | None:
    if not names:
        return list(range(classes))
    if len(known) != classes:
        return None
    if classes == IMAGENET and all(_SYNSET.fullmatch(name) for name in names):
        info = require("timm.data", "the numbers of ImageNet's classes").ImageNetInfo("imagenet-1k")
        numbers = {name: [row] for row, name in enumerate(info.label_names())}
    else:
        numbers = {}
        for row, name in enumerate(known):
            for part in {_plain(name), *map(_plain, name.split(","))}:
                numbers.setdefault(part, []).append(row)
        names = [_plain(name) for name in names]
    found = [numbers.get(name, []) for name in names]
    rows = [one[0] for one in found if len(one) == 1]
    return rows if len(rows) == len(names) == len(set(rows)) else None


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")
