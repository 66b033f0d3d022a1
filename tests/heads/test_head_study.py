"""study_head against loops over its definitions, on a head that a person can compute; and its files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyinterp.features import Features, extract_features
from pyinterp.heads import (
    SparseHead,
    SparsePath,
    fit_sparse_path,
    repairs,
    shared_features,
    smallest_repair,
    top_k_accuracy,
)
from pyinterp.heads.audit import Repair
from pyinterp.heads.head_study import HeadStudy
from pyinterp.heads.study import CLOSE, SHARES, _shown, study_head
from pyinterp.heads.validation import held_rows
from pyinterp.models.images import load_images
from pyinterp.models.zoo import LoadedModel
from pyinterp.report import write_report

N, D, K = 60, 8, 3


class Net(nn.Module):
    """8 features: the means of 8 fields of the image's first channel; 3 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.last = nn.AdaptiveAvgPool2d((2, 4)), nn.Linear(D, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(x[:, :1]).flatten(1))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Class k has bright fields k and k + 3; noise makes some of them hard to tell."""
    generator = torch.Generator().manual_seed(0)
    fields = 0.3 * torch.randn(N, D, generator=generator)
    labels = torch.arange(N) % K
    fields[torch.arange(N), labels] += 0.3
    fields[torch.arange(N), labels + 3] += 0.2
    fields = fields.unflatten(1, (2, 4)).repeat_interleave(6, 1).repeat_interleave(6, 2)
    return (fields.clamp(-1, 1) / 2 + 0.5)[:, None].expand(-1, 3, -1, -1).contiguous()


@pytest.fixture(scope="module")
def features(net: nn.Module, images: Tensor) -> Features:
    found = extract_features(net, images, torch.arange(N) % K)
    return replace(found, class_names=("ant", "bee", "cow"))


@pytest.fixture(scope="module")
def rows(features: Features) -> Tensor:
    assert features.labels is not None
    return held_rows(features.labels, 0.4, 0)


@pytest.fixture(scope="module")
def path(features: Features) -> SparsePath:
    return fit_sparse_path(features, validation=0.4, n_lambdas=15, min_ratio=0.02)


@pytest.fixture(scope="module")
def head(path: SparsePath) -> SparseHead:
    return path.select(features_per_class=3)


@pytest.fixture(scope="module")
def found(
    net: nn.Module, features: Features, images: Tensor, rows: Tensor, path: SparsePath, head: SparseHead
) -> HeadStudy:
    return study_head(net, head, features, path=path, rows=rows, images=images, pictures=4, side=12)


def test_held_rows_are_those_that_the_path_left_out(
    features: Features, rows: Tensor, path: SparsePath
) -> None:
    fitted = torch.ones(N, dtype=torch.bool)
    fitted[rows] = False
    assert len(rows) == path.validation_samples == 24
    assert torch.allclose(features.values[fitted].double().mean(0), path.mean, atol=1e-6)


def test_accuracies_are_those_of_the_judged_samples(
    found: HeadStudy, features: Features, rows: Tensor, head: SparseHead
) -> None:
    labels = torch.arange(N) % K
    z = (features.values.double() - head.mean) / head.std
    predicted = [int((head.weights.double() @ row + head.bias.double()).argmax()) for row in z]
    right = [predicted[i] == int(labels[i]) for i in rows.tolist()]
    assert 0 < sum(right) < len(right)  # the samples are neither easy nor hopeless
    assert (found.judged, found.errors, found.held_out) == (24, right.count(False), True)
    assert found.accuracy == pytest.approx(sum(right) / len(right))
    assert found.accuracy == pytest.approx(head.origin["validation_accuracy"])
    for k in range(K):
        of_class = [hit for hit, i in zip(right, rows.tolist(), strict=True) if labels[i] == k]
        assert int(found.class_samples[k]) == len(of_class)
        assert float(found.class_accuracy[k]) == pytest.approx(sum(of_class) / len(of_class))
        mean = z[labels == k].mean(0)[found.used]
        assert torch.allclose(found.typical[k].double(), mean, atol=1e-5)
    only = {one.count: (one.only, one.without) for one in found.top}
    assert only == top_k_accuracy(head, features.values[rows], labels[rows], (1, 2, 3, 5))


def test_each_class_lists_its_features_by_weight(
    found: HeadStudy, features: Features, head: SparseHead
) -> None:
    for k in range(K):
        listed = found.features_of(k)
        assert {feature: weight for feature, weight, _ in listed} == {
            j: float(head.weights[k, j]) for j in range(D) if head.weights[k, j] != 0
        }
        sizes = [abs(weight) for _, weight, _ in listed]
        assert sizes == sorted(sizes, reverse=True)
    assert found.features_per_class == head.features_per_class


