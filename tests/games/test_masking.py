"""Baselines: what they are, and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from pyinterp.games import dataset_mean, make_baseline, mask_token_baseline

IMAGE = torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(0))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of three sigma, pixel by pixel, edges repeated."""
    reach = round(3 * sigma)
    weights = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)]
    height, width = image.shape
    result = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        for i, a in enumerate(weights):
            for j, b in enumerate(weights):
                row, column = y + i - reach, x + j - reach
                result[y, x] += a * b * image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
    return result / sum(weights) ** 2


def test_zero_mean_and_given_baselines() -> None:
    assert torch.equal(make_baseline(IMAGE), torch.zeros(3, 12, 10))
    means = IMAGE.flatten(1).mean(1)
    wanted = means[:, None, None].expand(3, 12, 10)
    torch.testing.assert_close(make_baseline(IMAGE, "mean"), wanted)
    for given in (means, means[:, None, None], wanted, wanted.double()):
        made = make_baseline(IMAGE, given)
        torch.testing.assert_close(made, wanted)
        assert made.is_contiguous() and made.dtype == torch.float32


@pytest.mark.parametrize("size", [40, 20, 3])
def test_blur_is_a_gaussian_of_a_twentieth_of_the_longer_side(size: int) -> None:
    image = torch.rand(2, size, max(1, size // 2))
    got = make_baseline(image, "blur")
    for channel in range(2):
        if size > 10:
            wanted = blurred(image[channel].double().numpy(), 0.05 * size)
            np.testing.assert_allclose(got[channel].numpy(), wanted, atol=1e-6)
    flat = torch.full((3, size, size), 0.7)
    torch.testing.assert_close(make_baseline(flat, "blur"), flat)


def test_the_dtype_is_that_of_the_image() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        for name in ("zero", "mean", "blur"):
            assert make_baseline(IMAGE.to(dtype), name).dtype == dtype


def test_the_mean_of_a_data_set() -> None:
    images = torch.rand(7, 3, 4, 5)
    wanted = images.mean(0)
    torch.testing.assert_close(dataset_mean(images), wanted)
    torch.testing.assert_close(dataset_mean(iter(images.split(3))), wanted)
    torch.testing.assert_close(
        dataset_mean([(part, torch.zeros(len(part))) for part in images.split(2)]), wanted
    )
    torch.testing.assert_close(make_baseline(images[0], dataset_mean(images)), wanted)


def test_mask_tokens() -> None:
    tokens = torch.tensor([101, 7, 8, 102])
    assert mask_token_baseline(tokens, SimpleNamespace(mask_token_id=103)).tolist() == [103] * 4
    with pytest.raises(ValueError, match="tokenizer with a mask token, got none"):
        mask_token_baseline(tokens, SimpleNamespace(mask_token_id=None))


NAN = torch.full((3,), float("nan"))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "baseline by name, got 'grey'", lambda: make_baseline(IMAGE, "grey")),
        (ValueError, r"one number per channel, got \(4,\)", lambda: make_baseline(IMAGE, torch.zeros(4))),
        (ValueError, r"got \(1, 12, 10\)", lambda: make_baseline(IMAGE, torch.zeros(1, 12, 10))),
        (ValueError, "finite values, got NaN", lambda: make_baseline(IMAGE, NAN)),
        (ValueError, r"image \(C, H, W\), got \(1, 3, 12, 10\)", lambda: make_baseline(IMAGE[None])),
        (TypeError, r"float image .* got torch.uint8", lambda: make_baseline(IMAGE.byte())),
        (TypeError, r"float image .* got str", lambda: make_baseline("cat.jpg")),  # type: ignore[arg-type]
        (ValueError, "at least one image, got none", lambda: dataset_mean([])),
        (ValueError, "at least one image, got none", lambda: dataset_mean(torch.zeros(0, 3, 4, 4))),
        (ValueError, r"batches \(N, C, H, W\), got \(3, 12, 10\)", lambda: dataset_mean(IMAGE)),
        (
            ValueError,
            r"images of shape \(3, 4, 4\), got \(1, 3, 4, 5\)",
            lambda: dataset_mean([torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5)]),
        ),
        (TypeError, "float images .* got torch.uint8", lambda: dataset_mean(IMAGE[None].byte())),
        (TypeError, "float images .* got str", lambda: dataset_mean(["cat.jpg"])),
        (ValueError, "finite images", lambda: dataset_mean(NAN.view(1, 3, 1, 1))),
    ],
)
def test_errors_say_what_was_expected(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]


def test_the_image_is_left_alone() -> None:
    before: Tensor = IMAGE.clone()
    for name in ("zero", "mean", "blur"):
        make_baseline(IMAGE, name).add_(1)
    assert torch.equal(IMAGE, before)
