"""Players that follow what is in the image: SLIC superpixels, brought to exactly the wanted number."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.games.checks import require_tensor
from pyinterp.games.players import Players
from pyinterp.models.packages import require


def segment_players(image: Tensor, n: int, *, compactness: float = 10.0) -> Players:
    """Cut an image into exactly `n` connected segments of similar colour.

    SLIC gives about `n` superpixels. While there are too many, the smallest joins the neighbour whose mean colour is
    nearest; while there are too few, the largest is cut in two connected parts of about equal size.

    Args:
        image: (C, H, W), preprocessed or not: every channel is scaled to [0, 1] together with the others.
        n: How many players.
        compactness: Of SLIC: the larger, the more square the segments.

    Returns:
        n players that cover the image, in the order in which their first pixels are read.

    Raises:
        ValueError: `n` is below one or above the number of pixels; the image has NaN or infinite values.
        TypeError: The image is no tensor.
        ImportError: scikit-image is missing.

    Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI 2012.
    """
    fix = "Pass the tensor that the game gets, for example loaded.preprocess(picture)."
    require_tensor("segment_players", "an image tensor (C, H, W)", image, fix)
    if image.dim() != 3 or image.numel() == 0:
        fix = "Pass one image, without the axis of the batch."
        raise ValueError(explain("segment_players", "an image (C, H, W)", tuple(image.shape), fix))
    pixels = image.shape[1] * image.shape[2]
    if not 1 <= n <= pixels:
        fix = "Ask for about ten."
        raise ValueError(explain("segment_players", f"1 to {pixels} players, one per pixel", n, fix))
    colours = image.detach().cpu().to(torch.float64)
    if not colours.isfinite().all():
        fix = "Check the image."
        raise ValueError(explain("segment_players", "a finite image", "NaN or infinity", fix))
    low, high = colours.min(), colours.max()
    shown = ((colours - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).numpy()
    slic = require("skimage.segmentation", "segment_players").slic
    label = require("skimage.measure", "segment_players").label
    superpixels = slic(shown, n_segments=n, compactness=compactness, start_label=1, channel_axis=-1)
    labels = label(superpixels, connectivity=1, background=-1) - 1
    labels = _merge(labels, shown, n)
    while (count := int(labels.max()) + 1) < n:
        largest = int(np.bincount(labels.ravel()).argmax())
        labels[_part(labels == largest)] = count
    _, first = np.unique(labels, return_index=True)
    ids = np.argsort(np.argsort(first))[labels]
    return Players(torch.from_numpy(ids.astype(np.int64)), tuple(f"segment {i + 1}" for i in range(n)))


def _merge(labels: np.ndarray, colours: np.ndarray, n: int) -> np.ndarray:
    """Join the smallest segments to their neighbours until there are `n`."""
    count = int(labels.max()) + 1
    sizes = np.bincount(labels.ravel(), minlength=count).astype(float)
    flat = colours.reshape(-1, colours.shape[-1])
    sums = np.stack([np.bincount(labels.ravel(), channel, count) for channel in flat.T], 1)
    neighbours = _neighbours(labels, count)
    into = np.arange(count)
    for _ in range(count - n):
        small = int(np.where(sizes > 0, sizes, np.inf).argmin())
        around = sorted(neighbours[small])
        means = sums[around] / sizes[around, None]
        near = around[int(((means - sums[small] / sizes[small]) ** 2).sum(1).argmin())]
        into[into == small] = near
        sizes[near] += sizes[small]
        sums[near] += sums[small]
        sizes[small] = 0
        neighbours[near] |= neighbours[small]
        for other in neighbours[small]:
            neighbours[other] = (neighbours[other] - {small}) | {near}
        neighbours[near] -= {near, small}
    left = np.unique(into)
    return np.searchsorted(left, into)[labels]


def _neighbours(labels: np.ndarray, count: int) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(count)]
    for a, b in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        differ = a != b
        for i, j in np.unique(np.stack([a[differ], b[differ]], 1), axis=0).tolist():
            found[i].add(j)
            found[j].add(i)
    return found


def _part(mask: np.ndarray) -> np.ndarray:
    """About half of a connected region, so that both halves are connected: a branch of a spanning tree."""
    sparse, csgraph = (
        require("scipy.sparse", "segment_players"),
        require("scipy.sparse.csgraph", "segment_players"),
    )
    count = int(mask.sum())
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(count)
    edges: list[Any] = []
    for a, b in ((number[:-1], number[1:]), (number[:, :-1], number[:, 1:])):
        both = (a >= 0) & (b >= 0)
        edges.append(np.stack([a[both], b[both]]))
    rows, columns = np.concatenate(edges, 1)
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count)).tocsr()
    far = csgraph.breadth_first_order(graph, 0, directed=False, return_predecessors=False)[-1]
    order, parent = csgraph.breadth_first_order(graph, far, directed=False)
    sizes = np.ones(count, dtype=np.int64)
    for node in order[:0:-1].tolist():
        sizes[parent[node]] += sizes[node]
    best = order[1:][np.abs(2 * sizes[order[1:]] - count).argmin()]
    inside = np.zeros(count, dtype=bool)
    inside[best] = True
    for node in order[1:].tolist():
        inside[node] |= inside[parent[node]]
    part = np.zeros_like(mask)
    part[mask] = inside
    return part
