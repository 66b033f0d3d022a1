"""Indices against their definitions (permutations, marginal effects, least squares) and against shapiq."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyinterp.interactions import banzhaf, fsii, harsanyi_and, shapley, sii, stii

INDICES = {"SII": sii, "STII": stii, "FSII": fsii}


def game(n: int, seed: int = 0, *batch: int) -> Tensor:
    return torch.randn(*batch, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def size(code: int) -> int:
    return code.bit_count()


def subsets_of(members: int) -> list[int]:
    return [code for code in range(members + 1) if code & members == code]


def effect(v: np.ndarray, members: int, others: int) -> float:
    """The discrete derivative of v by `members` where `others` are present."""
    return sum((-1) ** (size(members) - size(part)) * v[others | part] for part in subsets_of(members))


def shapley_by_definition(v: np.ndarray, n: int) -> np.ndarray:
    """The mean of what a player adds, over all orders in which players can come."""
    total = np.zeros(n)
    for order in itertools.permutations(range(n)):
        present = 0
        for player in order:
            total[player] += v[present | 1 << player] - v[present]
            present |= 1 << player
    return total / math.factorial(n)


def banzhaf_by_definition(v: np.ndarray, n: int) -> np.ndarray:
    everyone = 2**n - 1
    return np.array(
        [np.mean([effect(v, 1 << i, t) for t in subsets_of(everyone ^ 1 << i)]) for i in range(n)]
    )


def sii_by_definition(v: np.ndarray, n: int, order: int) -> np.ndarray:
    index = np.zeros(2**n)
    index[0] = v[0]
    for members in range(1, 2**n):
        s = size(members)
        if s <= order:
            for others in subsets_of((2**n - 1) ^ members):
                t = size(others)
                weight = math.factorial(n - t - s) * math.factorial(t) / math.factorial(n - s + 1)
                index[members] += weight * effect(v, members, others)
    return index


def stii_by_definition(v: np.ndarray, n: int, order: int) -> np.ndarray:
    index = np.zeros(2**n)
    for members in range(2**n):
        if size(members) < order:
            index[members] = effect(v, members, 0)
        elif size(members) == order:
            for others in subsets_of((2**n - 1) ^ members):
                index[members] += order / n / math.comb(n - 1, size(others)) * effect(v, members, others)
    return index


def fsii_by_definition(v: np.ndarray, n: int, order: int) -> np.ndarray:
    """Least squares with Shapley's kernel, exact where nobody and where everybody is present."""
    terms = [code for code in range(2**n) if size(code) <= order]
    fits = np.array([[float(term & t == term) for term in terms] for t in range(2**n)])
    exact, inner = [0, 2**n - 1], list(range(1, 2**n - 1))
    sizes = np.array([size(t) for t in inner])
    kernel = np.array([(n - 1) / (math.comb(n, s) * s * (n - s)) for s in sizes])
    normal = fits[inner].T @ (kernel[:, None] * fits[inner])
    right = fits[inner].T @ (kernel * v[inner])
    system = np.block([[normal, fits[exact].T], [fits[exact], np.zeros((2, 2))]])
    solution = np.linalg.lstsq(system, np.concatenate([right, v[exact]]), rcond=None)[0]
    index = np.zeros(2**n)
    index[terms] = solution[: len(terms)]
    return index


ORACLES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "SII": sii_by_definition,
    "STII": stii_by_definition,
    "FSII": fsii_by_definition,
}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_players_equal_the_definitions(n: int, device: str) -> None:
    v = game(n)
    np.testing.assert_allclose(shapley(v.to(device)).cpu(), shapley_by_definition(v.numpy(), n), atol=1e-10)
    np.testing.assert_allclose(banzhaf(v.to(device)).cpu(), banzhaf_by_definition(v.numpy(), n), atol=1e-10)


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize(("n", "order"), [(2, 1), (3, 2), (5, 1), (5, 2), (5, 3), (5, 4), (6, 2)])
def test_sets_equal_the_definitions(name: str, n: int, order: int, device: str) -> None:
    v = game(n)
    got = INDICES[name](v.to(device), order=order).cpu()
    np.testing.assert_allclose(got, ORACLES[name](v.numpy(), n, order), atol=1e-9)


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("order", [1, 2, 3, 7])
def test_agree_with_shapiq(name: str, order: int) -> None:
    shapiq = pytest.importorskip("shapiq", reason="needs shapiq: pip install pyinterp[shapiq]")
    n = 7
    v = game(n)
    computer = shapiq.ExactComputer(lambda rows: v.numpy()[rows @ (1 << np.arange(n))], n_players=n)
    theirs = computer(name, order)
    ours = INDICES[name](v, order=order)
    for members in range(1, 2**n):
        if size(members) <= order:
            players = tuple(i for i in range(n) if members >> i & 1)
            assert abs(theirs[players] - float(ours[members])) < 1e-6
    for single, function in (("SV", shapley), ("BV", banzhaf)):
        for player, value in enumerate(function(v).tolist()):
            assert abs(computer(single, 1)[(player,)] - value) < 1e-6


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 9), seed=st.integers(0, 2**16), data=st.data())
def test_efficiency(n: int, seed: int, data: st.DataObject) -> None:
    """Shapley values, STII and FSII share out v(N) - v(∅)."""
    v, order = game(n, seed), data.draw(st.integers(1, n))
    torch.testing.assert_close(shapley(v).sum(), v[-1] - v[0])
    torch.testing.assert_close(stii(v, order).sum(), v[-1])
    torch.testing.assert_close(fsii(v, order).sum(), v[-1])


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_orders_meet_at_their_ends(n: int, seed: int) -> None:
    v = game(n, seed)
    singles = [1 << i for i in range(n)]
    for index in INDICES.values():
        torch.testing.assert_close(index(v, 1)[singles], shapley(v))
    torch.testing.assert_close(stii(v), harsanyi_and(v))
    torch.testing.assert_close(fsii(v), harsanyi_and(v))


def test_batches_gradients_and_empty_games() -> None:
    v = game(4, 0, 2, 3)
    for function in (shapley, banzhaf, sii, lambda v: stii(v, 2), lambda v: fsii(v, 2)):
        together = function(v)
        for place in itertools.product(range(2), range(3)):
            torch.testing.assert_close(function(v[place]), together[place], rtol=0, atol=0)
        assert torch.autograd.gradcheck(function, game(3).requires_grad_())
    assert shapley(v[..., :1]).shape == (2, 3, 0)
    assert torch.equal(sii(v[..., :1]), v[..., :1])


def test_nothing_above_the_order() -> None:
    v = game(6)
    high = torch.tensor([size(code) > 2 for code in range(64)])
    for index in INDICES.values():
        assert (index(v, 2)[high] == 0).all()
        assert (index(v, 2)[~high] != 0).all()


V = torch.zeros(8)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"shapley: expected values of shape .*, got \(6,\)", lambda: shapley(V[:6])),
        (ValueError, r"sii: expected an order in 1 ... 3, got 4", lambda: sii(V, 4)),
        (ValueError, r"stii: expected an order in 1 ... 3, got 0", lambda: stii(V, 0)),
        (ValueError, r"fsii: expected an order in 1 ... 3, got 1.5", lambda: fsii(V, 1.5)),  # type: ignore[arg-type]
        (
            ValueError,
            r"banzhaf: expected finite values, got inf for players \{\}",
            lambda: banzhaf(V + 1 / V),
        ),
        (TypeError, r"fsii: .* got torch.int32", lambda: fsii(V.int())),
    ],
)
def test_errors_say_what_was_expected(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]
