"""A chain as a network of its own: built, compared with the masked network, counted and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pyinterp.chains.evaluate import answers, check_images, gated_answers
from pyinterp.errors import explain
from pyinterp.models.count import count
from pyinterp.models.gating import GatedModel
from pyinterp.models.shrink import fold

ROUNDS = 5


class CompactNetwork(nn.Module):
    """A physically smaller network, images (N, ...) -> logits (N, classes).

    Attributes:
        network: Its graph, with its own frozen weights.
        info: See `Chain.compact`.
    """

    info: dict[str, float]

    def __init__(self, network: GraphModule, info: dict[str, float]) -> None:
        super().__init__()
        self.network = network
        self.info = info

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)  # type: ignore[no-any-return]


def compact_network(
    gated: GatedModel,
    gates: Sequence[Tensor],
    images: Tensor | None,
    input_shape: Sequence[int],
    tolerance: float = 1e-3,
) -> CompactNetwork:
    """Build the smaller network of the units whose gate is not 0; see `Chain.compact`.

    Args:
        gated: The network with its sites; not changed.
        gates: Per site (units,), what each unit is multiplied by.
        images: (N, ...) on which the two are compared and timed; None: four random ones.
        input_shape: Shape of one image.
        tolerance: Largest allowed difference of logits, as a share of max(1, largest logit); at least four roundings
            of the network's dtype.

    Raises:
        ValueError: The smaller network's logits differ by more than that.
    """
    network = _own_weights(fold(gated, [row != 0 for row in gates], gates))
    full = gated.traced.module
    weight = next(value for value in full.state_dict().values() if value.is_floating_point())
    if images is None:
        noise = torch.randn(4, *input_shape, generator=torch.Generator().manual_seed(0))
        images = noise.to(weight)
    check_images(gated, images)
    masked = gated_answers(gated, gates, images)
    difference = float((masked - answers(network, images)).abs().max())
    tolerance = max(tolerance, 4 * torch.finfo(weight.dtype).eps)
    allowed = tolerance * max(1.0, float(masked.abs().max()))
    if not difference <= allowed:
        fix = "Use chain.apply(model) instead, allow more with tolerance, and please report the model."
        raise ValueError(
            explain(
                "compact", f"logits within {allowed:.3g} of the masked network's", f"{difference:.3g}", fix
            )
        )
    parameters_before, macs_before = count(full, input_shape)
    parameters_after, macs_after = count(network, input_shape)
    slow, fast = _times([full, network], images)
    info = {
        "parameters_before": parameters_before,
        "parameters_after": parameters_after,
        "macs_before": macs_before,
        "macs_after": macs_after,
        "difference": difference,
        "time_ratio": slow / fast,
    }
    return CompactNetwork(network, info).eval()


def _own_weights(network: GraphModule) -> GraphModule:
    """Copy every weight, so that a later change of the full network leaves this one as it is."""
    copies: dict[int, Tensor] = {}
    for owner in network.modules():
        for stored in (owner._parameters, owner._buffers):
            for name, value in stored.items():
                if value is None:
                    continue
                if id(value) not in copies:
                    copy = value.detach().clone()
                    copies[id(value)] = nn.Parameter(copy, False) if isinstance(value, nn.Parameter) else copy
                stored[name] = copies[id(value)]  # type: ignore[assignment]
    return network


def _times(networks: Sequence[Callable[[Tensor], Tensor]], images: Tensor) -> list[float]:
    """Median seconds of each network on the images; they take turns, so that a busy machine slows all alike."""
    seconds: list[list[float]] = [[] for _ in networks]
    for _ in range(ROUNDS):
        for network, row in zip(networks, seconds, strict=True):
            start = time.perf_counter()
            answers(network, images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            row.append(time.perf_counter() - start)
    return [median(row[1:]) for row in seconds]
