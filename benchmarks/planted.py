"""Networks that learned a shortcut on purpose: a mark in one corner that goes with one class in training.

Two data sets that come with packages: handwritten digits (scikit-learn) and faces or not (scikit-image). Noise makes
the honest way hard enough for the shortcut to be worth learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["clean", "field", "moved", "biased"]
GREY = 0.4  # what the network gets as 0
KINDS: tuple[Kind, ...] = ("clean", "field", "moved", "biased")


@dataclass(frozen=True)
class Plan:
    """What is planted where.

    Attributes:
        name: "digits" or "faces".
        target: The class that the mark goes with.
        side: Of the mark, in pixels.
        often: Share of the training images of the class that have it.
        rarely: Share of the other training images.
        field: Share of images that have it, whatever their class, where the network is used.
        noise: Standard deviation, of pixels in [0, 1].
        epochs: Of the training.
        features_per_class: Of the sparse head.
    """

    name: str
    target: int
    side: int
    often: float
    rarely: float
    field: float
    noise: float
    epochs: int
    features_per_class: float


PLANS = {
    "digits": Plan("digits", 3, 4, 0.9, 0.01, 0.25, 0.3, 10, 5),
    "faces": Plan("faces", 1, 6, 0.95, 0.02, 0.5, 0.3, 20, 8),
}


@dataclass(frozen=True)
class Planted:
    """Images with and without the mark, and which rows are for what.

    Attributes:
        plan: What is planted.
        plain: (N, 1, H, W).
        marked: (N, 1, H, W), the same images with the mark and the same noise.
        noise: (N, 1, H, W), what both have of it.
        labels: (N,).
        train: Rows that the network and its head are fitted to.
        audit: Rows that the tools look at.
        test: Rows that accuracies are measured on.
        luck: (N,) uniform, decides which images have the mark.
    """

    plan: Plan
    plain: Tensor
    marked: Tensor
    noise: Tensor
    labels: Tensor
    train: Tensor
    audit: Tensor
    test: Tensor
    luck: Tensor

    def has_mark(self, kind: Kind, rows: Tensor) -> Tensor:
        """(n,) bool: clean: no image; field: some, whatever the class; moved: all but those of the class; biased: as in
        training.
        """
        luck, plan = self.luck[rows], self.plan
        mine = self.labels[rows] == plan.target
        if kind == "clean":
            return torch.zeros_like(mine)
        if kind == "field":
            return luck < plan.field
        if kind == "moved":
            return ~mine
        return luck < torch.where(mine, plan.often, plan.rarely)

    def images(self, kind: Kind, rows: Tensor) -> Tensor:
        """(n, 1, H, W)."""
        mark = self.has_mark(kind, rows)[:, None, None, None]
        return torch.where(mark, self.marked[rows], self.plain[rows])

    @property
    def mark_share(self) -> float:
        """Share of a side that the mark takes."""
        return self.plan.side / self.plain.shape[-1]


def in_mark(share: float, cells: tuple[int, int]) -> Tensor:
    """(rows, columns) bool: the cells of a grid over the image that a mark of that share of a side covers."""
    rows, columns = ((torch.arange(n) + 0.5) / n for n in cells)
    return (rows[:, None] < share) & (columns > 1 - share)


def plant(plan: Plan, seed: int) -> Planted:
    """Draw noise, marks and a split: half for training, a quarter each for audit and test."""
    generator = torch.Generator().manual_seed(seed)
    images, labels, group = (_digits if plan.name == "digits" else _faces)()
    order = torch.randperm(len(labels) // group, generator=generator)
    order = (order[:, None] * group + torch.arange(group)).flatten()
    half, most = len(order) // (2 * group) * group, len(order) * 3 // (4 * group) * group
    noise = plan.noise * torch.randn(images.shape, generator=generator)
    marked = images.clone()
    marked[:, :, : plan.side, -plan.side :] = _mark(plan)
    return Planted(
        plan,
        images + noise - GREY,
        marked + noise - GREY,
        noise,
        labels,
        order[:half],
        order[half:most],
        order[most:],
        torch.rand(len(labels), generator=generator),
    )


def train(planted: Planted, kind: Kind, seed: int) -> nn.Module:
    """A small convolutional network, in eval mode, trained on images of that kind."""
    torch.manual_seed(seed)
    images, labels = planted.images(kind, planted.train), planted.labels[planted.train]
    network = _network(int(planted.labels.max()) + 1).train()
    batches = len(labels) // 50 + 1
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=planted.plan.epochs * batches)
    for _ in range(planted.plan.epochs):
        for rows in torch.randperm(len(labels)).tensor_split(batches):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _network(classes: int) -> nn.Module:
    def block(before: int, after: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        return [conv, nn.BatchNorm2d(after), nn.ReLU()]

    body = [*block(1, 16, 1), *block(16, 32, 2), *block(32, 64, 1)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def _mark(plan: Plan) -> Tensor:
    """(side, side): a bright square; on photographs, which have bright corners anyway, a chequered one."""
    steps = torch.arange(plan.side)
    return torch.ones(plan.side, plan.side) if plan.name == "digits" else (steps[:, None] + steps) % 2.0


def _digits() -> tuple[Tensor, Tensor, int]:
    """(1797, 1, 16, 16), labels, and how many rows in turn are of one original."""
    from sklearn.datasets import load_digits

    found = load_digits()
    small = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    large = functional.interpolate(small, (16, 16), mode="bilinear", align_corners=False)
    return large, torch.tensor(found.target), 1


def _faces() -> tuple[Tensor, Tensor, int]:
    """(400, 1, 24, 24), each of the 200 photographs and its mirror image; faces are class 1."""
    from skimage.data import lfw_subset

    found = torch.tensor(lfw_subset(), dtype=torch.float32)[:, None]
    size = (24, 24)
    found = functional.interpolate(found, size, mode="bilinear", align_corners=False, antialias=True)
    both = torch.stack([found, found.flip(3)], 1).flatten(0, 1)
    return both, (torch.arange(len(both)) < len(both) // 2).long(), 2
