"""AND and OR interactions against their definitions, against each other, and against what users get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyinterp import harsanyi_and, harsanyi_or
from pyinterp.interactions import reconstruct

PLAYERS = [0, 1, 2, 3, 5, 8]


def size(code: int) -> int:
    return code.bit_count()


def and_by_definition(v: np.ndarray) -> np.ndarray:
    """Sum one term at a time over the subsets T of each S."""
    return np.array(
        [sum((-1) ** size(s ^ t) * v[t] for t in range(len(v)) if t & s == t) for s in range(len(v))]
    )


def or_by_definition(v: np.ndarray) -> np.ndarray:
    full = len(v) - 1
    terms = [
        -sum((-1) ** size(s ^ t) * v[full ^ t] for t in range(len(v)) if t & s == t) for s in range(len(v))
    ]
    return np.array([v[0], *terms[1:]])


def games(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", PLAYERS)
def test_equal_the_definitions(n: int, device: str) -> None:
    v = games(n, 2**n)
    wanted_and, wanted_or = and_by_definition(v.numpy()), or_by_definition(v.numpy())
    np.testing.assert_allclose(harsanyi_and(v.to(device)).cpu(), wanted_and, atol=1e-12)
    np.testing.assert_allclose(harsanyi_or(v.to(device)).cpu(), wanted_or, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 10), batch=st.sampled_from([(), (1,), (3,), (2, 2), (0,)]), seed=st.integers(0, 2**16)
)
def test_universal_matching(n: int, batch: tuple[int, ...], seed: int) -> None:
    """Any split of v into two games gives back v at every subset."""
    v, share = games(seed, *batch, 2**n), games(seed + 1, *batch, 2**n)
    and_, or_ = harsanyi_and(0.5 * v + share), harsanyi_or(0.5 * v - share)
    torch.testing.assert_close(reconstruct(and_, or_), v, rtol=0, atol=1e-11 * 2 ** (n / 2))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(0, 10), seed=st.integers(0, 2**16))
def test_each_kind_alone_is_the_whole_game(n: int, seed: int) -> None:
    v = games(seed, 2**n)
    none = torch.zeros_like(v)
    torch.testing.assert_close(reconstruct(harsanyi_and(v), none), v, rtol=0, atol=1e-11)
    torch.testing.assert_close(reconstruct(none, harsanyi_or(v)), v, rtol=0, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 9), data=st.data())
def test_one_effect_is_found_alone(n: int, data: st.DataObject) -> None:
    """A game that is one AND, or one OR, of some players has that one interaction."""
    members = data.draw(st.integers(1, 2**n - 1))
    codes = torch.arange(2**n)
    alone = torch.zeros(2**n)
    alone[members] = 3.0
    assert torch.equal(harsanyi_and(3.0 * ((codes & members) == members)), alone)
    assert torch.equal(harsanyi_or(3.0 * ((codes & members) != 0)), alone)


def test_single_players_are_the_same_for_both() -> None:
    """With one player, AND and OR are one thing; with none, both are v(∅)."""
    v = games(3, 2)
    assert torch.equal(harsanyi_and(v), harsanyi_or(v))
    assert torch.equal(harsanyi_or(v[:1]), v[:1])


def test_float32_stays_close() -> None:
    v = games(5, 4, 2**12)
    for effect in (harsanyi_and, harsanyi_or):
        assert (effect(v.float()) - effect(v)).abs().max() < 1e-4
    back = reconstruct(harsanyi_and(v.float() / 2), harsanyi_or(v.float() / 2))
    assert (back - v).abs().max() < 1e-3


def test_gradients() -> None:
    v = games(1, 2, 8).requires_grad_()
    w = games(2, 2, 8).requires_grad_()
    assert torch.autograd.gradcheck(harsanyi_and, v)
    assert torch.autograd.gradcheck(harsanyi_or, v)
    assert torch.autograd.gradcheck(reconstruct, (v, w))
    assert torch.autograd.gradgradcheck(harsanyi_or, v)


def test_compile() -> None:
    torch._dynamo.reset()
    v = games(1, 2, 8)

    def back(v: Tensor) -> Tensor:
        return reconstruct(harsanyi_and(v), harsanyi_or(v))

    compiled = torch.compile(back, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(v), back(v))
    torch.testing.assert_close(compiled(games(2, 3, 16)), back(games(2, 3, 16)))


V = torch.zeros(8)


def spoilt(*places: int) -> Tensor:
    v = torch.zeros(8)
    v[list(places)] = float("nan")
    return v


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"harsanyi_and: expected values of shape .*, got \(6,\)", lambda: harsanyi_and(V[:6])),
        (ValueError, r"values of shape .*, got \(\)", lambda: harsanyi_or(V[0])),
        (ValueError, r"values of shape .*, got \(3, 0\)", lambda: harsanyi_or(torch.zeros(3, 0))),
        (TypeError, r"got torch.int64", lambda: harsanyi_and(V.long())),
        (TypeError, r"got torch.complex64", lambda: harsanyi_or(V.to(torch.complex64))),
        (ValueError, r"finite values, got nan for players \{0, 2\}", lambda: harsanyi_and(spoilt(5))),
        (ValueError, r"nan for players \{\}; nan for players \{1\}", lambda: harsanyi_or(spoilt(0, 2))),
        (ValueError, r"\{2\} and 3 more", lambda: harsanyi_or(spoilt(*range(1, 8), 0))),
        (ValueError, r"inf for players \{\} of game \(1,\)", lambda: harsanyi_and(1 / torch.eye(2)[:, :1])),
        (ValueError, r"\(8,\) and \(4,\)", lambda: reconstruct(V, V[:4])),
        (ValueError, r"finite or_, got nan", lambda: reconstruct(V, spoilt(1))),
    ],
)
def test_errors_say_what_was_expected(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]
