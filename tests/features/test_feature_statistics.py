"""The statistics of features are those of the definition, and what is made of them never NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from deep_nets import counted, images
from hypothesis import given, settings
from hypothesis import strategies as st

from pyinterp.features import Features, extract_features
from pyinterp.features.statistics import ROUNDING, Statistics


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6), st.sampled_from([0.0, 1.0, 1e4]), st.integers(0, 9)
)
def test_statistics_are_those_of_all_rows_together(sizes: list[int], mean: float, seed: int) -> None:
    torch.manual_seed(seed)
    values = torch.randn(sum(sizes), 5) * torch.tensor([1.0, 1e-3, 30.0, 1.0, 0.0]) + mean
    found = Statistics.none(5)
    for batch in values.split(sizes):
        found = found.and_of(batch)
    exact = values.double()
    assert found.rows == len(values)
    torch.testing.assert_close(found.mean, exact.mean(0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.std, exact.std(0, correction=0), rtol=1e-10, atol=1e-12)
    assert torch.equal(found.max, exact.amax(0))


def test_a_mean_far_above_the_deviation_costs_no_digits() -> None:
    values = (torch.randn(1000, 1, dtype=torch.float64) + 3e6).float()
    found = Statistics.none(1)
    for batch in values.split(10):
        found = found.and_of(batch)
    torch.testing.assert_close(found.std, values.double().std(0, correction=0), rtol=1e-10, atol=0)
    naive = (values.double().square().mean(0) - values.double().mean(0).square()).abs().sqrt()
    assert abs(naive / found.std - 1) > 1e-6  # the textbook formula would have failed this test


def test_standardised_values_are_those_of_scikit_learn() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="scikit-learn is not installed")
    torch.manual_seed(1)
    values = torch.randn(50, 4) * torch.tensor([1.0, 5.0, 0.1, 0.0]) + torch.tensor([0.0, 3.0, -9.0, 0.7])
    found = Features.of(values)
    expected = preprocessing.StandardScaler().fit(values.double().numpy()).transform(values.double().numpy())
    torch.testing.assert_close(
        found.standardised().double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-6
    )
    assert found.standardised().dtype == torch.float32
    assert torch.equal(found.standardised(slice(3, 9)), found.standardised()[3:9])
    assert torch.equal(found.standardised(torch.tensor([7, 2])), found.standardised()[[7, 2]])


def test_constant_features_are_zero_and_never_nan() -> None:
    steps = torch.tensor([0.0, 1.0] * 8)[:, None]
    tiny = torch.finfo(torch.float32).eps
    values = torch.cat(
        [0 * steps, 0 * steps + 0.1, 1e3 * (1 + tiny * steps), 1 + 1e-5 * steps, 1e-30 * steps], 1
    )
    found = Features.of(values)
    assert found.constant.tolist() == [True, True, True, False, False]
    assert 4 * tiny < 2 * ROUNDING  # the third feature's noise is one step of float32
    standard = found.standardised()
    assert torch.equal(standard[:, :3], torch.zeros(16, 3))
    torch.testing.assert_close(standard[:, 3:], (2 * steps - 1).expand(16, 2), rtol=1e-2, atol=0)
    assert Features.of(values[:1]).standardised().abs().sum() == 0


def test_extracted_statistics_are_those_of_the_values() -> None:
    found = extract_features(counted(), images(37), batch_size=5)
    exact = found.values.double()
    torch.testing.assert_close(found.mean, exact.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.std, exact.std(0, correction=0), rtol=1e-12, atol=0)
    assert torch.equal(found.max, exact.amax(0))


# ---- Features


def test_subsets_have_their_own_statistics() -> None:
    found = extract_features(counted(), images(), [i % 3 for i in range(10)])
    keep = torch.tensor([True, False] * 5)
    for indices, rows in (([4, 1, 1], [4, 1, 1]), (slice(2, 9, 3), [2, 5, 8]), (keep, [0, 2, 4, 6, 8])):
        some = found.subset(indices)
        assert torch.equal(some.values, found.values[rows])
        assert some.labels.tolist() == [row % 3 for row in rows]
        assert some.names == tuple(f"image {row}" for row in rows)
        torch.testing.assert_close(some.mean, found.values[rows].double().mean(0))
        assert (some.classifier_name, some.model_digest) == ("fc", found.model_digest)
    some.values.zero_()
    assert float(found.values.abs().sum()) > 0
    for wrong in ([10], [], torch.zeros(3, dtype=torch.bool), ["a"], slice(5, 5), 3):
        with pytest.raises(ValueError, match="subset: expected"):
            found.subset(wrong)


def test_summaries_say_what_there_is() -> None:
    found = extract_features(counted(), images(), [0] * 4 + [2] * 6)
    assert found.summary().startswith(
        "10 inputs, 6 features of 'fc'\n2 classes with 4 to 6 inputs each\n0 features"
    )
    plain = Features.of(torch.eye(3, 2), torch.randn(3, 2))
    assert plain.summary().splitlines()[:3] == [
        "3 inputs, 2 features",
        "2 targets",
        "0 features are constant",
    ]
    assert "no labels" in Features.of(torch.eye(3)).summary()
    assert repr(found) == "Features(10 x 6)"


def test_features_from_elsewhere_are_checked() -> None:
    values = torch.randn(5000, 3)
    made = Features.of(values, names=[f"n{i}" for i in range(5000)])
    torch.testing.assert_close(made.std, values.double().std(0, correction=0))
    values[4900, 1] = torch.inf
    with pytest.raises(ValueError, match="in 1 of 904 rows of a batch: n4900"):
        Features.of(values, names=made.names)
    with pytest.raises(ValueError, match=r"values \(N, d\), got \(3,\)"):
        Features.of(torch.zeros(3))
    with pytest.raises(ValueError, match="2 names, got 1"):
        Features.of(torch.zeros(2, 3), names=["a"])
    for wrong in (np.zeros((2, 3)), torch.zeros(2, 3, dtype=torch.int64)):
        with pytest.raises(TypeError, match="a float tensor"):
            Features.of(wrong)
