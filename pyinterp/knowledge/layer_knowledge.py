"""LayerKnowledge: the interactions that each layer of a network encodes, and what becomes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Literal

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions import noise_floor
from pyinterp.interactions.subsets import subset_sizes
from pyinterp.knowledge.files import load_knowledge, save_knowledge
from pyinterp.knowledge.metrics import (
    Estimate,
    Transfer,
    bootstrap,
    by_order,
    can_tell,
    corrected,
    is_chance,
    jaccard,
    ratio_of,
    share_of,
    transfer,
)

Against = Literal["last", "next"]
THRESHOLD = 0.05
LOW = 3
"""Parts of an interaction of low order, at most."""


@dataclass(frozen=True, eq=False, repr=False)
class LayerKnowledge:
    """AND and OR interactions of M images at L layers of one network, or of L functions of the same input.

    Interactions count if they are salient: |I(S)| is at least ``threshold`` of the largest one of that layer over all
    images, and above what noise alone makes at its order (`pyinterp.interactions.noise_floor`). Single players have one
    effect, told as AND.

    Attributes:
        layers: L names, in the order in which they run.
        effects: (M, L, 2, 2^n) AND and OR effects; bit i of an index says that player i takes part.
        values: (M, L, 2^n) scores of all subsets.
        sigma: (M, L) float64, standard deviation of the numerical error of one score.
        gap: (M, L) float64, see `SparseAndOr.gap`.
        spread: (M, L, 2, 2^n, 2) mean and standard deviation of the effects over draws of input noise; None without.
        draws: How many draws.
        input_noise: Standard deviation of that noise, in the units of the preprocessed images.
        accuracy: (L,) of the layers' classifiers on held-out samples; NaN where none was measured.
        chance: Share of the commonest class among these.
        judged: How many these are.
        labels: (M,) the class whose score was taken.
        class_names: Of the classes.
        image_names: M names.
        player_names: n names.
        noise: What the split may leave unexplained of each score; see `sparse_and_or`.
        threshold: Of what is salient.
        of_networks: Whether the layers are networks of their own; see `compare_knowledge`.
        is_relative: Whether effects are shares; see `relative`.
        model_name: For people.
        forwards: Masked images evaluated.
        seconds: It took.
        versions: Of pyinterp and torch.
    """

    layers: tuple[str, ...]
    effects: Tensor
    values: Tensor
    sigma: Tensor
    gap: Tensor
    accuracy: Tensor
    labels: Tensor
    image_names: tuple[str, ...]
    player_names: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    spread: Tensor | None = None
    draws: int = 0
    input_noise: float = 0.0
    chance: float = float("nan")
    judged: int = 0
    noise: float = 0.04
    threshold: float = THRESHOLD
    of_networks: bool = False
    is_relative: bool = False
    model_name: str = ""
    forwards: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of players."""
        return len(self.player_names)

    @cached_property
    def large(self) -> Tensor:
        """(M, L, 2, 2^n) bool: at least ``threshold`` of the largest effect of the layer, the empty set left out."""
        sizes = self.effects.abs().double()
        sizes[..., 0] = 0
        largest = sizes.amax((0, 2, 3), keepdim=True)
        return (sizes >= self.threshold * largest) & (sizes > 0)

    @cached_property
    def floor(self) -> Tensor:
        """(M, L, n + 1) float64: how large noise alone makes an effect of each order."""
        return self.sigma[..., None] * noise_floor(1.0, self.n)

    @cached_property
    def salient(self) -> Tensor:
        """(M, L, 2, 2^n) bool: which effects count."""
        floor = self.floor[:, :, None, subset_sizes(self.n)]
        return self.large & (self.effects.abs().double() > floor)

    @property
    def below_floor(self) -> Tensor:
        """(M, L, 2, n + 1) float64: how many effects are large enough, but not above the noise; they are left out."""
        return by_order(self.large & ~self.salient)

    @cached_property
    def kept(self) -> Tensor:
        """(M, L, 2, 2^n): the effects that count, 0 elsewhere."""
        return torch.where(self.salient, self.effects, 0)

    @property
    def near_chance(self) -> tuple[str, ...]:
        """Layers whose classifier has an accuracy that chance alone would reach one time in a hundred."""
        told = zip(self.layers, self.accuracy.tolist(), strict=True)
        return tuple(name for name, one in told if is_chance(one, self.chance, self.judged))

    @property
    def judged_too_few(self) -> bool:
        """Whether accuracies were measured on too few samples to show more than chance."""
        return self.judged > 0 and not can_tell(self.chance, self.judged)

    def relative(self) -> LayerKnowledge:
        """With each layer's effects as shares of the sum of their |I|, image by image.

        Layers then differ in what they know, and no more in how sure they are: the scores of a network that was trained
        to be sure are larger than those of a probe whose strength was chosen on other samples.
        """
        total = self.effects[..., 1:].abs().double().sum((2, 3)).clamp_min(torch.finfo(torch.float32).tiny)
        return replace(
            self,
            effects=(self.effects / total[..., None, None]).to(self.effects.dtype),
            values=(self.values / total[..., None]).to(self.values.dtype),
            sigma=self.sigma / total,
            spread=None
            if self.spread is None
            else (self.spread / total[..., None, None, None]).to(self.spread.dtype),
            is_relative=True,
        )

    def transfer(self, against: Against = "last", *, counts: bool = False) -> Transfer:
        """What the layers' interactions share with those of a later layer, image by image.

        A subset whose effects are at most the larger of the two noise floors, in both layers, is left out: one of them
        may be seen only because its layer is the less noisy one.

        Args:
            against: "last": every layer is compared with the last one; "next": with the one after it.
            counts: Numbers of interactions instead of strengths.

        Returns:
            Of shape (M, L, 2, n + 1), the last layer against itself; for "next" (M, L - 1, 2, n + 1).
        """
        before, after = self._pairs(self.kept, against)
        told = self._told_apart(against)
        return transfer(torch.where(told, before, 0), torch.where(told, after, 0), counts=counts)

    def overlap(self, against: Against = "last", *, counts: bool = False, level: float = 0.95) -> Estimate:
        """(L, 2, n + 1) mean over the images of what is shared, with its bootstrap interval; see `transfer`."""
        return bootstrap((self.transfer(against, counts=counts).overlap,), _same, level=level)

    def forget(self, against: Against = "last", *, counts: bool = False, level: float = 0.95) -> Estimate:
        """(L, 2, n + 1) mean over the images of what the later layer has no more; see `overlap`."""
        return bootstrap((self.transfer(against, counts=counts).forget,), _same, level=level)

    def new(self, against: Against = "last", *, counts: bool = False, level: float = 0.95) -> Estimate:
        """(L, 2, n + 1) mean over the images of what the later layer adds; see `overlap`."""
        return bootstrap((self.transfer(against, counts=counts).new,), _same, level=level)

    def completeness(
        self,
        against: Against = "last",
        *,
        counts: bool = False,
        by_order: bool = False,
        level: float = 0.95,
    ) -> Estimate:
        """(L,) how much of a later layer is there already: overlap / (overlap + new), of their sums over all images.

        With ``by_order`` (L, 2, n + 1), for each type and order; NaN where the later layer has none. See `overlap`.
        """
        found = self.transfer(against, counts=counts)
        return bootstrap((found.overlap, found.new), ratio_of if by_order else share_of, level=level)

    def redundancy(
        self,
        against: Against = "last",
        *,
        counts: bool = False,
        by_order: bool = False,
        level: float = 0.95,
    ) -> Estimate:
        """(L,) how much of a layer's interactions gets lost: forget / (overlap + forget); see `completeness`."""
        found = self.transfer(against, counts=counts)
        return bootstrap((found.forget, found.overlap), ratio_of if by_order else share_of, level=level)

    def sorted_strengths(self) -> Tensor:
        """(L, 2 (2^n - 1)) float64: |I| of all effects of an image, the largest first, as a share of its largest.

        The mean over the images: how few effects are strong. Effects that don't count are among them.
        """
        strengths = self.effects[..., 1:].abs().double().flatten(2).sort(-1, descending=True).values
        return (strengths / strengths[..., :1].clamp_min(1e-30)).mean(0)

    def strength(self, *, counts: bool = False, level: float = 0.95) -> Estimate:
        """(L, 2, n + 1) mean over the images of the sum of |I(S)|, or of the number, of salient effects by order."""
        amounts = by_order(self.salient if counts else self.kept.abs())
        return bootstrap((amounts,), _same, level=level)

    def low_orders(self, *, counts: bool = False, level: float = 0.95) -> Estimate:
        """(L,) how much of a layer's salient strength, or of their number, is of orders 1 to 3."""
        amounts = by_order(self.salient if counts else self.kept.abs())
        return bootstrap((amounts[..., : LOW + 1], amounts[..., LOW + 1 :]), share_of, level=level)

    def iou(self, against: Against = "last", *, level: float = 0.95) -> Estimate:
        """(L, 2, n + 1) how alike the sets of salient interactions are, by order, corrected for chance.

        (IoU - expected) / (1 - expected) of the means over the images, see `pyinterp.knowledge.metrics.jaccard`: 0 for
        sets that meet as unrelated ones of their size do, 1 for equal ones. NaN where no image has such an interaction,
        and at order n.
        """
        before, after = self._pairs(self.salient, against)
        told = self._told_apart(against)
        return bootstrap(jaccard(before & told, after & told), corrected, level=level)

    def stability(self, *, level: float = 0.95) -> Estimate:
        """(L, n + 1) mean over salient effects of |mean| / deviation of an effect over draws of input noise, by order.

        Few draws make the ratio too large: that of D draws is multiplied by sqrt(2 / (D - 1)) Gamma((D - 1) / 2) /
        Gamma((D - 2) / 2), which is right on average for normal ones. Effects that do not vary at all are left out.

        Raises:
            ValueError: There are no draws.

        Source: Cheng et al., "Layerwise Change of Knowledge in Neural Networks", ICML 2024, whose mean runs over all
        effects of an order.
        """
        if self.spread is None:
            fix = "Pass draws=10 to measure_knowledge."
            raise ValueError(explain("stability", "draws of input noise", "none", fix))
        mean, deviation = self.spread.double().unbind(-1)
        gammas = math.lgamma((self.draws - 1) / 2) - math.lgamma((self.draws - 2) / 2)
        fair = math.sqrt(2 / (self.draws - 1)) * math.exp(gammas)
        ratio = torch.where(self.salient & (deviation > 0), fair * mean.abs() / deviation, 0.0)
        counted = by_order((self.salient & (deviation > 0)).double()).sum(2)
        steady = by_order(ratio).sum(2)
        return bootstrap((torch.where(counted > 0, steady / counted, torch.nan),), _same, level=level)

    def summary(self) -> str:
        """A line per layer: accuracy, salient effects, `low_orders`, what it has of the last layer, and will lose."""
        low, counts = self.low_orders(), self.salient.sum((0, 2, 3)) / len(self.effects)
        columns = {"salient": [f"{float(count):.1f}" for count in counts], f"orders 1-{LOW}": _told(low)}
        if not self.accuracy.isnan().all():
            accuracy = ["" if math.isnan(one) else f"{one:.1%}" for one in self.accuracy.tolist()]
            columns = {"accuracy": accuracy, **columns}
        if len(self.layers) > 1:
            columns |= {"completeness": _told(self.completeness()), "redundancy": _told(self.redundancy())}
        noun = "network" if self.of_networks else "layer"
        columns[noun] = list(self.layers)
        widths = {name: max(map(len, (name, *cells))) for name, cells in columns.items()}
        cells = zip(*columns.values(), strict=True)
        rows = [{name: name for name in columns}, *(dict(zip(columns, row, strict=True)) for row in cells)]
        lines = [
            f"{len(self.layers)} {noun}{'s' * (len(self.layers) > 1)}"
            f"{f' of {self.model_name}' if self.model_name and not self.of_networks else ''} on {len(self.effects)} "
            f"images, n = {self.n}. Intervals: 95 %, over images.",
            *(
                "  ".join(
                    ["", *(cell.rjust(widths[name]) for name, cell in row.items() if name != noun), row[noun]]
                )
                for row in rows
            ),
        ]
        below = int(self.below_floor.sum())
        if below:
            lines.append(f"{below} effects were left out, since noise alone could make them.")
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.safetensors`` (tensors) and ``path.json`` (everything else); never pickle.

        Raises:
            OSError: It could not be written (a full disk); older files of that name are still whole then.
        """
        save_knowledge(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> LayerKnowledge:
        """Read what `save` wrote.

        Raises:
            ValueError: The files are not whole, or are something else.
        """
        return load_knowledge(path)

    def _told_apart(self, against: Against) -> Tensor:
        """(M, L, 2, 2^n) bool: where one of the two compared effects is above both noise floors."""
        sizes, floors = self.effects.abs().double(), self.floor[:, :, None, subset_sizes(self.n)]
        return torch.maximum(*self._pairs(sizes, against)) > torch.maximum(*self._pairs(floors, against))

    def _pairs(self, parts: Tensor, against: Against) -> tuple[Tensor, Tensor]:
        """(M, L, ...) -> what is compared with what, layer by layer."""
        if against == "last":
            return parts, parts[:, -1:].expand_as(parts)
        if str(against) != "next":
            fix = "Choose one of the two."
            raise ValueError(explain("LayerKnowledge", 'against="last" or "next"', repr(against), fix))
        if len(self.layers) < 2:
            fix = "Measure more layers."
            raise ValueError(explain("LayerKnowledge", "two layers or more", len(self.layers), fix))
        return parts[:, :-1], parts[:, 1:]

    def __repr__(self) -> str:
        return f"<LayerKnowledge: {len(self.layers)} layers, {len(self.effects)} images, {self.n} players>"


def _same(mean: Tensor) -> Tensor:
    return mean


def _told(estimate: Estimate) -> list[str]:
    """A cell per layer."""
    parts = (estimate.value.tolist(), estimate.low.tolist(), estimate.high.tolist())
    return [
        "none" if math.isnan(value) else f"{value:4.0%} ({low:4.0%} to {high:4.0%})"
        for value, low, high in zip(*parts, strict=True)
    ]
