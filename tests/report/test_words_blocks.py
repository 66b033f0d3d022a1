"""Word clouds: every word once, the strongest the largest, in the right cloud."""

from __future__ import annotations

import re
from pathlib import Path

from pyinterp.heads.scored_words import ScoredWord, TopWords
from pyinterp.report import write_report

WORDS = TopWords(
    feature=7,
    aligned=(ScoredWord("cheese", 2.0, 3), ScoredWord("<b>", 1.0, 2)),
    anti_aligned=(ScoredWord("processor", -0.5, 4),),
    words=40,
)


def test_words_are_sized_by_their_effect(tmp_path: Path) -> None:
    text = write_report([WORDS, TopWords(8, (), (), 40)], tmp_path / "report.html").read_text()
    raised, lowered, none, _ = text.split("<figcaption>")[1:]
    sizes = {
        word: float(size) for size, word in re.findall(r"font-size:([0-9.]+)em[^>]*>(\S+) <small>", text)
    }
    assert sizes == {"cheese": 2.4, "&lt;b&gt;": 1.62, "processor": 1.24}
    assert "cheese" in raised and "processor" not in raised
    assert "processor" in lowered and "&minus;" not in lowered and "-0.50" in lowered
    assert "No word." in none
    assert "Words that drive feature 7" in text and "Words that drive feature 8" in text
