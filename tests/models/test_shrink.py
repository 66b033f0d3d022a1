"""Smaller graphs against their oracle: the gated network itself with zeros at the closed units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pyinterp.models.count import count
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


@pytest.mark.parametrize("block", range(len(BLOCKS)), ids=[b.__name__ for b in BLOCKS])  # type: ignore[attr-defined]
def test_every_rule(block: int) -> None:
    generator = torch.Generator().manual_seed(block)
    for fused in (False, True):
        gated = gated_in_float64(network([block, block], act=block % 4), fused=fused)
        for density, grouped in ((0.0, False), (0.15, False), (0.4, False), (0.4, True), (1.0, False)):
            check(gated, random_kept(gated, density, generator), generator, grouped)


@pytest.mark.parametrize("blocks", [[0, 3], [4, 5], [8, 9]])
def test_each_site_closed_alone(blocks: list[int]) -> None:
    """What a closed site leaves behind is constant: it reaches sums, joins and norms as such."""
    generator = torch.Generator().manual_seed(11)
    gated = gated_in_float64(network(blocks, head="pool"))
    for closed in range(len(gated.sites)):
        kept = [torch.full((s.units,), i != closed) for i, s in enumerate(gated.sites)]
        check(gated, kept, generator)


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    blocks=st.lists(st.integers(0, len(BLOCKS) - 1), min_size=2, max_size=4),
    act=st.integers(0, 3),
    head=st.sampled_from(["flatten", "pool"]),
    fused=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_random_networks(blocks: list[int], act: int, head: str, fused: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gated = gated_in_float64(network(blocks, act, head), fused=fused)
    for density in (0.1, 0.5):
        check(gated, random_kept(gated, density, generator), generator)


def test_live_units_are_those_that_change_something() -> None:
    """Brute force: closing a live unit changes the logits, closing all dead ones does not."""
    generator = torch.Generator().manual_seed(3)
    for blocks, head in (([0, 3], "pool"), ([4, 5], "pool"), ([1, 6], "flatten"), ([8, 9], "pool")):
        gated = gated_in_float64(network(blocks, act=2, head=head))
        x = images(gated, generator)
        for density in (0.2, 0.4):
            kept = random_kept(gated, density, generator)
            scores = [
                torch.rand(s.units, generator=generator, dtype=torch.float64) + 0.5 for s in gated.sites
            ]
            rows = [s * k for s, k in zip(scores, kept, strict=True)]
            with torch.no_grad():
                logits = gated.module(x, None, *rows)
                for site, alive in enumerate(live_units(gated, kept)):
                    for unit in kept[site].nonzero().flatten().tolist():
                        closed = [row.clone() for row in rows]
                        closed[site][unit] = 0
                        change = (gated.module(x, None, *closed) - logits).abs().max().item()
                        assert bool(alive[unit]) == (change > 1e-12), (gated.sites[site].name, unit, change)


class TwoConvs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.fc = nn.Conv2d(8, 6, 3, padding=1, stride=2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.relu(y).mean((2, 3)))


def test_counts_by_hand() -> None:
    model = TwoConvs()
    gated = gated_in_float64(model, (3, 8, 8))
    assert [(s.name, s.units) for s in gated.sites] == [("conv1", 8), ("conv2", 6)]
    parameters = sum(p.numel() for p in model.parameters())
    assert count(gated.traced.module, (3, 8, 8)) == (parameters, 64 * 8 * 27 + 16 * 6 * 72 + 6 * 4)
    kept = [torch.arange(8) < 3, torch.arange(6) % 3 == 0]
    small = fold(gated, kept, [k.double() for k in kept])
    # BatchNorm becomes the bias of the first convolution: 3 x (27 + 1), 2 x (27 + 1), 4 x (2 + 1)
    assert count(small, (3, 8, 8)) == (3 * 28 + 2 * 28 + 4 * 3, 64 * 3 * 27 + 16 * 2 * 27 + 2 * 4)
    assert sum(p.numel() for p in small.parameters()) == 3 * 28 + 2 * 28 + 4 * 3


def test_constants_move_into_the_bias() -> None:
    """A closed filter before a depthwise convolution leaves BatchNorm's shift, which the next 1x1 absorbs."""
    gated = gated_in_float64(network([0], head="pool"))
    kept = [torch.ones(s.units, dtype=torch.bool) for s in gated.sites]
    up = next(i for i, s in enumerate(gated.sites) if s.name.endswith("up"))
    kept[up][2:] = False
    small = fold(gated, kept, [k.double() for k in kept])
    shapes = [p.shape for name, p in small.named_parameters() if name.endswith("weight") and p.dim() == 4]
    assert [tuple(s) for s in shapes] == [(6, 3, 3, 3), (2, 6, 1, 1), (2, 1, 3, 3), (6, 2, 1, 1)]
    generator = torch.Generator().manual_seed(0)
    check(gated, kept, generator)


def test_nothing_kept_is_a_constant() -> None:
    gated = gated_in_float64(network([0, 3]))
    kept = [torch.zeros(s.units, dtype=torch.bool) for s in gated.sites]
    scores = [k.double() for k in kept]
    small = fold(gated, kept, scores)
    x = images(gated, torch.Generator().manual_seed(0))
    assert_close(small(x), gated.module(x, None, *scores))
    assert count(small, gated.traced.input_shape) == (5, 0)
    assert all(len(stored) == 0 for stored in shrink(gated, kept).stored)


