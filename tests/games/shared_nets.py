"""Small networks with everything that moves or mixes positions, and player maps for their images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 24


class Head(nn.Module):
    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A block with a projection, BatchNorm and an addition in place."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.two, self.skip = nn.Conv2d(outer, outer, 3, padding=1), nn.Conv2d(inner, outer, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(F.relu(self.norm(self.one(x))))
        y += self.skip(x)
        return F.relu_(y)


class Dense(nn.Module):
    """Each layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(4 * i, 4, 3, padding=1) for i in range(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        values = [self.first(x)]
        for layer in self.layers:
            values.append(F.silu(layer(torch.cat(values, 1))))
        return F.avg_pool2d(torch.cat(values, 1), 3, 2, 1, ceil_mode=True)


class Excite(nn.Module):
    """Squeeze and excite: a global average scales the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weigh = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.hardtanh(x)))
        return x * torch.sigmoid(self.weigh(x.mean((2, 3), keepdim=True)))


class Shuffle(nn.Module):
    """Channels split, grouped, shuffled; an odd padding; a cropped border; a linear map over the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.deep = nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4)
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(F.pad(x, (0, 1, 2, 0))), 2, ceil_mode=True, padding=1)
        a, b = x.chunk(2, 1)
        x = torch.cat((a, F.gelu(self.deep(b))), 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)[:, :, 1:]
        x = self.linear(self.norm(x.permute(0, 2, 3, 1)))
        return F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")


class Windows(nn.Module):
    """Windows are put beside the images on the first axis, and sizes of values are read while they are there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        n, c, h, w = x.shape
        x = x.view(n, c, 2, h // 2, w).transpose(1, 2).reshape(2 * n, c, h // 2, w)
        x = torch.tanh(self.second(x + x.new_ones(x.shape[0], 1, 1, 1)))
        return x.reshape(n, 2, 6, h // 2, w).flatten(3).sum(1)[..., None]


def body(*layers: nn.Module) -> Callable[[int], nn.Module]:
    return lambda channels: Head(nn.Sequential(*layers), channels)


NETS: dict[str, Callable[[], nn.Module]] = {
    "strides": lambda: body(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, 2))(4),
    "dilation": lambda: body(nn.Conv2d(3, 6, 3, dilation=3, padding=3), nn.ReLU6(), nn.Conv2d(6, 4, (1, 3)))(
        4
    ),
    "pooling": lambda: body(
        nn.Conv2d(3, 6, 3),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d((4, 6)),
    )(6),
    "depthwise": lambda: body(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.PReLU(6),
        nn.Conv2d(6, 4, 1),
    )(4),
    "residual": lambda: body(nn.Conv2d(3, 6, 3, padding=1), Residual(6, 8, 2), Residual(8, 8, 1))(8),
    "dense": lambda: body(Dense())(16),
    "excite": lambda: body(Excite(), nn.Conv2d(8, 4, 3))(4),
    "shuffle": lambda: body(Shuffle())(6),
    "windows": lambda: body(Windows())(6),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 16), nn.ReLU(), nn.Linear(16, 5)),
}


def net(name: str) -> nn.Module:
    """A network in float64 with random weights and statistics, in eval mode."""
    torch.manual_seed(1)
    model = NETS[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def grid(rows: int, columns: int, size: int = SIZE) -> Tensor:
    at = torch.arange(size)
    return (at * rows // size)[:, None] * columns + at * columns // size


def stains(count: int, size: int = SIZE) -> Tensor:
    """Irregular players: every pixel belongs to the nearest of random points; two of them are kept and masked."""
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(count + 2, 2, generator=generator) * size
    pixels = torch.cartesian_prod(torch.arange(size), torch.arange(size)).float()
    return torch.cdist(pixels, points).argmin(1).view(size, size) - 2


PLAYERS = {"2x3": grid(2, 3), "stains": stains(7)}
