"""The path as a whole: going on from files, chunks and devices, validation, ending early, saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import classes, standardised
from sklearn.metrics import accuracy_score, log_loss
from small_heads import draws

from pyinterp.elastic import rows
from pyinterp.features import Features
from pyinterp.heads import SparsePath, fit_sparse_path, held_rows

FEW: dict[str, Any] = {"n_lambdas": 6, "min_ratio": 0.05}
TENSORS = (
    "lambdas",
    "weights",
    "biases",
    "kkt",
    "objective",
    "converged",
    "passes",
    "train_loss",
    "mean",
    "std",
)


def same(a: SparsePath, b: SparsePath) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in TENSORS)


def test_the_grid_falls_geometrically_from_lambda_max() -> None:
    features, labels = classes()
    path = fit_sparse_path(features, labels, n_lambdas=5, min_ratio=0.01, progress=False)
    ratios = path.lambdas / path.lambdas[0]
    torch.testing.assert_close(ratios, 10 ** torch.linspace(0, -2, 5, dtype=torch.float64))
    z = standardised(features)
    onehot = torch.nn.functional.one_hot(labels).double()
    largest = (z.T @ (onehot - onehot.mean(0)) / len(z)).abs().max() / 0.99
    assert float(path.lambdas[0]) == pytest.approx(float(largest), rel=1e-12)


def test_any_number_of_devices_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rows.CHUNK_BYTES, "cpu", 1)  # chunks of 256 rows
    features, labels = classes(count=1000)
    alone = fit_sparse_path(features.float(), labels, **FEW)
    for count in (2, 3):
        assert same(alone, fit_sparse_path(features.float(), labels, devices=count * ["cpu"], **FEW))


def test_rows_from_disk_give_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rows.CHUNK_BYTES, "cpu", 1)
    features, labels = classes(count=700)
    kept = fit_sparse_path(features.float(), labels, validation=0.2, **FEW)
    monkeypatch.setattr(rows, "RESIDENT_SHARE", 0.0)
    Features.of(features.float(), labels).save(tmp_path / "features")
    streamed = fit_sparse_path(Features.load(tmp_path / "features"), validation=0.2, **FEW)
    assert same(kept, streamed)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert same(kept, fit_sparse_path(mapped, labels, validation=0.2, **FEW))  # type: ignore[arg-type]


def test_validation_is_scikit_learns_loss_and_accuracy() -> None:
    features, labels = classes(count=400)
    path = fit_sparse_path(features[:300], labels[:300], validation=(features[300:], labels[300:]), **FEW)
    assert (path.samples, path.validation_samples) == (300, 100)
    for point in range(len(path)):
        for part, losses, accuracies in (
            (slice(300), path.train_loss, path.train_accuracy),
            (slice(300, 400), path.validation_loss, path.validation_accuracy),
        ):
            z = (features[part] - path.mean) / path.std
            logits = z @ path.weights[point].T + path.biases[point]
            odds = torch.softmax(logits, 1).numpy()
            assert float(losses[point]) == pytest.approx(
                log_loss(labels[part], odds, labels=range(4)), rel=1e-6
            )
            assert float(accuracies[point]) == pytest.approx(accuracy_score(labels[part], odds.argmax(1)))


def test_a_held_out_share_is_stratified_and_not_fitted() -> None:
    features, labels = classes(count=400)
    path = fit_sparse_path(features, labels, validation=0.25, seed=3, **FEW)
    counts = torch.bincount(labels)
    held = torch.bincount(labels[held_rows(labels, 0.25, 3)])
    assert (path.samples, path.validation_samples) == (300, 100)
    assert int(held.sum()) == 100 and bool(((held - counts / 4).abs() < 1).all())
    again = fit_sparse_path(features, labels, validation=0.25, seed=3, **FEW)
    other = fit_sparse_path(features, labels, validation=0.25, seed=4, **FEW)
    assert same(path, again)
    assert not torch.equal(path.mean, other.mean)


@pytest.mark.parametrize(
    ("sizes", "share", "expected"),
    [
        ([300, 91, 9], 0.1, [30, 9, 1]),
        ([300, 95, 5], 0.1, [30, 9, 1]),
        (10 * [9], 0.1, 9 * [1] + [0]),
        ([50, 2, 1], 0.1, [4, 1, 0]),
        ([100, 2, 2, 2, 2], 0.1, [7, 1, 1, 1, 1]),
        ([4, 2, 2], 0.99, [3, 1, 1]),
    ],
)
def test_a_share_is_dealt_out_to_the_classes(sizes: list[int], share: float, expected: list[int]) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[
        torch.randperm(sum(sizes), generator=draws(0))
    ]
    for seed in (0, 1):
        held = held_rows(labels, share, seed)
        assert torch.bincount(labels[held], minlength=len(sizes)).tolist() == expected


def test_classes_without_validation_samples_are_told() -> None:
    features, _ = classes(count=90)
    labels = torch.arange(90) % 10
    said = "validation samples of every class, got none of class 9. Raise validation"
    with pytest.warns(UserWarning, match=said) as told:
        path = fit_sparse_path(features, labels, validation=0.1, **FEW)
    assert told[0].filename == __file__ and path.validation_samples == 9


def test_both_sides_of_a_share_have_weighted_samples_of_each_class() -> None:
    features, labels = classes(count=200)
    weights = torch.zeros(200)
    for k in range(4):
        weights[(labels == k).nonzero()[:2, 0]] = 1
    for seed in range(3):
        path = fit_sparse_path(features, labels, sample_weights=weights, validation=0.5, seed=seed, **FEW)
        assert path.validation_samples == 4
        for values in (path.weights, path.biases, path.validation_loss, path.validation_accuracy):
            assert bool(values.isfinite().all())


def test_the_path_ends_at_the_wanted_features_per_class() -> None:
    features, labels = classes(width=20)
    path = fit_sparse_path(features, labels, max_features_per_class=3, n_lambdas=40)
    used = path.features_per_class
    assert path.stopped == "max_features_per_class"
    assert float(used[-1]) >= 3 > float(used[-2])


class Interrupt(Exception):
    """Stands for a machine that goes down."""


@pytest.mark.parametrize("changed", [{}, {"grouped": True}, {"solver": "fista"}])
def test_a_path_goes_on_from_its_file_as_if_never_ended(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyinterp.heads.trail.WRITE_EVERY", 0.0)
    features, labels = classes()
    solved: list[int] = []

    def tell(row: Mapping[str, Any]) -> None:
        solved.append(row["done"])
        if len(solved) == 3:
            raise Interrupt

    file = tmp_path / "path"
    options = {**FEW, **changed}
    whole = fit_sparse_path(features, labels, **options)
    with pytest.raises(Interrupt):
        fit_sparse_path(features, labels, file=file, progress=tell, **options)
    assert len(SparsePath.load(file)) == 3
    seen: list[int] = []
    path = fit_sparse_path(
        features, labels, file=file, progress=lambda row: seen.append(row["done"]), **options
    )
    assert seen == [4, 5, 6]
    assert same(path, whole) and path.settings == whole.settings
    assert same(path, fit_sparse_path(features, labels, file=file, **options))
    assert same(path, SparsePath.load(file))
    assert SparsePath.load(file).stopped == "grid"


def test_ctrl_c_keeps_what_is_done() -> None:
    features, labels = classes()

    def tell(row: Mapping[str, Any]) -> None:
        if row["done"] == 2:
            raise KeyboardInterrupt

    path = fit_sparse_path(features, labels, progress=tell, **FEW)
    assert (len(path), path.stopped) == (2, "interrupted")
    assert "ends early: interrupted" in path.summary()


def test_a_file_can_be_gone_on_with_to_more_features(tmp_path: Path) -> None:
    features, labels = classes(width=20)
    options: dict[str, Any] = {"file": tmp_path / "path", "n_lambdas": 30}
    short = fit_sparse_path(features, labels, max_features_per_class=3, **options)
    longer = fit_sparse_path(features, labels, max_features_per_class=6, **options)
    assert len(longer) > len(short)
    assert torch.equal(longer.weights[: len(short)], short.weights)
    cut = fit_sparse_path(features, labels, max_features_per_class=3, **options)
    assert torch.equal(cut.weights, short.weights)
    assert cut.stopped == "max_features_per_class" and len(cut.settings["curvatures"]) == len(cut)
    assert same(SparsePath.load(tmp_path / "path"), longer)


def test_a_file_of_another_path_is_refused(tmp_path: Path) -> None:
    features, labels = classes()
    file = tmp_path / "path"
    fit_sparse_path(features, labels, file=file, **FEW)
    for changed, words in (
        ({"alpha": 0.5}, "alpha"),
        ({"tolerance": 1e-3}, "tolerance"),
        ({"n_lambdas": 7}, "grid"),
        ({"grouped": True}, "grouped"),
    ):
        with pytest.raises(ValueError, match=f"of another path .it differs in .*{words}"):
            fit_sparse_path(features, labels, file=file, **{**FEW, **changed})
    with pytest.raises(ValueError, match=r"of another path .it differs in data"):
        fit_sparse_path(features + torch.eye(300, 10), labels, file=file, **FEW)
    (tmp_path / "path.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"SparsePath\.load: expected a sparse path"):
        fit_sparse_path(features, labels, file=file, **FEW)


def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    features, labels = classes()
    seen: list[Any] = []
    with pytest.raises(OSError, match="to write"):
        fit_sparse_path(features, labels, file=tmp_path / "no" / "path", progress=seen.append, **FEW)
    assert seen == []


@pytest.mark.parametrize("every", [0.0, 30.0])
def test_a_file_that_can_be_written_no_more_costs_no_path(
    every: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    features, labels = classes()
    whole = fit_sparse_path(features, labels, **FEW)
    monkeypatch.setattr("pyinterp.heads.trail.WRITE_EVERY", every)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(
        UserWarning, match=r"to write .*No space left on device.* keep it with its save"
    ) as told:
        path = fit_sparse_path(features, labels, file=tmp_path / "path", **FEW)
    assert len(told) == 1
    assert same(path, whole) and path.stopped == "grid"


@pytest.mark.filterwarnings("ignore:fit_sparse_path. expected every point")
def test_what_helps_against_a_missed_tolerance_is_said() -> None:
    features, labels = classes()
    hard: dict[str, Any] = {**FEW, "tolerance": 1e-12}
    single = fit_sparse_path(features.float(), labels, **hard)
    assert not bool(single.converged.all()) and int(single.passes.max()) < 2000
    assert "pass float64 features (features.values.double())" in single.summary()
    with pytest.warns(UserWarning, match="path.converged tells which. Raise max_passes") as told:
        fit_sparse_path(features, labels, max_passes=2, **FEW)
    assert told[0].filename == __file__
    alike = replace(single, kkt=torch.full((6,), 1.0041e-4), tolerance=1e-4)
    assert "(kkt 1.004e-04)" in alike.summary()


def test_a_path_is_saved_whole(tmp_path: Path) -> None:
    features, labels = classes()
    for options in ({"validation": 0.2}, {"grouped": True}, {"family": "gaussian"}):
        wanted = labels.double() if "family" in options else labels
        path = fit_sparse_path(features, wanted, **{**FEW, **options})
        path.save(tmp_path / "path")
        back = SparsePath.load(tmp_path / "path")
        for name, value in vars(path).items():
            other = getattr(back, name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def test_classes_and_network_come_from_the_features() -> None:
    features, labels = classes()
    named = Features.of(features.float(), labels, class_names=("a", "b", "c", "d"))
    path = fit_sparse_path(named, **FEW)
    assert path.class_names == ("a", "b", "c", "d")
    assert path.select(point=3).name(2) == "c"


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"grouped": True}, {"family": "binary"}, {"solver": "fista"}])
def test_a_gpu_gives_the_same_path(options: dict[str, Any]) -> None:
    features, labels = classes(count=500, outputs=2 if "family" in options else 4)
    here = fit_sparse_path(features, labels, tolerance=1e-6, **FEW, **options)
    there = fit_sparse_path(features.cuda(), labels.cuda(), tolerance=1e-6, **FEW, **options)
    assert there.weights.device.type == "cpu"
    assert bool(there.converged.all())
    torch.testing.assert_close(there.objective, here.objective, rtol=1e-8, atol=0)
    torch.testing.assert_close(there.weights, here.weights, rtol=0, atol=1e-3)
    streamed = fit_sparse_path(features, labels, devices=["cuda"], tolerance=1e-6, **FEW, **options)
    assert same(there, streamed)
