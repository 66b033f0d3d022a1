"""Whether a chain suffices, is needed, has no spare units, and comes back on other images or under another seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyinterp.chains import attribution
from pyinterp.chains.curve import SufficiencyCurve
from pyinterp.chains.evaluate import (
    BATCH,
    Fidelity,
    answers,
    check_images,
    compare,
    measure_fidelity,
)
from pyinterp.chains.objective import Objective
from pyinterp.errors import explain
from pyinterp.models.gating import GatedModel
from pyinterp.models.shrink import shrink

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain

RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def sufficiency_curve(
    chain: Chain, model: nn.Module | GatedModel, images: Tensor, ratios: Sequence[float] = RATIOS
) -> SufficiencyCurve:
    """How few of a chain's own units still give the answers.

    At share r the first ceil(r * kept) units stay, the layers as in the chain. The order of a scaled chain is that of
    its scores. An exact chain's scores are all 1; its order is `attribution.taylor` within the chain on these images:
    mean_x |d log q_y(x) / d g_i|.

    Args:
        chain: The chain.
        model: Its network, or ``chain.bind(model)``.
        images: (N, ...), preprocessed as for the extraction.
        ratios: Two or more shares in [0, 1], ascending.

    Raises:
        ValueError: ``model`` or the images are others, or ``ratios`` is not as said.
    """
    shares = list(ratios)
    ascending = all(a < b for a, b in pairwise(shares))
    if len(shares) < 2 or not ascending or not 0 <= shares[0] <= shares[-1] <= 1:
        fix = "Try (0.1, 0.3, 1)."
        raise ValueError(explain("sufficiency_curve", "two or more ascending ratios in [0, 1]", shares, fix))
    gated = chain.bind(model)
    check_images(gated, images)
    gates = chain.gates(images)
    worth = gates if chain.mode == "scaled" else attribution.taylor(gated, images, gates)
    is_unit = attribution.unit_flags(chain.sites).to(images.device)
    kept, values = torch.cat(gates), torch.cat(list(worth)).clone()
    values[~is_unit | (kept == 0)] = -1
    order, sizes = values.argsort(descending=True, stable=True), [site.units for site in chain.sites]
    full, network = answers(gated.traced.module, images), shrink(gated, [row != 0 for row in gates])
    points = []
    for share in shares:
        row = torch.where(is_unit, 0, kept)
        first = order[: math.ceil(share * chain.kept_count - 1e-9)]
        row[first] = kept[first]
        rows = row.split(sizes)
        points.append(compare(full, answers(lambda x, rows=rows: network(x, None, *rows), images)))  # type: ignore[misc]
    agreement = [point["agreement"] for point in points]
    area = float(torch.trapezoid(torch.tensor(agreement), torch.tensor(shares))) / (shares[-1] - shares[0])
    return SufficiencyCurve(tuple(shares), tuple(point["kl"] for point in points), tuple(agreement), area)


def necessity(
    chain: Chain, model: nn.Module | GatedModel, images: Tensor, *, seed: int = 0
) -> dict[str, Fidelity]:
    """What is left of the answers when the chain is taken out and everything else stays.

    Args:
        chain: The chain.
        model: Its network, or ``chain.bind(model)``.
        images: (N, ...), preprocessed as for the extraction.
        seed: Of the random choice.

    Returns:
        {"chain": fidelity of the full network without the chain's units, all layers open; "random": the same without
        as many units in each site, chosen at random}. A chain is needed where "chain" is much worse than "random".
    """
    gated = chain.bind(model)
    generator = torch.Generator().manual_seed(seed)
    without: dict[str, list[Tensor]] = {"chain": [], "random": []}
    for site in chain.sites:
        open_units = torch.ones(site.units) if site.kind == "layer" else (~chain.kept[site.name]).float()
        without["chain"].append(open_units)
        without["random"].append(open_units[torch.randperm(site.units, generator=generator)])
    return {name: measure_fidelity(gated, gates, images) for name, gates in without.items()}


def minimality(chain: Chain, model: nn.Module | GatedModel, images: Tensor) -> dict[str, Tensor]:
    """What each unit of a chain contributes: the mean KL without it, less the chain's own.

    Units are dropped one at a time, many trials in one batch, in the physically smaller network. A unit whose value
    is 0 or less is not needed on these images.

    Args:
        chain: The chain.
        model: Its network, or ``chain.bind(model)``.
        images: (N, ...), preprocessed as for the extraction.

    Returns:
        {site name: float32 (units,)}, NaN for units that the chain does not keep.
    """
    gated = chain.bind(model)
    check_images(gated, images)
    gates = chain.gates(images)
    network, sizes = shrink(gated, [row != 0 for row in gates]), [len(row) for row in gates]
    row = torch.cat(gates)
    units = (attribution.unit_flags(chain.sites).to(row.device) & (row != 0)).nonzero().flatten()
    if not len(units):
        return {name: torch.full_like(scores, float("nan")) for name, scores in chain.scores.items()}
    objective = Objective(answers(gated.traced.module, images))
    own = objective.divergence(answers(lambda x: network(x, None, *gates), images)).mean()
    result = torch.full_like(row, float("nan"))
    for some in units.split(max(1, BATCH // len(images))):
        rows = row.repeat(len(some), 1)
        rows[torch.arange(len(some), device=row.device), some] = 0
        total = torch.zeros(len(some), dtype=own.dtype, device=row.device)
        for part in torch.arange(len(images), device=row.device).split(BATCH):
            group = torch.arange(len(some), device=row.device).repeat_interleave(len(part))
            repeated = images[part].repeat(len(some), *[1] * (images.dim() - 1))
            with torch.no_grad():
                logits = network(repeated, group, *(r.contiguous() for r in rows.split(sizes, 1)))
            wanted = objective.take(part.repeat(len(some)))
            total += wanted.divergence(logits.to(own.dtype)).view(len(some), -1).sum(1)
        result[some] = (total / len(images) - own).to(result.dtype)
    names = [site.name for site in chain.sites]
    rows_of_sites = dict(zip(names, result.float().cpu().split(sizes), strict=True))
    return {name: rows_of_sites[name] for name in chain.kept}


def overlap(first: Chain, second: Chain) -> float:
    """Intersection over union of the units that two chains of one network keep; 1 where both keep none.

    Raises:
        ValueError: The chains have other sites.
    """
    both, either = _common(first.kept, second.kept)
    return both / either if either else 1.0


def stability(chains: Sequence[Chain]) -> dict[str, float]:
    """How alike chains of one network are.

    For chains of one task over seeds or subsets of the images, a high "iou" says that the chain is a property of the
    task. For chains of different tasks the same number is their specificity: a low one says that each has its own.

    Args:
        chains: Two or more.

    Returns:
        "iou": mean `overlap` over all pairs. "random": the same for random choices of as many units in each site, with
        the expected sizes of intersection (a * b / n per site) and union.

    Raises:
        ValueError: There are fewer than two chains, or they have other sites.
    """
    if len(chains) < 2:
        raise ValueError(
            explain("stability", "two or more chains", len(chains), "Extract some with other seeds.")
        )
    pairs = list(combinations(chains, 2))
    chance = []
    for first, second in pairs:
        _common(first.kept, second.kept)
        sizes = [
            (int(first.kept[name].sum()), int(second.kept[name].sum()), len(first.kept[name]))
            for name in first.kept
        ]
        both = sum(a * b / n for a, b, n in sizes)
        either = sum(a + b for a, b, _ in sizes) - both
        chance.append(both / either if either else 1.0)
    return {
        "iou": sum(overlap(*pair) for pair in pairs) / len(pairs),
        "random": sum(chance) / len(pairs),
    }


def _common(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> tuple[int, int]:
    """Number of units in both and in either of two sets of masks."""
    for name in [*first, *second]:
        sizes = [len(masks[name]) if name in masks else "missing" for masks in (first, second)]
        if sizes[0] != sizes[1]:
            fix = "Compare chains of one network with the same sites."
            raise ValueError(explain("overlap", f"{name!r} with {sizes[0]} units", sizes[1], fix))
    both = sum(int((first[name] & second[name]).sum()) for name in first)
    either = sum(int((first[name] | second[name]).sum()) for name in first)
    return both, either
