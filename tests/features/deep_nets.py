"""A small network that counts its forwards, and pictures on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


class Counted(nn.Module):
    """(N, 3, H, W) to 3 logits, by 6 features. ``seen`` holds the size of every batch; ``stop_at`` raises Ctrl-C."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 3)
        self.seen: list[int] = []
        self.stop_at = -1

    def forward(self, x: Tensor) -> Tensor:
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(len(x))
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def counted() -> Counted:
    return Counted().eval()


def headed(body: nn.Module, features: int) -> nn.Module:
    """A network of five classes whose deep features ``body`` computes."""
    torch.manual_seed(0)
    return nn.Sequential(body, nn.Linear(features, 5)).eval()


def by_hand(model: Counted, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.relu(model.conv(x)).mean((2, 3))


def snapshot(model: nn.Module) -> list[object]:
    """What must not change: values, flags, gradients, mode and hooks."""
    tensors = [*model.parameters(), *model.buffers()]
    state: list[object] = [(id(t), t._version, t.requires_grad, t.grad) for t in tensors]
    for module in model.modules():
        hooks = {name: list(value) for name, value in vars(module).items() if name.endswith("_hooks")}
        state.append((module.training, hooks))
    return state


def images(count: int = 10, seed: int = 0, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def draw(path: Path, seed: int, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def class_folder(root: Path) -> Path:
    """Two classes with a picture in a sub-folder, a hidden folder and files that are no pictures."""
    names = ["dog/b.png", "dog/a.JPG", "dog/deep/c.png", "cat/z.png", "cat/deep/y.png", "cat/k.bmp"]
    for seed, name in enumerate(names):
        draw(root / name, seed)
    (root / "readme.txt").write_text("two classes")
    (root / "cat" / "notes.txt").write_text("no picture")
    (root / ".cache").mkdir()
    return root
