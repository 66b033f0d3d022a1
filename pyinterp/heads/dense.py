"""The head that a network comes with, in the units of a sparse one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.heads.head import SparseHead
from pyinterp.models.classifier import Classifier
from pyinterp.models.packages import require
from pyinterp.version import package_version

IMAGENET = 1000
_SYNSET = re.compile(r"n\d{8}")


def head_of(classifier: Classifier, mean: Tensor, std: Tensor, class_names: Sequence[str] = ()) -> SparseHead:
    """A network's own last layer, in the units of standardised features: what a sparse head is compared with.

    Its logits are the network's where the features that were constant still are; one logit makes a binary head.

    Args:
        classifier: See `find_classifier`.
        mean: (d,), for example ``path.mean``.
        std: (d,), for example ``path.std``.
        class_names: One per class, or none.

    Raises:
        ValueError: Mean or deviation of another number of features.
        TypeError: ``classifier`` is something else, such as a network.
    """
    given: Any = classifier
    if not isinstance(given, Classifier):
        fix = "Pass find_classifier(model)."
        raise TypeError(explain("head_of", "a Classifier", type(given).__name__, fix))
    layer: Any = classifier.layer
    weights = layer.weight.detach().flatten(1)
    dtype = torch.promote_types(weights.dtype, torch.float32)
    weights = weights.double().cpu()
    raw = torch.zeros(len(weights)).double() if layer.bias is None else layer.bias.detach().double().cpu()
    for name, value in (("mean", mean), ("std", std)):
        if value.shape != weights.shape[1:]:
            fix = "Pass those of features of this network, for example path.mean and path.std."
            raise ValueError(explain("head_of", f"{name} ({weights.shape[1]},)", tuple(value.shape), fix))
    return SparseHead(
        weights=(weights * std).to(dtype),
        bias=(raw + weights @ mean.double()).to(dtype),
        mean=mean.double(),
        std=std.double(),
        family="binary" if len(weights) == 1 else "multinomial",
        class_names=tuple(class_names),
        classifier_name=classifier.name,
        model_digest="",
        origin={"from": "the network's own last layer"},
        version=package_version(),
    )


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
    rows = class_rows(head.class_names, model_classes, classifier.classes)
    if rows is None or len(rows) != head.classes or head.family == "gaussian":
        return None
    whole = head_of(classifier, head.mean, head.std, head.class_names)
    return replace(whole, weights=whole.weights[rows], bias=whole.bias[rows])


def class_rows(names: Sequence[str], known: Sequence[str], classes: int) -> list[int] | None:
    """Which of a network's classes some names are; see `dense_head`.

    Args:
        names: None: all classes in their order.
        known: The network's names.
        classes: How many it has.

    Returns:
        None if some name is not known, or two are the same class.
    """
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
