"""A folder of coloured pictures per class, and a small network for them, for the tests of commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pyinterp.models.zoo import LoadedModel

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
CLASSES = ("red", "green", "blue", "teapot")


class Net(nn.Module):
    """Counts the rows of its batches; ``stop_at`` raises Ctrl-C at one of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(3, 12, 3, stride=2), nn.Linear(12, 4)
        self.batches: list[int] = []
        self.stop_at = -1

    def forward(self, x: Tensor) -> Tensor:
        if len(self.batches) == self.stop_at:
            raise KeyboardInterrupt
        self.batches.append(len(x))
        return self.last(self.conv(x).relu().mean((2, 3)))


def preprocess(image: Image.Image) -> Tensor:
    small = image.convert("RGB").resize((16, 16))
    return torch.tensor(list(small.tobytes()), dtype=torch.float32).reshape(16, 16, 3).permute(2, 0, 1) / 255


def loaded(net: nn.Module) -> LoadedModel:
    return LoadedModel("net", net, preprocess, CLASSES, (3, 16, 16))  # type: ignore[arg-type]


def write_folders(root: Path) -> Path:
    """Ten noisy pictures of each of three colours."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(10):
            noise = rng.integers(-60, 60, (20, 20, 3))
            picture = Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))
            picture.save(root / name / f"{i}.png")
    return root
