"""Words with their effects on a deep feature: what a word cloud shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoredWord:
    """A word's mean effect on a feature.

    Attributes:
        word: In lower case.
        effect: In standard deviations of the feature.
        count: How often the word was met.
    """

    word: str
    effect: float
    count: int


@dataclass(frozen=True)
class TopWords:
    """The words that drive one feature most: what a word cloud shows, sized by |effect|.

    Attributes:
        feature: Its number.
        aligned: Words that raise it, the strongest first.
        anti_aligned: Words that lower it, the strongest first.
        words: How many different words were met.
    """

    feature: int
    aligned: tuple[ScoredWord, ...]
    anti_aligned: tuple[ScoredWord, ...]
    words: int

    def summary(self) -> str:
        """The words in a line each way."""
        lines = [f"Feature {self.feature}, of {self.words} words:"]
        for noun, some in (("raised", self.aligned), ("lowered", self.anti_aligned)):
            listed = ", ".join(f"{one.word} ({one.effect:+.2f}, {one.count}x)" for one in some[:10])
            lines.append(f"  {noun} by {listed or 'no word'}")
        return "\n".join(lines)
