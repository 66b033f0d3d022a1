"""How much each unit of a network matters for its answers on some images, by five simple measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from pyinterp.chains.evaluate import gate_dtype
from pyinterp.models.dataflow import ACTIVATIONS, only_user
from pyinterp.models.gating import GatedModel, channels_last, gate_model
from pyinterp.models.gradients import with_gradients
from pyinterp.models.graph import op_of
from pyinterp.models.sites import Site

BATCH = 16
PATH_STEPS = 8
CDRP_STEPS = 30
CDRP_WEIGHT, CDRP_RATE, CDRP_MOMENTUM, CDRP_LARGEST = 0.05, 0.1, 0.9, 5.0


def magnitude(gated: GatedModel) -> list[Tensor]:
    """Per site (units,): sum |w| over the weights that produce a unit (a head: that read it in the output projection).

    NaN where no single weight produces the units, and for layers.
    """
    nodes = {node.meta.get("weight"): node for node in gated.traced.graph.nodes if node.op == "get_attr"}
    scores = []
    for site in gated.sites:
        if site.weight is None:
            scores.append(torch.full((site.units,), float("nan")))
            continue
        node = nodes[site.weight]
        weight = _attribute(gated.traced.module, node).detach().abs().float()
        if site.kind == "head":
            scores.append(weight.reshape(len(weight), site.units, -1).sum((0, 2)))
        else:
            scores.append(weight.flatten(1).sum(1))
    return scores


def activation(gated: GatedModel, images: Tensor) -> list[Tensor]:
    """Per site (units,): mean over images and places of |value|, after the activation function that follows the site.

    Args:
        gated: The network with its sites; measured with all gates open.
        images: (N, ...).
    """
    wanted: dict[str, list[Site]] = {}
    for site in gated.sites:
        if site.kind != "layer":
            wanted.setdefault(_activated(gated.traced.node(site.node)).name, []).append(site)
    sums = {site.name: torch.zeros(site.units, device=images.device) for site in gated.sites}

    class Watch(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            for site in wanted.get(n.name, ()):
                moved = value.detach().abs().float().movedim(site.dim, -1)
                sums[site.name] += moved.reshape(-1, site.units, moved.shape[-1] // site.units).mean(
                    (0, 2)
                ) * len(part)
            return value

    watch = Watch(gated.traced.module)
    with torch.no_grad():
        for part in images.split(BATCH):
            watch.run(part)
    return [sums[site.name] / len(images) for site in gated.sites]


@with_gradients
def taylor(gated: GatedModel, images: Tensor, gates: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Per site (units,): mean_x |g_i * d log q_y(x) / d g_i| at the gates g; y is the full network's top class on x.

    To first order, how much closing unit i changes the log-probability of the answer. (The gradient of the KL
    divergence from the full network would be zero at the full network itself.)

    Args:
        gated: The network with its sites.
        images: (N, ...).
        gates: Per site (units,); all 1 by default.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017.
    """
    sizes = [site.units for site in gated.sites]
    start = (
        _ones(gated, images) if gates is None else torch.cat([row.to(_ones(gated, images)) for row in gates])
    )
    total = torch.zeros_like(start)
    for part, top, run in _batches(gated, images):
        rows = start.repeat(len(part), 1)
        total += (_slope(run, rows, top) * rows).abs().sum(0)
    return list((total / len(images)).split(sizes))


@with_gradients
def integrated_gradients(gated: GatedModel, images: Tensor, steps: int = PATH_STEPS) -> list[Tensor]:
    """Per site (units,): mean_x |integral_0^1 d log q_y(x) / d g_i da| with every unit's gate at a, layers open.

    The integral by the midpoint rule. For a network without other paths its units' (signed) values sum up to the
    change of the log-probability from all units closed to all open.

    Args:
        gated: The network with its sites.
        images: (N, ...).
        steps: Points on the path.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, over gates instead of pixels.
    """
    sizes = [site.units for site in gated.sites]
    ones = _ones(gated, images)
    free = unit_flags(gated.sites).to(ones.device)
    total = torch.zeros_like(ones)
    for part, top, run in _batches(gated, images):
        integral = torch.zeros_like(ones.repeat(len(part), 1))
        for step in range(steps):
            rows = torch.where(free, (step + 0.5) / steps, ones).repeat(len(part), 1)
            integral += _slope(run, rows, top) / steps
        total += integral.abs().sum(0)
    return list((total / len(images)).split(sizes))


