"""``extract_chain``: the few filters, heads and layers that keep a network's answer on a few images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyinterp.chains.baselines import measure_baselines
from pyinterp.chains.chain import Chain, Mode, Prediction, describe, digest
from pyinterp.chains.checks import Options, check_model, check_options, choose_sites, read_images
from pyinterp.chains.compact import compact_network
from pyinterp.chains.engine import Engine
from pyinterp.chains.evaluate import Fidelity, answers, compare, gated_answers, measure_fidelity
from pyinterp.chains.objective import Keep, Objective, check_keep
from pyinterp.chains.progress import Progress, Recorder
from pyinterp.chains.recipes import find_by_penalty, find_by_target
from pyinterp.errors import explain
from pyinterp.memory import reused_memory
from pyinterp.models.gating import GatedModel, channels_last, gate_model
from pyinterp.models.gradients import with_gradients
from pyinterp.models.graph import require_finite, trace
from pyinterp.models.shrink import live_units
from pyinterp.models.sites import Site
from pyinterp.models.zoo import LoadedModel


def extract_chain(
    model: nn.Module | LoadedModel,
    images: Any,
    *,
    mode: Mode = "scaled",
    target_kl: float | None = None,
    target_keep: float | None = None,
    sparsity_weight: float = 0.005,
    layer_weight: float = 1.0,
    temperature: float = 0.2,
    threshold: float = 0.1,
    lr: float = 0.005,
    max_steps: int | None = None,
    keep: Keep = None,
    sites: Sequence[Site | str] | None = None,
    held_out: Any = None,
    precision: torch.dtype | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Chain:
    """Find the units of a network that keep its answers on a few images.

    Without a target, the recipe of NeuroChains (Zhao et al., TMLR 2022), one score s per unit, one gate
    G = sigmoid(a / T) per layer that can be bypassed, weights frozen:

        minimise over s, a:   mean_x KL(p(x) || q(x)) + sparsity_weight * sum_i |s_i| + layer_weight * mean_l G_l

    by Adam from s = 1, a = 1; then units with s < threshold and layers with G < threshold are removed. p is the full
    network's softmax, q the sub-network's. (The paper gives the weights; the reductions, mean over images and layers
    and sum over units, are those under which they are stable.) Scores are kept in [0, inf) in scaled mode, in [0, 1]
    in exact mode, where the kept units then become exact copies.

    With ``target_kl`` or ``target_keep``, the smallest chain within the bound: gates annealed from soft to hard under a
    size penalty that is steered by the bound, then a search that opens the most missed and closes the least missed
    units. The chain meets its bound on the images, or says that it does not (``bound_met``, ``message``).

    Args:
        model: Maps images to logits; a module in eval mode, or what `pyinterp.models.load` returns.
        images: What `pyinterp.models.load_images` takes: a batch (N, C, H, W), PIL images, paths, a folder. Labels
            are not needed.
        mode: "scaled": each kept unit is multiplied by its score. "exact": kept units are exact copies.
        target_kl: Bound on the mean divergence, in nats, with the same top class on every image.
        target_keep: Bound on the share of units kept, in (0, 1); the divergence is made as small as it gets.
        sparsity_weight: lambda, without a target.
        layer_weight: lambda_g, without a target; the paper has 2 for VGG-19, 1 for ResNet-50 (`PRESETS`).
        temperature: T of the layer gates, without a target.
        threshold: tau in (0, 1), without a target.
        lr: Adam's step, without a target.
        max_steps: At most this many optimisation steps; 300 without a target (the paper's), 560 with one,
                and up to half as many more, and once again, while the bound is not met.
        keep: What is to be kept (`Objective`): None for all classes; a list of classes; one class for its logit; a
            callable on the logits.
        sites: Sites, or their names, to be gated; the others stay whole. All by default.
        held_out: Other images, to measure the chain on; they take no part in the search.
        precision: torch.bfloat16 or torch.float16: the network runs in it during the search, scores stay float32.
        seed: Same seed, same chain.
        progress: True or False; None: a bar on a terminal; or a callable that gets each step's measures.

    Returns:
        The chain, measured on the images and beside baselines of its size. After Ctrl-C: the best chain so far, with
        ``interrupted`` set.

    Raises:
        ValueError: Bad images, a model in train mode, without gateable sites, with one class or with NaN, options out
            of range.
        TypeError: Something that is not a model.
    """
    options = Options(
        mode,
        target_kl,
        target_keep,
        sparsity_weight,
        layer_weight,
        temperature,
        threshold,
        lr,
        max_steps,
        seed,
    )
    return _extract(model, [images], options, keep, sites, held_out, precision, progress)[0]


def extract_chains(
    model: nn.Module | LoadedModel,
    batches: Sequence[Any],
    *,
    mode: Mode = "scaled",
    target_kl: float | None = None,
    target_keep: float | None = None,
    sparsity_weight: float = 0.005,
    layer_weight: float = 1.0,
    temperature: float = 0.2,
    threshold: float = 0.1,
    lr: float = 0.005,
    max_steps: int | None = None,
    keep: Keep = None,
    sites: Sequence[Site | str] | None = None,
    precision: torch.dtype | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> list[Chain]:
    """Find a chain for each batch of images, all at once: one forward for all, one row of scores per batch.

    Equivalent to ``[extract_chain(model, batch, ...) for batch in batches]`` up to rounding: batches share nothing but
    the weights. Arguments, errors and results as in `extract_chain`.
    """
    options = Options(
        mode,
        target_kl,
        target_keep,
        sparsity_weight,
        layer_weight,
        temperature,
        threshold,
        lr,
        max_steps,
        seed,
    )
    return _extract(model, batches, options, keep, sites, None, precision, progress)


Result = TypeVar("Result")


@with_gradients
@reused_memory()
def _extract(
    model: nn.Module | LoadedModel,
    batches: Sequence[Any],
    options: Options,
    keep: Keep,
    wanted: Sequence[Site | str] | None,
    held_out: Any,
    precision: torch.dtype | None,
    progress: Any,
) -> list[Chain]:
    check_options(options, precision)
    if not (isinstance(progress, bool | None) or callable(progress)):
        fix = "None shows a bar on a terminal."
        raise TypeError(
            explain("extract_chain", "progress True, False, None or a callable", repr(progress), fix)
        )
    network, preprocess, name = (
        (model.model, model.preprocess, model.name)
        if isinstance(model, LoadedModel)
        else (model, None, type(model).__name__)
    )
    check_model(network)
    tensors = [read_images(batch, preprocess, network) for batch in batches]
    fresh = None if held_out is None else read_images(held_out, preprocess, network)
    if not tensors:
        raise ValueError(
            "extract_chains: expected at least one batch of images, got none. Pass a list of batches."
        )
    sizes = [*tensors, *([] if fresh is None else [fresh])]
    if any(tensor.shape[1:] != tensors[0].shape[1:] for tensor in sizes):
        raise ValueError(
            "extract_chain: expected images of one size, got "
            f"{sorted({tuple(t.shape[1:]) for t in sizes})}. Preprocess all of them alike."
        )
    traced = trace(network, tensors[0][:1])
    sites = choose_sites(traced, wanted)
    images = torch.cat(tensors)
    counts = torch.tensor([len(tensor) for tensor in tensors], device=images.device)
    group = torch.arange(len(tensors), device=images.device).repeat_interleave(counts)
    full = answers(traced.module, images).clone()  # outside inference mode, for the slopes to come
    require_finite("extract_chain", full)
    check_keep(keep, full)
    objective = Objective(full, keep)
    searched = sites if options.target is None else tuple(site for site in sites if site.kind != "layer")
    engine = Engine(traced, searched, precision)
    gated = gate_model(traced, sites)
    template = Chain(
        model_name=name,
        mode=options.mode,
        sites=sites,
        kept={},
        scores={},
        layer_gates={},
        input_shape=traced.input_shape,
        architecture=describe(network),
        weights_digest=digest(network),
        settings=options.describe() | {"keep": _words(keep), "precision": str(precision or "as the model")},
    )
    recorder = Recorder(progress, options.steps)
    search = find_by_penalty if options.target is None else find_by_target
    try:
        found = search(engine, channels_last(images), objective, group, options, recorder)
        recorder.say("measuring")
        chains = []
        for result in found:
            mine = group == result.trial
            values = dict(
                zip([site.name for site in searched], result.gates.split(engine.sizes), strict=True)
            )
            gates = [values.get(site.name, result.gates.new_ones(site.units)) for site in sites]
            alive = _to_the_end(partial(live_units, gated, [row != 0 for row in gates]), recorder)
            gates = [row * units.to(row.device) for row, units in zip(gates, alive, strict=True)]
            chain = replace(template, history=recorder.history(result.trial))
            own = objective.take(mine)
            chains.append(_measured(chain, gated, gates, images[mine], own, fresh, options, recorder))
        return chains
    finally:
        recorder.close()


def _measured(
    chain: Chain,
    gated: GatedModel,
    gates: list[Tensor],
    images: Tensor,
    objective: Objective,
    held_out: Tensor | None,
    options: Options,
    recorder: Recorder,
) -> Chain:
    """Put what a search found into a chain, and measure it in full precision.

    Whatever fails here, or is interrupted, leaves out one measurement, and says so; the chain itself took minutes.
    """
    rows = {site.name: row.cpu().float() for site, row in zip(chain.sites, gates, strict=True)}
    layers = {site.name for site in chain.sites if site.kind == "layer"}
    chain = replace(
        chain,
        kept={name: row != 0 for name, row in rows.items() if name not in layers},
        scores={name: row for name, row in rows.items() if name not in layers},
        layer_gates={name: float(rows[name]) for name in rows if name in layers},
    )
    gates = chain.gates(images)
    words: list[str] = []

    def measured(what: str, measure: Callable[[], Result], otherwise: Result) -> Result:
        try:
            return measure()
        except KeyboardInterrupt:
            recorder.interrupted = True
        except Exception as error:
            words.append(f"{what} could not be measured: {error}")
        return otherwise

    answer = _to_the_end(partial(gated_answers, gated, gates, images), recorder)
    fidelity = {"images": compare(objective.logits, answer)}
    if held_out is not None:
        on_others: Fidelity = measured(
            "Held-out images", partial(measure_fidelity, gated, gates, held_out), {}
        )
        fidelity |= {"held_out": on_others} if on_others else {}
    met, message = options.verdict(
        float(objective.divergence(answer).mean()),
        float(objective.agrees(answer).float().mean()),
        chain.kept_fraction,
    )
    words.append(message)
    wrong = int((~torch.isfinite(answer)).any(1).sum())
    if wrong:
        words.append(
            f"On {wrong} of {len(images)} images the chain answers NaN or infinite values, the full network does not: "
            "without what was removed it divides by 0. Ask for a larger chain."
        )
    if chain.kept_count == 0:
        words.append(f"The chain is empty: no unit is kept. {options.empty}")
    elif _spread(answer) < 1e-2 * _spread(objective.logits):
        words.append(
            f"The chain answers all images alike: too little is kept to tell them apart. {options.empty}"
        )
    if options.target_kl is not None and chain.kept_fraction > 0.9 and not recorder.interrupted:
        words.append(
            "Hardly anything was removed: the search found nothing smaller in its steps. Raise max_steps."
        )
    small: Mapping[str, float] = {}
    baselines: Mapping[str, dict[str, float]] = {}
    if chain.kept_count and not recorder.interrupted:
        measure = partial(measure_baselines, chain, gated, images, seed=options.seed)
        baselines = measured("The baselines", measure, {})
    if chain.kept_count and not recorder.interrupted:
        build = partial(compact_network, gated, gates, images, chain.input_shape)
        small = measured("The chain as a network of its own", lambda: build().info, {})
    if recorder.interrupted:
        words.append("The run was interrupted; this is the best chain until then.")
    return replace(
        chain,
        compact_info=small,
        fidelity=fidelity,
        predictions=_predictions(objective.logits, answer),
        bound_met=None if met is None else met and not wrong,
        message=" ".join(word for word in words if word),
        baselines=baselines,
        interrupted=recorder.interrupted,
    )


def _to_the_end(call: Callable[[], Result], recorder: Recorder) -> Result:
    """What a chain can't do without: after Ctrl-C it is begun again, and takes a second one to be stopped."""
    try:
        return call()
    except KeyboardInterrupt:
        recorder.interrupted = True
        return call()


def _predictions(full: Tensor, chain: Tensor) -> tuple[Prediction, ...]:
    p, q = full.softmax(1).max(1), chain.softmax(1).max(1)
    return tuple(
        Prediction(int(a), float(b), int(c), float(d))
        for a, b, c, d in zip(p.indices, p.values, q.indices, q.values, strict=True)
    )


def _spread(logits: Tensor) -> float:
    """How much the answers (N, classes) differ between images."""
    return float((logits - logits.mean(0)).abs().max())


def _words(keep: Keep) -> str:
    if keep is None:
        return "all classes"
    return getattr(keep, "__name__", "a callable") if callable(keep) else str(keep)
