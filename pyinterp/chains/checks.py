"""What a user hands in, checked once, before any work: one clear error each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.chains.chain import Mode
from pyinterp.errors import explain
from pyinterp.models.graph import TracedModel, require_eval
from pyinterp.models.images import Preprocessor, load_images
from pyinterp.models.sites import Site, find_sites

STEPS = {"penalty": 300, "target": 560}
PENALTY = {"sparsity_weight": 0.005, "layer_weight": 1.0, "temperature": 0.2, "threshold": 0.1, "lr": 0.005}
"""What has a say without a target only, and its defaults."""


@dataclass(frozen=True)
class Options:
    """The numbers of one call of `extract_chain`; see there."""

    mode: Mode
    target_kl: float | None
    target_keep: float | None
    sparsity_weight: float
    layer_weight: float
    temperature: float
    threshold: float
    lr: float
    max_steps: int | None
    seed: int

    @property
    def target(self) -> str | None:
        """ "kl", "keep" or None."""
        if self.target_kl is not None:
            return "kl"
        return "keep" if self.target_keep is not None else None

    @property
    def steps(self) -> int:
        return self.max_steps or STEPS["target" if self.target else "penalty"]

    @property
    def empty(self) -> str:
        """What to say where a chain is empty."""
        if self.target_kl is not None:
            return "What is never gated gives these answers alone; a smaller target_kl asks for more."
        return "Raise target_keep." if self.target else "Lower sparsity_weight, or set target_kl."

    def describe(self) -> dict[str, Any]:
        """Those that had a say, for `Chain.settings`."""
        mine = asdict(self) | {"max_steps": self.steps}
        unused = tuple(PENALTY) if self.target else ("target_kl", "target_keep")
        return {name: value for name, value in mine.items() if name not in unused and value is not None}

    def verdict(self, divergence: float, agreement: float, kept: float) -> tuple[bool | None, str]:
        """Whether the target holds, and what to say about it."""
        if self.target_kl is not None:
            met = divergence <= self.target_kl and agreement == 1.0
            if met:
                return True, ""
            return False, (
                f"The target was not met: mean KL {divergence:.4f} (bound {self.target_kl:g}), the same top class on "
                f"{100 * agreement:.0f} % of the images. Raise target_kl or max_steps."
            )
        if self.target_keep is not None:
            met = kept <= self.target_keep
            return met, "" if met else f"The target was not met: {100 * kept:.2f} % kept. Raise target_keep."
        return None, ""


def check_options(options: Options, precision: Any) -> None:
    """Raise ValueError for numbers out of range."""

    def need(fine: bool, name: str, expected: str, fix: str) -> None:
        if not fine:
            raise ValueError(
                explain("extract_chain", f"{name} {expected}", repr(getattr(options, name)), fix)
            )

    for name in ("target_kl", "target_keep", *PENALTY):
        value = getattr(options, name)
        number = isinstance(value, Real) and not isinstance(value, bool)
        need(value is None or number, name, "a number", "Pass a plain number.")
    for name in ("max_steps", "seed"):
        value = getattr(options, name)
        fits = isinstance(value, int) or (value is None and name == "max_steps")
        need(fits and not isinstance(value, bool), name, "an integer", "Pass a plain integer.")
    need(0 <= options.seed < 2**63, "seed", "from 0 to 2^63 - 1", "Pass a smaller one.")
    need(options.mode in ("scaled", "exact"), "mode", '"scaled" or "exact"', "Choose one of them.")
    if options.target_kl is not None and options.target_keep is not None:
        raise ValueError(
            explain(
                "extract_chain", "target_kl or target_keep", "both", "Drop one: the other follows from it."
            )
        )
    need(
        options.target_kl is None or 0 < options.target_kl < float("inf"),
        "target_kl",
        "> 0 (nats)",
        "Try 0.1.",
    )
    need(options.target_keep is None or 0 < options.target_keep < 1, "target_keep", "in (0, 1)", "Try 0.05.")
    need(0 <= options.sparsity_weight < float("inf"), "sparsity_weight", ">= 0", "The paper has 0.005.")
    need(0 <= options.layer_weight < float("inf"), "layer_weight", ">= 0", "The paper has 1 or 2.")
    need(0 < options.temperature < float("inf"), "temperature", "> 0", "The paper has 0.2.")
    need(0 < options.threshold < 1, "threshold", "in (0, 1)", "The paper has 0.1.")
    need(0 < options.lr < float("inf"), "lr", "> 0", "The paper has 0.005.")
    need(options.max_steps is None or options.max_steps >= 1, "max_steps", "at least 1", "Try 300.")
    for name, default in PENALTY.items():
        fix = "Drop it: a target sets its own. Or drop the target."
        idle = options.target is not None and getattr(options, name) != default
        need(not idle, name, "without a target only", fix)
    if precision not in (None, torch.bfloat16, torch.float16):
        fix = "Leave it out to compute in the model's own precision."
        raise ValueError(
            explain("extract_chain", "precision torch.bfloat16 or torch.float16", precision, fix)
        )


def check_model(model: Any) -> None:
    """Raise unless ``model`` is a module in eval mode with finite weights, all on one device."""
    require_eval(model)
    if isinstance(model, nn.DataParallel):
        fix = "Pass its .module."
        raise TypeError(explain("extract_chain", "a plain module", type(model).__name__, fix))
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    if not weights:
        raise ValueError(
            explain(
                "extract_chain", "a model with weights", "one without parameters", "Pass a trained network."
            )
        )
    devices = {str(weight.device) for weight in weights.values()}
    if len(devices) > 1:
        fix = "Move the model to one device."
        raise ValueError(explain("extract_chain", "a model on one device", sorted(devices), fix))
    if devices == {"meta"}:
        fix = "Load its weights on a real device first."
        raise ValueError(explain("extract_chain", "a model with weights", "one on the meta device", fix))
    if any(weight.is_inference() for weight in weights.values()):
        fix = "Make or load it outside torch.inference_mode()."
        raise ValueError(explain("extract_chain", "a model with plain weights", "inference tensors", fix))
    bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    bad += [name for name, value in model.named_buffers() if torch.isnan(value).any()]  # masks are infinite
    if bad:
        got = f"NaN or infinite values in {', '.join(map(repr, bad[:3]))}" + (
            " and others" if len(bad) > 3 else ""
        )
        raise ValueError(explain("extract_chain", "finite weights", got, "Load the weights again."))


def read_images(images: Any, preprocess: Preprocessor | None, model: nn.Module) -> Tensor:
    """(N, C, H, W) in the model's dtype, on its device; raise for a batch that is on another one."""
    weight = next(model.parameters())
    batch = load_images(images, preprocess).tensor
    if isinstance(images, Tensor) and batch.device != weight.device:
        fix = f"Move one of them: images.to({str(weight.device)!r})."
        raise ValueError(
            explain("extract_chain", f"images on the model's device, {weight.device}", batch.device, fix)
        )
    batch = batch.to(weight.device, weight.dtype)
    return batch.clone() if batch.is_inference() else batch