def test_cards_show_the_samples_with_the_largest_values(
    found: HeadStudy, features: Features, images: Tensor, head: SparseHead
) -> None:
    z = head.standardise(features.values)
    assert {feature for k in range(K) for feature, _, _ in found.features_of(k)} <= {
        card.feature for card in found.cards
    }
    for card in found.cards:
        best = sorted(range(N), key=lambda i: -float(z[i, card.feature]))[:4]
        assert list(card.samples) == best
        assert card.values == pytest.approx([float(z[i, card.feature]) for i in best])
        against = (card.feature, True) in {
            (j, w < 0) for k in range(K) for j, w, _ in found.features_of(k)[:6]
        }
        low = sorted(range(N), key=lambda i: float(z[i, card.feature]))[: 4 * against]
        assert list(card.lowest) == low
        assert card.lowest_values == pytest.approx([float(z[i, card.feature]) for i in low])
    assert {bool(card.lowest) for card in found.cards} == {True, False}
    for place, sample in enumerate(found.samples):
        assert sample.name == features.names[sample.number]
        assert found.sample(sample.number) is sample
        # 12 x 24 pixels become 6 x 12; fields of 6 x 6 pixels keep their middle.
        shown = found.pictures[place].float()
        whole = load_images(images[sample.number][None]).pixels[0].float()
        assert shown.shape == (3, 6, 12)
        assert torch.allclose(shown[:, 1::3, 1::3], whole[:, 3::6, 3::6], atol=2)


def test_cases_are_the_errors_and_the_closest_calls(
    found: HeadStudy, features: Features, rows: Tensor, head: SparseHead
) -> None:
    labels = torch.arange(N) % K
    logits = head.logits(features.values)
    wrong = [i for i in rows.tolist() if int(logits[i].argmax()) != int(labels[i])]
    errors = [case for case in found.cases if not case.right]
    close = [case for case in found.cases if case.right]
    lead = {i: float(logits[i].max() - logits[i, labels[i]]) for i in wrong}
    assert [case.sample for case in errors] == sorted(wrong, key=lambda i: -lead[i])[:12]
    gaps = {i: float(-logits[i].topk(2).values.diff()) for i in rows.tolist() if i not in wrong}
    assert [case.sample for case in close] == sorted(gaps, key=lambda i: gaps[i])[:CLOSE]
    for case in found.cases:
        total = case.bias + sum(one.share for one in case.contributions) + case.rest
        assert case.margin == pytest.approx(total, abs=1e-5)
        assert case.margin == pytest.approx(lead.get(case.sample, gaps.get(case.sample)), abs=1e-5)
        assert len(case.contributions) <= SHARES
        assert case.label == int(labels[case.sample]) and case.predicted == int(logits[case.sample].argmax())
        if case.flip is not None:
            after = head.without(list(case.flip.features)).predict(features.values[case.sample][None])
            assert int(after) == case.flip.after != case.predicted
            assert case.right or case.flip.after == case.label
        for feature in case.repairs:
            after = head.without(feature).predict(features.values[case.sample][None])
            assert int(after) == case.label
        assert case.right or case.flip == smallest_repair(head, features.values[case.sample], case.label)
    assert any(case.repairs for case in errors)


def test_of_many_errors_some_that_can_be_repaired_are_shown(
    found: HeadStudy, net: nn.Module, features: Features, rows: Tensor, head: SparseHead
) -> None:
    errors = [case for case in found.cases if not case.right]
    order, repairable = [case.sample for case in errors], {case.sample for case in errors if case.repairs}
    moved = 0
    for most in range(1, len(errors)):
        few = study_head(net, head, features, rows=rows, most_errors=most)
        shown = [case.sample for case in few.cases if not case.right]
        assert shown == _shown(order, most, repairable) and len(shown) == most
        moved += shown != order[:most]
    assert moved
    assert _shown([5, 3, 9, 1], 3, {5, 1}) == [5, 3, 1]
    assert _shown([5, 3, 9, 1], 3, {5, 3}) == [5, 3, 9]  # none of the others can be repaired
    assert (_shown([5, 3], 1, {3}), _shown([5, 3], 0, {3})) == ([5], [])


