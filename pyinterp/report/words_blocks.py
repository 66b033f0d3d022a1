"""The part of a report that shows TopWords: two word clouds per feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyinterp.report.page import Block, Page, fragment

if TYPE_CHECKING:
    from pyinterp.heads.scored_words import ScoredWord, TopWords

SMALLEST, LARGEST = 0.85, 2.4  # sizes of the weakest and the strongest word of a feature, in em


def words_blocks(words: TopWords, page: Page) -> list[Block]:
    """The section for one feature."""
    strongest = max((abs(one.effect) for one in (*words.aligned, *words.anti_aligned)), default=1.0)
    clouds = [
        {"caption": f"raise it ({len(words.aligned)})", "words": _sized(words.aligned, strongest)},
        {"caption": f"lower it ({len(words.anti_aligned)})", "words": _sized(words.anti_aligned, strongest)},
    ]
    context = {"clouds": clouds, "feature": words.feature, "words": words.words}
    html = fragment("words.html", "clouds", context)
    return [Block(f"words-{words.feature}", f"Words that drive feature {words.feature}", html)]


def _sized(words: Sequence[ScoredWord], strongest: float) -> list[dict[str, Any]]:
    return [
        {
            "word": one.word,
            "size": f"{SMALLEST + (LARGEST - SMALLEST) * abs(one.effect) / strongest:.2f}",
            "effect": f"{one.effect:+.2f}",
            "count": one.count,
        }
        for one in sorted(words, key=lambda one: one.word)
    ]
