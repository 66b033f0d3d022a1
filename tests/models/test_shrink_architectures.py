"""Shrinking of real architectures, small of their kind, against the gated network with zeros at the closed units."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shrink_cases import check, gated_in_float64, images, random_kept
from torch import nn

from pyinterp.models.shrink import fold


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
