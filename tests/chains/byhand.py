"""Chains put together by hand, and small networks for which every number can be worked out on its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyinterp.chains.chain import Chain, Mode, describe, digest
from pyinterp.models.graph import trace
from pyinterp.models.sites import find_sites


class Residual(nn.Module):
    """A stem, one residual block of two convs with BatchNorm, a classifier."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.conv1 = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.conv2(torch.relu(self.norm1(self.conv1(x))))
        return self.head(x.mean((2, 3)))


def residual(seed: int = 0) -> Residual:
    """With weights that hide nothing."""
    generator = torch.Generator().manual_seed(seed)
    net = Residual().eval()
    with torch.no_grad():
        for weight in [*net.parameters(), *net.buffers()]:
            if weight.is_floating_point():
                weight.copy_(
                    torch.randn(weight.shape, generator=generator) * (0.4 if weight.dim() > 1 else 0.2)
                )
        for norm in (net.norm, net.norm1):
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
            norm.weight.add_(1)
        images = pictures(8, seed=9)
        features = net.norm(net.stem(images)).relu()
        features = features + net.conv2(net.norm1(net.conv1(features)).relu())
        features = features.mean((2, 3))
        net.head.bias.copy_(-net.head.weight @ features.mean(0))  # else one class would win on every picture
        net.head.weight.mul_(2)
        net.head.bias.mul_(2)
    return net


def chain_of(
    net: nn.Module,
    images: Tensor,
    removed: dict[str, list[int]],
    *,
    mode: Mode = "exact",
    scores: dict[str, Tensor] | None = None,
    layer_gates: dict[str, float] | None = None,
    **others: object,
) -> Chain:
    """Everything kept but the units that are named; scores and layer gates of 1 but for those given."""
    sites = tuple(find_sites(trace(net, images[:1])))
    units = {site.name: site.units for site in sites if site.kind != "layer"}
    kept = {name: torch.ones(count, dtype=torch.bool) for name, count in units.items()}
    for name, which in removed.items():
        kept[name][which] = False
    given = scores or {}
    gates = {site.name: 1.0 for site in sites if site.kind == "layer"} | (layer_gates or {})
    return Chain(
        model_name=type(net).__name__,
        mode=mode,
        sites=sites,
        kept=kept,
        scores={name: given.get(name, torch.ones(units[name])) * kept[name] for name in units},
        layer_gates=gates,
        input_shape=tuple(images.shape[1:]),
        architecture=describe(net),
        weights_digest=digest(net),
        **others,  # type: ignore[arg-type]
    )


def pictures(count: int = 5, seed: int = 0) -> Tensor:
    """(count, 3, 9, 9)."""
    return torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def without(net: Residual, chain: Chain, images: Tensor) -> Tensor:
    """The chain's logits from the definition, in the network's own words: x -> score * norm(conv(x)) at each site."""
    gate = {name: chain.gate_values(name).to(images.dtype) for name in [*chain.kept, *chain.layer_gates]}
    (layer,) = chain.layer_gates
    with torch.no_grad():
        x = torch.relu(net.norm(net.stem(images)) * gate["stem"][:, None, None])
        inner = torch.relu(net.norm1(net.conv1(x)) * gate["conv1"][:, None, None])
        branch = net.conv2(inner) * gate["conv2"][:, None, None]
        return net.head((x + gate[layer] * branch).mean((2, 3)))
