"""Small networks for every rule of shrinking, and the oracle: the gated network with zeros at the closed units."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyinterp.models.gating import GatedModel, gate_model
from pyinterp.models.graph import trace
from pyinterp.models.shrink import fold, live_units, shrink
from pyinterp.models.sites import find_sites

EXACT = 1e-11  # float64, relative to the largest logit


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights everywhere: the default statistics and biases (0, 1) would hide a wrong shift."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.3)
            elif parameter.abs().max() == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model.eval()


def gated_in_float64(
    model: nn.Module, size: tuple[int, ...] = (3, 12, 12), fused: bool = False
) -> GatedModel:
    traced = trace(randomise(model), torch.zeros(2, *size))
    gated = gate_model(traced, find_sites(traced), fused=fused)
    gated.module.double()
    return gated


def random_kept(gated: GatedModel, density: float, generator: torch.Generator) -> list[Tensor]:
    """Layers stay open more often, or nothing of the network would be left at low densities."""
    layers = max(density, 0.7) if density else 0.0
    return [
        torch.rand(site.units, generator=generator) < (layers if site.kind == "layer" else density)
        for site in gated.sites
    ]


def images(gated: GatedModel, generator: torch.Generator) -> Tensor:
    return torch.randn(3, *gated.traced.input_shape, generator=generator, dtype=torch.float64)


def assert_close(got: Tensor, expected: Tensor) -> None:
    scale = max(1e-3, expected.abs().max().item())
    assert (got - expected).abs().max().item() <= EXACT * scale


def check(gated: GatedModel, kept: list[Tensor], generator: torch.Generator, grouped: bool = False) -> None:
    """Logits and gradients of shrink, logits of fold, and that dead units change nothing."""
    x = images(gated, generator)
    rows = (2,) if grouped else ()
    group = torch.tensor([1, 0, 1]) if grouped else None
    scores = [torch.rand(*rows, s.units, generator=generator, dtype=torch.float64) + 0.5 for s in gated.sites]
    whole = [(s * k).requires_grad_() for s, k in zip(scores, kept, strict=True)]
    mine = [s.detach().clone().requires_grad_() for s in whole]
    expected, got = gated.module(x, group, *whole), shrink(gated, kept)(x, group, *mine)
    assert_close(got, expected)
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    if got.requires_grad:
        oracle = torch.autograd.grad(
            (expected * weights).sum(), whole, allow_unused=True, materialize_grads=True
        )
        (got * weights).sum().backward()
        largest = max(g.abs().max().item() for g in oracle)
        for k, mine_i, oracle_i in zip(kept, mine, oracle, strict=True):
            found = torch.zeros_like(mine_i) if mine_i.grad is None else mine_i.grad
            assert ((found - oracle_i)[..., k].abs() <= 1e-10 * max(largest, 1e-3)).all()
    else:
        oracle = torch.autograd.grad(
            (expected * weights).sum(), whole, allow_unused=True, materialize_grads=True
        )
        assert all((g[..., k].abs() <= 1e-10).all() for g, k in zip(oracle, kept, strict=True))
    live = live_units(gated, kept)
    assert all((k | ~alive).all() for k, alive in zip(kept, live, strict=True))
    assert_close(gated.module(x, group, *(s * alive for s, alive in zip(whole, live, strict=True))), expected)
    assert all(torch.equal(a, b) for a, b in zip(live_units(gated, live), live, strict=True))
    if not grouped:
        with torch.no_grad():
            assert_close(fold(gated, kept, scores)(x), expected)
            ones = [torch.ones_like(s) for s in scores]
            assert_close(fold(gated, kept, ones)(x), gated.module(x, None, *(k.double() for k in kept)))


class Inverted(nn.Module):
    """EfficientNet-Lite's block, padded as TensorFlow does."""

    def __init__(self, width: int, wide: int, act: nn.Module) -> None:
        super().__init__()
        self.up, self.bn1 = nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depthwise, self.bn2 = nn.Conv2d(wide, wide, 3, groups=wide, bias=False), nn.BatchNorm2d(wide)
        self.down, self.bn3 = nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.up(x)))
        y = self.act(self.bn2(self.depthwise(nn.functional.pad(y, (0, 2, 1, 1)))))
        return x + self.bn3(self.down(y))


