"""locate_features: where in an image a feature comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyinterp.errors import explain
from pyinterp.features.asking import (
    Asker,
    Features,
    asking,
    feature_indices,
    require_count,
    require_known,
)
from pyinterp.features.pooled import pooled_map
from pyinterp.features.ridge import weighted_ridge
from pyinterp.models.graph import require_eval
from pyinterp.models.images import ImageSet, load_images
from pyinterp.models.inputs import place_of
from pyinterp.ops.mask_inputs import KEPT, MOST_PLAYERS, mask_inputs

Method = Literal["occlusion", "lime", "map"]

_METHODS = ("occlusion", "lime", "map")
_KERNEL_WIDTH = 0.25  # LIME's, for images


@dataclass(frozen=True, eq=False)
class FeaturePlaces:
    """Where in images features come from.

    Attributes:
        scores: (N, F, rows, cols) float32 on the CPU: what each cell of each image adds to each feature, in the
            feature's own unit.
        values: (N, F) float32 on the CPU: the features on the whole images.
        features: F indices.
        method: "occlusion", "lime" or "map".
    """

    scores: Tensor
    values: Tensor
    features: tuple[int, ...]
    method: Method

    def heatmap(self, size: tuple[int, int]) -> Tensor:
        """The scores stretched over images of `size` (H, W), between the centres of cells bilinear: (N, F, H, W)."""
        return functional.interpolate(self.scores, size, mode="bilinear", align_corners=False)


@torch.no_grad()
def locate_features(
    model: nn.Module,
    images: Tensor | ImageSet,
    features: Features,
    *,
    method: Method = "occlusion",
    cells: tuple[int, int] = (7, 7),
    baseline: Literal["mean"] | Tensor = "mean",
    samples: int = 1000,
    ridge: float = 1.0,
    batch_size: int = 64,
    seed: int = 0,
) -> FeaturePlaces:
    """Which parts of images single features come from: the inputs of the network's last linear layer.

    ``"occlusion"``: what the feature loses when one cell alone is masked, ``f(x) - f(x without the cell)``.

    ``"lime"``: the slopes b of the ridge regression of f on which cells are present, over random subsets z of k of n
    cells, each weighted by ``exp(-d^2 / (2 * 0.25^2))`` with ``d = 1 - sqrt(k / n)``, its cosine distance from the
    whole image: ``min over a, b of sum_z w_z (f(x_z) - a - b.z)^2 + ridge |b|^2``.

    ``"map"``: without masking, for networks whose features are the spatial mean of a map: the map divided by the number
    of its positions. The scores sum up to the feature exactly; but each position sees more of the image than its own
    cell, in deep networks nearly all of it, so a feature glows around its cause.

    Args:
        model: The network, images (N, C, H, W) to logits (N, K), in eval mode; its last layer is found as by
            `extract_features`.
        images: (N, C, H, W) float, preprocessed, or what ``load_images`` gives.
        features: The features to locate, F of them, the same for all images.
        method: See above.
        cells: Rows and columns of the grid that is laid over the images; ``"map"`` has its own. At most 62 cells for
            ``"lime"``.
        baseline: What a masked cell shows: "mean", the mean of each channel of the image, or a tensor (C,),
            (C, H, W) or (N, C, H, W), preprocessed.
        samples: Random subsets for ``"lime"``, more than there are cells.
        ridge: The penalty of ``"lime"``, above 0.
        batch_size: Images that go through the network at a time, masked ones too.
        seed: Of the random subsets.

    Raises:
        ValueError: There is no such feature or method, the features are not the mean of a map, a count is below 1,
            there are more cells than pixels or players, images or baseline are not finite or do not fit, or the network
            is in train mode, has no last linear layer or gives no finite logits.
        TypeError: Something of another type.

    Source: Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, 2014 (occlusion); Ribeiro, Singh,
        Guestrin, "Why Should I Trust You?", 2016 (LIME).
    """
    require_eval(model)
    wanted = feature_indices("locate_features", features)
    if method not in _METHODS:
        fix = f"Pass one of {', '.join(map(repr, _METHODS))}."
        raise ValueError(explain("locate_features", "a method by name", repr(method), fix))
    for name, count in (("batch_size", batch_size), ("samples", samples)):
        require_count("locate_features", name, count)
    device, _ = place_of(model)
    batch = load_images(images).tensor.to(device)
    with asking(model, batch[:2]) as (ask, count):
        require_known("locate_features", wanted, count)

        def chosen(some: Tensor) -> Tensor:
            return ask(some)[:, wanted]

        if method == "map":
            scores, values = _by_map(ask, batch, wanted, count, batch_size)
        else:
            grid = _grid(cells, batch.shape[2:]).to(device)
            masking = _Masking(chosen, batch, _baselines(baseline, batch), batch_size)
            values = torch.cat([chosen(part) for part in batch.split(batch_size)])
            if method == "occlusion":
                scores = _by_occlusion(masking, grid, values)
            else:
                scores = _by_lime(masking, grid, samples, ridge, seed)
            scores = scores.unflatten(2, cells)
    return FeaturePlaces(scores.float().cpu(), values.cpu(), wanted, method)


@dataclass(frozen=True)
class _Masking:
    """What a network's features are on masked images.

    Attributes:
        ask: Images to the wanted features (N, F).
        images: (N, C, H, W).
        baselines: Like `images`.
        batch_size: Images at a time.
    """

    ask: Asker
    images: Tensor
    baselines: Tensor
    batch_size: int

    def __call__(self, players: Tensor, codes: Tensor) -> Tensor:
        """Features (N, B, F) of every image under every code (B,), the players laid out as (H, W) says."""
        codes = codes.to(self.images.device)
        count, total = len(codes), len(codes) * len(self.images)
        found = []
        for start in range(0, total, self.batch_size):
            end = min(start + self.batch_size, total)
            parts = [
                mask_inputs(
                    self.images[i],
                    self.baselines[i],
                    players,
                    codes[max(start - i * count, 0) : min(end - i * count, count)],
                )
                for i in range(start // count, (end - 1) // count + 1)
            ]
            found.append(self.ask(torch.cat(parts)))
        return torch.cat(found).unflatten(0, (len(self.images), count))


def _by_occlusion(masking: _Masking, grid: Tensor, values: Tensor) -> Tensor:
    """(N, F, cells): what each feature loses with each cell."""
    lost = []
    for first in range(0, int(grid.max()) + 1, MOST_PLAYERS):
        players = grid - first
        players = torch.where((players >= 0) & (players < MOST_PLAYERS), players, KEPT)
        alone = 2 ** torch.arange(int(players.max()) + 1)
        lost.append(values[:, None] - masking(players, (2**MOST_PLAYERS - 1) - alone))
    return torch.cat(lost, 1).transpose(1, 2)


def _by_lime(masking: _Masking, grid: Tensor, samples: int, ridge: float, seed: int) -> Tensor:
    """(N, F, cells): the slopes of a ridge regression on which cells are present."""
    count = int(grid.max()) + 1
    if count > MOST_PLAYERS or samples <= count:
        wanted = f"at most {MOST_PLAYERS} cells, and more samples than cells, for LIME"
        fix = "Take fewer cells or more samples."
        raise ValueError(explain("locate_features", wanted, f"{count} cells and {samples} samples", fix))
    if not (isinstance(ridge, (int, float)) and 0 < ridge < math.inf):
        fix = "LIME takes 1."
        raise ValueError(explain("locate_features", "a ridge above 0", ridge, fix))
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**count, (samples,), generator=generator)
    codes[0] = 2**count - 1
    present = (codes[:, None] >> torch.arange(count) & 1).double()
    answers = masking(grid, codes).double().cpu()
    distance = 1 - (present.sum(1) / count).sqrt()
    weights = torch.exp(-(distance**2) / (2 * _KERNEL_WIDTH**2))
    images, _, features = answers.shape
    slopes, _ = weighted_ridge(present, answers.transpose(0, 1).flatten(1), weights, ridge)
    return slopes.unflatten(1, (images, features)).permute(1, 2, 0)


def _by_map(
    ask: Asker, images: Tensor, features: tuple[int, ...], count: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """(N, F, h, w) and the features (N, F)."""
    scores, values = [], []
    for part in images.split(batch_size):
        answer, found = pooled_map(ask, part, count)
        if found is None:
            wanted = "features that are the mean of a map (N, features, h, w) over more than one position"
            fix = 'Use method="occlusion" or method="lime", which suit any network.'
            raise ValueError(explain("locate_features", wanted, "a model without such a map", fix))
        scores.append(found[:, features] / found.shape[2:].numel())
        values.append(answer[:, features])
    return torch.cat(scores), torch.cat(values)


def _grid(cells: Any, size: torch.Size) -> Tensor:
    """(H, W) int64: the cell of each pixel, row by row."""
    whole = isinstance(cells, (tuple, list)) and len(cells) == 2 and all(type(i) is int for i in cells)
    if not whole or not all(1 <= n <= side for n, side in zip(cells, size, strict=True)):
        wanted = f"(rows, columns) of cells, at most one per pixel of {tuple(size)}"
        fix = "Pass cells=(7, 7), for example."
        raise ValueError(explain("locate_features", wanted, cells, fix))
    rows, columns = (torch.arange(side) * n // side for n, side in zip(cells, size, strict=True))
    return rows[:, None] * cells[1] + columns


def _baselines(baseline: Any, images: Tensor) -> Tensor:
    """Like the images: what each of them shows where it is masked."""
    if isinstance(baseline, str) and baseline == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images).contiguous()
    fix = 'Pass "mean", or a tensor that is preprocessed like the images.'
    if not isinstance(baseline, Tensor):
        raise TypeError(explain("locate_features", 'a tensor or "mean" as baseline', repr(baseline), fix))
    given = baseline.detach().to(images)
    shape = tuple(given.shape)
    if shape == tuple(images.shape[1:2]):
        given = given[:, None, None].expand(images.shape[1:])
    if tuple(given.shape) not in (tuple(images.shape), tuple(images.shape[1:])):
        wanted = f"a baseline (C,), (C, H, W) or (N, C, H, W) for images {tuple(images.shape)}"
        raise ValueError(explain("locate_features", wanted, shape, fix))
    if not given.isfinite().all():
        raise ValueError(explain("locate_features", "a finite baseline", "NaN or infinity", fix))
    return given.expand_as(images).contiguous()
