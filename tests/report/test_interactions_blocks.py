"""The sections of interactions: every number of the result is told, and every threshold that is missed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from report_samples import CLASSES, NASTY, a_chain, an_interactions

from pyinterp.interactions import Interactions
from pyinterp.report import write_report


def page(folder: Path, found: Any, **options: Any) -> str:
    text = write_report(found, folder / "report.html", **options).read_text("utf-8")
    return text.replace("&#39;", "'").replace("\u202f", " ")


def test_the_answer_is_told_in_numbers(tmp_path: Path) -> None:
    text = page(tmp_path, an_interactions())
    assert "<title>4 interactions of 4 parts: how tiny scores “espresso”</title>" in text
    assert "4 of 30 interactions are salient, at least 5 % of the strongest" in text
    assert "masked in all 16 ways" in text
    assert "log-odds of “espresso”" in text
    assert "3.5<small>with everything visible; -2 with nothing" in text
    assert "Every salient interaction is larger than the numerical noise" in text


def test_the_strongest_are_drawn_on_the_image(tmp_path: Path) -> None:
    text = page(tmp_path, an_interactions())
    assert text.count('<svg class="parts"') == 1 + 4
    cards = text.partition('<ul class="effects">')[2].partition("</ul>")[0].split("<li")[1:]
    first, second, third, last = cards
    assert "AND</span><strong>+4" in first and "parts 1, 2" in first
    assert "OR</span><strong>+2" in second and "parts 1, 3" in second
    assert "AND</span><strong>−1" in third and "part 4" in third
    assert "+0.5" in last and "upper left; upper right" in last
    # Lit is what is not veiled: the upper half.
    assert 'class="veil" d="M0 32L48 32L48 64L0 64L0 32Z"' in first
    assert NASTY not in text


def test_without_an_image_names_stand_for_pictures(tmp_path: Path) -> None:
    text = page(tmp_path, an_interactions(pixels=None, player_map=None))
    assert '<svg class="parts"' not in text
    assert "upper left; upper right" in text
    assert "The parts of each are lit" not in text


def test_parts_that_do_not_play_are_told(tmp_path: Path) -> None:
    found = an_interactions()
    assert found.player_map is not None
    laid = found.player_map.clone()
    laid[:, :12] = -1
    assert "25 % of the input is no part and is always visible" in page(
        tmp_path, an_interactions(player_map=laid)
    )
    laid[:, :12] = -2
    dropped = an_interactions(player_map=laid, masking="drop")
    text = page(tmp_path, dropped)
    assert "is always masked" in text and "What is masked is removed." in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"converged": False, "gap": 0.25}, "The solver has not converged.</strong> A split with a sum"),
        ({"converged": False, "gap": math.nan}, "No certificate."),
        ({"gap": 0.02}, "Not the sparsest split.</strong> A split with a sum of strengths up to 2 %"),
        ({"sigma": None}, "No error bars."),
        ({"sigma": 0.2}, "Some are noise.</strong> 1 of the 4 salient"),
        ({"values": torch.randn(16) * 9}, "These few are not enough."),
        ({"draws": torch.randn(5, 2, 16)}, "Some have no sure sign."),
    ],
)
def test_a_threshold_that_is_missed_is_a_warning(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    torch.manual_seed(0)
    plain = page(tmp_path, an_interactions())
    assert words not in plain and 'class="note warn"' not in plain
    text = page(tmp_path, an_interactions(**changes))
    assert words in text and 'class="note warn"' in text


def test_effects_below_the_floor_are_marked(tmp_path: Path) -> None:
    text = page(tmp_path, an_interactions(sigma=0.2))
    assert text.count("below the noise floor") == 1
    assert text.count('<li class="weak">') == 1


def test_intervals_stand_beside_their_effects(tmp_path: Path) -> None:
    found = an_interactions()
    draws = torch.stack([found.and_, found.or_]) * torch.tensor([0.9, 1.0, 1.1]).view(3, 1, 1)
    text = page(tmp_path, an_interactions(draws=draws, input_noise=0.02))
    assert "95 %: +3.01 to +4.99" in text.replace("&#8239;", " ")
    assert "3, standard deviation 0.02" in text


def test_the_charts_show_what_was_measured(tmp_path: Path) -> None:
    text = page(tmp_path, an_interactions())
    for words in (
        "What is left to explain",
        "Strengths, the largest first",
        "Strength by order",
        "Score by how much is visible",
        "noise floor, order 1",
        "noise floor, order 4",
        "AND 2: 4",
        "OR 2: 2",
    ):
        assert words in text
    assert "noise floor, order 1" not in page(tmp_path, an_interactions(sigma=None))


def test_the_settings_name_what_was_played(tmp_path: Path) -> None:
    text = page(tmp_path, an_interactions()).partition("Settings and provenance</h2>")[2]
    for words in ("tiny", "1 espresso, coffee", "log-odds", "zero", "replace", "0123abcd", "2.5 s", "0.02 %"):
        assert words in text


def test_a_constant_game_has_a_page_too(tmp_path: Path) -> None:
    none, constant = torch.zeros(4), torch.tensor([1.0, 0, 0, 0])
    found = Interactions(
        values=torch.ones(4), and_=constant, or_=none, player_names=("a", "b"), sigma=0.0, model_name="m"
    )
    text = page(tmp_path, found)
    assert "Nothing to explain." in text
    assert "The strongest interactions" not in text


def test_a_class_without_a_name_takes_that_of_the_page(tmp_path: Path) -> None:
    found = an_interactions(class_name="")
    assert "scores “espresso”" in page(tmp_path, found, classes=CLASSES)
    assert "scores “class 1”" in page(tmp_path, found)
    assert "scores “the score”" not in page(tmp_path, an_interactions(class_name="", target=None))


def test_a_chain_and_interactions_share_a_page(tmp_path: Path) -> None:
    text = page(tmp_path, [a_chain(), an_interactions(), an_interactions()])
    for anchor in ("answer", "answer-2", "answer-3", "players", "players-2", "effects-2"):
        assert f'<section id="{anchor}"' in text