class Multiplier(nn.Module):
    """A depthwise convolution with two outputs per input: its constants meet padding in a pool, a pad and a conv."""

    def __init__(self, width: int, _: int, act: nn.Module) -> None:
        super().__init__()
        self.twice = nn.Conv2d(width, 2 * width, 3, padding=1, groups=width)
        self.norm = nn.BatchNorm2d(2 * width)
        self.act = act
        self.down = nn.Conv2d(2 * width, width, 3)
        self.last, self.pooled = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.twice(x)))
        z = self.act(self.down(nn.functional.pad(y, (1, 1, 1, 1))))
        return self.last(z) + self.pooled(nn.functional.avg_pool2d(y, 3, 1, 1))


class Grouped(nn.Module):
    def __init__(self, width: int, wide: int, act: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, wide, 3, padding=1, groups=2), nn.BatchNorm2d(wide)
        self.second, self.act = nn.Conv2d(wide, width, 3, padding="same"), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.norm(self.first(x)))))


class Basic(nn.Module):
    """ResNet's block with a projected stream and a pool."""

    def __init__(self, width: int, wide: int, act: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = nn.Conv2d(wide, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.side, self.bn = nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return nn.functional.max_pool2d(self.act(y + self.bn(self.side(x))), 3, 1, 1)


class Squeeze(nn.Module):
    """Squeeze-excite between two convolutions, then an average that counts its padding."""

    def __init__(self, width: int, wide: int, act: nn.Module) -> None:
        super().__init__()
        self.up, self.norm = nn.Conv2d(width, wide, 3, padding=1), nn.BatchNorm2d(wide)
        self.reduce, self.expand = nn.Conv2d(wide, 2, 1), nn.Conv2d(2, wide, 1)
        self.down, self.act = nn.Conv2d(wide, width, 1), act

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.up(x)))
        y = y * torch.sigmoid(self.expand(self.act(self.reduce(y.mean((2, 3), keepdim=True)))))
        return nn.functional.avg_pool2d(self.down(y), 3, 1, 1)


class Dense(nn.Module):
    """DenseNet's layer: norm, act, conv, joined to its input."""

    def __init__(self, width: int, wide: int, act: nn.Module) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(width), nn.Conv2d(width, wide, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(wide), nn.Conv2d(wide, 4, 3, padding=1, bias=False)
        self.join, self.act = nn.Conv2d(width + 4, width, 1, bias=False), act

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.act(self.norm2(self.conv1(self.act(self.norm1(x))))))
        return self.join(torch.cat([x, y], 1))


class Shuffle(nn.Module):
    """Splits, moves and joins channels."""

    def __init__(self, width: int, _: int, act: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
        self.left, self.act = nn.Conv2d(width // 2, width // 2, 3, padding=1), act

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.act(self.norm(self.first(x))).chunk(2, 1)
        y = torch.cat([self.act(self.left(a)), b], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Unknown(nn.Module):
    """An operation that has no rule: it mixes channels."""

    def __init__(self, width: int, _: int, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x))).cumsum(1) / 4


class LastAxis(nn.Module):
    """ConvNeXt's block: depthwise, LayerNorm, MLP and a scale, channels last."""

    def __init__(self, width: int, wide: int, _: nn.Module) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.LayerNorm(width)
        self.up, self.down, self.act = nn.Linear(width, wide), nn.Linear(wide, width), nn.GELU()
        self.gamma = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.act(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Two heads over the positions, scores written out, with a bias per head."""

    def __init__(self, width: int, _: int, __: nn.Module) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.bias = nn.Parameter(torch.randn(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        q, k, v = self.qkv(tokens).reshape(n, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1) / 3 + self.bias).softmax(-1)
        mixed = self.out((scores @ v).transpose(1, 2).reshape(n, h * w, c))
        return x + mixed.transpose(1, 2).reshape(n, c, h, w)


BLOCKS: list[Callable[[int, int, nn.Module], nn.Module]] = [
    Inverted, Multiplier, Grouped, Basic, Squeeze, Dense, Shuffle, Unknown, LastAxis, Attention,
]  # fmt: skip
ACTS: list[Callable[[], nn.Module]] = [nn.ReLU6, nn.ReLU, nn.SiLU, nn.Hardswish]


def network(blocks: list[int], act: int = 0, head: str = "flatten") -> nn.Module:
    """Stem, blocks, and a head that flattens the map (VGG) or pools it."""
    width, size = 6, 6
    stem = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), ACTS[act]()]
    body = [BLOCKS[b](width, 10, ACTS[act]()) for b in blocks]
    if head == "flatten":
        tail = [nn.Flatten(), nn.Linear(width * size * size, 7), ACTS[act](), nn.Linear(7, 5)]
    else:
        tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(*stem, *body, *tail)
