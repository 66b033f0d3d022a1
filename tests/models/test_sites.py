"""Sites of small networks written for one structure each; the known architectures are in test_architectures.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import randomised
from torch import Tensor, nn

from pyinterp.models import sites
from pyinterp.models.graph import trace
from pyinterp.models.sites import Site, default_example, find_sites, ungated


class Net(nn.Module):
    """Modules by name, and a forward over them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.how = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def found(net: nn.Module, size: int = 8) -> dict[str, Site]:
    result = find_sites(trace(randomised(net), torch.zeros(1, 3, size, size)))
    assert len({site.name for site in result}) == len(result)
    return {site.name: site for site in result}


def kinds(net: nn.Module, size: int = 8) -> dict[str, tuple[str, int]]:
    return {name: (site.kind, site.units) for name, site in found(net, size).items()}


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def test_plain_convs_and_the_layers_that_keep_their_shape() -> None:
    net = nn.Sequential(
        conv(3, 4), nn.ReLU(), conv(4, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 2),
    )  # fmt: skip
    result = found(net)
    assert {name: (site.kind, site.units) for name, site in result.items()} == {
        "0": ("filter", 4),
        "2": ("filter", 4),
        "2.layer": ("layer", 1),
        "5": ("filter", 4),
        "8": ("neuron", 5),
    }
    # The score stands behind the BatchNorm where there is one, before the activation.
    assert [result[name].node for name in ("0", "2", "5")] == ["conv2d", "batch_norm", "conv2d_2"]
    assert (result["2.layer"].node, result["2.layer"].skip) == ("relu_1", "relu")
    assert (result["8"].node, result["8"].dim, result["8"].weight) == ("tanh", 1, "8.weight")


def test_branches_that_are_concatenated() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([F.relu(self.left(x)), self.right(F.relu(self.middle(x))), x], 1)
        answer: Tensor = self.head(x.mean((2, 3)))
        return answer

    net = Net(
        forward,
        stem=conv(3, 4),
        left=conv(4, 4, 1),
        middle=conv(4, 4),
        right=conv(4, 4),
        head=nn.Linear(12, 3),
    )
    # No conv of a branch is a layer: its input reaches the logits beside it.
    assert kinds(net) == dict.fromkeys(("stem", "left", "middle", "right"), ("filter", 4))


def test_a_batch_norm_that_reads_more_than_one_conv_is_none_of_theirs() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.norm(torch.cat([self.one(x), self.two(x)], 1)).mean((2, 3)))
        return answer

    net = Net(forward, one=conv(3, 4), two=conv(3, 2), norm=nn.BatchNorm2d(6), head=nn.Linear(6, 3))
    assert [site.node for site in found(net).values()] == ["conv2d", "conv2d_1"]


def test_functional_code_is_named_by_its_weights() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, padding=1))
        return F.linear(F.gelu(F.linear(x.mean((2, 3)), self.up)), self.down)

    def weight(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(shape))

    net = Net(forward, kernel=weight(4, 3, 3, 3), up=weight(7, 4), down=weight(2, 7))
    assert kinds(net) == {"kernel": ("filter", 4), "up": ("neuron", 7)}
    assert [site.weight for site in found(net).values()] == ["kernel", "up"]


def test_a_module_that_runs_twice_has_a_site_for_each_run() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.norm(self.again(x))
        x = x + self.norm(self.again(x))
        answer: Tensor = self.head(x.mean((2, 3)))
        return answer

    net = Net(forward, stem=conv(3, 4), again=conv(4, 4), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 3))
    assert kinds(net) == {
        "stem": ("filter", 4),
        "again": ("filter", 4),
        "again.layer": ("layer", 1),
        "again@2": ("filter", 4),
        "again.layer@2": ("layer", 1),
    }


