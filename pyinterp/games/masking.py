"""Baselines: what an input shows where a player is absent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pyinterp.errors import explain
from pyinterp.games.checks import require_tensor

Baseline = str | Tensor

BLUR = 0.05  # sigma of the blur, as a part of the longer side: 11 pixels of 224


def make_baseline(image: Tensor, baseline: Baseline = "zero") -> Tensor:
    """The image in which every player is absent.

    Args:
        image: (C, H, W) float, preprocessed.
        baseline: "zero": zeros of the preprocessed image, which for networks with normalised inputs is the mean colour
            of their training images. "mean": the mean of each channel of this image. "blur": the image under a
            Gaussian of sigma 0.05 times its longer side, edges repeated. Or a tensor (C,), (C, 1, 1) or (C, H, W),
            for example from `dataset_mean` or `learn_baseline`.

    Returns:
        (C, H, W), contiguous, in the dtype and on the device of `image`.

    Raises:
        ValueError: An unknown name, a tensor of another shape, NaN or infinite values.
        TypeError: `image` is no float tensor, or `baseline` neither a name nor a tensor.
    """
    _check_image("make_baseline", image)
    if isinstance(baseline, str):
        if baseline == "zero":
            return torch.zeros_like(image, memory_format=torch.contiguous_format)
        if baseline == "mean":
            return image.mean((1, 2), keepdim=True).expand_as(image).contiguous()
        if baseline == "blur":
            return _blur(image, BLUR * max(image.shape[1:]))
        fix = 'Pass "zero", "mean", "blur" or a tensor.'
        raise ValueError(explain("make_baseline", "a baseline by name", repr(baseline), fix))
    fix = 'Pass "zero", "mean", "blur" or a tensor (torch.from_numpy makes one of an array).'
    require_tensor("make_baseline", "a baseline by name or as a tensor", baseline, fix)
    given = baseline.detach().to(image.device, image.dtype)
    if tuple(given.shape) == tuple(image.shape[:1]):
        given = given[:, None, None]
    if tuple(given.shape) not in (tuple(image.shape), (image.shape[0], 1, 1)):
        wanted = f"a baseline of shape {tuple(image.shape)}, or one number per channel"
        fix = "Preprocess it like the image."
        raise ValueError(explain("make_baseline", wanted, tuple(baseline.shape), fix))
    if not given.isfinite().all():
        raise ValueError(explain("make_baseline", "finite values", "NaN or infinity", "Mend the baseline."))
    return given.expand_as(image).contiguous()


def dataset_mean(images: Tensor | Iterable[Any]) -> Tensor:
    """The mean image of a data set, pixel by pixel, for `make_baseline`.

    Args:
        images: (N, C, H, W) float, preprocessed; or batches of such, or of tuples that begin with one (a DataLoader).

    Returns:
        (C, H, W) in the dtype of the images, summed in float64.

    Raises:
        ValueError: No images, mixed sizes, NaN or infinite values.
        TypeError: They are no float tensors.
    """
    total: Tensor | None = None
    count = 0
    dtype = torch.float32
    for batch in [images] if isinstance(images, Tensor) else images:
        batch = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(batch, Tensor) or not batch.is_floating_point():
            got = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
            fix = "Preprocess the images first."
            raise TypeError(explain("dataset_mean", "batches of float images (N, C, H, W)", got, fix))
        if batch.dim() != 4 or (total is not None and total.shape != batch.shape[1:]):
            wanted = "batches (N, C, H, W)" if total is None else f"images of shape {tuple(total.shape)}"
            fix = "Bring all images to one size."
            raise ValueError(explain("dataset_mean", wanted, tuple(batch.shape), fix))
        part = batch.detach().sum(0, dtype=torch.float64)
        total = part if total is None else total + part.to(total.device)
        count += len(batch)
        dtype = batch.dtype
    if total is None or count == 0:
        raise ValueError(explain("dataset_mean", "at least one image", "none", "Check the data set."))
    if not total.isfinite().all():
        fix = "Check the images."
        raise ValueError(explain("dataset_mean", "finite images", "NaN or infinity", fix))
    return (total / count).to(dtype)


def mask_token_baseline(tokens: Tensor, tokenizer: Any) -> Tensor:
    """A sentence of mask tokens, as long as the given one.

    Args:
        tokens: (L,) int64 token ids.
        tokenizer: Has ``mask_token_id``, as Hugging Face's tokenizers do.

    Returns:
        (L,) int64.

    Raises:
        ValueError: The tokenizer has no mask token.
    """
    token = getattr(tokenizer, "mask_token_id", None)
    if token is None:
        fix = "Pass a tensor of token ids, for example of the padding or unknown token."
        raise ValueError(explain("mask_token_baseline", "a tokenizer with a mask token", "none", fix))
    return torch.full_like(tokens, token)


def _check_image(where: str, image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(explain(where, "a float image (C, H, W)", got, "Preprocess it first."))
    if image.dim() != 3 or image.numel() == 0:
        fix = "Pass one image, without the axis of the batch."
        raise ValueError(explain(where, "an image (C, H, W)", tuple(image.shape), fix))


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = max(1, round(3 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    weights = torch.softmax(-(at**2) / (2 * sigma**2), 0)  # exp(-d^2 / 2 sigma^2), summing up to 1
    blurred = image[:, None].to(torch.promote_types(image.dtype, torch.float32))
    weights = weights.to(blurred.dtype)
    padded = functional.pad(blurred, (radius, radius, radius, radius), mode="replicate")
    blurred = functional.conv2d(padded, weights.view(1, 1, 1, -1))
    blurred = functional.conv2d(blurred, weights.view(1, 1, -1, 1))
    return blurred[:, 0].to(image.dtype).contiguous()
