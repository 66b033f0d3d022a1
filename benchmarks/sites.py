"""The places that chains really gate: shapes of every normalised convolution, head and neuron of three networks.

Taken from the networks themselves, run on the meta device at batch 10, 224 x 224.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import timm
import torch
from torch import nn

BATCH = 10


@dataclass(frozen=True)
class Site:
    """One shape that a network gates: `count` times, along axis `dim`, followed by `act`."""

    network: str
    shape: tuple[int, ...]
    dim: int
    act: str
    count: int

    @property
    def name(self) -> str:
        return f"{self.network}-{'x'.join(map(str, self.shape))}-{self.act}"


def _convolutions(network: str, timm_name: str) -> list[Site]:
    """Find every BatchNorm of a network: its shape, and the activation that follows."""
    seen: Counter[tuple[tuple[int, ...], str]] = Counter()

    def note(name: str, module: nn.Module) -> None:
        inner = getattr(module, "act", None)  # timm's BatchNormAct2d holds its activation
        if isinstance(inner, nn.ReLU6):
            act = "relu6"
        elif inner is None and not name.endswith(("bn3", "downsample.1")):
            act = "relu"
        else:
            act = "none"
        module.register_forward_hook(lambda _m, args, _y: seen.update([(tuple(args[0].shape), act)]))

    with torch.device("meta"), torch.no_grad():
        model = timm.create_model(timm_name).eval()
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                note(name, module)
        model(torch.empty(BATCH, 3, 224, 224))
    return [Site(network, shape, 1, act, count) for (shape, act), count in seen.items()]


def convolution_sites() -> list[Site]:
    """Return the sites behind a BatchNorm: ResNet-50 and EfficientNet-Lite0."""
    return _convolutions("resnet50", "resnet50") + _convolutions("lite0", "tf_efficientnet_lite0")


def gate_sites() -> list[Site]:
    """Return every site: the convolutions, and the heads and MLP neurons of ViT-B/16."""
    heads = Site("vit_b", (BATCH, 197, 12, 64), 2, "none", 12)
    neurons = Site("vit_b", (BATCH, 197, 3072), 2, "none", 12)
    shapes: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for site in convolution_sites():
        shapes[site.network, site.shape] += site.count
    gates = [Site(network, shape, 1, "none", count) for (network, shape), count in shapes.items()]
    return [*gates, heads, neurons]