def choose_sites(traced: TracedModel, wanted: Sequence[Site | str] | None) -> tuple[Site, ...]:
    """All sites of the network, or those asked for, in the order of the network."""
    if traced.classes < 2:
        fix = (
            "With one output there is no distribution to keep; wrap the model so that it returns two logits."
        )
        raise ValueError(explain("extract_chain", "a model with at least two classes", traced.classes, fix))
    every = find_sites(traced)
    if wanted is None:
        wanted = every
    if isinstance(wanted, str):
        wanted = [wanted]
    if not isinstance(wanted, (list, tuple)):
        fix = "See pyinterp.models.sites(model)."
        raise TypeError(explain("extract_chain", "sites as a list of sites or names", repr(wanted), fix))
    names = {site if isinstance(site, str) else site.name for site in wanted}
    unknown = sorted(names - {site.name for site in every})
    if unknown or not names:
        fix = "See pyinterp.models.sites(model) for their names."
        raise ValueError(explain("extract_chain", "names of the model's sites", unknown or "none", fix))
    chosen = tuple(site for site in every if site.name in names)
    if all(site.kind == "layer" for site in chosen):
        fix = "Add sites of filters, heads or neurons, where the model has them."
        raise ValueError(explain("extract_chain", "sites with units", f"{len(chosen)} layers only", fix))
    return chosen
