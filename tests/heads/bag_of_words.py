"""A text model without a transformer, whose features are known word by word."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "film", "is", "bad", "good", "not", "long", "a", "plot", "!"]
BAD, GOOD, FILM = (len(SPECIAL) + WORDS.index(word) for word in ("bad", "good", "film"))
TEXTS = [
    "the film is bad",
    "the plot is good",
    "a long film",
    "Bad plot not long",
    "a good film is not bad !",
    "the plot is long",
]


def tokenizer(longest: int = 12) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    built.normalizer = normalizers.Lowercase()
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "mask", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=built, model_max_length=longest, **names)


class BagOfWords(nn.Module):
    """Features 0 to 3 are means of word vectors, 0 in feature 3 but for "bad"; 4 is 1 if "film" and "bad" are there."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.vectors = nn.Embedding(len(SPECIAL + WORDS), 4)
        self.fc = nn.Linear(5, classes)
        with torch.no_grad():
            self.vectors.weight[: len(SPECIAL)] = 0
            self.vectors.weight[:, 3] = 0
            self.vectors.weight[BAD, 3] = 4.0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **others: Tensor) -> Tensor:
        shown = attention_mask[:, :, None].to(self.vectors.weight.dtype)
        means = (self.vectors(input_ids) * shown).sum(1) / shown.sum(1)
        both = (input_ids == BAD).any(1) & (input_ids == FILM).any(1)
        return self.fc(torch.cat([means, both[:, None].to(means.dtype)], 1))
