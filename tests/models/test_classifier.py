"""The last linear layer is found by what it does: features times its weights are the logits, on every architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import hugging_face, timm_model, vision
from networks import randomised, snapshot
from torch import Tensor, nn

from pyinterp.models.classifier import (
    Classifier,
    features_of,
    find_classifier,
    reading_features,
    with_classifier,
)
from pyinterp.models.graph import logits_of, trace
from pyinterp.models.inputs import call
from pyinterp.models.sites import sites

timm = pytest.importorskip("timm", reason="timm is not installed: pip install pyinterp[models]")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")


class Small(nn.Module):
    """Three features of six columns, two classes; ``last`` makes the logits."""

    def __init__(self, last: Callable[[Small, Tensor], Any] = lambda net, x: net.fc(x)) -> None:
        super().__init__()
        self.body, self.fc, self.twin = nn.Linear(6, 3), nn.Linear(3, 2), nn.Linear(3, 2)
        self.last = last

    def forward(self, x: Tensor) -> Any:
        return self.last(self, torch.relu(self.body(x)))


class ConvHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3), keepdim=True)).flatten(1)


def small(last: Callable[[Small, Tensor], Any] = lambda net, x: net.fc(x)) -> Small:
    return Small(last).eval()


def from_config(kind: str, **sizes: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        config = getattr(transformers, f"{kind}Config")(**sizes)
        name = "SequenceClassification" if "vocab_size" in sizes else "ImageClassification"
        return getattr(transformers, f"{kind}For{name}")(config)

    return build


TEXT = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
IDS = torch.randint(2, 50, (2, 7), generator=torch.Generator().manual_seed(0))
WORDS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
FOUND = [
    ("timm-resnet18", timm_model("resnet18"), "fc", 512, 1000),
    ("efficientnet_lite0", timm_model("efficientnet_lite0"), "classifier", 1280, 1000),
    ("vit_tiny", timm_model("vit_tiny_patch16_224", img_size=64), "head", 192, 1000),
    ("mobilenetv3", timm_model("mobilenetv3_small_050", num_classes=11), "classifier", 1024, 11),
    ("convnext_atto", timm_model("convnext_atto", num_classes=9), "head.fc", 320, 9),
    ("conv head", timm_model("resnetv2_18", num_classes=10), "head.fc", 512, 10),
    ("resnet18", vision("resnet18"), "fc", 512, 1000),
    ("vgg11", vision("vgg11", num_classes=10, init_weights=False), "classifier.6", 4096, 10),
    ("mobilenet_v2", vision("mobilenet_v2", num_classes=10), "classifier.1", 1280, 10),
    ("hf-vit", hugging_face, "classifier", 32, 10),
    (
        "hf-convnext",
        from_config("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=5),
        "classifier",
        16,
        5,
    ),
    (
        "hf-resnet",
        from_config("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5),
        "classifier.1",
        16,
        5,
    ),
    ("hf-bert", from_config("Bert", num_attention_heads=2, num_labels=3, **TEXT), "classifier", 16, 3),
    (
        "hf-roberta",
        from_config("Roberta", num_attention_heads=2, num_labels=3, **TEXT),
        "classifier.out_proj",
        16,
        3,
    ),
    ("own", small, "fc", 3, 2),
]


def inputs_for(name: str, rows: int = 2) -> Any:
    if name in ("hf-bert", "hf-roberta"):
        return WORDS
    if name == "own":
        return torch.randn(rows, 6)
    return torch.randn(rows, 3, 32 if name.startswith(("hf", "vgg")) else 64, 32 if name[0] in "hv" else 64)


@pytest.mark.parametrize(
    ("name", "build", "path", "features", "classes"), FOUND, ids=[one[0] for one in FOUND]
)
def test_features_times_its_weights_are_the_logits(
    name: str, build: Callable[[], nn.Module], path: str, features: int, classes: int
) -> None:
    model = randomised(build())
    inputs = torch.randn(2, 3, 64, 64) if name == "vit_tiny" else inputs_for(name)
    before = snapshot(model)
    found = find_classifier(model, inputs)
    assert (found.name, found.features, found.classes) == (path, features, classes)
    assert found.layer is model.get_submodule(path)
    deep = features_of(model, found, inputs)
    assert deep.shape == (2, features) and not deep.requires_grad
    with torch.no_grad():
        logits = logits_of(call(model, inputs))
        ours = F.linear(deep, found.layer.weight.flatten(1), found.layer.bias)
    torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))
    assert float(logits.std(1).min()) > 1e-3

    other = nn.Linear(features, 7)
    changed = with_classifier(model, other, inputs)
    with torch.no_grad():
        answer = logits_of(call(changed, inputs))
        torch.testing.assert_close(answer, other(deep), rtol=1e-5, atol=1e-4)
        direct = logits_of(call(with_classifier(model, nn.Identity(), inputs), inputs))
    torch.testing.assert_close(direct, deep, rtol=0, atol=0)
    assert snapshot(model) == before


CONFIG = {"hidden_size": 16, "intermediate_size": 16, "image_size": 32, "patch_size": 16}
REFUSED = [
    (timm_model("deit_tiny_distilled_patch16_224", img_size=64), "'head' and 'head_dist'.*one head"),
    (vision("squeezenet1_1"), r"'classifier\.1', which gives a map or sequence \(N, 1000, 3, 3\).*Pool"),
    (vision("squeezenet1_1", num_classes=9), r"\(N, 9, 3, 3\) that is pooled"),
    (
        lambda: transformers.DeiTForImageClassificationWithTeacher(
            transformers.DeiTConfig(**CONFIG, num_hidden_layers=1, num_attention_heads=2)
        ),
        "'cls_classifier' and 'distillation_classifier'",
    ),
]


@pytest.mark.parametrize(("build", "words"), REFUSED)
def test_networks_without_one_last_layer_are_refused(build: Callable[[], nn.Module], words: str) -> None:
    model = randomised(build())
    before = snapshot(model)
    size = 32 if "Image" in type(model).__name__ else 64
    with pytest.raises(ValueError, match=words):
        find_classifier(model, torch.randn(2, 3, size, size))
    assert snapshot(model) == before


def test_a_classifier_that_picks_a_token_is_refused() -> None:
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=1, n_head=2, num_labels=3, pad_token_id=0, bos_token_id=1, eos_token_id=1
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config).eval()
    with pytest.raises(ValueError, match=r"'score', which gives a map or sequence \(N, 7, 3\)"):
        find_classifier(model, {"input_ids": IDS})


# ---- own modules


def test_two_heads_that_happen_to_agree_are_told_apart() -> None:
    model = small(lambda net, x: (net.fc(x) + net.twin(x)) / 2)
    for head in (model.fc, model.twin):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    with pytest.raises(
        ValueError, match="2 layers of that width, which its forward combines: 'fc' and 'twin'"
    ):
        find_classifier(model, torch.randn(2, 6))
    model.last = lambda net, x: net.twin(x) + 0 * net.fc(x)
    assert find_classifier(model, torch.randn(2, 6)).name == "twin"


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            lambda net, x: F.linear(x, net.fc.weight),
            "'fc', 'twin' of that width is never called.*ran: 'body'",
        ),
        (lambda net, x: x @ net.fc.weight.T, "in place of F.linear, matmul or einsum"),
        (lambda net, x: net.fc(x).softmax(1), "'fc', whose output its forward changes.*no softmax"),
        (lambda net, x: net.fc(x) * 2, "'fc', whose output its forward changes"),
        (lambda net, x: net.fc(x).mul_(2), "'fc', whose output its forward changes"),
        (lambda net, x: net.fc(net.fc(x)[:, :1].expand(-1, 3)), "'fc' that runs once, got 2 calls"),
        (lambda net, x: net.fc(x[:, None])[:, 0], r"'fc' that reads \(N, d\), got \(2, 1, 3\)"),
        (lambda net, x: net.fc(x) / 0, "NaN or infinite"),
        (lambda net, x: net.fc(x)[:, 0], r"logits \(N, classes\)"),
        (lambda net, x: net.gone(x), r"takes the example, got AttributeError.* on \(2, 6\)\. Pass inputs"),
    ],
)
def test_last_steps_that_are_no_linear_layer(last: Callable[[Small, Tensor], Any], words: str) -> None:
    model = small(last)
    before = snapshot(model)
    with pytest.raises(ValueError, match=words):
        find_classifier(model, torch.randn(5, 6))
    assert snapshot(model) == before


class Cosine(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input), F.normalize(self.weight), self.bias)


class Scaled(nn.Linear):
    """Another class of the same map."""

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight.T + self.bias


def test_subclasses_count_if_they_are_linear() -> None:
    model = small()
    model.fc = Cosine(3, 2).eval()
    with pytest.raises(ValueError, match=r"'fc' that computes W x \+ b, got a Cosine"):
        find_classifier(model, torch.randn(2, 6))
    model.fc = Scaled(3, 2).eval()
    assert find_classifier(model, torch.randn(2, 6)).layer is model.fc
    model.fc = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)).eval()
    assert find_classifier(model, torch.randn(2, 6)).layer is model.fc


def test_the_model_may_be_the_layer_itself() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    found = find_classifier(model, x)
    assert (found.name, found.features, found.classes) == ("", 4, 3)
    assert torch.equal(features_of(model, found, x), x)
    assert torch.equal(with_classifier(model, nn.Identity(), x)(x), x)


def test_bfloat16_and_keyword_calls_and_wrapped_answers() -> None:
    model = small(lambda net, x: {"logits": net.fc(input=x).float(), "hidden": x}).bfloat16()
    x = torch.randn(3, 6)
    found = find_classifier(model, x)
    assert found.name == "fc"
    assert features_of(model, found, x).dtype == torch.bfloat16
    assert with_classifier(model, nn.Linear(3, 4).bfloat16(), x)(x.bfloat16())["logits"].shape == (3, 4)


def test_autocast_does_not_hide_the_layer(device: str) -> None:
    model, x = small().to(device), torch.randn(64, 6)
    with torch.autocast(device, torch.bfloat16):
        assert find_classifier(model, x).name == "fc"
        assert features_of(model, find_classifier(model, x), x).shape == (64, 3)
        assert with_classifier(model, nn.Linear(3, 5).to(device), x)(x.to(device)).shape == (64, 5)


def test_examples_come_from_the_model_or_are_asked_for() -> None:
    stated = timm.create_model("resnet10t", num_classes=4).eval()
    stated.pretrained_cfg = {"input_size": (3, 32, 32)}
    sizes: list[tuple[int, ...]] = []
    stated.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape)))
    assert find_classifier(stated).name == "fc"
    assert set(sizes) == {(2, 3, 32, 32)}
    with pytest.raises(ValueError, match=r"got RuntimeError: .* on \(2, 3, 224, 224\)\. Pass inputs"):
        find_classifier(small())
    with pytest.raises(TypeError, match=r"inputs \(N, \.\.\.\), got list"):
        find_classifier(small(), [1, 2])
    with pytest.raises(ValueError, match="at least one sample"):
        find_classifier(small(), torch.zeros(0, 6))
    with pytest.raises(ValueError, match="first axis of every tensor"):
        find_classifier(small(), {"a": torch.zeros(2, 6), "b": torch.zeros(3, 6)})


def test_models_that_do_not_answer_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="train mode"):
        find_classifier(small().train(), torch.randn(2, 6))
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        find_classifier("resnet18")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"find_classifier: expected a plain module, got what torch\.compile"
    ):
        find_classifier(torch.compile(small()), torch.randn(2, 6))


# ---- reading features


def test_features_are_what_the_layer_read_even_if_it_is_written_over() -> None:
    model = small()
    model.last = lambda net, x: (net.fc(x), x.zero_())[0]
    x = torch.randn(4, 6)
    deep = features_of(model, find_classifier(model, x), x)
    assert torch.equal(deep, torch.relu(model.body(x)))
    assert float(deep.sum()) > 0


def test_hooks_are_gone_after_an_error_in_the_middle() -> None:
    model = small()
    found = find_classifier(model, torch.randn(2, 6))
    before = snapshot(model)
    shapes = []
    with pytest.raises(RuntimeError), reading_features(model, found) as read:
        shapes += [read(torch.randn(5, width)).shape for width in (6, 7)]
    with reading_features(model, found) as read:
        shapes += [read(torch.randn(rows, 6)).shape for rows in (5, 1, 3)]
    assert shapes == [(5, 3), (1, 3), (3, 3)]
    assert snapshot(model) == before


def test_a_classifier_belongs_to_its_model() -> None:
    model, x = small(), torch.randn(2, 6)
    with pytest.raises(ValueError, match=r"classifier of this model, got one of another model \('fc'\)"):
        features_of(model, find_classifier(small(), x), x)
    found = find_classifier(model, x)
    model.last = lambda net, x: net.fc(x[:1])
    with pytest.raises(ValueError, match=r"one call of 'fc' on \(2, 3\), got \(1, 3\)"):
        features_of(model, found, x)
    model.last = lambda net, x: net.twin(x)
    with pytest.raises(ValueError, match="no call of it"):
        features_of(model, found, x)


# ---- the copy


def test_the_copy_shares_every_tensor_and_nothing_else() -> None:
    model = randomised(timm.create_model("resnet10t", num_classes=4))
    model.note = torch.randn(3) * torch.ones(3, requires_grad=True)  # no leaf: copy.deepcopy refuses it
    layer = nn.Linear(512, 5)
    copied = with_classifier(model, layer, torch.randn(1, 3, 32, 32))
    mine = dict(copied.named_parameters()) | dict(copied.named_buffers())
    theirs = dict(model.named_parameters()) | dict(model.named_buffers())
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value is (dict(layer.named_parameters())[name[3:]] if name.startswith("fc.") else theirs[name])
    assert copied.note is model.note
    assert not {id(m) for m in copied.modules()} & {id(m) for m in (*model.modules(), layer)}
    assert layer.training and not copied.training
    assert list(copied.state_dict()) == list(model.state_dict())


def test_the_copy_can_be_traced_and_gated() -> None:
    x = torch.randn(2, 3, 32, 32)
    for model in (randomised(timm.create_model("resnet10t", num_classes=4)), randomised(ConvHead())):
        features = find_classifier(model, x).features
        copied = with_classifier(model, nn.Linear(features, 6), x)
        traced = trace(copied, x)
        assert traced.classes == 6
        torch.testing.assert_close(traced.module(x), copied(x), rtol=1e-4, atol=1e-4)
        kinds = [(site.name, site.kind, site.units) for site in sites(model, x)]
        assert [(site.name, site.kind, site.units) for site in sites(copied, x)] == kinds


def test_gradients_reach_the_new_layer_through_the_copy() -> None:
    model, layer = small(), nn.Linear(3, 4)
    with_classifier(model, layer, torch.randn(2, 6))(torch.randn(8, 6)).sum().backward()
    assert layer.weight.grad is not None and model.body.weight.grad is not None
    assert model.fc.weight.grad is None


def test_layers_and_models_that_do_not_fit() -> None:
    model, x = small(), torch.randn(2, 6)
    with pytest.raises(ValueError, match=r"in place of 'fc', got RuntimeError.*map \(N, 3\) to"):
        with_classifier(model, nn.Linear(4, 2), x)
    with pytest.raises(ValueError, match=r"in place of 'fc', got ValueError.*logits"):
        with_classifier(model, nn.Flatten(0), x)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got Tensor"):
        with_classifier(model, torch.zeros(2, 3), x)  # type: ignore[arg-type]
    bound = small()
    bound.last = lambda net, x: bound.fc(x)
    with pytest.raises(ValueError, match="bound to the original"):
        with_classifier(bound, nn.Linear(3, 5), x)
    model.lines = (line for line in "ab")
    with pytest.raises(TypeError, match=r"copy\.deepcopy can copy, got TypeError"):
        with_classifier(model, nn.Linear(3, 5), x)


def test_classifiers_are_values() -> None:
    model, x = small(), torch.randn(2, 6)
    assert find_classifier(model, x) == Classifier("fc", model.fc, 3, 2) == find_classifier(model, x[:1])
