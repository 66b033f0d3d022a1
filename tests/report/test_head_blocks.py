"""The sections of a sparse head: every number of the study is told, and a picture is in the page once."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_samples import NASTY, a_card, a_study

from pyinterp.heads.head_study import TopAccuracy
from pyinterp.report import write_report


def page(folder: Path, found: Any) -> str:
    text = write_report(found, folder / "report.html").read_text("utf-8")
    return text.replace("&#39;", "'").replace("\u202f", " ")


def section(text: str, anchor: str) -> str:
    return text.partition(f'<section id="{anchor}"')[2].partition("</section>")[0]


def test_the_answer_is_told_in_numbers(tmp_path: Path) -> None:
    text = page(tmp_path, a_study())
    assert (
        "<title>1.7 features per class tell 3 classes apart in tiny, on 90 % of the samples</title>" in text
    )
    answer = section(text, "answer")
    assert "reads 1.67 features per class, 3 of the 9 that tiny has, gives 90 % of 10 samples" in answer
    assert "on 10 held-out samples; 95 %: 60 % to 98 %" in answer
    assert "92 %<small>the network's own layer, 9 features per class" in answer
    assert "1<small>of 1 errors become right when one feature is taken away" in answer
    assert "As good as the dense layer." in answer and 'class="note warn"' not in answer
    assert NASTY not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"held_out": False}, "Nothing was held out."),
        ({"origin": {"converged": False, "kkt": 0.25}}, "misses its optimum by a KKT violation of 0.25"),
        ({"dense_accuracy": 0.98}, "8 points are lost."),
        ({"weights": torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]])}, "They are what is left: dog."),
    ],
)
def test_what_is_not_well_is_a_warning(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words not in page(tmp_path, a_study())
    text = page(tmp_path, a_study(**changes))
    assert words in text and 'class="note warn"' in text


def test_the_path_shows_the_head_and_what_is_not_optimal(tmp_path: Path) -> None:
    part = section(page(tmp_path, a_study()), "path")
    assert "4 heads were fitted, with 0 to 2.5 features per class" in part
    assert "1 of them, ringed, are not optimal yet" in part
    assert "right on 90 % of the held-out samples; 1.67 features per class come within one point" in part
    assert part.count('class="ring"') == 1 and part.count('class="point"') == 1
    assert "this head" in part and "dense: these alone" in part
    # The chosen dot lies on the line of the held-out samples: at the place of its third point.
    line = re.search(r'<polyline class="line main" points="([^"]*)"', part)
    dot = re.search(r'<circle class="point" cx="([\d.]+)" cy="([\d.]+)"', part)
    assert line and dot and line[1].split()[2] == f"{dot[1]},{dot[2]}"
    curve = a_study().curve
    assert curve is not None
    good = replace(curve, converged=torch.ones(4, dtype=torch.bool), point=None)
    part = section(page(tmp_path, a_study(curve=good, dense_top=())), "path")
    assert "ringed" not in part and 'class="ring"' not in part and 'class="point"' not in part
    assert "dense" not in part
    assert "Accuracy along the path" not in page(tmp_path, a_study(curve=None))


def drawn(part: str) -> dict[str, list[tuple[float, float]]]:
    """The lines of a section by their role, point by point."""
    return {
        role: [(float(x), float(y)) for x, y in (point.split(",") for point in points.split())]
        for role, points in re.findall(r'<polyline class="line (\w+)" points="([^"]*)"', part)
    }


def test_the_path_runs_from_the_empty_head_to_the_right(tmp_path: Path) -> None:
    curve = a_study().curve
    assert curve is not None
    back = replace(curve, features_per_class=torch.tensor([0.0, 2.0, 5 / 3, 2.5]).double())
    part = section(page(tmp_path, a_study(curve=back, dense_top=())), "path").partition("</figure>")[0]
    for line in (drawn(part)["main"], drawn(part)["faint"]):
        assert len(line) == 4 and [x for x, _ in line] == sorted(x for x, _ in line)
        assert line[0][0] == 52  # the empty head stands at the axis
    # From 0 to 100 %, whatever is reached.
    (x, y), height = drawn(part)["main"][1], 250 - 40 - 32
    assert y == pytest.approx(250 - 40 - 0.9 * height, abs=0.1)
    assert f'cx="{x}" cy="{y}"' in part and ">100</text>" in part


def test_contributions_end_where_the_classes_features_end(tmp_path: Path) -> None:
    top = tuple(TopAccuracy(count, count / 10, 0.5) for count in (1, 2, 5))
    dense = tuple(TopAccuracy(count, count / 20, 0.5) for count in (1, 2, 5))
    weights = torch.tensor([[0.5, -0.25, 1.0], [0.0, 1.0, 0.125], [0.0, 0.5, 0.0]])
    text = section(page(tmp_path, a_study(curve=None, weights=weights, top=top, dense_top=dense)), "path")
    lines = drawn(text)
    # Of three features the five largest are all three; the dense layer has more.
    assert len(lines["main"]) == 3 and len(lines["faint"]) == 2
    assert lines["main"][-1][0] == 440 - 14 and ">5</text>" not in text
    assert "those that only its rivals use stay" in text


def test_each_class_has_a_card_with_its_features(tmp_path: Path) -> None:
    part = section(page(tmp_path, a_study()), "classes")
    cup, nasty, dog = part.split('<details class="class"')[1:]
    assert "2 features · 75 % of 4 samples right" in cup
    first, second = cup.split('<div class="feature">')[1:]
    assert "Feature 2" in first and "+0.5</strong>" in first and "+1.5 σ in the mean of this class" in first
    assert "Feature 5" in second and 'class="minus">−0.25' in second
    assert "also: " in second and "dog (+0.5)" in second and "also:" not in first
    assert "--share:0.5000" in first and "--share:0.2500" in second
    # Its own images are told from others.
    assert first.partition("</ul>")[0].count("<li") == 2 and first.count('class="own"') == 1
    assert "1 feature<" in dog and "right" not in dog  # none of its samples was judged
    assert nasty.index("Feature 5") < nasty.index("Feature 7")


def test_a_head_without_features_has_a_page(tmp_path: Path) -> None:
    nothing = {"weights": torch.zeros(3, 0), "typical": torch.zeros(3, 0), "used": torch.zeros(0).long()}
    found = a_study(**nothing, cards=(), cases=(), repairs=(), shared=())
    assert section(page(tmp_path, found), "classes").count("No feature: it is what is left") == 3


def test_a_picture_is_in_the_page_once(tmp_path: Path) -> None:
    text = page(tmp_path, a_study())
    assert text.count("data:image/jpeg") == 4
    wanted = set(re.findall(r'<use href="#([^"]+)"', text)) | set(re.findall(r'<a href="#(h[^"]+)"', text))
    ids = re.findall(r' id="([^"]+)"', text)
    assert wanted <= set(ids) and len(ids) == len(set(ids))
    assert text.count('<use href="#') > 4
    source = text.partition("data:image/jpeg;base64,")[2].partition('"')[0]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))).astype(int)
    assert picture.shape == (24, 16, 3)
    assert abs(picture.mean() - a_study().pictures[0].float().mean()) < 6


def test_places_are_lit_and_made_pictures_stand_last(tmp_path: Path) -> None:
    places = torch.tensor([[[1.0, -3.0], [0.5, 0.0]]])
    made = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    card = a_card(2, (0, 4), places=places, visual=made, visual_value=7.5)
    text = page(tmp_path, a_study(cards=(card, a_card(5, (8, 6)), a_card(7))))
    source = text.partition("data:image/png;base64,")[2].partition('"')[0]
    veil = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
    assert veil.tolist() == [[0, 255], [128, 255]]  # where the feature comes from nothing is veiled
    strip = section(text, "classes").partition('<ul class="strip">')[2].partition("</ul>")[0].split("<li")[1:]
    assert ["veil" in one for one in strip] == [True, False, False]
    assert "made, +7.5 σ" in strip[2]
    assert "is lit; the rest is faded" in text and "was made to raise the feature" in text
    assert "is lit" not in page(tmp_path, a_study())
    # Grey hides neither white strokes nor black ones, on a light page and on a dark one.
    assert ".thumb .veil { fill: #808080; opacity: .55;" in text


def test_errors_come_with_what_repairs_them(tmp_path: Path) -> None:
    text = page(tmp_path, a_study())
    part = section(text, "decisions")
    assert "Errors, and what would repair them" in part and "1 of 1 errors" in part
    wrong, near = part.split('<div class="case">')[1:]
    assert "<strong>cup</strong>, taken for" in wrong and "by 1.3" in wrong
    assert "Removing feature 5 repairs it. Or removing feature 2." in wrong
    bars = re.findall(r'class="(plus|minus)" style="--share:([\d.]+)"', wrong)
    assert bars == [("plus", "1.0000"), ("minus", "0.1667"), ("plus", "0.0200"), ("plus", "0.0133")]
    assert "+2 σ" in wrong and "−0.25" in wrong
    assert "<strong>dog</strong>, rather than" in near
    assert "Without features 2, 5, 7 and 1 more, it would be taken for" in near


def test_the_words_for_what_turns_a_decision(tmp_path: Path) -> None:
    wrong, near = a_study().cases

    def said(*cases: Any) -> str:
        return section(page(tmp_path, a_study(cases=cases)), "decisions")

    assert "Or removing one of 2, 7." in said(replace(wrong, repairs=(5, 2, 7)))
    assert "Without feature 5, it would be taken for cup." in said(replace(wrong, repairs=()))
    assert "No single feature repairs it." in said(replace(wrong, repairs=()))
    assert "No removal of features makes it cup." in said(replace(wrong, repairs=(), flip=None))
    assert "No removal of features turns this decision." in said(replace(near, flip=None))


def test_without_errors_the_closest_decisions_stand_alone(tmp_path: Path) -> None:
    near = a_study().cases[1]
    text = page(tmp_path, a_study(cases=(near,), errors=0, repairs=(), repairable=0, accuracy=1.0))
    part = section(text, "decisions")
    assert "The closest decisions" in part and "No error among the 10 samples." in part
    assert 'class="differs"' not in part and "Repaired" not in text


def test_tables_of_repairs_and_shared_features(tmp_path: Path) -> None:
    part = section(page(tmp_path, a_study()), "features")
    assert "<td>cup</td>" in part and "<td>1 of 1</td>" in part
    assert "<td>dog (+0.5)</td>" in part and "2 weaker pairs are not shown." in part
    assert '<section id="features"' not in page(tmp_path, a_study(shared=(), repairs=()))


def test_without_images_names_stand_for_pictures(tmp_path: Path) -> None:
    text = page(tmp_path, a_study(pictures=torch.zeros(0, 3, 0, 0, dtype=torch.uint8), cards=()))
    assert "<use" not in text and "data:image" not in text
    assert "eight.png" in text and "Feature 5" in text
    assert "images in which it is largest" not in text


def test_many_classes_fold_and_many_features_are_listed(tmp_path: Path) -> None:
    classes, width = 9, 50
    weights = torch.ones(classes, width) - torch.arange(width) / 100
    found = a_study(
        weights=weights,
        typical=0 * weights,
        used=torch.arange(width),
        width=width,
        class_names=tuple(f"k{i}" for i in range(classes)),
        class_accuracy=torch.ones(classes),
        class_samples=torch.ones(classes).long(),
        carded=tuple(range(8)),
        cards=(),
        cases=(),
        repairs=(),
        shared=(),
    )
    part = section(page(tmp_path, found), "classes")
    assert part.count("<details") == 8 and part.count(" open>") == 6
    assert "1 more are not" in part
    assert "and 44 weaker: 6 (+0.94)" in part and ", ...</p>" in part
    assert "also: k1 (+1), k2 (+1), k3 (+1), ..." in part


def test_the_settings_name_what_was_fitted(tmp_path: Path) -> None:
    text = section(page(tmp_path, a_study()), "settings")
    for words in ("tiny", "what fc reads", "0.25", "0.99", "1.0e-05", "0123abcd", "40", "no"):
        assert f">{words}<" in text
    edited = {"edits": [[1, 2, 0.0]], "removed": [4, 6], "refitted": {"ridge": 1}}
    text = section(page(tmp_path, a_study(origin=edited)), "settings")
    for words in ("4, 6", "features removed by hand", "weights edited by hand", "refitted"):
        assert words in text


def test_two_heads_share_a_page(tmp_path: Path) -> None:
    other = a_study(pictures=255 - a_study().pictures)
    text = page(tmp_path, [a_study(), other])
    assert '<section id="classes-2"' in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
