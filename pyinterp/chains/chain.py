"""``Chain``: the units of a network that keep its answer, with their scores and what was measured about them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyinterp.chains.compact import compact_network
from pyinterp.chains.evaluate import Fidelity, gate_dtype, measure_fidelity
from pyinterp.chains.files import load_chain, save_chain
from pyinterp.errors import explain
from pyinterp.models.gating import GatedModel, gate_model
from pyinterp.models.graph import require_eval, trace
from pyinterp.models.hooks import replaced_forward
from pyinterp.models.sites import Site

Mode = Literal["scaled", "exact"]


@dataclass(frozen=True)
class Prediction:
    """What the full network and the chain answer on one image: top class and its probability."""

    full_class: int
    full_probability: float
    chain_class: int
    chain_probability: float


@dataclass(frozen=True, eq=False, repr=False)
class Chain:
    """A sub-network: kept units of a trained network, everything else removed; its weights stay as they were.

    Attributes:
        model_name: For people; what `extract_chain` was told, or the class of the model.
        mode: "exact": kept units are exact copies, every score is 1. "scaled": each kept unit is multiplied by its
            score, each kept layer by its gate; these numbers are part of the chain.
        sites: Where the network can be gated, in its order (`pyinterp.models.sites`).
        kept: Per site of filters, heads or neurons, bool (units,).
        scores: Per such site, float32 (units,); 0 where a unit is removed.
        layer_gates: Per layer that can be bypassed: 0 where it is, else 1 (exact) or its gate G (scaled).
        input_shape: (C, H, W) of the images.
        architecture: Name and shape of every weight, to refuse another network.
        weights_digest: SHA-256 of the weights' bytes.
        history: Per recorded step of the search: "step", "seconds", "phase", "kl", "agreement", "kept", "loss".
        settings: The arguments of the run.
        fidelity: "images" and, if there were any, "held_out", each what `evaluate` gives.
        baselines: Other choices of as many units per site: {name: {"kl", "agreement"}}.
        predictions: Per image.
        bound_met: Whether the target holds on the images; None without a target.
        message: What a user has to know about the run, in words; "" if nothing.
        interrupted: The run was stopped by the user; this is the best chain until then.
        compact_info: Size, cost and fidelity of the physically smaller network; empty before it was built.
    """

    model_name: str
    mode: Mode
    sites: tuple[Site, ...]
    kept: Mapping[str, Tensor]
    scores: Mapping[str, Tensor]
    layer_gates: Mapping[str, float]
    input_shape: tuple[int, ...]
    architecture: Mapping[str, tuple[int, ...]]
    weights_digest: str
    history: Mapping[str, list[float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    fidelity: Mapping[str, dict[str, float]] = field(default_factory=dict)
    baselines: Mapping[str, dict[str, float]] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    bound_met: bool | None = None
    message: str = ""
    interrupted: bool = False
    compact_info: Mapping[str, float] = field(default_factory=dict)

    @property
    def kept_count(self) -> int:
        """Number of kept units (filters, heads, neurons)."""
        return sum(int(mask.sum()) for mask in self.kept.values())

    @property
    def unit_count(self) -> int:
        """Number of units of the full network."""
        return sum(mask.numel() for mask in self.kept.values())

    @property
    def kept_fraction(self) -> float:
        """Share of units kept, in [0, 1]."""
        return self.kept_count / self.unit_count

    def gate_values(self, site: str) -> Tensor:
        """(units,) float32, what each unit of a site is multiplied by; (1,) for a layer."""
        if site in self.layer_gates:
            return torch.tensor([self.layer_gates[site]])
        return self.scores[site] * self.kept[site]

    def gates(self, like: Tensor | None = None) -> list[Tensor]:
        """`gate_values` of all sites, in order; on the device of ``like``, and in float64 if it is."""
        rows = [self.gate_values(site.name) for site in self.sites]
        return rows if like is None else [row.to(like.device, gate_dtype(like)) for row in rows]

    def bind(self, model: nn.Module | GatedModel) -> GatedModel:
        """The graph of ``model`` with a gate at every site of the chain.

        What takes a chain and its model also takes this in place of the model, so that it is traced only once.

        Warns:
            UserWarning: The weights are others.

        Raises:
            ValueError: ``model`` is another architecture; the first difference is named.
        """
        if isinstance(model, GatedModel):
            if model.sites != self.sites:
                got = f"one with {len(model.sites)} other sites"
                fix = "Bind the chain itself: chain.bind(model)."
                raise ValueError(explain("chain", f"a model with its {len(self.sites)} sites", got, fix))
            return model
        require_eval(model)
        self.check(model)
        if digest(model) != self.weights_digest:
            warnings.warn(
                f"the weights are not those the chain was extracted from ({self.model_name}), or of another precision: "
                "its numbers hold for those. Load these, or extract a chain of this network.",
                stacklevel=2,
            )
        parameter = next(model.parameters())
        example = parameter.new_zeros(1, *self.input_shape)
        return gate_model(trace(model, example), self.sites)

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless ``model`` has the architecture that the chain belongs to."""
        got = describe(model)
        for name in [*self.architecture, *got]:
            here, there = self.architecture.get(name), got.get(name)
            if here != there:
                fix = f"Load {self.model_name!r}, or extract a chain of this network."
                raise ValueError(
                    explain(
                        "chain",
                        f"the network it was extracted from, whose {name!r} is {_shape(here)}",
                        f"one where it is {_shape(there)}",
                        fix,
                    )
                )

    @contextmanager
    def apply(self, model: nn.Module) -> Iterator[nn.Module]:
        """While inside, ``model(images)`` answers as the chain does; afterwards the model is what it was.

        >>> with chain.apply(model):
        ...     logits = model(images)
        """
        gated = self.bind(model)
        gates = self.gates(next(model.parameters()))

        def forward(images: Tensor) -> Tensor:
            if tuple(images.shape[1:]) != self.input_shape:
                fix = "Preprocess the images as for the extraction."
                raise ValueError(
                    explain("chain", f"images (N, {self.input_shape})", tuple(images.shape), fix)
                )
            return gated.module(images, None, *gates)  # type: ignore[no-any-return]

        with replaced_forward(model, forward):
            yield model

    def compact(self, model: nn.Module, images: Tensor | None = None, tolerance: float = 1e-3) -> nn.Module:
        """The chain as a physically smaller network: sliced weights, residual streams whole, no gates.

        Args:
            model: The network of the chain; not changed, and no weight is shared.
            images: (N, C, H, W) on which the small network is compared with the masked one; else random ones.
            tolerance: Largest allowed difference of logits, as a share of the largest logit.

        Returns:
            An ``nn.Module``, images -> logits, with ``.info``: "parameters_before", "parameters_after", "macs_before",
            "macs_after", "difference" (largest, of logits), "time_ratio" (full / small, forward on these images).

        Raises:
            ValueError: The small network does not answer as the masked one does.
        """
        gated = self.bind(model)
        gates = self.gates(next(gated.module.buffers()))
        return compact_network(gated, gates, images, self.input_shape, tolerance)

    def evaluate(
        self, model: nn.Module | GatedModel, images: Tensor, labels: Tensor | None = None
    ) -> Fidelity:
        """How far the chain's answers on any images are from the full network's.

        Args:
            model: The network of the chain.
            images: (N, C, H, W), preprocessed as for the extraction.
            labels: (N,) int64 classes, for the accuracies.
        """
        return measure_fidelity(self.bind(model), self.gates(), images, labels)

    def __repr__(self) -> str:
        return f"<{self.summary().splitlines()[0].removesuffix('.')}>"

    def summary(self) -> str:
        """The chain in a few lines of words and numbers."""
        filters = [site for site in self.sites if site.kind != "layer"]
        closed = [name for name, gate in self.layer_gates.items() if gate == 0]
        lines = [
            f"Chain of {self.model_name} ({self.mode}): {self.kept_count:,} of {self.unit_count:,} units kept "
            f"({100 * self.kept_fraction:.2f} %) in {sum(bool(self.kept[s.name].any()) for s in filters)} of "
            f"{len(filters)} sites; {len(closed)} of {len(self.layer_gates)} layers bypassed."
        ]
        names = {"images": "On the images", "held_out": "On held-out images"}
        for key, values in self.fidelity.items():
            lines.append(
                f"{names.get(key, key)}: mean KL {values['kl']:.4f}, same top class on "
                f"{100 * values['agreement']:.0f} %."
            )
        if self.baselines:
            best = min(self.baselines, key=lambda name: self.baselines[name]["kl"])
            there = self.baselines[best]
            words = f"Best baseline of the same size per layer: {best}, mean KL {there['kl']:.4f}."
            if there["kl"] <= self.fidelity["images"]["kl"]:
                words += " The chain does not beat it."
            lines.append(words)
        if self.compact_info:
            info = self.compact_info
            lines.append(
                f"As a network of its own: {100 * info['parameters_after'] / info['parameters_before']:.1f} % of the "
                f"parameters, {100 * info['macs_after'] / info['macs_before']:.1f} % of the multiply-adds, "
                f"{info['time_ratio']:.1f} times as fast here."
            )
        if self.message:
            lines.append(self.message)
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.safetensors`` (masks and scores) and ``path.json`` (everything else); never pickle.

        Raises:
            OSError: It could not be written (a full disk); an older file of that name is still whole then.
        """
        save_chain(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Chain:
        """Read what `save` wrote.

        Raises:
            ValueError: The files are not a whole chain.
        """
        return load_chain(path)


def describe(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight and buffer."""
    return {name: tuple(value.shape) for name, value in _tensors(model).items()}


def digest(model: nn.Module) -> str:
    """SHA-256 of the bytes of all weights, in order."""
    state = hashlib.sha256()
    for value in _tensors(model).values():
        state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state without what `get_extra_state` of its modules adds."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"
