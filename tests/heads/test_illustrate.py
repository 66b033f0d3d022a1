"""illustrate: places against the map and against masking by hand, made pictures against the features' own scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pyinterp.features import Features, extract_features
from pyinterp.features.visualise import visualise_features
from pyinterp.heads import SparseHead, fit_sparse_path
from pyinterp.heads.head_study import HeadStudy
from pyinterp.heads.illustrate import illustrate
from pyinterp.heads.study import study_head
from pyinterp.models.zoo import LoadedModel

N, D, SIDE = 70, 5, 28


class Pooled(nn.Module):
    """Features are the spatial mean of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, D, 4, stride=4), nn.Linear(D, 2)

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x).mean((2, 3)))


class Flat(Pooled):
    """Features that are no mean of a map: squares of it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x).square().mean((2, 3)).sqrt())


def to_tensor(image: Image.Image) -> Tensor:
    small = image.convert("RGB").resize((SIDE, SIDE))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(N, 3, 7, 7, generator=generator) * 2 - 1
    small[::2, 0] += 0.4
    return small.clamp(-1, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)


Case = tuple[LoadedModel, SparseHead, Features, HeadStudy]


@pytest.fixture(scope="module", params=[Pooled, Flat])
def case(request: pytest.FixtureRequest, images: Tensor) -> Case:
    torch.manual_seed(2)
    model = request.param().eval()
    loaded = LoadedModel("net", model, to_tensor, ("a", "b"), (3, SIDE, SIDE))  # type: ignore[arg-type]
    features = extract_features(model, images, torch.arange(N) % 2)
    head = fit_sparse_path(features, n_lambdas=5, min_ratio=0.1).select(point=4)
    return loaded, head, features, study_head(loaded, head, features, images=images)


def test_places_are_those_of_the_cards_samples(case: Case, images: Tensor) -> None:
    loaded, head, features, study = case
    model = loaded.model
    assert isinstance(model, Pooled) and len({row for c in study.cards for row in c.samples}) > 5
    assert all(not len(card.places) for card in study.cards)
    found = illustrate(study, loaded, head, features, images, occlusion=True)
    assert [card.feature for card in found.cards] == [card.feature for card in study.cards]
    for card in found.cards:
        assert card.places.shape == (len(card.samples), 7, 7)
        for place, row in zip(card.places, card.samples, strict=True):
            with torch.no_grad():
                if isinstance(model, Flat):
                    expected = masked(model, images[row], card.feature)
                else:
                    expected = model.features(images[row][None])[0, card.feature] / 49
            assert torch.allclose(place, expected, atol=1e-5)


def masked(model: Flat, image: Tensor, feature: int) -> Tensor:
    """What the feature loses when one of 7 x 7 cells shows the image's mean colour."""

    def value(x: Tensor) -> Tensor:
        return model.features(x[None]).square().mean((2, 3)).sqrt()[0, feature]

    lost = torch.zeros(7, 7)
    for i in range(7):
        for j in range(7):
            other = image.clone()
            other[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = image.mean((1, 2))[:, None, None]
            lost[i, j] = value(image) - value(other)
    return lost


def test_masking_is_not_done_unasked(case: Case, images: Tensor) -> None:
    loaded, head, features, study = case
    found = illustrate(study, loaded, head, features, images)
    assert {len(card.places) > 0 for card in found.cards} == {not isinstance(loaded.model, Flat)}
    assert all(not card.visual.numel() for card in found.cards)
    assert found.summary() == study.summary()


def test_made_pictures_stand_on_their_cards_in_the_features_own_scale(case: Case, images: Tensor) -> None:
    loaded, head, features, study = case
    found = illustrate(study, loaded, head, features.names, images, made=True, steps=10, seed=3)
    assert len({card.visual.float().mean().item() for card in found.cards}) == len(found.cards)
    for card in found.cards:
        assert card.visual.shape == (3, SIDE, SIDE) and card.visual.dtype == torch.uint8
        alone = visualise_features(loaded.model, [card.feature], to_tensor, steps=10, seed=3)
        assert torch.allclose(card.visual.float(), 255 * alone.pictures[0], atol=1)
        picture = Image.fromarray(card.visual.permute(1, 2, 0).contiguous().numpy())
        reached = extract_features(loaded.model, to_tensor(picture)[None]).values
        assert card.visual_value == pytest.approx(float(head.standardise(reached)[0, card.feature]), abs=0.1)


def test_what_can_not_be_illustrated(case: Case, images: Tensor) -> None:
    loaded, head, features, study = case
    bare = replace(study, cards=())
    assert illustrate(bare, loaded, head, features, images) is bare
    with pytest.raises(ValueError, match="a preprocess to make pictures for"):
        illustrate(study, loaded.model, head, features, images, made=True)
    with pytest.raises(ValueError, match="expected 70 images, got 2"):
        illustrate(study, loaded, head, features, images[:2])
