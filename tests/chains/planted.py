"""A network whose chain is known: few filters carry the answer, the others are read by nobody or hardly matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

USED, WIDTH, CLASSES = 4, 16, 4


class Planted(nn.Module):
    """conv-relu-conv-relu-pool-linear; class c reads filter c of conv2, which reads filter c of conv1 (c < 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(x.mean((2, 3)))


def planted(noise: float = 0.0) -> Planted:
    """The network; ``noise`` is the size of the weights by which other filters are read."""
    generator = torch.Generator().manual_seed(3)
    net = Planted().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
        keep2 = torch.full((WIDTH, WIDTH, 1, 1), noise)
        keep2[torch.arange(USED), torch.arange(USED)] = 1.0
        net.conv2.weight.mul_(keep2)
        read = torch.full((CLASSES, WIDTH), noise)
        read[torch.arange(USED), torch.arange(USED)] = 1.0
        net.head.weight.copy_(read * (4 + torch.rand(CLASSES, WIDTH, generator=generator)))
        net.conv1.bias.abs_()
        net.conv2.bias.abs_()
    return net


def pictures(count: int = 6, seed: int = 0) -> Tensor:
    """(count, 3, 12, 12)."""
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
