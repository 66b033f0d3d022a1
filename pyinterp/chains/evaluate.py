"""How faithful a chain is to its network, and which of its units make it so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyinterp.chains.objective import Objective
from pyinterp.errors import explain
from pyinterp.models.gating import GatedModel
from pyinterp.models.graph import require_finite

Fidelity = dict[str, float]
"""What `measure_fidelity` gives: "kl", "agreement", "logit_error", and with labels "accuracy" and "accuracy_full"."""

BATCH = 32


def measure_fidelity(
    gated: GatedModel, gates: Sequence[Tensor], images: Tensor, labels: Tensor | None = None
) -> Fidelity:
    """How far the answers of a gated network are from the full network's.

    Args:
        gated: The network with its sites.
        gates: Per site (units,), what each unit is multiplied by.
        images: (N, ...), N >= 1, on the network's device.
        labels: (N,) int64 classes, for the accuracies.

    Returns:
        With p the softmax of the full network's logits a, and q of the gated network's logits b:
        "kl": mean_x sum_c p_c (log p_c - log q_c), in nats; "agreement": share of images with the same top class;
        "logit_error": sqrt(mean_{x,c} (a - b)^2); with labels "accuracy" of the gated and "accuracy_full" of the full
        network.

    Raises:
        ValueError: The images are not the network's, its answer on them is not finite, or there is not one label per
            image, a class of the network.
    """
    check_images(gated, images)
    labels = None if labels is None else torch.as_tensor(labels)
    if labels is not None and labels.shape != images.shape[:1]:
        fix = "Pass one class per image."
        raise ValueError(explain("evaluate", f"labels ({len(images)},)", tuple(labels.shape), fix))
    full = answers(gated.traced.module, images)
    require_finite("evaluate", full)
    if labels is not None:
        whole = not labels.is_floating_point() and not labels.is_complex()
        if not whole or not bool(((labels >= 0) & (labels < full.shape[1])).all()):
            got = f"{labels.dtype} from {labels.min()} to {labels.max()}"
            fix = "Pass the numbers of the network's classes."
            raise ValueError(
                explain("evaluate", f"labels that are whole numbers from 0 to {full.shape[1] - 1}", got, fix)
            )
    return compare(full, gated_answers(gated, gates, images), labels)


def answers(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Logits (N, classes) of a network on images (N, ...), a few at a time, float32 or wider, without gradients."""
    with torch.inference_mode():
        logits = torch.cat([network(part) for part in images.split(BATCH)])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def gated_answers(gated: GatedModel, gates: Sequence[Tensor], images: Tensor) -> Tensor:
    """Logits (N, classes) of a gated network with one gate per unit, as in `answers`."""
    rows = [row.to(images.device, gate_dtype(images)) for row in gates]
    return answers(lambda x: gated.module(x, None, *rows), images)


def gate_dtype(images: Tensor) -> torch.dtype:
    """The dtype of gates for these images: float64 for float64, else float32."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def compare(full: Tensor, chain: Tensor, labels: Tensor | None = None) -> Fidelity:
    """`measure_fidelity` for the logits (N, classes) of both."""
    objective = Objective(full)
    result = {
        "kl": float(objective.divergence(chain).mean().clamp(min=0)),
        "agreement": float(objective.agrees(chain).double().mean()),
        "logit_error": float((full - chain).square().mean().sqrt()),
    }
    if labels is not None:
        labels = labels.to(full.device)
        result["accuracy"] = float((chain.argmax(1) == labels).double().mean())
        result["accuracy_full"] = float((full.argmax(1) == labels).double().mean())
    return result


def check_images(gated: GatedModel, images: Any) -> None:
    """Raise TypeError or ValueError unless the images have the shape that the network was traced with."""
    expected = gated.traced.input_shape
    if not isinstance(images, Tensor):
        fix = "Pass the tensor of what load_images gives: images.tensor."
        raise TypeError(explain("evaluate", "a batch of images as a tensor", type(images).__name__, fix))
    dtype = next(value.dtype for value in gated.traced.module.buffers() if value.is_floating_point())
    if images.dtype != dtype:
        fix = "Preprocess the images as for the extraction; then images.to(...)."
        raise ValueError(explain("evaluate", f"images in {dtype}, as the network", images.dtype, fix))
    if images.dim() != len(expected) + 1 or tuple(images.shape[1:]) != expected or not len(images):
        fix = "Preprocess the images as for the extraction."
        raise ValueError(
            explain("evaluate", f"images (N, {', '.join(map(str, expected))})", tuple(images.shape), fix)
        )
