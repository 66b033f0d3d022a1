"""visualise_features: the pictures that drive single features of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
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
from pyinterp.features.redirect import redirect_relus
from pyinterp.models.gradients import with_gradients
from pyinterp.models.graph import require_eval
from pyinterp.models.images import Preprocessor, pixel_levels
from pyinterp.models.inputs import place_of
from pyinterp.progress import Progress, Ticker

# The square root of the covariance of ImageNet's colours, as Lucid gives it (tensorflow/lucid, param/color.py): from
# brightness, blue against red, and green against both, to RGB.
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
SMALLEST = 8

_START = 0.01  # sigma of the first coefficients: a picture that is nearly grey
_SHIFT, _ZOOM, _ANGLE = 0.05, 0.1, 10.0  # of the sides, of the scale, in degrees: at most, either way
# Steeper than Lucid's 1, and noise, which Lucid has not: networks with much to say about single pixels (EfficientNets)
# are otherwise driven by fine patterns that show nothing.
_DECAY, _NOISE = 1.5, 0.1


@dataclass(frozen=True, eq=False)
class FeaturePictures:
    """What features respond to.

    Attributes:
        pictures: (F, 3, H, W) float32 in [0, 1] on the CPU.
        activations: (F,) float32: the feature's value on its picture. Compare it with its largest value over data: a
            picture that does not reach it does not show what the feature looks for.
        features: F indices.
        signs: 1 where the picture raises the feature, -1 where it lowers it.
    """

    pictures: Tensor
    activations: Tensor
    features: tuple[int, ...]
    signs: tuple[int, ...]


@with_gradients
def visualise_features(
    model: nn.Module,
    features: Features,
    preprocess: Preprocessor,
    *,
    signs: int | Sequence[int] = 1,
    size: tuple[int, int] | None = None,
    steps: int = 256,
    learning_rate: float = 0.05,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = None,
) -> FeaturePictures:
    """Look for the pictures that raise single features most, or lower them most.

    A picture is ``sigmoid(M irfft2(S * z))``: Fourier coefficients z, scaled by S = frequency^-1.5 so that coarse
    shapes come before fine patterns, in three uncorrelated colours that M mixes to RGB. Adam climbs ``sign * feature``
    of a view of it that is shifted (by up to 5 %), scaled (10 %) and turned (10 degrees) at random in each step, with
    grey around it and noise (sigma 0.1) on it; in the second half its steps get shorter. All pictures have the same
    start and the same views, so each of them is the same, up to rounding, whatever else is asked for.

    Args:
        model: The network, images (N, C, H, W), C = 1 or 3, to logits (N, K), in eval mode; its last layer is found as
            by `extract_features`, and the features are what it reads.
        features: The features to show, F of them.
        preprocess: PIL image (RGB) -> (C, H, W), usually ``LoadedModel.preprocess``: it tells the size of the pictures,
            and the range of the network's inputs.
        signs: 1 raises the feature, -1 lowers it; one for all, or one per feature.
        size: (H, W) of the pictures, where it is not to be that of ``preprocess``.
        steps: Steps of Adam; 512 for pictures to print.
        learning_rate: Of Adam.
        batch_size: Pictures at a time.
        seed: Of the start and the views. Same seed, same pictures; on CUDA up to the order of sums.
        progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}. It
            counts the steps of all pictures.

    Raises:
        ValueError: There is no such feature, a sign is neither 1 nor -1, a count is below 1, the learning rate is not
            above 0, the size is below 8 or too small for the network; the network is in train mode, has no last linear
            layer, gives no finite logits or no gradients; or ``preprocess`` does more to a pixel than scale and shift
            its channels.
        TypeError: Something of another type.

    Source: Olah, Mordvintsev, Schubert, Feature Visualization (Distill, 2017), and its library Lucid.
    """
    require_eval(model)
    wanted = feature_indices("visualise_features", features)
    upward = _signs(signs, len(wanted))
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        require_count("visualise_features", name, count)
    if not (isinstance(learning_rate, (int, float)) and 0 < learning_rate < math.inf):
        fix = "0.05 suits most networks."
        raise ValueError(explain("visualise_features", "a learning_rate above 0", learning_rate, fix))
    device, _ = place_of(model)
    black, white, own_size = _inputs(preprocess)
    black, white = black.to(device), white.to(device)
    height, width = _size(own_size if size is None else size)
    # Noise, so that no two layers agree by chance, as they may on one flat colour.
    noise = torch.rand(2, len(black), height, width, generator=torch.Generator().manual_seed(seed)).to(device)
    example = black + (white - black) * noise
    ticker = Ticker(progress, steps * len(wanted), 0, "steps")
    with closing(ticker), asking(model, example) as (ask, count):
        require_known("visualise_features", wanted, count)

        def respond(pictures: Tensor) -> Tensor:
            return ask(black + (white - black) * pictures)

        found = [
            _climb(respond, part, up, (len(black), height, width), steps, learning_rate, seed, device, ticker)
            for part, up in zip(
                torch.tensor(wanted).split(batch_size), torch.tensor(upward).split(batch_size), strict=True
            )
        ]
    pictures, activations = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return FeaturePictures(pictures.expand(-1, 3, -1, -1).contiguous(), activations, wanted, upward)


def _signs(signs: int | Sequence[int], count: int) -> tuple[int, ...]:
    listed = (signs,) * count if isinstance(signs, int) else tuple(signs)
    if len(listed) != count or any(sign not in (1, -1) for sign in listed):
        wanted = f"signs of 1 or -1, one for all or one for each of {count} features"
        fix = "1 raises a feature, -1 lowers it."
        raise ValueError(explain("visualise_features", wanted, signs, fix))
    return listed


def _size(size: Any) -> tuple[int, int]:
    whole = isinstance(size, (tuple, list)) and len(size) == 2 and all(type(side) is int for side in size)
    if not whole or min(size) < SMALLEST:
        fix = "Give the size that the network takes, or leave it out."
        wanted = f"a size (H, W) of at least {SMALLEST} pixels each"
        raise ValueError(explain("visualise_features", wanted, size, fix))
    return size[0], size[1]


def _inputs(preprocess: Any) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Black and white as the network gets them, (C, 1, 1) each, and the size (H, W) of its images."""
    if not callable(preprocess):
        fix = "Pass loaded.preprocess."
        got = type(preprocess).__name__
        raise TypeError(explain("visualise_features", "a preprocess that takes a PIL image", got, fix))
    shape = tuple(preprocess(Image.new("RGB", (64, 64))).shape)
    levels = pixel_levels(preprocess, shape)
    if levels is None or shape[0] not in (1, 3):
        wanted = "a preprocess that scales and shifts one or three channels of each pixel"
        fix = "Pass loaded.preprocess, or torchvision's ToTensor and Normalize."
        raise ValueError(explain("visualise_features", wanted, f"another one, to {shape}", fix))
    return *levels, (shape[1], shape[2])


