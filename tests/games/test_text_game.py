"""TextGame and FeatureGame, against loops over words and columns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from playing import log_odds, masked, players_of
from torch import Tensor, nn

from pyinterp.games import FeatureGame, Players, TextGame, feature_players, token_players

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "film",
    "is",
    "not",
    "good",
    "un",
    "##watch",
    "##able",
]
TEXT = "the film is unwatchable not good"


def tokenizer(**special: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
        **special,
    }
    return PreTrainedTokenizerFast(tokenizer_object=built, **{k: v for k, v in names.items() if v})


def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=3,
        id2label={0: "bad", 1: "fine", 2: "good"},
    )
    torch.manual_seed(0)
    return spread(BertForSequenceClassification(config))


def distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=len(WORDS), dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32
    )
    torch.manual_seed(0)
    return spread(DistilBertForSequenceClassification(config))


def spread(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


@pytest.mark.parametrize("build", [bert, distilbert])
@pytest.mark.parametrize("players", ["words", "tokens"])
def test_absent_words_are_mask_tokens(build: Any, players: str) -> None:
    model, words = build(), tokenizer()
    if build is distilbert:
        words.model_input_names = ["input_ids", "attention_mask"]
    game = TextGame(model, words, TEXT, players, target=1)
    places = [[1], [2], [3], [4, 5, 6], [7], [8]] if players == "words" else [[i] for i in range(1, 9)]
    assert game.count == len(places) and game.tokens[4:7] == ("un", "##watch", "##able")
    ids, wanted = words(TEXT)["input_ids"], []
    for code in range(2 ** len(places)):
        absent = set(range(len(places))) - set(players_of(code, len(places)))
        shown = list(ids)
        for i in absent:
            for place in places[i]:
                shown[place] = 4
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([shown]), attention_mask=torch.ones(1, len(ids)).long()
            ).logits
        wanted.append(log_odds(logits[0].tolist(), 1))
    played = game.play()
    torch.testing.assert_close(played.values, torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    assert 0 < played.noise < 1e-4 and played.noise_precision is not None
    assert (played.baseline, played.game) == ("mask_token", "TextGame")
    assert played.target_name == ("fine" if build is bert else "LABEL_1")


def test_chosen_words_play_and_the_baseline_may_be_other_tokens() -> None:
    model, words = bert(), tokenizer()
    tokens = words.convert_ids_to_tokens(words(TEXT)["input_ids"])
    chosen = token_players(tokens, [[4, 5, 6], 8])
    padding = torch.zeros(len(tokens), dtype=torch.int64)
    game = TextGame(model, words, TEXT, chosen, baseline=padding, score="logit", target=0)
    ids = torch.tensor(words(TEXT)["input_ids"])
    ids[8] = 0
    with torch.no_grad():
        assert float(game.values()[1]) == pytest.approx(float(model(ids[None]).logits[0, 0]), rel=1e-4)
    assert game.names == ("un ##watch ##able", "good")


def test_texts_that_cannot_be_played_are_refused() -> None:
    model = bert()
    with pytest.raises(ValueError, match="a tokenizer with a mask token"):
        TextGame(model, tokenizer(mask_token=""), TEXT)
    with pytest.raises(ValueError, match="players by name"):
        TextGame(model, tokenizer(), TEXT, "letters")
    with pytest.raises(ValueError, match="a baseline by name"):
        TextGame(model, tokenizer(), TEXT, baseline="zero")
    with pytest.raises(ValueError, match="an int64 baseline"):
        TextGame(model, tokenizer(), TEXT, baseline=torch.zeros(3))
    with pytest.raises(ValueError, match="a map of shape"):
        TextGame(model, tokenizer(), TEXT, token_players(["a", "b"]))
    with pytest.raises(ValueError, match="a target from 0 to 2"):
        TextGame(model, tokenizer(), TEXT, target=3)
    slow = tokenizer()

    class Slow:
        """As a tokenizer written in Python, which does not know which word a token is of."""

        is_fast = False

        def __call__(self, text: str, **options: Any) -> Any:
            return slow(text, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(slow, name)

    with pytest.raises(ValueError, match="a fast tokenizer"):
        TextGame(model, Slow(), TEXT)
    assert TextGame(model, Slow(), TEXT, "tokens").count == 8


def columns() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    return model, torch.randn(5), torch.randn(5)


@pytest.mark.parametrize(
    "players",
    [
        None,
        feature_players(list("abcde"), {"first": ["a", "c"], "second": ["e"]}),
        feature_players(list("abcde")),
    ],
)
def test_absent_features_are_the_baseline(players: Players | None) -> None:
    model, x, baseline = columns()
    game = FeatureGame(model, x, baseline, players, target=2)
    laid = torch.arange(5) if players is None else players.map
    with torch.no_grad():
        wanted = [
            log_odds(model(masked(x, baseline, laid, code, game.count)[None])[0].tolist(), 2)
            for code in range(2**game.count)
        ]
    played = game.play()
    torch.testing.assert_close(played.values, torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    assert played.names[0] in ("column 0", "first", "a") and played.noise < 1e-5


def test_features_that_do_not_fit_are_refused() -> None:
    model, x, baseline = columns()
    with pytest.raises(ValueError, match=r"x and baseline of shape \(D,\)"):
        FeatureGame(model, x, baseline[:4])
    with pytest.raises(ValueError, match="finite features"):
        FeatureGame(model, x * torch.nan, baseline)
    with pytest.raises(ValueError, match="a map of shape"):
        FeatureGame(model, x, baseline, feature_players(list("abc")))
