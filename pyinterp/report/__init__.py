"""Reports: one HTML file that opens offline. Reads results, knows no method."""

try:
    import jinja2 as _jinja2  # noqa: F401  (asked for here, so that the message below can name the fix)
except ImportError as error:
    raise ImportError(
        "write_report: expected Jinja2 to be installed, got none. Install it with `pip install jinja2`."
    ) from error

from pyinterp.report.html import write_report

__all__ = ["write_report"]
