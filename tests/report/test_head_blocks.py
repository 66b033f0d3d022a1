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
from pyinterp.heads.reading import Flip
from pyinterp.report import write_report


def page(folder: Path, found: Any) -> str:
    text = write_report(found, folder / "report.html").read_text("utf-8")
    return text.replace("&#39;", "'").replace("\u202f", " ")


def section(text: str, anchor: str) -> str:
    return text.partition(f'<section id="{anchor}"')[2].partition("</section>")[0]


def plain(text: str) -> str:
    """Without tags."""
    return re.sub(r"<[^>]*>", "", text)


def test_the_answer_is_told_in_numbers(tmp_path: Path) -> None:
    text = page(tmp_path, a_study())
    assert (
        "<title>1.7 features per class tell 3 classes apart in tiny: 90 % right on 10 held-out samples</title>"
        in text
    )
    answer = section(text, "answer")
    assert (
        "reads 1.67 features per class, 3 of the 9 that tiny has, gives 90 % of 10 held-out samples" in answer
    )
    assert "<dt>Accuracy on 10 held-out samples</dt><dd>90 %<small>95 %: 60 % to 98 %" in answer
    assert "92 %<small>the network's own layer, 9 features per class, on the same samples" in answer
    assert "1<small>of 1 error: right when one feature is taken away" in answer
    assert "No held-out sample of: dog." in answer and answer.count('class="note warn"') == 1
    assert NASTY not in text
    answer = section(page(tmp_path, a_study(judged=1, held_out=False)), "answer")
    assert "<dt>Accuracy on 1 sample</dt>" in answer and "No sample of: dog." in answer


def test_few_samples_are_no_praise(tmp_path: Path) -> None:
    for accuracy, words in ((0.92, "As good as the dense layer."), (0.9, "No worse than the dense layer.")):
        assert words in page(tmp_path, a_study(judged=30, dense_accuracy=accuracy))
        assert words not in page(tmp_path, a_study(judged=29, dense_accuracy=accuracy))


def test_without_the_networks_own_classes_the_densest_head_is_compared(tmp_path: Path) -> None:
    other = {"dense_accuracy": None, "dense_top": ()}
    words = "80 %<small>the path's densest head, 2.5 features per class, on the same samples"
    assert words in page(tmp_path, a_study(**other)) and words not in page(tmp_path, a_study())
    assert "densest" not in page(tmp_path, a_study(**other, curve=None))
    weights = torch.ones(3, 3)  # this head is the densest
    assert "densest" not in page(tmp_path, a_study(**other, weights=weights))


def test_a_head_without_features_is_told_as_such(tmp_path: Path) -> None:
    wrong, near = a_study().cases
    empty = a_study(
        used=torch.zeros(0).long(),
        weights=torch.zeros(3, 0),
        typical=torch.zeros(3, 0),
        bias=torch.tensor([0.5, 0.0, 1.0]),
        cards=(),
        cases=(
            replace(wrong, contributions=(), flip=None, repairs=()),
            replace(near, contributions=(), flip=None),
        ),
        shared=(),
        shared_count=0,
        repairs=(),
        repairable=0,
    )
    text = page(tmp_path, empty)
    assert "<title>A head of tiny that uses no feature: 90 % right on 10 held-out samples</title>" in text
    answer = section(text, "answer")
    assert (
        "This head uses no feature." in answer and "It always answers dog, as a rule the commonest" in answer
    )
    assert "Some classes use no feature." not in answer
    assert '<section id="classes"' not in text and "No single feature repairs it" in text
    assert "uses no feature" not in page(tmp_path, a_study())


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
    assert words in text and text.count('class="note warn"') == 2


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
    assert "speaks against cup where it is large, for it where it is low" in second and "against" not in first
    lowest = second.partition("Lowest in")[2]
    assert lowest.count("<li>") == 1 and "four.png, dog: feature 5 is −2.5 σ" in lowest
    assert "Lowest in" not in first + nasty
    assert "--share:0.5000" in first and "--share:0.2500" in second
    # Its own images are told from others.
    assert first.partition("</ul>")[0].count("<li") == 2 and first.count('class="own"') == 1
    assert "1 feature<" in dog and "right" not in dog  # none of its samples was judged
    assert nasty.index("Feature 5") < nasty.index("Feature 7")


