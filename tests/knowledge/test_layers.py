"""Which layers are found: all flows through them, they are evenly spread, and wrong names are told apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch import Tensor, nn

from pyinterp.knowledge import find_layers


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.second(self.act(self.first(x))))


class Net(nn.Module):
    """Two stages of residual blocks; ``idle`` never runs, and ``act`` of a block runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.low = nn.Sequential(Block(6), Block(6))
        self.pool = nn.MaxPool2d(2)
        self.high = nn.Sequential(Block(6), Block(6))
        self.idle, self.drop = nn.Linear(2, 2), nn.Dropout()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.high(self.pool(self.low(self.stem(x))))
        return self.fc(self.drop(x.mean((2, 3))))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_all_flows_through_what_is_found(net: Net) -> None:
    found = find_layers(net, IMAGES, n_layers=20)
    assert [layer.name for layer in found] == ["stem", "low.0", "pool", "high.0", "drop"]
    assert all(layer.whole for layer in found)
    assert [layer.shape for layer in found[1:3]] == [(6, 8, 8), (6, 4, 4)]


def test_layers_are_spread_over_the_depth(net: Net) -> None:
    assert [layer.name for layer in find_layers(net, IMAGES, n_layers=3)] == ["low.0", "pool", "drop"]
    stages = find_layers(net, IMAGES, "stages")
    assert [(layer.name, layer.shape[1:]) for layer in stages] == [
        ("low", (8, 8)),
        ("high", (4, 4)),
        ("drop", ()),
    ]


def test_named_layers_come_in_the_order_of_the_network(net: Net) -> None:
    found = find_layers(net, IMAGES, ["high", "low.0.first", "stem"])
    assert [(layer.name, layer.whole) for layer in found] == [
        ("stem", True),
        ("low.0.first", False),
        ("high", True),
    ]


def test_the_network_stays_as_it_is(net: Net) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    find_layers(net, IMAGES)
    assert all(not module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "first", "tokens"),
    [("resnet18", "act1", None), ("vit_tiny_patch16_224", "patch_embed", 5), ("vgg11_bn", "features", None)],
)
def test_layers_of_timm(name: str, first: str, tokens: int | None) -> None:
    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": 32} if "vit" in name else {}
    size |= {"zero_init_last": False} if "resnet" in name else {}  # else nothing flows through the blocks
    model = timm.create_model(name, pretrained=False, num_classes=7, **size).eval()
    found = find_layers(model, torch.randn(2, 3, 32, 32))
    assert len(found) == 8 and all(layer.whole for layer in found), found
    if name == "resnet18":
        assert sum(layer.name.startswith("layer") for layer in found) >= 5, found
    if tokens:
        assert sum(layer.shape[0] == tokens for layer in found) >= 6, found


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["hihg"], "got 'hihg'.* Near it: 'high'"),
        (["???"], r"dict\(model.named_modules\(\)\)"),
        (["low.0.act"], "'low.0.act', which ran 2 times. Take the module around it"),
        (["idle"], "got 'idle'"),
        ("all", 'layers="auto" or "stages", got \'all\''),
    ],
)
def test_wrong_layers_are_told(net: Net, layers: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_layers(net, IMAGES, layers)


def test_named_tuples_pass_through_and_raw_inputs_are_no_layer() -> None:
    class Pair(NamedTuple):
        state: Tensor
        more: int

    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Pair:
            return Pair(self.inner(x), 3)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.told, self.fc = nn.Flatten(), Told(), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.told(self.flat(x)).state))

    found = find_layers(Outer().eval(), torch.randn(3, 2, 3))
    assert [(layer.name, layer.shape) for layer in found] == [("told", (5,))]


def test_maps_with_channels_last_are_known_by_their_norms() -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, num_classes=3).eval()
    found = find_layers(swin, torch.randn(2, 3, 64, 64), "stages")
    assert [layer.channels_last for layer in found if len(layer.shape) == 3] == [True] * 4
    plain = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 12 * 7, 2)).eval()
    (layer, *_) = find_layers(plain, torch.randn(2, 3, 14, 9), ["1"])
    assert layer.shape == (12, 12, 7) and not layer.channels_last


def test_of_many_inputs_those_that_differ_are_taken(net: Net) -> None:
    same = IMAGES[:1].expand(5, -1, -1, -1)
    assert find_layers(net, torch.cat([same, IMAGES[1:2]])) == find_layers(net, IMAGES)


def test_wrong_inputs_are_told(net: Net) -> None:
    with pytest.raises(TypeError, match="a list of names of modules, got 3"):
        find_layers(net, IMAGES, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two inputs or more, got one"):
        find_layers(net, IMAGES[:1])
    with pytest.raises(ValueError, match="the same answer"):
        find_layers(net, IMAGES[:1].expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="eval"):
        find_layers(Net(), IMAGES)


def test_a_network_of_one_layer_has_no_place() -> None:
    with pytest.raises(ValueError, match="a module that all flows through, got none"):
        find_layers(nn.Sequential(nn.Linear(4, 2)).eval(), torch.randn(2, 4))