@with_gradients
def cdrp(gated: GatedModel, images: Tensor, steps: int = CDRP_STEPS) -> list[Tensor]:
    """Per site (units,): mean over images of the gates that critical data routing paths give each image alone.

    For one image, gates g >= 0 start at 1 and minimise -sum_c p_c log q_c + 0.05 * sum_i |g_i| by gradient descent
    (rate 0.1, momentum 0.9), clamped to [0, 5] after each step; the gates of the smallest loss among those with the
    full network's top class are the image's path. Layers stay open. All images run at once, a row of gates each.

    Args:
        gated: The network with its sites.
        images: (N, ...).
        steps: Descent steps.

    Source: Wang et al., "Interpret Neural Networks by Identifying Critical Data Routing Paths", CVPR 2018.
    """
    sizes = [site.units for site in gated.sites]
    ones = _ones(gated, images)
    free = unit_flags(gated.sites).to(ones.device)
    total = torch.zeros_like(ones)
    for part, top, run in _batches(gated, images):
        with torch.no_grad():
            wanted = run(ones.repeat(len(part), 1)).softmax(1)
        rows = ones.repeat(len(part), 1)
        best, least = rows.clone(), torch.full((len(part),), float("inf"), device=rows.device)
        speed = torch.zeros_like(rows)
        for step in range(steps + 1):
            rows.requires_grad_()
            logits = run(rows)
            losses = -(wanted * logits.log_softmax(1)).sum(1) + CDRP_WEIGHT * (rows.abs() * free).sum(1)
            with torch.no_grad():
                better = (logits.argmax(1) == top) & (losses < least)
                best[better], least[better] = rows[better], losses[better].to(least.dtype)
                if step == steps:
                    break
                (slope,) = torch.autograd.grad(losses, rows, torch.ones_like(losses))
                speed = CDRP_MOMENTUM * speed + slope * free
                rows = (rows - CDRP_RATE * speed).clamp(0, CDRP_LARGEST)
        total += best.sum(0)
    return list((total / len(images)).split(sizes))


def unit_flags(sites: Sequence[Site]) -> Tensor:
    """(all units,) bool in the order of the sites: True for filters, heads and neurons, False for layers."""
    return torch.cat([torch.full((site.units,), site.kind != "layer") for site in sites])


Run = Callable[[Tensor], Tensor]
"""Rows of all sites' gates side by side, one per image (N, all units) -> logits (N, classes), float32 or wider."""


def _batches(gated: GatedModel, images: Tensor) -> Iterator[tuple[Tensor, Tensor, Run]]:
    """A few images at a time, their top classes, and the network on them with a row of gates for each."""
    if not gated.fused:
        gated = gate_model(gated.traced, gated.sites, fused=True)
    sizes = [site.units for site in gated.sites]
    images = images.clone() if images.is_inference() else images
    for part in channels_last(images).split(BATCH):
        group = torch.arange(len(part), device=images.device)

        def run(rows: Tensor, part: Tensor = part, group: Tensor = group) -> Tensor:
            logits: Tensor = gated.module(part, group, *(row.contiguous() for row in rows.split(sizes, 1)))
            return logits.to(torch.promote_types(logits.dtype, torch.float32))

        with torch.no_grad():
            top = gated.traced.module(part).argmax(1)
        yield part, top, run


def _slope(run: Run, rows: Tensor, top: Tensor) -> Tensor:
    """d log q_y / d gates, one row per image."""
    rows = rows.detach().requires_grad_()
    answer = run(rows).log_softmax(1).gather(1, top[:, None]).sum()
    return torch.autograd.grad(answer, rows)[0]


def _ones(gated: GatedModel, images: Tensor) -> Tensor:
    count = sum(site.units for site in gated.sites)
    return torch.ones(count, dtype=gate_dtype(images), device=images.device)


def _activated(node: Node) -> Node:
    """The activation function that alone reads a value, else the value."""
    user = only_user(node)
    return user if user is not None and op_of(user) in ACTIVATIONS else node


def _attribute(module: torch.nn.Module, node: Node) -> Tensor:
    owner, _, name = str(node.target).rpartition(".")
    value: Tensor = getattr(module.get_submodule(owner), name)
    return value