def test_a_class_without_features_is_explained(tmp_path: Path) -> None:
    weights = a_study().weights.clone()
    weights[1] = 0
    told = section(page(tmp_path, a_study(weights=weights)), "classes")
    assert told.count("No feature: it is what is left") == 1
    assert "No feature: it is what is left" not in page(tmp_path, a_study())


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
    assert "in bold where it is the same class" in text and "those in which it is lowest" not in text
    assert "those in which it is lowest" in page(tmp_path, a_study())
    # Grey hides neither white strokes nor black ones, on a light page and on a dark one.
    assert ".thumb .veil { fill: #808080; opacity: .55;" in text


def test_errors_come_with_what_repairs_them(tmp_path: Path) -> None:
    text = page(tmp_path, a_study())
    part = section(text, "decisions")
    assert "Errors, and what would repair them" in part and "<p>1 error, the surest first" in part
    wrong, near = part.split('<div class="case">')[1:]
    assert "<strong>cup</strong>, taken for" in wrong and "by 1.3" in wrong
    assert "Removing feature 5 or 2 alone repairs it, the first most clearly." in plain(wrong)
    assert len(re.findall(r'<p class="mark">Removing feature <a href="#h\w+-f-5">5</a>', wrong)) == 1
    bars = re.findall(r'class="(plus|minus)" style="--share:([\d.]+)"', wrong)
    assert bars == [("plus", "1.0000"), ("minus", "0.1667"), ("plus", "0.0200"), ("plus", "0.0133")]
    assert "+2 σ" in wrong and "−0.25" in wrong
    assert "<strong>dog</strong>, rather than" in near
    assert "Without features 2, 5, 7 and 8, it would be taken for" in plain(near)
    hidden = section(page(tmp_path, a_study(errors=4, repairable=3)), "decisions")
    assert "1 of 4 errors, the surest first" in hidden
    assert "Of the 3 that are not shown, 2 would be repaired like that." in hidden


def test_the_words_for_what_turns_a_decision(tmp_path: Path) -> None:
    wrong, near = a_study().cases

    def said(*cases: Any) -> str:
        return plain(section(page(tmp_path, a_study(cases=cases)), "decisions"))

    assert "Removing feature 5 repairs it." in said(replace(wrong, repairs=(5,)))
    assert "Removing feature 5, 2 or 7 alone repairs it, the first most" in said(
        replace(wrong, repairs=(5, 2, 7))
    )
    many = said(replace(wrong, repairs=(5, 2, 7, 1, 3, 4, 6)))
    assert "Removing feature 5, 2, 7, 1, 3 or one of 2 more alone repairs it" in many
    pair = replace(wrong, repairs=(), flip=Flip((5, 2), 1, 0, 0))
    assert "No single feature repairs it. Removing features 5 and 2 together does." in said(pair)
    large = replace(wrong, repairs=(), flip=Flip((5, 2, 7, 1, 3, 4), 1, 0, 0, smallest=False))
    assert "Removing features 5, 2, 7, 1, 3 and 1 more together does; fewer may do." in said(large)
    none = "No single feature repairs it, and no set of features was found that does."
    assert none in said(replace(wrong, repairs=(), flip=None))
    assert "No removal of features turns this decision." in said(replace(near, flip=None))
    assert "Without feature 2, it would be taken for" in said(replace(near, flip=Flip((2,), 2, 1, 1)))


def test_features_that_no_class_shows_have_cards_to_link_to(tmp_path: Path) -> None:
    assert '<section id="others"' not in page(tmp_path, a_study())
    wrong, near = a_study().cases
    found = a_study(
        carded=(0,),
        cases=(replace(wrong, repairs=(7,)), near),
        cards=(*a_study().cards[:2], a_card(7, (6, 0))),
    )
    text = page(tmp_path, found)
    part = section(text, "others")
    assert "Other features that decide errors" in part
    assert part.count('<div class="feature">') == 1 and "Feature 7" in part and "+0.125</strong>" in part
    assert "used by: " in part and "(+0.12)" in part and part.count('<use href="#') == 2
    target = re.findall(r'<li id="(h\w+-f-7)"', part)
    assert len(target) == 1 and f'Removing feature <a href="#{target[0]}">7</a> repairs it.' in text


def test_without_errors_the_closest_decisions_stand_alone(tmp_path: Path) -> None:
    near = a_study().cases[1]
    text = page(tmp_path, a_study(cases=(near,), errors=0, repairs=(), repairable=0, accuracy=1.0))
    part = section(text, "decisions")
    assert "The closest decisions" in part and "No error among 10 held-out samples." in part
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
