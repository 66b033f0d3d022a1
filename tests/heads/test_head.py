"""A head gives W z + b, by itself, as an nn.Linear, in a network, after edits and from disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from small_heads import ROWS, by_hand, samples, small_head
from torch import Tensor, nn

from pyinterp.features import extract_features
from pyinterp.heads import SparseHead, fit_sparse_path, head_of
from pyinterp.heads import head as module
from pyinterp.models.classifier import features_of, find_classifier
from pyinterp.models.identity import model_digest


class Small(nn.Module):
    """(N, 3, H, W) to logits, by 6 features and a linear layer or a 1x1 convolution."""

    def __init__(self, classes: int = 3, conv: bool = False, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 6, 3)
        self.fc = nn.Conv2d(6, classes, 1, bias=bias) if conv else nn.Linear(6, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.relu(self.body(x)).mean((2, 3), keepdim=isinstance(self.fc, nn.Conv2d))
        return self.fc(pooled).flatten(1)


def pictures(count: int, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


# ---- what it computes


@pytest.mark.parametrize("family", ROWS)
def test_logits_are_the_sums_of_the_definition(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    head, x = small_head(family=family), samples(0, 10)
    expected = torch.tensor([by_hand(head, row) for row in x], dtype=torch.float64)
    torch.testing.assert_close(head.logits(x), expected)
    if family == "gaussian":
        assert torch.equal(head.predict(x), head.logits(x))
    else:
        assert head.predict(x).tolist() == [row.index(max(row)) for row in expected.tolist()]
        labels = torch.arange(10) % head.classes
        hits = sum(int(p == y) for p, y in zip(head.predict(x).tolist(), labels.tolist(), strict=True))
        assert head.accuracy(x, labels) == hits / 10


def test_a_constant_feature_counts_as_zero_whatever_it_is() -> None:
    head, x = small_head(), samples(0, 5)
    other = x.clone()
    other[:, 1] = 1e6
    assert torch.equal(head.logits(x), head.logits(other))
    assert head.standardise(x)[:, 1].tolist() == [0] * 5


def test_counts_of_features() -> None:
    head = small_head(rows=2, width=5)
    weights = torch.tensor([[0.0, 0, 2, 0, 1], [0, 0, -1, 0, 0]])
    head = replace(head, weights=weights)
    assert (head.features_per_class, head.features_used.tolist(), head.classes) == (1.5, [2, 4], 2)
    assert small_head(family="binary").classes == 2


def test_features_of_any_float_type_and_none_at_all() -> None:
    head, x = small_head(), samples(0, 4)
    torch.testing.assert_close(head.logits(x.float()), head.logits(x), rtol=1e-4, atol=1e-5)
    assert head.logits(x[:0]).shape == (0, 4)
    assert small_head(dtype=torch.float32).logits(x).dtype == torch.float32


@pytest.mark.parametrize("family", ROWS)
def test_to_linear_gives_the_same_for_features_as_they_are(family: str) -> None:
    head, x = small_head(family=family), samples(1, 20)
    linear = head.to_linear()
    with torch.no_grad():
        torch.testing.assert_close(linear(x), head.logits(x))
    assert linear.out_features == max(2, len(head.weights))


# ---- edits


def test_edit_changes_one_weight_of_a_copy() -> None:
    head, x = small_head(class_names=("a", "b", "c", "d")), samples(0, 6)
    before = head.weights.clone()
    edited = head.edit(3, "c", 2.5)
    assert torch.equal(head.weights, before) and head.origin == {}
    expected = before.clone()
    expected[2, 3] = 2.5
    assert torch.equal(edited.weights, expected)
    moved = (2.5 - before[2, 3]) * head.standardise(x)[:, 3]
    torch.testing.assert_close(edited.logits(x)[:, 2] - head.logits(x)[:, 2], moved)
    again = edited.edit(0, 1, 0)
    assert again.origin["edits"] == [[3, 2, 2.5], [0, 1, 0.0]]
    assert "2 weights edited by hand" in again.summary()


def test_edit_of_a_binary_head_is_of_class_1() -> None:
    head = small_head(family="binary", class_names=("no", "yes"))
    assert float(head.edit(2, "yes", 4.0).weights[0, 2]) == 4
    with pytest.raises(ValueError, match=r"SparseHead.edit: expected yes of a binary head, got no\."):
        head.edit(2, 0, 4.0)


@pytest.mark.parametrize(
    "given",
    [
        [2, 4],
        (2, 4),
        torch.tensor([2, 4]),
        np.array([2, 4]),
        dict.fromkeys([2, 4]),
        [np.int64(2), torch.tensor(4)],
    ],
    ids=["list", "tuple", "tensor", "array", "keys", "numbers"],
)
def test_without_takes_features_from_all_classes(given: Any) -> None:
    head, x = small_head(), samples(2, 5)
    less = head.without(given)
    expected = torch.tensor([by_hand(head, row, (2, 4)) for row in x], dtype=torch.float64)
    torch.testing.assert_close(less.logits(x), expected)
    assert less.without(0).origin["removed"] == [2, 4, 0]
    assert torch.equal(head.without([]).weights, head.weights)
    assert torch.equal(head.without({4, 2}).weights, less.weights)
    assert head.without(np.int64(3)).origin["removed"] == [3]
    assert "2 features removed by hand" in less.summary()


def test_what_was_measured_is_not_said_of_an_edited_head() -> None:
    told = {"lambda": 0.1, "kkt": 1.0, "converged": False, "train_accuracy": 0.5, "validation_accuracy": 0.25}
    head = small_head(origin=told)
    for said in (
        "Validation accuracy 25.0 %",
        "training samples 50.0 %",
        "not optimal: KKT violation 1.0e+00",
    ):
        assert said in head.summary() and said not in head.edit(0, 0, 1.0).summary()
    assert head.edit(0, 0, 0).origin == {"lambda": 0.1, "edits": [[0, 0, 0.0]]}
    assert head.without(0).origin == {"lambda": 0.1, "removed": [0]}


# ---- in a network


def fitted(model: nn.Module, inputs: Tensor, labels: Tensor, **options: Any) -> tuple[SparseHead, Tensor]:
    found = extract_features(model, inputs, labels=labels)
    path = fit_sparse_path(found, n_lambdas=8, min_ratio=0.05, tolerance=1e-3, **options)
    return path.select(point=-1), found.values


@pytest.mark.parametrize(
    ("family", "conv"), [("multinomial", False), ("multinomial", True), ("binary", False), ("binary", True)]
)
def test_an_attached_head_answers_for_the_network(family: str, conv: bool) -> None:
    model, x = Small(conv=conv).eval(), pictures(24)
    before = model_digest(model)
    head, values = fitted(model, x, torch.arange(24) % (2 if family == "binary" else 4), family=family)
    assert head.features_per_class > 0
    changed = head.attach(model)
    with torch.no_grad():
        torch.testing.assert_close(changed(x), head.logits(values), rtol=1e-4, atol=1e-5)
    assert changed(x).shape == (24, head.classes) and changed.body.weight is model.body.weight
    assert model_digest(model) == before and model(x).shape == (24, 3)
    with pytest.raises(
        ValueError, match=r"SparseHead.attach: expected the network of this head, got another"
    ):
        head.attach(changed)


def test_a_head_of_a_timm_network() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5).eval()
    x = pictures(12, 96)
    head, values = fitted(model, x, torch.arange(12) % 3)
    with torch.no_grad():
        torch.testing.assert_close(head.attach(model, x[:2])(x), head.logits(values), rtol=1e-3, atol=1e-4)


def test_attach_follows_the_dtype_of_the_last_layer() -> None:
    model = Small().double().eval()
    head = small_head(width=6, dtype=torch.float32)
    changed = head.attach(model)
    assert changed.fc.weight.dtype == torch.float64


def test_attach_refuses() -> None:
    with pytest.raises(
        TypeError, match=r"expected a torch.nn.Module, got SimpleNamespace. Pass the module itself"
    ):
        small_head().attach(SimpleNamespace(model=Small()))  # type: ignore[arg-type]
    head = small_head(width=7)
    with pytest.raises(ValueError, match=r"attach: expected 7 features, got 6 read by 'fc'"):
        head.attach(Small().eval())
    with pytest.raises(ValueError, match="eval"):
        small_head(width=6).attach(Small())


@pytest.mark.parametrize(("conv", "bias"), [(False, True), (False, False), (True, True)])
def test_head_of_gives_the_networks_own_logits(conv: bool, bias: bool) -> None:
    model, x = Small(conv=conv, bias=bias).eval(), pictures(10)
    classifier = find_classifier(model, x)
    found = extract_features(model, x)
    head = head_of(classifier, found.mean, found.std, ["a", "b", "c"])
    with torch.no_grad():
        torch.testing.assert_close(head.logits(found.values), model(x), rtol=1e-4, atol=1e-5)
    assert (head.features_per_class, head.classifier_name, head.name(2)) == (6, "fc", "c")


def test_head_of_one_logit_is_binary() -> None:
    model, x = Small(classes=1).eval(), pictures(10)
    classifier = find_classifier(model, x)
    values = features_of(model, classifier, x)
    head = head_of(classifier, values.double().mean(0), values.double().std(0))
    with torch.no_grad():
        torch.testing.assert_close(head.logits(values)[:, 1:], model(x), rtol=1e-4, atol=1e-5)
    assert (head.family, head.classes) == ("binary", 2)
    with pytest.raises(ValueError, match=r"head_of: expected std \(6,\), got \(5,\)"):
        head_of(classifier, values.double().mean(0), torch.ones(5))
    with pytest.raises(TypeError, match="head_of: expected a Classifier, got Sequential"):
        head_of(nn.Sequential(), values.mean(0), values.std(0))  # type: ignore[arg-type]


# ---- on disk


@pytest.mark.parametrize("family", ROWS)
def test_a_head_comes_back_from_disk(family: str, tmp_path: Path) -> None:
    told = {"lambda": 0.25, "edits": [[1, 0, 2.0]], "converged": True}
    names = ("a", "b", "c", "d")[: ROWS[family]]
    head = small_head(family=family, class_names=names, classifier_name="fc", model_digest="x", origin=told)
    head.save(tmp_path / "head")
    back = SparseHead.load(tmp_path / "head")
    for name, value in vars(head).items():
        other = getattr(back, name)
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        assert same and type(value) is type(other), name


def cut(path: Path) -> None:
    file = path.with_suffix(".safetensors")
    file.write_bytes(file.read_bytes()[:-3])


def rewrite(path: Path, **fields: Any) -> None:
    file = path.with_suffix(".json")
    plain = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in plain.items() if value is not None}))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (cut, "damaged"),
    "no tensors": (lambda path: path.with_suffix(".safetensors").unlink(), "no .*head.safetensors"),
    "no json": (lambda path: path.with_suffix(".json").write_text("{"), "a sparse head at"),
    "no field": (lambda path: rewrite(path, family=None), "family"),
    "another family": (lambda path: rewrite(path, family="poisson"), "poisson"),
    "a binary head of four rows": (lambda path: rewrite(path, family="binary"), "a binary head has one row"),
    "an unknown field": (lambda path: rewrite(path, colour="red"), "colour"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "head"
    small_head().save(path)
    harm, said = DAMAGES[damage]
    harm(path)
    with pytest.raises(ValueError, match=said) as error:
        SparseHead.load(path)
    assert str(error.value).startswith("SparseHead.load: expected ")


# ---- bad input

X, Y = samples(0, 5), torch.zeros(5, dtype=torch.int64)
NAMED = small_head(class_names=("cat", "dog", "cow", "hen"))
NAN = X.clone()
NAN[[1, 3], 2] = torch.nan
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "one row": (lambda: NAMED.logits(X[0]), ValueError, r"features \(N, 7\), got \(7,\)"),
    "another width": (lambda: NAMED.logits(X[:, :6]), ValueError, r"features \(N, 7\), got \(5, 6\)"),
    "an array": (
        lambda: NAMED.predict(X.numpy()),
        TypeError,
        "predict: expected a tensor of features, .*got ndarray",
    ),  # type: ignore[arg-type]
    "nan": (lambda: NAMED.logits(NAN), ValueError, r"finite features, got NaN or infinity in rows 1, 3\."),
    "a class beyond": (lambda: NAMED.edit(0, 4, 1.0), ValueError, r"a class \(0 to 3, or 'cat'.*, got 4"),
    "a class below": (lambda: NAMED.class_number(-1), ValueError, "got -1"),
    "an unknown name": (lambda: NAMED.class_number("cod"), ValueError, "'hen'.*got 'cod'"),
    "no names": (lambda: small_head().class_number("cod"), ValueError, r"a class \(0 to 3\), got 'cod'"),
    "a truth value": (lambda: NAMED.class_number(True), ValueError, "got True"),
    "half a class": (lambda: NAMED.class_number(0.5), ValueError, r"got 0\.5"),  # type: ignore[arg-type]
    "a feature beyond": (lambda: NAMED.edit(7, 0, 1.0), ValueError, r"a feature \(0 to 6\), got 7"),
    "a feature below": (lambda: NAMED.without([2, -1]), ValueError, r"a feature \(0 to 6\), got -1"),
    "half a feature": (lambda: NAMED.without(torch.tensor([1.5])), ValueError, r"got 1\.5"),
    "a mask": (lambda: NAMED.without(torch.ones(7) > 0), ValueError, "a feature .*, got True"),
    "a weight of nan": (lambda: NAMED.edit(0, 0, float("nan")), ValueError, "a finite weight, got nan"),
    "a weight in words": (lambda: NAMED.edit(0, 0, "a"), ValueError, "a finite weight, got 'a'"),  # type: ignore[arg-type]
    "a constant feature": (lambda: NAMED.edit(1, 0, 1.0), ValueError, "varies, got feature 1"),
    "float labels": (lambda: NAMED.accuracy(X, Y.float()), TypeError, "class numbers, got torch.float32"),
    "a list of labels": (lambda: NAMED.accuracy(X, [0] * 5), TypeError, "class numbers, got list"),  # type: ignore[arg-type]
    "fewer labels": (lambda: NAMED.accuracy(X, Y[:4]), ValueError, r"got \(4,\) for features \(5, 7\)"),
    "no samples": (lambda: NAMED.accuracy(X[:0], Y[:0]), ValueError, r"got \(0,\) for features \(0, 7\)"),
    "labels beyond": (lambda: NAMED.accuracy(X, Y + 4), ValueError, "labels 0 to 3, got 4 to 4"),
    "labels below": (lambda: NAMED.accuracy(X, Y - 1), ValueError, "got -1 to -1"),
    "accuracy of numbers": (
        lambda: small_head(family="gaussian").accuracy(X, Y),
        ValueError,
        r"SparseHead.accuracy: expected a head of classes, got one of numbers \(gaussian\)",
    ),
    "a short bias": (lambda: replace(NAMED, bias=NAMED.bias[:2]), ValueError, r"bias \(K,\).*got .*\(2,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, kind, said = BAD[case]
    with pytest.raises(kind, match=said):
        call()


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    assert NAMED.class_number(np.int64(2)) == NAMED.class_number(torch.tensor(2)) == NAMED.class_number("cow")
    assert NAMED.feature_number(np.int32(3)) == 3


def test_more_names_than_classes_do_no_harm() -> None:
    head = small_head(rows=2, class_names=("a", "b", "c"))
    assert [head.name(0), head.name(1)] == ["a", "b"]
    with pytest.raises(ValueError, match="got 'c'"):
        head.class_number("c")
    assert small_head(family="gaussian").name(1) == "target 1" and small_head().name(3) == "class 3"
    assert "2 targets," in small_head(family="gaussian").summary()
