"""Other ways to choose as many units per site as a chain keeps, and how well they keep the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyinterp.chains import attribution
from pyinterp.chains.evaluate import answers, check_images, compare, gated_answers
from pyinterp.errors import explain
from pyinterp.models.gating import GatedModel

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain

BASELINES = ("random", "magnitude", "activation", "taylor", "integrated_gradients", "cdrp")


def measure_baselines(
    chain: Chain,
    model: nn.Module | GatedModel,
    images: Tensor,
    *,
    seed: int = 0,
    names: Sequence[str] = BASELINES,
    steps: int | None = None,
) -> dict[str, dict[str, float]]:
    """Fidelity of every baseline at the chain's own size in every site; the layers that the chain closes are closed.

    Kept units are exact copies. In a site of which the chain keeps all or nothing, every baseline equals it.

    Args:
        chain: What to compare with.
        model: Its network, or ``chain.bind(model)``.
        images: (N, ...), for the choice and for the measurement alike.
        seed: Of the random choice.
        names: Some of `BASELINES`.
        steps: See `baseline_masks`.

    Returns:
        {name: {"kl", "agreement"}}.
    """
    gated = chain.bind(model)
    counts = [int((gate != 0).sum()) for gate in chain.gates()]
    check_images(gated, images)
    full, measured = answers(gated.traced.module, images), {}
    for name in names:
        masks = baseline_masks(name, gated, images, counts, seed=seed, steps=steps)
        fidelity = compare(full, gated_answers(gated, masks, images))
        measured[name] = {key: fidelity[key] for key in ("kl", "agreement")}
    return measured


def baseline_masks(
    name: str,
    gated: GatedModel,
    images: Tensor,
    counts: Sequence[int],
    *,
    seed: int = 0,
    steps: int | None = None,
) -> list[Tensor]:
    """The units that one baseline keeps: those with its largest scores in each site.

    Args:
        name: "random"; "magnitude", "activation", "taylor", "integrated_gradients" or "cdrp" as in
            `pyinterp.chains.attribution`.
        gated: The network with its sites.
        images: (N, ...).
        counts: Per site, how many units are kept; for a layer 1 (open) or 0.
        seed: Of the random choice, which also orders the units that a baseline has no score for.
        steps: Of "integrated_gradients" (8 by default) and "cdrp" (30, its authors' number).

    Returns:
        Per site, bool (units,) with exactly ``counts`` units.

    Raises:
        ValueError: There is no such baseline, or ``counts`` does not fit the sites.
    """
    if name not in BASELINES:
        raise ValueError(
            explain("baselines", f"one of {', '.join(BASELINES)}", repr(name), "Choose one of them.")
        )
    sizes = [site.units for site in gated.sites]
    if len(counts) != len(sizes) or any(not 0 <= k <= n for k, n in zip(counts, sizes, strict=False)):
        fix = "Pass one number per site, at most its units."
        raise ValueError(
            explain("baselines", f"counts for sites of {sizes[:8]} units", list(counts[:8]), fix)
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(size, generator=generator) for size in sizes]
    masks = []
    for order, scores, kept in zip(shuffled, _scores(name, gated, images, steps), counts, strict=True):
        scores = scores.cpu().nan_to_num(nan=-1.0)
        best = order[scores[order].argsort(descending=True, stable=True)][:kept]
        masks.append(torch.zeros(len(order), dtype=torch.bool).index_fill_(0, best, True))
    return masks


def _scores(name: str, gated: GatedModel, images: Tensor, steps: int | None) -> list[Tensor]:
    if name == "magnitude":
        return attribution.magnitude(gated)
    if name == "activation":
        return attribution.activation(gated, images)
    if name == "taylor":
        return attribution.taylor(gated, images)
    if name == "integrated_gradients":
        return attribution.integrated_gradients(gated, images, steps or attribution.PATH_STEPS)
    if name == "cdrp":
        return attribution.cdrp(gated, images, steps or attribution.CDRP_STEPS)
    return [torch.zeros(site.units) for site in gated.sites]
