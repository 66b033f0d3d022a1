"""The networks of torchvision, timm and transformers whose sites are known by heart.

Images are as small as each takes: ResNets and ViTs have the same units and weights at 64 pixels as at 224.
"""

from __future__ import annotations

from collections.abc import Callable

from networks import (
    Network,
    by_name,
    next_number,
    passed_by,
    path,
    zero_channel,
    zero_columns,
    zero_input,
    zero_output,
)
from torch import nn


def vision(name: str, **options: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, **options)

    return build


def timm_model(name: str, **options: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, **options)

    return build


def hugging_face() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
    return ViTForImageClassification(
        ViTConfig(**sizes, num_hidden_layers=2, num_attention_heads=4, num_labels=10)
    )


def lite0_norm(name: str) -> str:
    """timm's names of the BatchNorm behind a conv."""
    block, _, conv = name.rpartition(".")
    if not block:
        return {"conv_stem": "bn1", "conv_head": "bn2"}[conv]
    separable = block == "blocks.0.0"
    return f"{block}.{ {'conv_dw': 'bn1', 'conv_pw': 'bn2'}[conv] if separable else lite0_numbers[conv] }"


lite0_numbers = {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}


def densenet_value(name: str) -> str:
    """Where DenseNet's filter scores stand: behind norm0 and norm2, else at the conv itself."""
    return name.replace("conv0", "norm0").replace("conv1", "norm2")


def resnet(
    name: str, build: Callable[[], nn.Module], filters: tuple[int, int], layers: int, last: str
) -> Network:
    closed = {
        "filter": zero_channel(lambda n: n.replace("conv", "bn")),
        "layer": zero_output(lambda n: f"{n}.{last}"),
    }
    return Network(name, build, 64, {"filter": filters, "layer": (layers, layers)}, closed)


def vgg(name: str, filters: tuple[int, int], layers: int, norm: bool) -> Network:
    act = (lambda n: next_number(next_number(path(n)))) if norm else (lambda n: next_number(path(n)))
    closed = {
        "filter": zero_channel(next_number if norm else str),
        "neuron": zero_channel(next_number, dim=-1),
        "layer": passed_by(path, act),
    }
    units = {"filter": filters, "layer": (layers, layers), "neuron": (2, 8192)}
    return Network(name, vision(name, init_weights=False), 32, units, closed)


def mobile(name: str, filters: tuple[int, int], bypassed: Callable[[str], bool]) -> Network:
    """torchvision's inverted residuals; their plain layers are depthwise convs that keep the shape."""
    plain = passed_by(path, lambda n: path(n).rpartition(".")[0])
    layer = by_name(lambda n: plain if bypassed(n) else zero_output())
    layers = 13 if name == "mobilenet_v2" else 12
    closed = {"filter": zero_channel(next_number), "layer": layer}
    return Network(name, vision(name), 64, {"filter": filters, "layer": (layers, layers)}, closed)


def transformer(name: str, size: int, heads: int, neurons: int, width: int) -> Network:
    """timm's ViT, DeiT and Swin blocks: 12 attentions and 12 MLPs."""
    closed = {
        "head": zero_input(width, lambda n: f"{n}.proj"),
        "neuron": zero_channel(lambda n: n.replace("fc1", "act"), dim=-1),
        "layer": zero_output(path),
    }
    units = {"head": (12, heads), "neuron": (12, neurons), "layer": (24, 24)}
    return Network(name, timm_model(name, img_size=size), size, units, closed)


NETWORKS = [
    vgg("vgg11", (8, 2752), 4, norm=False),
    vgg("vgg19", (16, 5504), 12, norm=False),
    vgg("vgg19_bn", (16, 5504), 12, norm=True),
    resnet("resnet18", vision("resnet18"), (17, 3904), 8, "bn2"),
    # 26,560 filters less 3,840 of the four downsample convs.
    resnet("resnet50", vision("resnet50"), (49, 22720), 16, "bn3"),
    resnet("timm-resnet50", timm_model("resnet50"), (49, 22720), 16, "bn3"),
    Network(
        "densenet121",
        vision("densenet121"),
        64,
        {"filter": (120, 10240)},
        {"filter": zero_channel(densenet_value)},
    ),
    mobile("mobilenet_v2", (52, 17056), lambda n: n.endswith(".layer")),
    mobile("efficientnet_b0", (49, 21008), lambda n: n.endswith(".layer")),
    Network(
        "convnext_tiny",
        vision("convnext_tiny"),
        64,
        {"filter": (18, 6624), "neuron": (18, 26496), "layer": (18, 18)},
        {"filter": zero_channel(), "neuron": zero_channel(next_number, dim=-1), "layer": zero_output()},
    ),
    Network(
        "vit_b_16",
        vision("vit_b_16", image_size=64),
        64,
        {"head": (12, 144), "neuron": (12, 36864), "layer": (24, 24)},
        {
            "head": zero_columns(64, lambda n: f"{n}.out_proj.weight"),
            "neuron": zero_channel(next_number, dim=-1),
            "layer": zero_output(path),
        },
    ),
    Network(
        "tf_efficientnet_lite0",
        timm_model("tf_efficientnet_lite0"),
        64,
        {"filter": (49, 21008), "layer": (12, 12)},
        {
            "filter": zero_channel(lite0_norm),
            "layer": by_name(
                lambda n: (
                    passed_by(path, lambda m: lite0_norm(path(m)))
                    if n.endswith(".layer")
                    else zero_output(lambda m: f"{m}.bn3")
                )
            ),
        },
    ),
    transformer("vit_tiny_patch16_224", 64, 36, 9216, 64),
    transformer("vit_base_patch16_224", 64, 144, 36864, 64),
    transformer("deit_tiny_distilled_patch16_224", 64, 36, 9216, 64),
    # Its windows fit no smaller image without padding.
    transformer("swin_tiny_patch4_window7_224", 224, 138, 17664, 32),
    Network(
        "hugging-face-vit",
        hugging_face,
        32,
        {"head": (2, 8), "neuron": (2, 128), "layer": (4, 4)},
        {
            "head": zero_input(8, lambda n: f"{n}.o_proj"),
            "neuron": zero_input(1, lambda n: n.replace("fc1", "fc2")),
            "layer": zero_output(path),
        },
    ),
]
