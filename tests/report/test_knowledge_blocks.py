"""The sections of what layers know: the numbers of the result, its warnings, and pictures that add up."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from report_samples import NASTY, a_knowledge

from pyinterp.knowledge import LayerKnowledge
from pyinterp.report import write_report


def page(folder: Path, found: LayerKnowledge) -> str:
    text = write_report(found, folder / "report.html").read_text("utf-8")
    return text.replace("&#39;", "'").replace("\u202f", " ")


def section(text: str, name: str) -> str:
    return text.partition(f'<section id="{name}"')[2].partition("</section>")[0]


def test_the_answer_and_the_table_tell_the_numbers(tmp_path: Path) -> None:
    text = page(tmp_path, a_knowledge())
    assert "<title>What 3 layers of tiny know of 2 images</title>" in text
    assert (
        "Layer high already has 100 % (100 % to 100 %) of the strength of the interactions of output" in text
    )
    assert "of what it has itself, 33 % (33 % to 33 %) gets lost" in text
    table = section(text, "layers")
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", table)]
    assert cells[:4] == ["40 %", "2", "50 % (50 % to 50 %)", "75 % (75 % to 75 %)"]
    assert cells[-3:] == ["1", "100 % (100 % to 100 %)", "0 % (0 % to 0 %)"]
    assert "on 200 samples that it has not seen; chance would give 25 %" in table
    assert NASTY not in text


def test_bars_are_what_is_kept_forgotten_and_added(tmp_path: Path) -> None:
    """Of order 2 in ``low``: 1.5 shared, 4.5 forgotten, 1.5 to come, in the mean of both images."""
    bars = section(page(tmp_path, a_knowledge()), "change")
    assert bars.count("<figure>") == 2
    told = re.findall(r"<title>([^<]+), 2: ([\d.]+)</title>", bars)
    assert [float(value) for _, value in told[:3]] == [1.5, 4.5, 1.5]
    heights = [float(one) for one in re.findall(r'class="column \w+"[^>]* height="([\d.]+)"', bars)]
    assert max(heights) == heights[4]  # order 2, forgotten
    assert abs(heights[3] / heights[4] - 1 / 3) < 0.01


def test_what_to_doubt_is_told(tmp_path: Path) -> None:
    text = page(tmp_path, a_knowledge())
    assert "Few images." in text and "near chance" not in text
    assert "above the noise floor" in section(text, "settings")
    weak = page(tmp_path, a_knowledge(accuracy=torch.tensor([0.3, 0.75, 0.9], dtype=torch.float64)))
    assert "Probes near chance." in weak
    noisy = page(tmp_path, a_knowledge(sigma=torch.full((2, 3), 0.3, dtype=torch.float64)))
    assert "effects were left out: numerical noise alone could make them" in noisy


def test_two_functions_have_a_page_of_their_own(tmp_path: Path) -> None:
    pair = a_knowledge(
        layers=("full", "chain"),
        effects=a_knowledge().effects[:, 1:],
        values=torch.zeros(2, 2, 8),
        sigma=torch.zeros(2, 2, dtype=torch.float64),
        gap=torch.zeros(2, 2, dtype=torch.float64),
        accuracy=torch.full((2,), torch.nan, dtype=torch.float64),
        of_networks=True,
        model_name="full and chain",
        spread=torch.ones(2, 2, 2, 8, 2),
        draws=3,
        input_noise=0.02,
    )
    text = page(tmp_path, pair)
    assert "<title>Which interactions full and chain share</title>" in text
    assert "full already has 100 %" in text and "Accuracy" not in text
    assert "Steadiness under input noise" in text and "3 draws, deviation 0.02" in text


def test_other_ways_to_compare_have_a_table(tmp_path: Path) -> None:
    """``low`` has two interactions, of which one is the only one of the output."""
    table = section(page(tmp_path, a_knowledge()), "ways")
    cells = [re.sub(r"<[^>]+>", "", cell).split(" %")[0] for cell in re.findall(r"<td>(.*?)</td>", table)]
    low = ["100", "50", "25", "75", "67", "50"]  # by number, by share (1 / 4 of it), and of the next layer
    high = ["100", "50", "67", "33", "100", "33"]
    assert cells == low + high
    assert "Lost in the next" in table


def test_the_output_alone_has_a_page(tmp_path: Path) -> None:
    alone = a_knowledge(
        layers=("output",),
        effects=a_knowledge().effects[:, 2:],
        values=torch.zeros(2, 1, 8),
        sigma=torch.zeros(2, 1, dtype=torch.float64),
        gap=torch.zeros(2, 1, dtype=torch.float64),
        accuracy=torch.full((1,), torch.nan, dtype=torch.float64),
    )
    text = page(tmp_path, alone)
    assert "<title>What tiny knows of 2 images</title>" in text
    assert "100 % (100 % to 100 %) of the strength of the interactions is in those of at most 3 parts" in text
    assert 'id="layers"' not in text and 'id="change"' not in text and "IoU" not in text
    assert section(text, "orders").count("<figure>") == 3
