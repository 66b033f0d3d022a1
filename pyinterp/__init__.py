"""See what a trained vision network computes: chains, interactions, sparse heads."""

from typing import TYPE_CHECKING, Any

from pyinterp import chains, interactions, models, ops
from pyinterp.chains import Chain, extract_chain, extract_chains
from pyinterp.interactions import harsanyi_and, harsanyi_or

if TYPE_CHECKING:
    from pyinterp.report import write_report

__all__ = [
    "Chain",
    "chains",
    "extract_chain",
    "extract_chains",
    "harsanyi_and",
    "harsanyi_or",
    "interactions",
    "models",
    "ops",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load the report, and Jinja2 with it, when it is asked for."""
    if name == "write_report":
        from pyinterp.report import write_report

        return write_report
    raise AttributeError(f"module 'pyinterp' has no attribute {name!r}")
