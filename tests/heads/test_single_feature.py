"""One feature as a network: against z by hand, and with chains and interactions of planted networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyinterp as pi
from pyinterp.features import Features, extract_features
from pyinterp.games import ImageGame
from pyinterp.heads.head import SparseHead
from pyinterp.heads.single import feature_model
from pyinterp.models.classifier import find_classifier

PLANTED, FEATURE = 5, 2


class Filters(nn.Module):
    """Features 0..3 are weighted means of 8 filters' maps; feature 2 reads filter 5 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.mix = nn.Linear(8, 4)
        self.fc = nn.Linear(4, 3)
        with torch.no_grad():
            self.mix.weight[FEATURE] = 0
            self.mix.weight[FEATURE, PLANTED] = 3.0
            self.conv.bias[PLANTED] = 0.1

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.mix(torch.relu(self.conv(x)).mean((2, 3))) + 1))


class AndOfPatches(nn.Module):
    """Feature 1 is min(patch 0, patch 5) of a 2 x 4 grid, for patches that are bright or black; others are sums."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)
        both = torch.relu(patches[:, 0] + patches[:, 5] - 1)
        return self.fc(torch.stack([patches.sum(1), both, patches[:, 3]], 1))


@pytest.fixture
def filters() -> tuple[nn.Module, Tensor, Features]:
    torch.manual_seed(1)
    model = Filters().eval()
    images = torch.rand(32, 3, 8, 8)
    return model, images, extract_features(model, images)


def head_of(features: Features, **changes: Any) -> SparseHead:
    width = features.values.shape[1]
    fields: dict[str, Any] = {
        "weights": torch.zeros(3, width),
        "bias": torch.zeros(3),
        "mean": features.mean,
        "std": features.std,
        "family": "multinomial",
        "class_names": (),
        "classifier_name": features.classifier_name,
        "model_digest": features.model_digest,
        "origin": {},
        "version": "",
    }
    return SparseHead(**fields | changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_are_z_and_zero(filters: tuple[nn.Module, Tensor, Features], dtype: torch.dtype) -> None:
    model, images, _ = filters
    model, images = model.to(dtype), images.to(dtype)
    features = extract_features(model, images)
    z = (features.values - features.values.mean(0)) / features.values.std(0, correction=0)
    for source in (features, head_of(features)):
        single = feature_model(model, source, 3, images)
        logits = single(images)
        assert logits.dtype == dtype and not single.training
        torch.testing.assert_close(logits[:, 0].float(), z[:, 3], rtol=1e-4, atol=1e-4)
        assert (logits[:, 1] == 0).all()


def test_weights_are_shared_and_the_model_stays(filters: tuple[nn.Module, Tensor, Features]) -> None:
    model, images, features = filters
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answer = model(images)
    single = feature_model(model, features, 0, images)
    assert single.conv.weight is model.conv.weight
    assert find_classifier(model, images).layer is model.fc
    torch.testing.assert_close(model(images), answer, rtol=0, atol=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.gpu
def test_it_stays_on_its_device(filters: tuple[nn.Module, Tensor, Features]) -> None:
    model, images, features = filters
    single = feature_model(model.cuda(), head_of(features, model_digest=""), FEATURE, images)
    assert single(images.cuda()).is_cuda


def test_the_chain_of_a_feature_is_its_filter(filters: tuple[nn.Module, Tensor, Features]) -> None:
    model, images, features = filters
    single = feature_model(model, features, FEATURE, images)
    chain = pi.extract_chain(single, images, target_kl=1e-4, max_steps=80, sites=["conv"], progress=False)
    assert chain.bound_met
    assert torch.as_tensor(chain.kept["conv"]).nonzero().flatten().tolist() == [PLANTED]


@pytest.mark.parametrize("bright", [0.9, 1.0])
def test_interactions_find_an_and_of_two_patches(bright: float) -> None:
    torch.manual_seed(0)
    model = AndOfPatches().eval()
    data = torch.rand(64, 3, 8, 16)
    features = extract_features(model, data)
    single = feature_model(model, features, 1, data)
    image = torch.full((3, 8, 16), bright)
    game = ImageGame(single, image, pi.grid_players(2, 4), target=0)
    mean, std = (float(value[1]) for value in (features.mean, features.std))
    both = 2 * bright - 1
    z = torch.tensor([(both * ((code & 33) == 33) - mean) / std for code in range(256)])
    torch.testing.assert_close(game.values(progress=False), z, rtol=1e-4, atol=1e-4)
    found = pi.extract_interactions(
        single, image, players=pi.grid_players(2, 4), target=0, noise=1e-3, progress=False
    )
    effects = torch.stack([found.and_, found.or_])
    assert float(effects[0, 33]) == pytest.approx(both / std, rel=0.01)
    effects[:, 0] = effects[0, 33] = 0
    assert float(effects.abs().max()) < 0.01 * both / std


def test_refusals(filters: tuple[nn.Module, Tensor, Features]) -> None:
    model, images, features = filters
    for wrong in (4, -1):
        with pytest.raises(ValueError, match="feature_model: expected a feature 0 to 3"):
            feature_model(model, features, wrong, images)
    with pytest.raises(TypeError, match="whole number, got 'first'"):
        feature_model(model, features, "first", images)  # type: ignore[arg-type]
    flat = head_of(features, std=features.std * torch.tensor([1, 0, 1, 1]))
    with pytest.raises(ValueError, match="features that vary, got constant ones: 1"):
        feature_model(model, flat, 1, images)
    constant = Features.of(torch.tensor([[0.0, 0.1], [1.0, 0.1]]))
    with pytest.raises(ValueError, match="features that vary"):
        feature_model(model, constant, 1, images)
    other = Filters().eval()
    with pytest.raises(ValueError, match="the network that the features come from, got another"):
        feature_model(other, features, 0, images)
    with pytest.raises(ValueError, match="with_classifier"):
        feature_model(model, constant, 0, images)
    with pytest.raises(ValueError, match="eval"):
        feature_model(model.train(), head_of(features, model_digest=""), 0, images)
