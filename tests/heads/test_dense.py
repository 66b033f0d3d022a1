"""The network's own layer as a head: its classes are those of the sparse head, or there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_heads import small_head
from torch import nn

from pyinterp.heads.dense import dense_head
from pyinterp.models.classifier import find_classifier

D = 8
HEAD = small_head(rows=3, width=D)


def classifier(classes: int) -> Any:
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, classes)).eval()
    return find_classifier(network, torch.randn(2, D))


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (("ant", "bee", "dog"), ("ant", "bee", "cow")),  # one is unknown
        (("ant", "bee", "cow"), ("ant", "bee", "ant")),  # nobody knows which ant
        (("ant", "bee", "cow"), ("ant, bee", "cow", "cat")),  # two are the same
        (("ant", "bee", "cow"), ()),
    ],
)
def test_other_classes_are_not_compared(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    assert dense_head(classifier(3), replace(HEAD, class_names=names), known) is None


def test_folders_of_imagenet_are_known_by_their_numbers() -> None:
    pytest.importorskip("timm")
    found = classifier(1000)
    names = ("n02123045", "n01440764", "n15075141")  # tabby, tench, toilet tissue
    named = replace(HEAD, class_names=names)
    dense = dense_head(found, named, ("x",) * 1000)
    assert dense is not None
    expected = found.layer.weight[[281, 0, 999]] * HEAD.std
    assert torch.allclose(dense.weights.double(), expected.double(), atol=1e-6)
