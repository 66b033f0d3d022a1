"""Results of different kinds under one name: none replaces another, and each says what stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyinterp import Features, SparseHead, SparsePath, fit_sparse_path


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(60) % 3
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    features[:, 0] += labels
    return features, labels


def test_no_result_replaces_one_of_another_kind(tmp_path: Path) -> None:
    features, labels = samples()
    path = fit_sparse_path(features, labels, n_lambdas=3, min_ratio=0.3)
    head, name = path.select(point=2), tmp_path / "run"
    assert repr(path).startswith("<SparsePath: 3 points") and "\n" not in repr(path)
    assert repr(head).startswith("<SparseHead: 3 classes") and "\n" not in repr(head)
    path.save(name)
    with pytest.raises(ValueError, match=r"SparseHead.*run\.json, which belongs to SparsePath"):
        head.save(name)
    with pytest.raises(
        ValueError, match=r"Features that nothing else has, got .*run\.json, which belongs to SparsePath"
    ):
        Features.of(features, labels).save(name)
    path.save(name)  # one of the same kind does
    assert torch.equal(SparsePath.load(name).weights, path.weights)


def test_what_stands_under_a_name_is_told(tmp_path: Path) -> None:
    features, labels = samples()
    name = tmp_path / "run"
    Features.of(features, labels).save(name)
    with pytest.raises(ValueError, match=r"got Features\. Load it with Features\.load"):
        fit_sparse_path(features, labels, n_lambdas=3, file=name)
    with pytest.raises(ValueError, match=r"got Features\. Load it with Features\.load"):
        SparseHead.load(name)
    assert torch.equal(Features.load(name).values, features)
