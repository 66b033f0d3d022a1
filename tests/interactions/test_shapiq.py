"""Interactions as shapiq's own objects."""

from __future__ import annotations

import sys

import pytest
import torch

from pyinterp.interactions import fsii, harsanyi_and, shapley, sii, stii, to_shapiq

V = torch.randn(2**5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def shapiq() -> object:
    return pytest.importorskip("shapiq", reason="needs shapiq: pip install pyinterp[shapiq]")


@pytest.mark.parametrize(
    ("index", "numbers"),
    [("Moebius", harsanyi_and(V)), ("SII", sii(V, 2)), ("STII", stii(V, 3)), ("FSII", fsii(V, 2))],
)
def test_every_set_keeps_its_number(shapiq: object, index: str, numbers: torch.Tensor) -> None:
    handed = to_shapiq(numbers, index)
    assert (handed.index, handed.n_players, handed.baseline_value) == (index, 5, float(V[0]))
    assert len(handed.values) == int((numbers != 0).sum())
    for code, value in enumerate(numbers.tolist()):
        assert handed[tuple(i for i in range(5) if code >> i & 1)] == value


def test_players(shapiq: object) -> None:
    handed = to_shapiq(shapley(V), "SV")
    assert [handed[(i,)] for i in range(5)] == shapley(V).tolist()
    assert (handed.min_order, handed.max_order) == (1, 1)


def test_plots(shapiq: object) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    assert to_shapiq(sii(V, 2), "SII").plot_network(show=False) is not None
    assert to_shapiq(shapley(V), "SV").plot_force(show=False) is not None


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (r"one of Moebius, .*, got SHAP", lambda: to_shapiq(V, "SHAP")),
        (r"numbers of one game, got \(1, 32\)", lambda: to_shapiq(V[None])),
        (r"\(..., 2\^n\), got \(5,\)", lambda: to_shapiq(V[:5])),
    ],
)
def test_errors_say_what_was_expected(words: str, call: object) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]


def test_without_shapiq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(ImportError, match=r'pip install "pyinterp\[shapiq\]"'):
        to_shapiq(V)
