"""Real architectures: the shared prefix gives their plain logits."""

from __future__ import annotations

import pytest
import torch
from shared_nets import grid
from torch import nn

from pyinterp.games.prefix import SharedPrefix
from pyinterp.ops.mask_inputs import mask_inputs

pytest.importorskip("torchvision")
pytest.importorskip("timm")

SHARING = {
    "timm:resnet18": 64,
    "timm:resnet50": 64,
    "timm:tf_efficientnet_lite0": 64,
    "timm:convnext_atto": 128,
    "timm:densenet121": 64,
    "timm:mobilenetv3_small_100": 128,
    "torchvision:vgg19": 64,
    "torchvision:shufflenet_v2_x0_5": 64,
    "torchvision:googlenet": 64,
}


def build(name: str) -> nn.Module:
    source, _, architecture = name.partition(":")
    torch.manual_seed(0)
    if source == "timm":
        import timm

        model: nn.Module = timm.create_model(architecture, pretrained=False)
    else:
        import torchvision

        options = {"init_weights": False} if architecture == "googlenet" else {}
        model = torchvision.models.get_model(architecture, weights=None, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARING)
def test_architectures_share(name: str) -> None:
    model, size = build(name), SHARING[name]
    players = grid(3, 4, size)
    image, baseline = torch.randn(2, 3, size, size)
    prefix = SharedPrefix.build(model, image, baseline, players, evaluations=256)
    codes = torch.randint(4096, (4,), generator=torch.Generator().manual_seed(3))
    assert prefix is not None
    with torch.no_grad():
        wanted = model(mask_inputs(image, baseline, players, codes))
    assert (prefix(codes) - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.slow
def test_attention_shares_nothing_worth_it() -> None:
    """Only the embedding of the patches, a few per cent of the work, looks at parts of the image."""
    model = build("timm:vit_tiny_patch16_224")
    image, baseline = torch.randn(2, 3, 224, 224)
    assert SharedPrefix.build(model, image, baseline, grid(3, 4, 224)) is None
