"""Models of the Hugging Face Hub, and folders that hold one: timm's or transformers', safetensors only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models.packages import require
from pyinterp.models.weights import reading_weights

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def download(repository: str, wanted: str, also: tuple[str, ...] = ()) -> Path:
    """The folder with configuration and safetensors of ``owner/name[@revision]``; offline, the cached one.

    Args:
        repository: As above.
        wanted: The model's name, for errors.
        also: Patterns of further files.
    """
    hub = require("huggingface_hub", f"the model {wanted!r}")
    owner_and_name, _, revision = repository.partition("@")
    with reading_weights(wanted):
        folder = hub.snapshot_download(
            owner_and_name, revision=revision or None, allow_patterns=["*.json", "model*.safetensors", *also]
        )
    return Path(folder)


def weights_file(folder: Path, wanted: str) -> Path:
    """The safetensors (or the index of its shards) in ``folder``; pickles do not count."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(
        path.name for path in folder.glob("*") if path.suffix in (".bin", ".pth", ".pt", ".safetensors")
    )
    raise ValueError(
        explain(
            "load",
            f"a file model.safetensors for {wanted!r}",
            ", ".join(found) or "no weights",
            "Weights stored as pickles are not read; convert them to safetensors, or choose another model.",
        )
    )


def is_timm(folder: Path, wanted: str) -> bool:
    """Whether the folder's config.json describes a timm model (else one of transformers)."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        got = "none" if isinstance(error, FileNotFoundError) else f"one that can't be read ({error})"
        fix = "Check the name; give the folder or repository of a model."
        raise ValueError(explain("load", f"a config.json for {wanted!r}", got, fix)) from error
    return "architecture" in config


def load_transformers(
    folder: Path, wanted: str, pretrained: bool
) -> tuple[nn.Module, Callable[[Image.Image], Tensor], tuple[str, ...]]:
    """An image classifier of transformers with its own image processor and class names.

    Raises:
        ValueError: There are no safetensors, no image processor, the code is not part of transformers, or the
            weights lack layers of the classifier (it would answer at random).
    """
    config, processor = config_and("AutoImageProcessor", folder, wanted, "an image classifier")
    fresh = None if pretrained else config
    model = transformers_model("AutoModelForImageClassification", folder, wanted, fresh)
    classes = tuple(str(config.id2label[i]) for i in range(config.num_labels))

    def preprocess(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels.to(torch.float32)

    return model, preprocess, classes


def config_and(processor: str, folder: Path, wanted: str, what: str) -> tuple[Any, Any]:
    """The configuration in a folder, and its processor by one of transformers' Auto classes.

    Raises:
        ValueError: One is not there, or its code is not part of transformers.
    """
    transformers = require("transformers", f"the model {wanted!r}")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return config, getattr(transformers, processor).from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            explain(
                "load",
                f"{what} that transformers itself knows for {wanted!r}",
                (str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."),
                "Choose another model; code that a repository brings along is never run.",
            )
        ) from error


def transformers_model(
    kind: str, folder: Path, wanted: str, config: Any = None, unused: tuple[str, ...] = ()
) -> nn.Module:
    """A model by one of transformers' Auto classes, from a folder.

    Args:
        kind: Name of the class.
        folder: With config.json and safetensors.
        wanted: The model's name, for errors.
        config: Makes one with random weights instead of reading them.
        unused: Beginnings of names of weights that may be missing.

    Raises:
        ValueError: There are no safetensors, they don't fit, or lack layers (it would answer at random).
    """
    auto = getattr(require("transformers", f"the model {wanted!r}"), kind)
    if config is not None:
        fresh: nn.Module = auto.from_config(config)
        return fresh
    weights_file(folder, wanted)
    with reading_weights(wanted):
        model: nn.Module
        model, info = auto.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(unused))
    if missing:
        raise ValueError(
            explain(
                "load",
                f"weights for every layer of {wanted!r}",
                f"none for {', '.join(missing)}",
                "Choose a model that was trained for this task.",
            )
        )
    return model