def test_repairs_and_shared_features_are_those_of_the_audit(
    found: HeadStudy, features: Features, rows: Tensor, head: SparseHead
) -> None:
    labels = torch.arange(N) % K
    mended = repairs(head, features.values[rows], labels[rows])
    assert found.repairs and len(found.repairs) == min(12, len(mended))
    assert found.repairable == len({sample for one in mended for sample in one.samples})
    for mine, theirs in zip(found.repairs, mended, strict=False):
        assert mine == replace(theirs, samples=tuple(rows[list(theirs.samples)].tolist()))
        assert all(int(labels[sample]) == mine.label for sample in mine.samples)
    assert found.shared == tuple(shared_features(head))[:12] and found.shared_count == len(
        shared_features(head)
    )


def test_the_path_is_drawn_with_the_head_on_it(
    found: HeadStudy, net: nn.Module, features: Features, path: SparsePath, head: SparseHead
) -> None:
    assert found.curve is not None and found.curve.point == head.origin["point"]
    assert torch.equal(found.curve.features_per_class, path.features_per_class)
    densest = int(path.features_per_class.argmax())
    assert found.curve.densest_accuracy == pytest.approx(float(path.validation_accuracy[densest]))
    edited = study_head(net, head.without(int(head.features_used[0])), features, path=path)
    assert edited.curve is not None and edited.curve.point is None
    assert (edited.cards, edited.held_out, edited.judged) == ((), False, N)
    assert study_head(net, head, features).curve is None


def test_what_is_saved_is_loaded(found: HeadStudy, tmp_path: Path, head: SparseHead) -> None:
    full = replace(
        found,
        cards=tuple(
            replace(card, places=torch.rand(2, 3, 3), visual=torch.ones(3, 4, 4).byte(), visual_value=1.5)
            for card in found.cards
        ),
    )
    for one in (full, replace(found, curve=None, cards=(), dense_accuracy=None)):
        one.save(tmp_path / "study")
        loaded = HeadStudy.load(tmp_path / "study")
        assert same(one, loaded)
        assert one.summary() == loaded.summary()
    with pytest.raises(ValueError, match="a study of a head"):
        HeadStudy.load(tmp_path / "nothing")


