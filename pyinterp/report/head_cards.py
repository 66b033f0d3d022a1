"""Features and decisions of a HeadStudy in pictures; each picture is in the page once, however often it is shown."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pyinterp.report.page import data_uri, grey_uri
from pyinterp.report.plots import number

if TYPE_CHECKING:
    from pyinterp.heads.head_study import Case, FeatureCard, HeadStudy, Sample

NAMED = 5  # features in a sentence


class Gallery:
    """What templates need to show samples and features.

    Args:
        study: Whose.
    """

    def __init__(self, study: HeadStudy) -> None:
        self._study = study
        told = hashlib.sha256(study.weights.numpy().tobytes() + study.pictures.numpy().tobytes())
        self._prefix = f"h{told.hexdigest()[:6]}"  # the page may show another head too
        has_pictures = bool(study.pictures.numel())
        self._samples = {
            one.number: (i if has_pictures else None, one) for i, one in enumerate(study.samples)
        }
        self._cards = {card.feature: card for card in study.cards}
        self._anchored: set[int] = set()

    def definitions(self) -> dict[str, Any]:
        """The pictures, the masks of places and the made pictures, to be referred to."""
        height, width = self._study.pictures.shape[2:]
        side = max(height, width)
        pictures = [
            {"id": self._id("s", sample.number), "source": data_uri(self._study.pictures[place], side)}
            for place, sample in self._samples.values()
            if place is not None
        ]
        masks, made = [], []
        for card in self._study.cards:
            for i, place in enumerate(card.places):
                lit = place.clamp_min(0) / place.max().clamp_min(1e-12)
                masks.append({"id": self._id("m", card.feature, i), "source": grey_uri(1 - lit)})
            if card.visual.numel():
                uri = data_uri(card.visual, side)
                made.append({"id": self._id("v", card.feature), "source": uri})
        return {"width": width, "height": height, "pictures": [*pictures, *made], "masks": masks}

    def legend(self) -> str:
        """How to read the pictures of a feature."""
        if not self._cards:
            return ""
        text = " Beside it the images in which it is largest, with their classes: in bold where it is the same class."
        if any(card.lowest for card in self._study.cards):
            text += " Below them, of a feature that speaks against the class, those in which it is lowest."
        if any(len(card.places) for card in self._study.cards):
            text += " The part that the feature comes from is lit; the rest is faded."
        if any(card.visual.numel() for card in self._study.cards):
            text += " The last picture was made to raise the feature."
        return text

    def anchor(self, feature: int) -> str:
        """The id of a feature's place in the page: where it is shown first, "" after that."""
        if feature in self._anchored:
            return ""
        self._anchored.add(feature)
        return self._id("f", feature)

    def strip(self, feature: int, class_: int | None = None) -> list[dict[str, Any]]:
        """The pictures of one feature, beside a class or by itself."""
        card = self._cards.get(feature)
        if card is None:
            return []
        found = [self._top(card, i, class_) for i in range(len(card.samples))]
        if card.visual.numel():
            caption = "made" if card.visual_value is None else f"made, {_sigma(card.visual_value)}"
            label = f"A picture made to raise feature {feature}"
            found.append(self._shown(self._id("v", feature), "", label, caption, False))
        return [picture for picture in found if picture]

    def lowest(self, feature: int, class_: int) -> list[dict[str, Any]]:
        """The pictures in which one feature is lowest, beside a class that it speaks against."""
        card = self._cards.get(feature)
        if card is None:
            return []
        pairs = zip(card.lowest, card.lowest_values, strict=True)
        found = [self._where(feature, row, value, "", class_) for row, value in pairs]
        return [picture for picture in found if picture]

    def mention(self, feature: int) -> dict[str, Any]:
        """A feature by its number: a link if it is shown, and its first picture."""
        card = self._cards.get(feature)
        picture = self._top(card, 0, None) if card and card.samples else None
        return {"name": f"feature {feature}", "target": self._target(feature), "picture": picture}

    def case(self, case: Case) -> dict[str, Any]:
        """One decision: the sample, what spoke for it and against it, and what would turn it."""
        names, sample = self._study.class_names, self._samples[case.sample][1]
        rows: list[dict[str, Any]] = []
        parts = [(self.mention(one.feature), _sigma(one.value), one.share) for one in case.contributions]
        plain = {"target": "", "picture": None}
        parts.append(({"name": "all others", **plain}, "", case.rest))
        parts.append(({"name": "bias", **plain}, "", case.bias))
        largest = max(abs(share) for _, _, share in parts) or 1.0
        for feature, value, share in parts:
            role = "minus" if share < 0 else "plus"
            rows.append(
                {"feature": feature, "value": value, "share": f"{abs(share) / largest:.4f}", "role": role}
                | {"text": signed(share)}
            )
        return {
            "picture": self._plain(sample),
            "name": sample.name,
            "right": case.right,
            "label": names[case.label],
            "predicted": names[case.predicted],
            "against": names[case.against],
            "margin": number(case.margin),
            "rows": rows,
            "turn": self._turn(case),
        }

    def _turn(self, case: Case) -> list[dict[str, str]]:
        """What would turn a decision, in pieces of text, some of which are links."""
        if case.right:
            if case.flip is None:
                return [_piece("No removal of features turns this decision.")]
            after = self._study.class_names[case.flip.after]
            features = self._listed(case.flip.features, "and")
            return [_piece("Without "), *features, _piece(f", it would be taken for {after}.")]
        if case.repairs:
            end = " alone repairs it, the first most clearly." if case.repairs[1:] else " repairs it."
            return [_piece("Removing "), *self._listed(case.repairs, "or"), _piece(end)]
        if case.flip is None:
            return [_piece("No single feature repairs it, and no set of features was found that does.")]
        end = " together does." if case.flip.smallest else " together does; fewer may do."
        start = _piece("No single feature repairs it. Removing ")
        return [start, *self._listed(case.flip.features, "and"), _piece(end)]

    def _listed(self, features: tuple[int, ...], last: str) -> list[dict[str, str]]:
        """``feature 5`` or ``features 5, 2 and 7``; with "or", which means one of them, ``feature 5, 2 or 7``."""
        several = last == "and" and len(features) > 1
        more = len(features) - NAMED
        pieces = []
        for i, feature in enumerate(features[:NAMED]):
            between = f" {last} " if i == len(features) - 1 else ", "
            pieces.append(_piece(between if i else ("features " if several else "feature ")))
            pieces.append(_piece(str(feature), self._target(feature)))
        if more > 0:
            pieces.append(_piece(f" and {more} more" if last == "and" else f" or one of {more} more"))
        return pieces

    def _target(self, feature: int) -> str:
        """Where a feature is shown in the page, "" if it isn't."""
        return self._id("f", feature) if feature in self._anchored else ""

    def _top(self, card: FeatureCard, i: int, class_: int | None) -> dict[str, Any] | None:
        mask = self._id("m", card.feature, i) if i < len(card.places) else ""
        return self._where(card.feature, card.samples[i], card.values[i], mask, class_)

    def _where(
        self, feature: int, row: int, value: float, mask: str, class_: int | None
    ) -> dict[str, Any] | None:
        """A sample with what a feature is in it."""
        place, sample = self._samples[row]
        if place is None:
            return None
        name = self._study.class_names[sample.label]
        label = f"{sample.name}, {name}: feature {feature} is {_sigma(value)}"
        return self._shown(self._id("s", sample.number), mask, label, name, sample.label == class_)

    def _plain(self, sample: Sample) -> dict[str, Any] | None:
        if self._samples[sample.number][0] is None:
            return None
        return self._shown(self._id("s", sample.number), "", sample.name, "", False)

    def _shown(self, target: str, mask: str, label: str, caption: str, own: bool) -> dict[str, Any]:
        height, width = self._study.pictures.shape[2:]
        return {
            "target": target,
            "mask": mask,
            "label": label,
            "caption": caption,
            "own": own,
            "width": width,
            "height": height,
        }

    def _id(self, kind: str, *numbers: int) -> str:
        return "-".join((self._prefix, kind, *map(str, numbers)))


def _piece(text: str, target: str = "") -> dict[str, str]:
    return {"text": text, "target": target}


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign."""
    return ("−" if value < 0 else "+") + number(abs(value), digits)


def _sigma(value: float) -> str:
    return f"{signed(value, 2)} σ"
