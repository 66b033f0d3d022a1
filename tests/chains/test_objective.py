"""What a chain must keep, against formulas written out one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyinterp.chains.objective import Keep, Objective, check_keep

FULL = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.1, 0.15, 3.0, -2.0], [1.0, 0.99, 0.0, -1.0]])
CHAIN = torch.tensor([[1.0, 1.5, 0.0, 0.2], [0.0, -1.0, 2.5, 4.0], [1.0, 0.2, 0.3, 0.0]])


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


@pytest.mark.parametrize("keep", [None, [0, 2], (3, 1, 0), range(1, 4)])
def test_kl_over_the_classes_that_are_kept(keep: Keep) -> None:
    classes = range(4) if keep is None else list(keep)  # type: ignore[arg-type]
    got = Objective(FULL.double(), keep).divergence(CHAIN.double())
    for row in range(3):
        p = softmax([float(FULL[row, c]) for c in classes])
        q = softmax([float(CHAIN[row, c]) for c in classes])
        expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert float(got[row]) == pytest.approx(expected, rel=1e-9)


def test_one_logit_and_a_callable_are_half_the_squared_difference() -> None:
    torch.testing.assert_close(Objective(FULL, 2).divergence(CHAIN), 0.5 * (FULL - CHAIN)[:, 2] ** 2)
    pair = Objective(FULL, lambda logits: logits[:, [0, 3]])
    torch.testing.assert_close(pair.divergence(CHAIN), 0.5 * ((FULL - CHAIN)[:, [0, 3]] ** 2).mean(1))
    one = Objective(FULL, lambda logits: logits.sum(1))
    torch.testing.assert_close(one.divergence(CHAIN), 0.5 * (FULL - CHAIN).sum(1) ** 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_never_below_float32(dtype: torch.dtype) -> None:
    full, chain = FULL.to(dtype), CHAIN.to(dtype)
    expected = Objective(full.double()).divergence(chain.double())
    got = Objective(full).divergence(chain)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


def test_far_apart_logits_stay_finite() -> None:
    full, chain = torch.tensor([[100.0, -100.0]]), torch.tensor([[-100.0, 100.0]])
    assert float(Objective(full).divergence(chain)) == pytest.approx(200)


def test_nothing_changed_is_zero_and_never_negative() -> None:
    assert Objective(FULL).divergence(FULL).abs().max() == 0
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(2, 200, 5, generator=generator).double()
    assert Objective(many[0]).divergence(many[1]).min() >= 0


@pytest.mark.parametrize(("keep", "expected"), [(None, [False, False, True]), ([0, 2], [True, True, True])])
def test_agreement_is_the_same_top_class_among_those_kept(keep: Keep, expected: list[bool]) -> None:
    assert Objective(FULL, keep).agrees(CHAIN).tolist() == expected


@pytest.mark.parametrize("keep", [1, lambda logits: logits[:, 0]])
def test_a_number_always_agrees(keep: Keep) -> None:
    objective = Objective(FULL, keep)
    assert objective.agrees(CHAIN).tolist() == [True] * 3
    assert objective.shortfall(CHAIN).tolist() == [0.0] * 3


def soft(missing: float) -> float:
    """w log(1 + exp(missing / w)), w = 0.1."""
    return 0.1 * math.log1p(math.exp(missing / 0.1))


def test_shortfall_is_what_the_lead_lacks_softly() -> None:
    got = Objective(FULL).shortfall(CHAIN)
    # Leads of the full network's top class: full 1.5, 2.85, 0.01; in the chain -0.5, -1.5, 0.7.
    expected = [soft(0.2 + 0.5), soft(0.2 + 1.5), soft(0.005 - 0.7)]
    torch.testing.assert_close(got, torch.tensor(expected))
    near = torch.zeros(3, 4)
    expected = [soft(0.2), soft(0.2), soft(0.005)]
    torch.testing.assert_close(Objective(FULL).shortfall(near), torch.tensor(expected))


def test_shortfall_has_a_slope_where_the_answer_is_lost() -> None:
    chain = CHAIN.clone().requires_grad_()
    Objective(FULL).shortfall(chain).sum().backward()
    slopes = torch.tensor([[-1.0, 1.0, 0, 0], [0, 0, -1.0, 1.0], [0, 0, 0, 0]])
    torch.testing.assert_close(chain.grad, slopes, rtol=0, atol=0.006)
    assert chain.grad is not None and (chain.grad[2, 0] < 0) and (chain.grad[2, 2] > 0)


def test_some_of_the_images() -> None:
    objective = Objective(FULL, [0, 1])
    rows = torch.tensor([2, 0])
    part = objective.take(rows)
    assert len(part) == 2 and part.keep == [0, 1]
    torch.testing.assert_close(part.divergence(CHAIN[rows]), objective.divergence(CHAIN)[rows])


@pytest.mark.parametrize("keep", [None, 0, 3, [0, 3], range(2), lambda logits: logits])
def test_what_can_be_kept(keep: Keep) -> None:
    check_keep(keep, FULL)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ([], "two or more different classes"),
        ([1], "two or more different classes"),
        ([1, 1], "two or more different classes"),
        ([1, 1, 2], "two or more different classes"),
        (4, "classes from 0 to 3"),
        (True, "whole numbers"),
        (1.0, "whole numbers"),
        ("cat", "whole numbers"),
        (lambda logits: logits.sum(), "one row per image"),
        (lambda logits: None, "one row per image"),
        (lambda logits: logits.detach(), "without a gradient"),
        (lambda logits: logits / 0, "NaN or infinite"),
        (-1, "classes from 0 to 3"),
        ([0, 9], r"got \[9\]"),
    ],
)
def test_classes_that_are_not_there(keep: Keep, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_keep(keep, FULL)


def test_a_slope_for_every_kind() -> None:
    kinds: list[Keep] = [None, [0, 1], 2, lambda logits: logits.square()]
    for keep in kinds:
        chain: Tensor = CHAIN.clone().double().requires_grad_()
        objective = Objective(FULL.double(), keep)
        assert torch.autograd.gradcheck(objective.divergence, (chain,))
