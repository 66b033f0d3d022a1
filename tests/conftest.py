"""Devices, seeds, and a way to run any test without the compiled library."""

from __future__ import annotations

import sys

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-kernels", action="store_true", help="hide pyinterp._C: every op runs its reference"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-kernels"):
        assert "pyinterp" not in sys.modules
        sys.modules["pyinterp._C"] = None  # type: ignore[assignment]


def pytest_runtest_setup(item: pytest.Item) -> None:
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def seed() -> None:
    import torch

    torch.manual_seed(0)
