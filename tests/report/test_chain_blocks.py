"""What the report says about a chain, in words and numbers."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from report_samples import CLASSES, a_chain, an_image_set

from pyinterp.chains.chain import Prediction
from pyinterp.report import write_report


def said(tmp_path: Path, **changes: Any) -> str:
    """The page's text without its tags, scripts and styles, blanks made one."""
    path = write_report(a_chain(**changes), tmp_path / "r.html", images=an_image_set(), classes=CLASSES)
    page = re.sub(r"(?s)<(script|style).*?</\1>", " ", path.read_text("utf-8"))
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).replace("\u202f", " ").split())


def test_the_answer_is_told_with_its_numbers(tmp_path: Path) -> None:
    text = said(tmp_path)
    assert "16 % of tiny gives the same answer on 1 of 2 images" in text
    assert (
        "5 of the 32 filters and neurons of tiny, as exact copies, give the full network's top class on 1 of 2"
        in text
    )
    assert "mean KL divergence of 0.07." in text
    assert "On fresh images 25 % same answer; mean KL 0.4" in text
    assert "As a network 10 % of the parameters; 2.5 times as fast" in text


def test_the_default_network_is_called_by_its_own_name(tmp_path: Path) -> None:
    text = said(tmp_path, model_name="default")
    assert "16 % of EfficientNet-Lite0 gives" in text
    assert "model default" in text


def test_a_missed_target_is_told_and_a_met_one_too(tmp_path: Path) -> None:
    missed = said(tmp_path)
    assert missed.count("The target was not met") == 1
    assert "The target is met" not in missed
    met = said(tmp_path, bound_met=True, message="", predictions=(Prediction(0, 0.9, 0, 0.8),) * 2)
    assert "The target is met. Mean KL 0.07, at most 0.1 was asked" in met
    share = said(tmp_path, bound_met=True, message="", settings={"target_keep": 0.2})
    assert "15.6 % is kept, at most 20 % was asked" in share
    free = said(tmp_path, bound_met=None, message="", settings={})
    assert "target" not in free


def test_an_interrupted_run_is_told(tmp_path: Path) -> None:
    text = said(
        tmp_path, interrupted=True, bound_met=True, message="The search was interrupted.", baselines={}
    )
    assert "The search was interrupted." in text
    assert "The target is met" not in text
    assert "No other sub-network was measured" in text


def test_both_modes_are_told_apart(tmp_path: Path) -> None:
    exact, scaled = said(tmp_path), said(tmp_path, mode="scaled")
    assert "exact copies" in exact
    assert "scaled by its score" not in exact
    assert "each scaled by its score" in scaled
    assert "exact copies" not in scaled


def test_images_show_both_answers(tmp_path: Path) -> None:
    text = said(tmp_path)
    assert "Full a </script><b> cat 90 % Chain a </script><b> cat 80 % ✓ same answer" in text
    assert "Full espresso 60 % Chain a </script><b> cat 55 % ✗ another answer" in text


def test_many_images_are_capped_with_the_differing_ones_first(tmp_path: Path) -> None:
    same, other = Prediction(0, 0.9, 0, 0.8), Prediction(1, 0.6, 0, 0.55)
    text = said(tmp_path, predictions=(*[same] * 60, other))
    assert "24 are shown, those with another answer first" in text
    assert text.count("same answer") - text.count("gives the same answer") <= 26
    assert text.index("✗ another answer") < text.index("✓ same answer")


def test_a_baseline_that_does_as_well_is_told(tmp_path: Path) -> None:
    assert "A simpler choice does as well" not in said(tmp_path)
    beaten = {"random": {"kl": 2.5, "agreement": 0.0}, "taylor": {"kl": 0.07, "agreement": 0.5}}
    text = said(tmp_path, baselines=beaten)
    assert (
        "A simpler choice does as well. At the same size per layer, taylor changes the answers no more"
        in text
    )


def test_fidelity_stands_beside_the_baselines_best_first(tmp_path: Path) -> None:
    text = said(tmp_path)
    table = text[text.index("Sub-network mean KL same top class") :]
    order = ["this chain 0.07 50 %", "this chain, fresh images 0.4 25 %", "taylor 1.2 50 %", "random 2.5 0 %"]
    places = [table.index(row) for row in order]
    assert places == sorted(places)
    assert "The best other choice, taylor, reaches a mean KL of 1.2" in text


def test_every_site_has_its_share_and_skipped_layers_are_named(tmp_path: Path) -> None:
    text = said(tmp_path)
    for row in ("conv1 3 of 8", "block.conv2 none of 8", "block.mlp 2 of 16"):
        assert row in text
    assert "A full bar is 50 % of the site's units. Skipped as a whole: block." in text


def test_settings_and_versions_are_told(tmp_path: Path) -> None:
    text = said(tmp_path)
    for row in (
        "target kl 0.1",
        "seed 0",
        "weights (SHA-256) 0123abcd",
        f"torch {torch.__version__}",
        "3 × 64 × 64",
    ):
        assert row in text


@pytest.mark.parametrize(
    "history", [{}, {"step": [1], "kl": [float("nan")], "kept": [0.0], "seconds": [0.1], "phase": ["a"]}]
)
def test_a_history_without_values_is_no_error(tmp_path: Path, history: dict[str, list[Any]]) -> None:
    said(tmp_path, history=history)


def test_an_empty_chain_is_no_error(tmp_path: Path) -> None:
    nothing = {name: torch.zeros_like(mask) for name, mask in a_chain().kept.items()}
    text = said(tmp_path, kept=nothing, scores={n: m.float() for n, m in nothing.items()}, predictions=())
    assert "0 of the 32" in text
