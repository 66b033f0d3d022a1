"""The paper's recipe: scores and layer gates under two fixed penalties, then a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.chains.adam import Adam
from pyinterp.chains.checks import Options
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.progress import Recorder
from pyinterp.chains.replay import Replay

START_SCORE, START_LOGIT = 1.0, 1.0
BETAS = (0.9, 0.999)
STILL = 0.05 / 5504
"""Change of the loss per unit and step under which a run has settled: 0.05 in all for the 5,504 filters of VGG-19."""
WINDOW = 5
LOOK = 20

PRESETS = {
    "vgg19": {
        "sparsity_weight": 0.005,
        "layer_weight": 2.0,
        "temperature": 0.2,
        "threshold": 0.1,
        "lr": 0.005,
    },
    "resnet50": {
        "sparsity_weight": 0.005,
        "layer_weight": 1.0,
        "temperature": 0.2,
        "threshold": 0.1,
        "lr": 0.005,
    },
}
"""The paper's settings, as keyword arguments of `extract_chain`."""


def optimise_scores(
    engine: Engine, images: Tensor, objective: Objective, group: Tensor, options: Options, recorder: Recorder
) -> Tensor:
    """Optimise scores and layer gates of G trials at once, then cut at the threshold.

    minimise  mean_x D(x) + sparsity_weight * sum_i |s_i| + layer_weight * mean_l G_l,   G_l = sigmoid(a_l / T)

    by Adam, at most ``max_steps`` steps, until the loss changes by less than `STILL` per unit and step, mean of
    `WINDOW` steps (from step 10 on). Scores stay in [0, inf), or in [0, 1] in exact mode. A unit whose score has been
    0 at one look is closed for good: nothing pulls a zero of an L1 penalty back but a gradient larger than it.

    Returns:
        (G, units_total): what each unit is multiplied by; 0 where it is removed; ones in exact mode.
    """
    trials = int(group.max()) + 1
    counts = torch.bincount(group, minlength=trials)
    sizes = counts.tolist()
    rows = group if trials > 1 else None
    is_unit = engine.is_unit
    units, layers = int(is_unit.sum()), int((~is_unit).sum())
    dtype = torch.promote_types(images.dtype, torch.float32)
    start = torch.where(is_unit, START_SCORE, START_LOGIT).to(dtype)
    values = start.expand(trials, -1).clone()
    walk = Adam(values, options.lr, BETAS)
    top = float("inf") if options.mode == "scaled" else 1.0
    open_units = torch.ones_like(values, dtype=torch.bool)
    losses: list[Tensor] = []
    settled = torch.zeros(trials, dtype=torch.bool, device=images.device)
    recorder.phase = "scores"

    def ask(gates: Tensor) -> tuple[Tensor, ...]:
        """Of gates (G, units_total): the slope of the mean divergence; divergence and agreement (N,)."""
        gates = gates.detach().requires_grad_()
        logits = engine.logits(gates if rows is not None else gates[0], images, rows)
        divergence = objective.divergence(logits)
        (gradient,) = torch.autograd.grad((divergence / counts[group]).sum(), gates)
        return gradient, divergence.detach(), objective.agrees(logits)

    replay = Replay(engine, ask, recorded=not callable(objective.keep))
    try:
        for step in range(1, options.steps + 1):
            gates = torch.where(is_unit, values, (values / options.temperature).sigmoid())
            gradient, divergence, agrees = replay(gates)
            off = _per_trial(divergence, sizes)
            loss = off + options.sparsity_weight * (gates * is_unit).sum(1)
            slope = gradient + options.sparsity_weight
            if layers:
                loss = loss + options.layer_weight / layers * (gates * ~is_unit).sum(1)
                bend = gates * (1 - gates) / options.temperature
                slope = torch.where(is_unit, slope, (gradient + options.layer_weight / layers) * bend)
            # A settled trial waits for the others as if it were alone.
            values = values + walk.step(slope) * ~settled[:, None]
            values = torch.where(is_unit, values.clamp(0, top), values)
            if step % LOOK == 0:
                open_units &= (values > 0) | ~is_unit
                engine.close_all_but(open_units.any(0), images[:1])
            values = values.masked_fill(~open_units, 0)
            kept = ((gates >= options.threshold) & is_unit).float().sum(1) / units
            agreement = _per_trial(agrees.to(off), sizes)
            recorder({"kl": off, "agreement": agreement, "kept": kept, "loss": loss}, over=settled)
            losses.append(loss)
            if step >= 10:
                settled = settled | _settled(losses, units)
            if step % WINDOW == 0 and settled.all():
                break
    except KeyboardInterrupt:
        recorder.interrupted = True
    finally:
        replay.close()
    gates = torch.where(is_unit, values, (values / options.temperature).sigmoid())
    gates = gates.masked_fill(gates < options.threshold, 0)
    return gates if options.mode == "scaled" else (gates > 0).to(gates)


def _settled(losses: list[Tensor], units: int) -> Tensor:
    """(G,) bool."""
    recent = torch.stack(losses[-WINDOW - 1 :])
    return recent.diff(dim=0).abs().mean(0) < STILL * units


def _per_trial(values: Tensor, sizes: list[int]) -> Tensor:
    """(G,) means of (N,) values."""
    return torch.stack([part.mean() for part in values.split(sizes)])
