"""The version of the installed package."""

from __future__ import annotations

from importlib import metadata


def package_version() -> str:
    """As pip knows it; says so where the package runs from its source without having been installed."""
    try:
        return metadata.version("pyinterp")
    except metadata.PackageNotFoundError:
        return "(not installed)"