def same(a: Any, b: Any) -> bool:
    """Equal in all, tensors by value and dtype."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)
    return bool(a == b)


def test_the_summary_tells_the_numbers(found: HeadStudy) -> None:
    text = found.summary()
    assert f"3 classes, {found.features_per_class:.1f} features per class, {len(found.used)} of 8" in text
    assert f"Accuracy {100 * found.accuracy:.1f} % on 24 held-out samples." in text
    assert f"{found.errors} errors; the removal of a single feature repairs {found.repairable}" in text
    feature, weight, _ = found.features_of(1)[0]
    assert f"bee: features {feature} ({weight:+.3g})" in text
    with pytest.raises(ValueError, match="one of the shown samples"):
        found.sample(-1)


def test_the_summary_counts_errors_in_words(found: HeadStudy) -> None:
    one = Repair(4, 0, 1, 1, 1, (8,))

    def said(**changes: Any) -> str:
        return replace(found, **changes).summary()

    text = said(errors=1, repairable=1, repairs=(one,))
    assert (
        "1 error; the removal of a single feature repairs it (feature 4 repairs the one 'ant' taken for 'bee')."
        in text
    )
    text = said(errors=9, repairable=5, repairs=(replace(one, repaired=3, errors=5),))
    assert "repairs 5 of them (feature 4 repairs 3 of the 5 'ant' taken for 'bee')." in text
    assert "4 repairs all 5 'ant'" in said(repairs=(replace(one, repaired=5, errors=5),))
    assert "1 error; the removal of no single feature repairs it." in said(errors=1, repairable=0, repairs=())
    assert "2 errors; the removal of no single feature repairs one" in said(
        errors=2, repairable=0, repairs=()
    )


def test_a_head_without_features_is_studied(
    net: nn.Module, features: Features, images: Tensor, rows: Tensor, path: SparsePath, tmp_path: Path
) -> None:
    empty = path.select(point=0)
    assert not len(empty.features_used)
    found = study_head(net, empty, features, path=path, rows=rows, images=images)
    assert (found.cards, found.repairable, found.features_per_class) == ((), 0, 0)
    assert all(case.flip is None and not case.repairs for case in found.cases) and found.errors
    assert f"It uses no feature: it always answers {empty.name(int(empty.bias.argmax()))}." in found.summary()
    found.save(tmp_path / "study")
    assert same(found, HeadStudy.load(tmp_path / "study"))
    assert write_report(found, tmp_path / "report.html").is_file()


def test_few_classes_and_errors_are_shown_where_few_are_asked(
    net: nn.Module, features: Features, images: Tensor, head: SparseHead
) -> None:
    found = study_head(net, head, features, images=images, most_classes=2, most_errors=1, features_shown=1)
    assert sum(not case.right for case in found.cases) == 1
    worst = sorted(range(K), key=lambda k: float(found.class_accuracy[k]))[:2]
    assert found.carded == tuple(sorted(worst))


def test_the_networks_own_layer_is_compared_class_by_class(
    net: nn.Module, features: Features, images: Tensor, head: SparseHead
) -> None:
    loaded = LoadedModel("net", net, None, ("Cow, calf", "bee", "ANT"), (3, 12, 24))  # type: ignore[arg-type]
    found = study_head(loaded, head, features, images=images)
    with torch.no_grad():
        answers = net(images)[:, [2, 1, 0]].argmax(1)
    assert found.dense_accuracy == pytest.approx(float((answers == torch.arange(N) % K).double().mean()))
    assert found.model_name == "net" and len(found.dense_top) == len(found.top)
    # A module alone does not say what its classes are called.
    assert study_head(net, head, features, images=images).dense_accuracy is None
    assert study_head(net, replace(head, class_names=()), features, images=images).dense_accuracy is not None


def test_a_binary_head_has_two_classes(net: nn.Module, features: Features, images: Tensor) -> None:
    two = features.subset(torch.arange(N)[torch.arange(N) % K < 2])
    path = fit_sparse_path(two, family="binary", n_lambdas=10, min_ratio=0.05)
    chosen_images = images[torch.arange(N) % K < 2]
    found = study_head(net, path.select(point=6), two, path=path, images=chosen_images)
    assert found.weights.shape[0] == 2 and not found.weights[0].any()
    assert found.accuracy == pytest.approx(float(path.train_accuracy[6]))
    assert found.curve is not None and found.curve.point == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": None}, "expected labels, got none"),
        ({"labels": torch.zeros(3).long()}, r"study_head: expected one label .*, got \(3,\)"),
        ({"labels": torch.full((N,), 3)}, "labels 0 to 2, got 3 to 3"),
        ({"rows": torch.tensor([60])}, "rows between 0 and 59, got 60 to 60"),
        ({"rows": torch.zeros(0)}, "rows between 0 and 59, got none"),
        ({"images": torch.rand(3, 3, 12, 24)}, "expected 60 images, got 3"),
        ({"images": "nowhere"}, "the images of the features, got no file nowhere/image 0 and 59 more"),
        ({"features": torch.rand(N, 5)}, r"features \(N, 8\)"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    net: nn.Module, features: Features, change: dict[str, Any], said: str, head: SparseHead
) -> None:
    given: dict[str, Any] = {"features": features.values, "labels": torch.arange(N) % K, **change}
    with pytest.raises(ValueError, match=said):
        study_head(net, head, given.pop("features"), given.pop("labels"), **given)


def test_another_network_and_other_things_are_refused(
    net: nn.Module, features: Features, images: Tensor, head: SparseHead
) -> None:
    with pytest.raises(ValueError, match="the network of this head, got another"):
        study_head(Net().eval(), head, features, images=images)
    with pytest.raises(TypeError, match="expected images, got int"):
        study_head(net, head, features, images=7)
    with pytest.raises(TypeError, match="or a LoadedModel, got str"):
        study_head("resnet50", head, features)  # type: ignore[arg-type]
    numbers = fit_sparse_path(
        features.values, features.values[:, :1], family="gaussian", n_lambdas=4, min_ratio=0.5
    )
    with pytest.raises(ValueError, match="a head of classes"):
        study_head(net, numbers.select(point=2), features)


def test_a_network_that_takes_no_images_is_found_by_its_example() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    inputs = torch.randn(30, 6)
    found = extract_features(net, inputs, torch.arange(30) % 3)
    path = fit_sparse_path(found, n_lambdas=5, min_ratio=0.1)
    with pytest.raises(ValueError, match="a model that takes the example"):
        study_head(net, path.select(point=4), found)
    study = study_head(net, path.select(point=4), found, path=path, example=inputs[:2])
    right = net(inputs).argmax(1) == torch.arange(30) % 3
    assert study.dense_accuracy == pytest.approx(float(right.double().mean())) and not study.cards


def test_a_class_without_judged_samples_has_no_accuracy(
    net: nn.Module, features: Features, head: SparseHead
) -> None:
    found = study_head(net, head, features, rows=torch.arange(0, N, K))
    assert found.class_samples.tolist() == [20, 0, 0]
    assert [math.isnan(value) for value in found.class_accuracy.tolist()] == [False, True, True]
    assert found.pictures.shape == (0, 3, 0, 0)
