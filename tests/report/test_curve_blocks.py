"""The section of a sufficiency curve: both charts, and the sentence that says what is enough."""

from __future__ import annotations

from pathlib import Path

from report_samples import a_chain

from pyinterp.chains.curve import SufficiencyCurve
from pyinterp.report import write_report


def test_the_curve_stands_beside_its_chain(tmp_path: Path) -> None:
    curve = SufficiencyCurve((0.0, 0.5, 1.0), (4.0, 1.0, 0.1), (0.1, 0.9, 1.0), 0.7)
    text = write_report([a_chain(), curve], tmp_path / "report.html").read_text("utf-8")
    assert "How few of its units are enough" in text
    assert text.count("with only the strongest units of the chain") == 2
    assert "Mean agreement over all shares: 70\u202f%" in text
    assert "50\u202f% of the chain's units already agree" in text.replace("&#39;", "'")


def test_a_curve_that_is_never_enough_says_nothing_of_it(tmp_path: Path) -> None:
    curve = SufficiencyCurve((0.0, 1.0), (4.0, 1.0), (0.1, 0.5), 0.3)
    text = write_report(curve, tmp_path / "report.html").read_text("utf-8")
    assert "already agree" not in text
