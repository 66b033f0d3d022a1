"""One deep feature as a network of its own: which filters compute it, and which patches it needs together."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features.features import Features
from pyinterp.heads.head import SparseHead
from pyinterp.models.classifier import with_classifier
from pyinterp.models.graph import require_eval
from pyinterp.models.identity import model_digest
from pyinterp.models.inputs import Inputs, place_of


def feature_model(
    model: nn.Module, source: SparseHead | Features, feature: int, example: Inputs | None = None
) -> nn.Module:
    """A copy of the network that answers one question: is deep feature j above its average?

    Its two logits are (z_j, 0) with z_j = (x_j - mean_j) / std_j, so the log-odds of class 0 are z_j, in standard
    deviations. The copy shares all weights with ``model``, which stays as it is, and is a network like any other:

    ```python
    single = pyinterp.heads.feature_model(model, head, 17)
    chain = pyinterp.extract_chain(single, images, target_kl=0.01)     # the filters that compute feature 17
    patches = pyinterp.grid_players(3, 4)
    pyinterp.extract_interactions(single, image, players=patches, target=0)    # the patches that it needs together
    ```

    Args:
        model: The network that the features come from, in eval mode.
        source: What knows mean and std of the features: a `SparseHead`, or `Features`.
        feature: j.
        example: See `find_classifier`; text models and images of another size need one.

    Raises:
        ValueError: There is no such feature, it is constant, or another network gave the features; or as
            `with_classifier`.
        TypeError: ``feature`` is no whole number.
    """
    where = "feature_model"
    mean, std = moments_of(where, source, [feature])
    require_same_network(where, source, model)
    weights = torch.zeros(2, len(source.mean), dtype=torch.float64)
    weights[0, feature] = 1 / std[0]
    device, dtype = place_of(model)
    layer = nn.Linear(len(source.mean), 2, device=device, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.copy_(torch.stack([-mean[0] / std[0], torch.zeros_like(mean[0])]))
    return with_classifier(model, layer, example)


def moments_of(where: str, source: SparseHead | Features, features: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float64, of m features: (m,) and (m,).

    Raises:
        ValueError: There is no such feature, or it is constant.
        TypeError: A feature is no whole number.
    """
    width = len(source.mean)
    for feature in features:
        if not 0 <= _whole(where, feature) < width:
            raise ValueError(explain(where, f"a feature 0 to {width - 1}", feature, "Pass one of them."))
    numbers = torch.tensor([int(feature) for feature in features], dtype=torch.int64)
    constant = source.constant if isinstance(source, Features) else source.std <= 0
    flat = numbers[constant[numbers]].tolist()
    if flat:
        got = f"constant ones: {', '.join(map(str, flat[:10]))}"
        fix = "Choose others: these have the same value for all inputs, so no unit to measure them in."
        raise ValueError(explain(where, "features that vary", got, fix))
    return source.mean[numbers], source.std[numbers]


def require_same_network(where: str, source: SparseHead | Features, model: nn.Module) -> None:
    """Raise ValueError if the features are known to come from another network than ``model``."""
    require_eval(model)
    if source.model_digest and source.model_digest != model_digest(model):
        fix = "Pass the network and weights that gave the features."
        raise ValueError(explain(where, "the network that the features come from", "another", fix))


def _whole(where: str, feature: Any) -> int:
    try:
        return operator.index(feature)
    except TypeError as error:
        fix = "Pass the number of a feature."
        raise TypeError(explain(where, "a feature as a whole number", repr(feature), fix)) from error
