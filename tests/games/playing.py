"""Small networks with random weights, and games on them played by the definition: slow loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.games import Players

SIZE, PATCH, CLASSES = 16, 4, 5


class Net(nn.Module):
    """Convolutions, BatchNorm and a head; (N, 3, H, W) -> (N, classes)."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head(self.conv(x).relu().mean((2, 3)))


def convnet(classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(1)
    model = Net(classes)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def image(seed: int = 0) -> Tensor:
    return torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def timm_vit(**options: Any) -> nn.Module:
    import timm

    torch.manual_seed(2)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=SIZE, patch_size=PATCH, embed_dim=16, depth=2, num_heads=2, num_classes=CLASSES, **options
    )
    return stirred(model)


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(SIZE, PATCH, 2, 2, 16, 32, num_classes=CLASSES)
    return stirred(model)


def huggingface_vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIZE,
        patch_size=PATCH,
        num_labels=CLASSES,
    )
    return stirred(ViTForImageClassification(config))


def stirred(model: nn.Module) -> nn.Module:
    """Weights large enough that every token matters."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model.eval()


def players_of(code: int, count: int) -> list[int]:
    return [i for i in range(count) if (code >> i) % 2]


def masked(x: Tensor, baseline: Tensor, players: Tensor, code: int, count: int) -> Tensor:
    """One masked input, player by player; what is no player is kept."""
    shown = torch.where(players >= 0, baseline, x)
    for i in players_of(code, count):
        shown = torch.where(players == i, x, shown)
    return shown


def log_odds(logits: list[float], target: int) -> float:
    """log(p / (1 - p)) with p the softmax probability."""
    sizes = [math.exp(value) for value in logits]
    p = sizes[target] / sum(sizes)
    return math.log(p / (1 - p))


def by_hand(
    model: nn.Module, x: Tensor, players: Players, score: Callable[[list[float]], float], baseline: Tensor
) -> list[float]:
    """v(S) for all subsets, one forward in float64 each."""
    model, laid = model.double(), players.over(tuple(x.shape[1:]))
    found = []
    for code in range(2**players.count):
        with torch.no_grad():
            logits = model(masked(x, baseline, laid, code, players.count).double()[None])
        found.append(score(logits[0].tolist()))
    return found
