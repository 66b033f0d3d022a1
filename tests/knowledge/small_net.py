"""A small network that is trained to tell which channel of an image is the strongest."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.high(torch.relu(self.low(x)))).mean((2, 3)))


def coloured(count: int = 90) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 3
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images[torch.arange(count), labels] += 0.8
    return images, labels


def trained() -> Small:
    torch.manual_seed(0)
    net, (images, labels) = Small(), coloured()
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimiser.step()
    return net.eval()