def test_scores_of_one_are_copied_exactly() -> None:
    """Without BatchNorm nothing is folded: the kept weights are bit for bit the model's."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )
    gated = gated_in_float64(model)
    kept = [torch.arange(8) % 2 == 0, torch.arange(4) < 3]
    small = dict(fold(gated, kept, [k.double() for k in kept]).named_parameters())
    assert torch.equal(small["2__weight"].float(), model[2].weight[:3][:, ::2])
    assert torch.equal(small["2__bias"].float(), model[2].bias[:3])


def test_folded_network_is_an_ordinary_module(tmp_path: Path) -> None:
    gated = gated_in_float64(network([0, 9], head="pool"))
    gated.module.float()
    generator = torch.Generator().manual_seed(5)
    kept = random_kept(gated, 0.5, generator)
    small = fold(gated, kept, [torch.rand(s.units, generator=generator) for s in gated.sites])
    x = images(gated, generator).float()
    batch = ({0: torch.export.Dim("batch", min=1)},)
    exported = torch.export.export(small, (x,), dynamic_shapes=batch, strict=False)
    assert torch.equal(exported.module()(x[:2]), small(x[:2]))
    assert not any("pyinterp" in str(node.target) for node in small.graph.nodes)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    other = fold(gated, kept, [torch.zeros(s.units) + 1 for s in gated.sites])
    assert not torch.equal(other(x), small(x))
    other.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    assert torch.equal(other(x), small(x))
    assert all(not p.requires_grad for p in small.parameters())


def test_the_gated_network_is_left_alone() -> None:
    gated = gated_in_float64(network([0, 3]))
    before = {name: value.clone() for name, value in gated.module.state_dict().items()}
    code = gated.module.code
    generator = torch.Generator().manual_seed(6)
    kept = random_kept(gated, 0.4, generator)
    shrink(gated, kept), fold(gated, kept, [torch.full((s.units,), 0.7) for s in gated.sites])
    assert gated.module.code == code
    assert all(torch.equal(value, before[name]) for name, value in gated.module.state_dict().items())


def test_rows_that_do_not_fit_are_refused() -> None:
    gated = gated_in_float64(network([0]))
    kept = [torch.ones(s.units, dtype=torch.bool) for s in gated.sites]
    with pytest.raises(ValueError, match="one row per site"):
        shrink(gated, kept[1:])
    with pytest.raises(ValueError, match="one row per site"):
        live_units(gated, [torch.ones(3, dtype=torch.bool), *kept[1:]])
    with pytest.raises(ValueError, match="one row per site"):
        fold(gated, kept, [torch.ones(2) for _ in kept])


def _hugging_face_vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config)


def _torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: getattr(pytest.importorskip("torchvision").models, name)(num_classes=10, **options)


def _timm(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: pytest.importorskip("timm").create_model(name, num_classes=10, **options)


def _vgg(batch_norm: bool) -> nn.Module:
    """VGG-11 with a narrow classifier: the real one alone would take a gigabyte."""
    vgg = pytest.importorskip("torchvision").models.vgg
    features = vgg.make_layers(vgg.cfgs["A"], batch_norm=batch_norm)
    head = [nn.Flatten(), nn.Linear(2048, 32), nn.ReLU(), nn.Linear(32, 10)]
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), *head)


def _convnext() -> nn.Module:
    convnext = pytest.importorskip("torchvision").models.convnext
    blocks = [convnext.CNBlockConfig(16, 32, 1), convnext.CNBlockConfig(32, None, 1)]
    return convnext.ConvNeXt(blocks, layer_scale=0.5, num_classes=10)


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "tf_efficientnet_lite0": (_timm("tf_efficientnet_lite0"), 32),
    "resnet18": (_torchvision("resnet18"), 32),
    "resnet50": (_torchvision("resnet50"), 32),
    "vgg11": (lambda: _vgg(False), 32),
    "vgg11_bn": (lambda: _vgg(True), 32),
    "densenet": (_torchvision("DenseNet", growth_rate=8, block_config=(2, 2), num_init_features=16), 32),
    "mobilenet_v2": (_torchvision("mobilenet_v2", width_mult=0.35), 32),
    "efficientnet_b0": (_torchvision("efficientnet_b0"), 32),
    "convnext": (_convnext, 32),
    "vit_torchvision": (
        _torchvision(
            "VisionTransformer",
            image_size=32,
            patch_size=8,
            num_layers=2,
            num_heads=4,
            hidden_dim=32,
            mlp_dim=64,
        ),
        32,
    ),
    "vit_timm": (_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2), 32),
    "swin": (
        _timm("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(2, 2), num_heads=(3, 6)),
        56,
    ),
    "vit_hugging_face": (_hugging_face_vit, 32),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name: str) -> None:
    make, size = ARCHITECTURES[name]
    generator = torch.Generator().manual_seed(7)
    gated = gated_in_float64(make(), (3, size, size), fused=True)
    for density, grouped in ((0.0, False), (0.02, False), (0.1, True), (0.5, False), (1.0, False)):
        check(gated, random_kept(gated, density, generator), generator, grouped)
    gated.module.float()
    kept = random_kept(gated, 0.3, generator)
    x, rows = images(gated, generator).float(), [k.float() for k in kept]
    with torch.no_grad():
        expected, got = gated.module(x, None, *rows), fold(gated, kept, rows)(x)
    assert (got - expected).abs().max() <= 2e-5 * expected.abs().max().clamp(min=1e-3)