def _climb(
    respond: Asker,
    features: Tensor,
    signs: Tensor,
    shape: tuple[int, ...],
    steps: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    tick: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """Pictures (F, C, H, W) of features (F,), and the values they reach (F,)."""
    features, signs = features.to(device)[:, None], signs.to(device)
    generator = torch.Generator().manual_seed(seed)
    scale, colours = _scale(shape[1:]).to(device), _colours(shape[0]).to(device)
    start = _START * torch.randn(shape[0], *scale.shape, 2, generator=generator)
    waves = start.to(device).repeat(len(features), 1, 1, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([waves], lr=learning_rate, maximize=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 - 2 * step / steps))

    def draw() -> Tensor:
        light = torch.fft.irfft2(torch.view_as_complex(waves) * scale, s=shape[1:], norm="ortho")
        return torch.einsum("ij,njhw->nihw", colours, light).sigmoid()

    for _ in range(steps):
        reached = respond(_view(draw(), generator)).gather(1, features)[:, 0]
        if not reached.requires_grad:
            fix = "Take out what detaches its answer: torch.no_grad, .detach() or .data."
            wanted = "a model that gradients flow through"
            raise ValueError(explain("visualise_features", wanted, "an answer without any", fix))
        redirect_relus(reached)
        (waves.grad,) = torch.autograd.grad((reached * signs).sum(), [waves], materialize_grads=True)
        optimizer.step()
        schedule.step()
        tick(len(features))
    with torch.no_grad():
        pictures = draw()
        return pictures, respond(pictures).gather(1, features)[:, 0]


def _scale(size: tuple[int, ...]) -> Tensor:
    """(H, W // 2 + 1): how far a coefficient moves the picture; for waves of 20 pixels as far as in Lucid."""
    down, across = torch.fft.fftfreq(size[0]), torch.fft.rfftfreq(size[1])
    frequency = torch.hypot(down[:, None], across).clamp_min(1 / max(size))
    return 5 * (20 * frequency) ** -_DECAY


def _colours(channels: int) -> Tensor:
    """(C, C): uncorrelated colours to those of the picture, the longest of them of length 1."""
    mix = torch.tensor(COLOURS) if channels == 3 else torch.ones(1, 1)
    return mix / mix.norm(dim=0).max()


def _view(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (N, C, H, W) in [0, 1], all shifted, scaled and turned by the same random amounts, on grey,
    under the same noise.
    """
    angle, zoom, down, across = (2 * torch.rand(4, generator=generator) - 1).tolist()
    height, width = pictures.shape[2:]
    stretch = 1 / (1 + _ZOOM * zoom)
    cos, sin = (stretch * turn(math.radians(_ANGLE * angle)) for turn in (math.cos, math.sin))
    # In units of half a side, as affine_grid has them: a turn must not shear a picture that is no square.
    rows = [[cos, -sin * height / width, 2 * _SHIFT * across], [sin * width / height, cos, 2 * _SHIFT * down]]
    moved = torch.tensor(rows, device=pictures.device).expand(len(pictures), 2, 3)
    grid = functional.affine_grid(moved, list(pictures.shape), align_corners=False)
    noise = _NOISE * torch.randn(pictures.shape[1:], generator=generator)
    return functional.grid_sample(pictures - 0.5, grid, align_corners=False) + 0.5 + noise.to(pictures.device)
