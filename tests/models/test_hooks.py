"""A lent forward: the model's own structure, and the model given back as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import snapshot
from torch import Tensor, nn

from pyinterp.models.hooks import replaced_forward

IMAGES = torch.randn(2, 4)


class Keyed(nn.Module):
    """Answers with a mapping, as Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"hidden": pixel_values, "logits": self.fc(pixel_values)}


def zeros(images: Tensor) -> Tensor:
    return torch.zeros(len(images), 3)


@pytest.mark.parametrize("model", [nn.Linear(4, 3), Keyed()], ids=["tensor", "mapping"])
def test_inside_the_model_answers_with_the_function(model: nn.Module) -> None:
    before, expected = snapshot(model), model(IMAGES)
    with replaced_forward(model, zeros) as same:
        assert same is model
        answer = model(IMAGES)
    assert type(answer) is type(expected)
    if isinstance(answer, dict):
        assert answer["hidden"] is None
        answer, expected = answer["logits"], expected["logits"]
    assert torch.equal(answer, zeros(IMAGES))
    again = model(IMAGES)
    assert torch.equal(again["logits"] if isinstance(again, dict) else again, expected)
    assert snapshot(model) == before


def test_images_by_name_and_nothing_else() -> None:
    model = Keyed()
    with replaced_forward(model, zeros):
        assert torch.equal(model(pixel_values=IMAGES)["logits"], zeros(IMAGES))
        with pytest.raises(TypeError, match="one batch of images"):
            model(IMAGES, True)


def test_hooks_of_the_model_run_and_stay() -> None:
    model, seen = nn.Linear(4, 3), []
    handle = model.register_forward_hook(lambda module, args, output: seen.append(output))
    before = snapshot(model)
    with replaced_forward(model, zeros):
        answer = model(IMAGES)
    assert seen[-1] is answer
    assert snapshot(model) == before
    handle.remove()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_given_back_after_an_exception(error: type[BaseException]) -> None:
    model = nn.Linear(4, 3)
    before, expected = snapshot(model), model(IMAGES)

    def fail(images: Tensor) -> Any:
        raise error

    with pytest.raises(error), replaced_forward(model, fail):
        model(IMAGES)
    assert snapshot(model) == before
    assert torch.equal(model(IMAGES), expected)


def test_a_forward_that_was_already_lent_comes_back() -> None:
    model = nn.Linear(4, 3)
    with replaced_forward(model, zeros):
        with replaced_forward(model, lambda images: zeros(images) + 1):
            assert model(IMAGES).sum() == 6
        assert model(IMAGES).sum() == 0
    assert "forward" not in vars(model)
