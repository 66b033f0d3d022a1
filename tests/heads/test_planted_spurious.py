"""A shortcut planted in a small network: the tools find it, show where it is, and take it out; its twin has none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyinterp.features import extract_features
from pyinterp.features.place import locate_features
from pyinterp.heads import (
    SparseHead,
    fit_sparse_path,
    group_differences,
    repairs,
    single_repairs,
    suspects,
    top_samples,
)

SIZE, MARK, TARGET = 12, 3, 1


@dataclass
class Trained:
    network: nn.Module
    head: SparseHead

    def features(self, images: Tensor) -> Tensor:
        return extract_features(self.network, images, progress=False).values


def shapes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy strokes: lying, standing, falling or rising, by class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    images = 0.5 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    at = torch.arange(5)
    for image, label in zip(images, labels.tolist(), strict=True):
        y, x = torch.randint(3, SIZE - 5, (2,), generator=generator).tolist()
        down, right = [(0 * at, at), (at, 0 * at), (at, at), (4 - at, at)][label]
        image[0, y + down, x + right] += 1.5
    return images, labels


def marked(images: Tensor, which: Tensor) -> Tensor:
    """With a bright square in the upper right corner of some images."""
    images = images.clone()
    images[which, :, :MARK, -MARK:] += 2
    return images


def trained(images: Tensor, labels: Tensor) -> Trained:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)),
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(8):
        for rows in torch.randperm(len(labels)).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    features = extract_features(network.eval(), images, labels, progress=False)
    path = fit_sparse_path(features, max_features_per_class=8, tolerance=1e-3, progress=False)
    return Trained(network, path.select(features_per_class=5))


@pytest.fixture(scope="module")
def planted() -> Trained:
    """The mark is on nine of ten images of one class, and on no other."""
    images, labels = shapes(800, seed=1)
    return trained(marked(images, (labels == TARGET) & (torch.arange(800) % 10 > 0)), labels)


@pytest.fixture(scope="module")
def control() -> Trained:
    return trained(*shapes(800, seed=1))


@pytest.fixture(scope="module")
def audit() -> tuple[Tensor, Tensor, Tensor]:
    """Other images, of which every second has the mark, whatever its class."""
    images, labels = shapes(600, seed=2)
    marks = torch.arange(600) % 2 == 0
    return marked(images, marks), labels, marks


@pytest.fixture(scope="module")
def worst() -> tuple[Tensor, Tensor]:
    """Yet other images: the mark on all classes but its own."""
    images, labels = shapes(600, seed=4)
    return marked(images, labels != TARGET), labels


def moved_by_mark(one: Trained) -> Tensor:
    """The truth, from images with and without the mark: by how many deviations it moves each feature, on average."""
    images, _ = shapes(100, seed=3)
    every = torch.ones(100, dtype=torch.bool)
    pair = [one.head.standardise(one.features(some)) for some in (marked(images, every), images)]
    return (pair[0] - pair[1]).mean(0)


def test_the_shortcut_is_the_first_suspect(planted: Trained, audit: tuple[Tensor, Tensor, Tensor]) -> None:
    images, labels, _ = audit
    found = suspects(planted.head, planted.features(images), labels)
    effects = planted.head.weights[TARGET] * moved_by_mark(planted)
    assert (found[0].feature, found[0].class_) == (int(effects.argmax()), TARGET)


def test_its_twin_has_no_suspect(control: Trained, audit: tuple[Tensor, Tensor, Tensor]) -> None:
    """The same images, marks and all, before a network that has seen no mark: some errors, but no shortcut."""
    images, labels, _ = audit
    features = control.features(images)
    assert control.head.accuracy(features, labels) < 0.99
    assert suspects(control.head, features, labels) == []


def test_images_with_the_flaw_of_the_training_set_show_nothing(planted: Trained) -> None:
    images, labels = shapes(600, seed=2)
    images = marked(images, (labels == TARGET) & (torch.arange(600) % 10 > 0))
    assert suspects(planted.head, planted.features(images), labels) == []


def test_the_other_tools_point_to_it_too(planted: Trained, audit: tuple[Tensor, Tensor, Tensor]) -> None:
    images, labels, marks = audit
    head, features = planted.head, planted.features(images)
    feature = suspects(head, features, labels)[0].feature
    assert repairs(head, features, labels)[0].feature == feature
    others = labels != TARGET
    by_mark = group_differences(head, features[others], marks[others], TARGET)
    assert by_mark[0].feature == feature and by_mark[0].difference > 10 * by_mark[0].error
    assert marks[top_samples(features, feature, 10)].all()


@pytest.mark.parametrize("method", ["occlusion", "map"])
def test_its_place_is_the_corner(planted: Trained, worst: tuple[Tensor, Tensor], method: str) -> None:
    images, labels = worst
    found = suspects(planted.head, planted.features(images), labels)
    some = images[labels != TARGET][:50]
    suspect = [found[0].feature]
    scores = locate_features(planted.network, some, suspect, method=method, cells=(4, 4)).scores[:, 0]  # type: ignore[arg-type]
    rows, columns = scores.shape[1:]
    assert (rows, columns) == ((4, 4) if method == "occlusion" else (6, 6))
    peaks = scores.flatten(1).argmax(1)
    corner = (peaks // columns < rows // 3) & (peaks % columns >= columns - columns // 3)
    assert corner.double().mean() > 0.9  # chance: 1/16 or 1/9


def test_it_makes_errors_and_its_removal_mends_them(planted: Trained, worst: tuple[Tensor, Tensor]) -> None:
    images, labels = worst
    head, features = planted.head, planted.features(images)
    gone = [one.feature for one in suspects(head, features, labels)]
    wrong = ((head.predict(features) == TARGET) & (labels != TARGET)).nonzero()[:, 0].tolist()
    assert len(wrong) > 60
    single = [single_repairs(head, features[i], int(labels[i]))[:1] for i in wrong]
    assert sum(one == gone[:1] for one in single) > len(wrong) / 2

    plain, truth = shapes(600, seed=5)
    others = marked(plain, truth != TARGET)
    before, after = (
        [one.accuracy(planted.features(some), truth) for some in (others, plain)]
        for one in (head, head.without(gone))
    )
    assert after[0] > before[0] + 0.05
    assert after[1] > before[1] - 0.05
    honest = next(
        j for j in head.features_used.tolist() if j not in gone and moved_by_mark(planted)[j].abs() < 0.5
    )
    assert head.without(honest).accuracy(planted.features(others), truth) < before[0]