def test_shortcut_convs_are_unscored_and_only_the_branch_is_a_layer() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = conv(4, 8, stride=2), conv(8, 8)
            self.fit, self.norm = conv(4, 8, 1, stride=2), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.norm(self.fit(x)) + self.conv2(F.relu(self.conv1(x))))

    net = nn.Sequential(
        conv(3, 4), nn.ReLU(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    result = found(net)
    assert list(result) == ["0", "2.conv1", "2.conv2", "2"]
    assert (result["2"].kind, result["2"].node, result["2"].skip) == ("layer", "conv2d_3", "add")
    reasons = dict(ungated(trace(net, torch.zeros(1, 3, 8, 8))))
    assert "shortcut" in reasons["2.fit"]
    assert reasons["5"] == "its outputs are the logits"


@pytest.mark.parametrize("pooled", [True, False])
def test_squeeze_excite_is_no_site(pooled: bool) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        scale = self.expand(F.silu(self.squeeze(x.mean((2, 3), keepdim=True) if pooled else x)))
        answer: Tensor = self.head((x * torch.sigmoid(scale)).mean((2, 3)))
        return answer

    net = Net(forward, stem=conv(3, 4), squeeze=conv(4, 2, 1), expand=conv(2, 4, 1), head=nn.Linear(4, 3))
    assert kinds(net) == {"stem": ("filter", 4)}
    reasons = dict(ungated(trace(net, torch.zeros(1, 3, 8, 8))))
    assert "factors of other units" in reasons["squeeze"]
    assert "factors of other units" in reasons["expand"]


def tokens(net: Any, x: Tensor) -> Tensor:
    """(N, 4, 6) tokens with position embeddings."""
    embedded: Tensor = net.embed(x).flatten(2).transpose(1, 2) + net.position
    return embedded


def embedding() -> dict[str, nn.Module | nn.Parameter]:
    return {
        "embed": nn.Conv2d(3, 6, 4, 4),
        "position": nn.Parameter(torch.randn(1, 4, 6)),
        "head": nn.Linear(6, 3),
    }


def test_embeddings_are_no_units_and_no_layers() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        t = tokens(self, x)
        t = t + self.down(F.gelu(self.up(self.norm(t))))
        answer: Tensor = self.head(t.mean(1))
        return answer

    net = Net(forward, **embedding(), norm=nn.LayerNorm(6), up=nn.Linear(6, 9), down=nn.Linear(9, 6))
    assert kinds(net) == {"up": ("neuron", 9), "add_1": ("layer", 1)}
    assert "embedding" in dict(ungated(trace(net, torch.zeros(1, 3, 8, 8))))["embed"]


def fused_attention(self: Any, t: Tensor) -> Tensor:
    q, k, v = self.qkv(t).reshape(t.shape[0], 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
    answer: Tensor = self.proj(
        F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(t.shape[0], 4, 6)
    )
    return answer


def written_attention(self: Any, t: Tensor) -> Tensor:
    q, k, v = self.qkv(t).reshape(t.shape[0], 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / 3**0.5 + self.bias).softmax(-1)
    answer: Tensor = self.proj((weights @ v).transpose(1, 2).flatten(2))
    return answer


def normed_attention(self: Any, t: Tensor) -> Tensor:
    q, k, v = self.qkv(t).reshape(t.shape[0], 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
    answer: Tensor = self.proj(
        self.norm(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(t.shape[0], 4, 6))
    )
    return answer


@pytest.mark.parametrize("attention", [fused_attention, written_attention, normed_attention])
def test_heads_of_fused_and_written_attention(attention: Callable[[Any, Tensor], Tensor]) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        t = tokens(self, x)
        answer: Tensor = self.head((t + attention(self, t)).mean(1))
        return answer

    bias = nn.Parameter(torch.randn(2, 4, 4))
    parts = {"qkv": nn.Linear(6, 18), "proj": nn.Linear(6, 6), "bias": bias, "norm": nn.LayerNorm(6)}
    heads, layer = found(Net(forward, **embedding(), **parts)).values()
    assert (heads.kind, heads.units, heads.inner, heads.dim, layer.kind) == ("head", 2, 3, 2, "layer")
    assert heads.weight == (None if attention is normed_attention else "proj.weight")


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_heads_of_multihead_attention(batch_first: bool, weights: bool) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        t = tokens(self, x) if batch_first else tokens(self, x).transpose(0, 1)
        t = t + self.attention(t, t, t, need_weights=weights)[0]
        t = t + self.down(F.relu(self.up(t)))
        answer: Tensor = self.head(t.mean(1 if batch_first else 0))
        return answer

    attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
    net = Net(forward, **embedding(), attention=attention, up=nn.Linear(6, 9), down=nn.Linear(9, 6))
    result = found(net)
    heads = result["attention"]
    assert (heads.kind, heads.units, heads.inner, heads.weight) == ("head", 2, 3, "attention.out_proj.weight")
    assert [site.kind for site in result.values()] == ["head", "layer", "neuron", "layer"]


def gated_unit(self: Any, x: Tensor) -> Tensor:
    return F.silu(self.up(x)) * self.gate(x)


def packed_unit(self: Any, x: Tensor) -> Tensor:
    gate, up = self.packed(x).chunk(2, -1)
    return F.gelu(gate) * up


def quick_gelu(self: Any, x: Tensor) -> Tensor:
    x = self.up(x)
    return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize(
    ("hidden", "name", "weight"),
    [(gated_unit, "gate", None), (packed_unit, "packed", None), (quick_gelu, "up", "up.weight")],
)
def test_hidden_neurons_of_composed_activations(
    hidden: Callable[[Any, Tensor], Tensor], name: str, weight: str | None
) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        answer: Tensor = self.down(hidden(self, x.mean((2, 3))))
        return answer

    maps = {
        "up": nn.Linear(3, 9),
        "gate": nn.Linear(3, 9),
        "packed": nn.Linear(3, 18),
        "down": nn.Linear(9, 4),
    }
    (site,) = found(Net(forward, **maps)).values()
    assert (site.kind, site.units) == ("neuron", 9)
    assert site.name in ("up", "gate", "packed")
    assert (site.weight is None) == (weight is None)
    assert name == "gate" or site.name == name


def test_what_is_read_twice_or_not_activated_is_no_hidden_neuron() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = F.relu(self.up(self.linear(x.mean((2, 3)))))
        answer: Tensor = self.down(hidden) + self.beside(hidden)
        return answer

    maps = {
        "linear": nn.Linear(3, 5),
        "up": nn.Linear(5, 9),
        "down": nn.Linear(9, 4),
        "beside": nn.Linear(9, 4),
    }
    with pytest.raises(ValueError, match="sites: expected a network with convolution filters"):
        found(Net(forward, **maps))


def test_a_convolutional_classifier_is_no_site() -> None:
    net = nn.Sequential(
        conv(3, 4), nn.ReLU(), conv(4, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert kinds(net) == {"0": ("filter", 4)}


def test_a_network_without_units_says_what_it_has() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(
        ValueError, match=r"convolution filters, attention heads.*got one with 1 flatten, 1 linear"
    ):
        sites(net.eval(), torch.zeros(1, 3, 8, 8))


def test_example_is_what_the_model_states() -> None:
    net = nn.Linear(1, 1).double()
    assert default_example(net).shape == (1, 3, 224, 224)
    assert default_example(net).dtype == torch.float64
    net.pretrained_cfg = {"input_size": (1, 28, 32)}  # type: ignore[assignment]
    assert default_example(net).shape == (1, 1, 28, 32)
    del net.pretrained_cfg

    class Config:
        image_size, num_channels = 96, 4

    net.config = Config()  # type: ignore[assignment]
    assert default_example(net).shape == (1, 4, 96, 96)


def test_sites_of_a_model_that_does_not_take_the_usual_images() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    with pytest.raises(ValueError, match=r"\(1, 3, 224, 224\).*pass some as example"):
        sites(net)
    assert [site.name for site in sites(net, torch.zeros(1, 1, 8, 8))] == ["0"]
