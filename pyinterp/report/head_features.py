"""Cards of a HeadStudy: the features of each class, and those that matter elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyinterp.report.head_cards import Gallery, signed
from pyinterp.report.plots import percent

if TYPE_CHECKING:
    from pyinterp.heads.head_study import HeadStudy

OPEN = 6  # classes whose cards are unfolded
STRONG = 6  # features of a class in pictures; the others are listed
WEAK = 30


def class_cards(study: HeadStudy, gallery: Gallery) -> dict[str, Any]:
    """The classes, each with its strongest features; these are where a feature is linked to."""
    text = "The strongest first. A weight is per standard deviation of its feature: it adds to the class's score where "
    text += "the feature is above its average." + gallery.legend()
    left = len(study.weights) - len(study.carded)
    if left:
        text += f" Shown are the {len(study.carded)} classes with the lowest accuracy; {left} more are not."
    largest = _largest(study)
    cards = [_class(study, gallery, k, largest, i < OPEN) for i, k in enumerate(study.carded)]
    return {"text": text, "classes": cards}


def other_cards(study: HeadStudy, gallery: Gallery) -> dict[str, Any]:
    """The features with pictures that no class has shown."""
    text = "They are not among the strongest features of a class above, but among those of a decision, or two classes "
    text += "share them. Beside each the largest of its weights, and the classes that use it."
    largest = _largest(study)
    features = []
    for card in study.cards:
        anchor = gallery.anchor(card.feature)
        if anchor:
            column = study.weights[:, study.used == card.feature][:, 0]
            weight = float(column[column.abs().argmax()])
            features.append(
                {
                    **_weight(weight, largest),
                    "name": f"Feature {card.feature}",
                    "anchor": anchor,
                    "told": [f"used by: {_users(study, card.feature)}"],
                    "strip": gallery.strip(card.feature),
                    "lowest": [],
                }
            )
    return {"text": text, "features": features}


def _largest(study: HeadStudy) -> float:
    """The |weight| that fills a bar."""
    return float(study.weights.abs().max()) if len(study.used) else 1.0


def _weight(weight: float, largest: float) -> dict[str, str]:
    role = "minus" if weight < 0 else "plus"
    return {"weight": signed(weight), "role": role, "share": f"{abs(weight) / largest:.4f}"}


def _class(study: HeadStudy, gallery: Gallery, class_: int, largest: float, is_open: bool) -> dict[str, Any]:
    features = study.features_of(class_)
    strong, weak = features[:STRONG], features[STRONG:]
    listed = ", ".join(f"{feature} ({signed(weight)})" for feature, weight, _ in weak[:WEAK])
    count, accuracy = int(study.class_samples[class_]), float(study.class_accuracy[class_])
    told = f"{len(features)} {'feature' if len(features) == 1 else 'features'}"
    if count:
        told += f" · {percent(accuracy)} of {count:,} {'sample' if count == 1 else 'samples'} right"
    return {
        "name": study.class_names[class_],
        "told": told,
        "open": is_open,
        "features": [
            {
                "name": f"Feature {feature}",
                "anchor": gallery.anchor(feature),
                **_weight(weight, largest),
                "told": _told(study, feature, class_, weight, typical),
                "strip": gallery.strip(feature, class_),
                "lowest": gallery.lowest(feature, class_) if weight < 0 else [],
            }
            for feature, weight, typical in strong
        ],
        "weak": f"and {len(weak)} weaker: {listed}{', ...' if len(weak) > WEAK else ''}" if weak else "",
    }


def _told(study: HeadStudy, feature: int, class_: int, weight: float, typical: float) -> list[str]:
    """What stands under a feature of a class."""
    lines = [f"{signed(typical, 2)} σ in the mean of this class"]
    if weight < 0:
        lines.insert(
            0, f"speaks against {study.class_names[class_]} where it is large, for it where it is low"
        )
    others = _users(study, feature, class_)
    return [*lines, f"also: {others}"] if others else lines


def _users(study: HeadStudy, feature: int, but: int | None = None) -> str:
    """The classes that use a feature, with their weights, the largest first."""
    column = study.weights[:, study.used == feature][:, 0]
    order = column.abs().argsort(descending=True, stable=True).tolist()
    users = [k for k in order if k != but and float(column[k]) != 0]
    named = ", ".join(f"{study.class_names[k]} ({signed(float(column[k]), 2)})" for k in users[:3])
    return named + (", ..." if len(users) > 3 else "")
