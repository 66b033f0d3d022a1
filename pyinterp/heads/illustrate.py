"""illustrate: where the features of a study come from in its images, and pictures that were made to raise them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.features.asking import asking
from pyinterp.features.place import locate_features
from pyinterp.features.pooled import pooled_map
from pyinterp.features.visualise import visualise_features
from pyinterp.heads.gallery import CHUNK, Gallery, shrink
from pyinterp.heads.head import SparseHead
from pyinterp.heads.head_study import FeatureCard, HeadStudy
from pyinterp.models.images import Preprocessor
from pyinterp.models.zoo import LoadedModel
from pyinterp.progress import Progress

WHERE = "illustrate"


def illustrate(
    study: HeadStudy,
    model: nn.Module | LoadedModel,
    head: SparseHead,
    features: Features | Sequence[str],
    images: Any,
    *,
    preprocess: Preprocessor | None = None,
    occlusion: bool = False,
    made: bool = False,
    steps: int = 256,
    seed: int = 0,
    progress: Progress = None,
) -> HeadStudy:
    """Add to the cards of a study where their features come from, and pictures that were made to raise them.

    Places are read from the network's last map, in one forward per picture, where features are its spatial mean.

    Args:
        study: Of ``head``, with cards.
        model: The network; see `study_head`.
        head: For the features' mean and deviation.
        features: Whose names the images go by, or these names.
        images: As for `study_head`.
        preprocess: PIL image -> (C, H, W); None takes that of a `LoadedModel`.
        occlusion: Where features are no means of a map, mask the cells of a grid one by one: 49 forwards per picture.
        made: Also make a picture per feature; see `visualise_features`, which takes ``steps`` steps.
        steps: Of that.
        seed: Of that.
        progress: Of that.

    Raises:
        ValueError: Images or model don't belong to the study; ``made`` without a preprocess.
    """
    if not study.cards:
        return study
    loaded = model if isinstance(model, LoadedModel) else None
    network = loaded.model if loaded else model
    assert isinstance(network, nn.Module)
    prepared = preprocess or (loaded.preprocess if loaded else None)
    names = features.names if isinstance(features, Features) else tuple(features)
    gallery = Gallery(images, names, prepared)
    example = gallery.read([study.cards[0].samples[0]] * 2).tensor
    method = "map" if _has_map(network, example) else ("occlusion" if occlusion else None)
    cards = study.cards
    if method:
        found = _places(network, gallery, cards, method)
        cards = tuple(replace(card, places=found[card.feature]) for card in cards)
    if made:
        if prepared is None:
            fix = "Pass preprocess: it tells the size of the network's images and the range of its inputs."
            raise ValueError(explain(WHERE, "a preprocess to make pictures for", "none", fix))
        cards = _made(network, cards, head, prepared, max(study.pictures.shape[2:]), steps, seed, progress)
    return replace(study, cards=cards)


def _has_map(model: nn.Module, example: Tensor) -> bool:
    with torch.no_grad(), asking(model, example) as (ask, count):
        return pooled_map(ask, example, count)[1] is not None


def _places(
    model: nn.Module, gallery: Gallery, cards: Sequence[FeatureCard], method: Any
) -> dict[int, Tensor]:
    """Feature -> (T, h, w), in the order of its card's samples; each picture is read once."""
    rows = sorted({row for card in cards for row in card.samples})
    found: dict[tuple[int, int], Tensor] = {}
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        here = [card for card in cards if set(card.samples) & set(some)]
        wanted = [card.feature for card in here]
        scores = locate_features(model, gallery.read(some), wanted, method=method).scores
        for j, card in enumerate(here):
            found |= {(card.feature, row): scores[i, j] for i, row in enumerate(some) if row in card.samples}
    return {
        card.feature: torch.stack([found[card.feature, row] for row in card.samples]).float()
        for card in cards
    }


def _made(
    model: nn.Module,
    cards: Sequence[FeatureCard],
    head: SparseHead,
    preprocess: Preprocessor,
    side: int,
    steps: int,
    seed: int,
    progress: Progress,
) -> tuple[FeatureCard, ...]:
    wanted = [card.feature for card in cards]
    found = visualise_features(model, wanted, preprocess, steps=steps, seed=seed, progress=progress)
    pictures = shrink((found.pictures * 255).round().to(torch.uint8), side)
    z = (found.activations.double() - head.mean[wanted]) / head.std[wanted]
    return tuple(
        replace(card, visual=picture, visual_value=float(value))
        for card, picture, value in zip(cards, pictures, z, strict=True)
    )
