"""subset_sum against plain torch, against the definition, and against what users get wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from contract import Sample, check_compile, check_op
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyinterp._extension import has_kernel
from pyinterp.ops import subset_sum

DIRECTIONS = list(itertools.product((False, True), repeat=2))
SMALL = [(1,), (0, 8), (3, 2), (2, 8), (2, 3, 4)]
SITES = [
    (2,),
    (16,),
    (5, 4),
    (33, 8),
    (5, 32),
    (0, 64),
    (2, 3, 64),
    (9, 128),
    (3, 2**9),
    (3, 2**11),
    (1, 2**13),
]
LONG = [15, 17, 18, 20]


def plain(values: Tensor, inverse: bool, superset: bool) -> Tensor:
    """One player after another, in differentiable torch."""
    n = values.shape[-1].bit_length() - 1
    for player in range(n):
        pairs = values.unflatten(-1, (2 ** (n - player - 1), 2, 2**player))
        without, present = pairs.unbind(-2)
        sign = -1 if inverse else 1
        if superset:
            without = without + sign * present
        else:
            present = present + sign * without
        values = torch.stack([without, present], -2).flatten(-3)
    return values


def brute_force(values: np.ndarray, inverse: bool, superset: bool) -> np.ndarray:
    """The sum over the subsets or supersets of each set, one number at a time."""
    sums = np.zeros(values.shape)
    for s, t in itertools.product(range(values.shape[-1]), repeat=2):
        small, large = (s, t) if superset else (t, s)
        if small & large == small:
            sums[..., s] += (-1) ** (inverse * (small ^ large).bit_count()) * values[..., t]
    return sums


@pytest.mark.parametrize(("inverse", "superset"), DIRECTIONS)
@pytest.mark.parametrize("shape", SITES)
def test_sites(shape: tuple[int, ...], inverse: bool, superset: bool, device: str) -> None:
    check_op(subset_sum, plain, Sample((torch.randn(shape), inverse, superset)), device)


@pytest.mark.parametrize(("inverse", "superset"), DIRECTIONS)
@pytest.mark.parametrize("shape", SMALL)
def test_small_sites_in_full(shape: tuple[int, ...], inverse: bool, superset: bool, device: str) -> None:
    x = torch.randn(shape)
    op = torch.ops.pyinterp.subset_sum.default
    raw = [
        (op, (x.to(device), inverse, superset)),
        (op, (x.to(device, copy=True).requires_grad_(), inverse, superset)),
    ]
    check_op(subset_sum, plain, Sample((x, inverse, superset)), device, brute_force=brute_force, raw=raw)


def test_compiles_with_inductor(device: str) -> None:
    check_compile(subset_sum, Sample((torch.randn(3, 16), True, False)), device, backend="inductor")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("inverse", "superset"), DIRECTIONS)
@pytest.mark.parametrize("n", LONG)
def test_long_rows(n: int, inverse: bool, superset: bool, dtype: torch.dtype, device: str) -> None:
    """Every way to cut a row gives the bits of plain torch, which goes from the last player to the first too."""
    x = torch.randn(3, 2**n).to(dtype)
    wanted = x.to(torch.float64 if dtype == torch.float64 else torch.float32, copy=True)
    for player in reversed(range(n)):
        without, present = wanted.view(-1, 2, 2**player).unbind(1)
        target, source = (without, present) if superset else (present, without)
        target.add_(source, alpha=-1 if inverse else 1)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            for rows in (x, x[:1]):
                got = subset_sum(rows.to(device), inverse, superset).cpu()
                assert torch.equal(got, wanted[: len(rows)].to(dtype))
    finally:
        torch.set_num_threads(threads)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 13),
    rows=st.integers(0, 5),
    inverse=st.booleans(),
    superset=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_inverse_undoes_it(n: int, rows: int, inverse: bool, superset: bool, seed: int) -> None:
    """On whole numbers every sum is exact."""
    x = torch.randint(-8, 9, (rows, 2**n), generator=torch.Generator().manual_seed(seed)).double()
    assert torch.equal(subset_sum(subset_sum(x, inverse, superset), not inverse, superset), x)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 12), inverse=st.booleans(), seed=st.integers(0, 2**16))
def test_supersets_are_the_transpose(n: int, inverse: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randint(-8, 9, (2, 2**n), generator=generator).double()
    assert torch.dot(subset_sum(x, inverse), y) == torch.dot(x, subset_sum(y, inverse, superset=True))


def test_supersets_are_subsets_of_the_absent(device: str) -> None:
    x = torch.randn(3, 2**7, dtype=torch.float64, device=device)
    torch.testing.assert_close(subset_sum(x, superset=True), subset_sum(x.flip(-1)).flip(-1))


def test_input_stays_as_it_is(device: str) -> None:
    for n in (0, 3, 12, 16):
        x = torch.randn(2, 2**n, device=device)
        kept = x.clone()
        subset_sum(x)
        assert torch.equal(x, kept)


def test_nan_stays_with_the_supersets(device: str) -> None:
    x = torch.zeros(16, device=device)
    x[5] = float("nan")
    holds = torch.tensor([code & 5 == 5 for code in range(16)], device=device)
    assert torch.equal(subset_sum(x).isnan(), holds)


def test_forward_derivatives_are_refused() -> None:
    x = torch.zeros(4)
    with pytest.raises(RuntimeError):
        torch.func.jvp(subset_sum, (x,), (x,))


X = torch.zeros(2, 8)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"\(..., 2\^n\), n <= 28, got \(2, 6\)", lambda: subset_sum(X[:, :6])),
        (ValueError, r"got \(2, 0\)", lambda: subset_sum(X[:, :0])),
        (ValueError, r"got \(\)", lambda: subset_sum(X[0, 0])),
        (ValueError, r"got \(0, 536870912\)", lambda: subset_sum(torch.zeros(0, 2**29))),
        (TypeError, r"float16 or bfloat16 values, got torch.int64", lambda: subset_sum(X.long())),
        (TypeError, r"got torch.complex64", lambda: subset_sum(X.to(torch.complex64))),
        (TypeError, r"got torch.bool", lambda: subset_sum(X.bool())),
    ],
)
def test_errors_say_what_was_expected(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]


@pytest.mark.skipif(
    not has_kernel("subset_sum", "cpu"), reason="the compiled library is hidden or was not built"
)
def test_the_kernel_refuses_other_lengths() -> None:
    with pytest.raises(RuntimeError):
        torch.ops.pyinterp.subset_sum(torch.zeros(2, 6), False, False)
