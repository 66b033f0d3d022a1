"""extract_chain: planted truths, bounds that hold, trials that don't touch each other, and every kind of bad input."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from planted import USED, pictures, planted
from torch import nn

import pyinterp
from pyinterp.chains import PRESETS, Chain, extract_chain, extract_chains
from pyinterp.chains.objective import Objective
from pyinterp.chains.search import Search


@pytest.mark.parametrize("mode", ["exact", "scaled"])
def test_finds_the_planted_chain(mode: str) -> None:
    net, images = planted(), pictures()
    chain = extract_chain(net, images, mode=mode, target_kl=0.02, max_steps=150, progress=False)  # type: ignore[arg-type]
    assert chain.bound_met
    assert chain.fidelity["images"]["kl"] <= 0.02
    assert chain.fidelity["images"]["agreement"] == 1.0
    for mask in chain.kept.values():
        assert not mask[USED:].any(), "a filter that nobody reads was kept"


def test_the_chain_reported_is_the_chain_applied() -> None:
    net, images = planted(0.05), pictures()
    chain = extract_chain(net, images, mode="exact", target_kl=0.05, max_steps=120, progress=False)
    with torch.no_grad(), chain.apply(net):
        inside = net(images)
    with torch.no_grad():
        full = net(images)
    kl = Objective(full).divergence(inside).mean()
    assert float(kl) == pytest.approx(chain.fidelity["images"]["kl"], abs=1e-5)
    assert [p.chain_class for p in chain.predictions] == inside.argmax(1).tolist()
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        for conv, mask in zip((by_hand.conv1, by_hand.conv2), chain.kept.values(), strict=True):
            conv.weight[~mask] = 0
            conv.bias[~mask] = 0
        torch.testing.assert_close(by_hand(images), inside)


def test_exact_mode_has_scores_of_one_and_scaled_mode_does_not() -> None:
    net, images = planted(0.05), pictures()
    exact = extract_chain(net, images, mode="exact", target_kl=0.05, max_steps=100, progress=False)
    scaled = extract_chain(net, images, mode="scaled", target_kl=0.05, max_steps=100, progress=False)
    assert all(set(exact.scores[name].tolist()) <= {0.0, 1.0} for name in exact.kept)
    assert any(((scaled.scores[name] - 1).abs() > 1e-3)[scaled.kept[name]].any() for name in scaled.kept)


def test_the_papers_recipe_and_its_presets() -> None:
    net, images = planted(), pictures()
    chain = extract_chain(net, images, mode="exact", sparsity_weight=0.02, progress=False)
    assert chain.bound_met is None
    assert chain.history["step"][-1] <= 300
    assert 0 < chain.kept_fraction < 1
    assert PRESETS["vgg19"]["layer_weight"] == 2 and PRESETS["resnet50"]["layer_weight"] == 1
    extract_chain(net, images, **PRESETS["vgg19"], max_steps=12, progress=False)


def test_a_size_target_is_kept() -> None:
    chain = extract_chain(
        planted(0.1), pictures(), mode="exact", target_keep=0.3, max_steps=120, progress=False
    )
    assert chain.kept_fraction <= 0.3
    assert chain.bound_met


def test_same_seed_same_chain() -> None:
    runs = [
        extract_chain(planted(0.1), pictures(), target_kl=0.05, max_steps=60, seed=5, progress=False)
        for _ in range(2)
    ]
    for name in runs[0].kept:
        assert torch.equal(runs[0].scores[name], runs[1].scores[name])


@pytest.mark.parametrize("target", [{"target_kl": 0.05}, {"target_keep": 0.4}, {}])
def test_many_trials_at_once_equal_separate_runs(target: dict[str, float]) -> None:
    net = planted(0.1).double()
    batches = [pictures(4, seed=1).double(), pictures(3, seed=2).double()]
    together = extract_chains(net, batches, mode="exact", max_steps=60, progress=False, **target)  # type: ignore[arg-type]
    for batch, chain in zip(batches, together, strict=True):
        alone = extract_chain(net, batch, mode="exact", max_steps=60, progress=False, **target)  # type: ignore[arg-type]
        for name in alone.kept:
            assert torch.equal(alone.kept[name], chain.kept[name])
        assert alone.fidelity["images"]["kl"] == pytest.approx(chain.fidelity["images"]["kl"], abs=1e-6)


def test_no_weight_gets_a_gradient_and_the_model_comes_back_as_it_was() -> None:
    net = planted(0.1)
    before = copy.deepcopy(net.state_dict())
    extract_chain(net, pictures(), target_kl=0.05, max_steps=40, progress=False)
    assert all(weight.grad is None and weight.requires_grad for weight in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert "forward" not in net.__dict__ and not net._forward_hooks and not net.training


def test_ctrl_c_returns_the_best_chain_so_far() -> None:
    calls = []

    def stop(measures: object) -> None:
        calls.append(measures)
        if len(calls) == 30:
            raise KeyboardInterrupt

    chain = extract_chain(planted(0.1), pictures(), target_kl=0.05, max_steps=200, progress=stop)
    assert chain.interrupted and "interrupted" in chain.message
    assert chain.bound_met
    assert len(calls) == 30


def test_keep_a_subset_of_classes_a_logit_or_a_callable() -> None:
    net, images = planted(), pictures()
    for keep in ([0, 1], 2, lambda logits: logits[:, :2].sum(1)):
        chain = extract_chain(
            net, images, mode="exact", keep=keep, target_kl=0.02, max_steps=100, progress=False
        )
        assert chain.bound_met
    only = extract_chain(net, images, mode="exact", keep=2, target_kl=1e-3, max_steps=150, progress=False)
    assert {int(i) for mask in only.kept.values() for i in mask.nonzero()} <= {2}


def test_progress_gets_every_step() -> None:
    rows: list[dict[str, object]] = []
    chain = extract_chain(planted(), pictures(), target_kl=0.05, max_steps=30, progress=rows.append)  # type: ignore[arg-type]
    assert [row["step"] for row in rows] == chain.history["step"]
    assert {"kl", "kept", "agreement", "phase", "seconds"} <= set(rows[0])


def test_half_precision_search_is_judged_in_full_precision() -> None:
    net, images = planted(0.05), pictures()
    chain = extract_chain(net, images, target_kl=0.1, max_steps=60, precision=torch.bfloat16, progress=False)
    again = chain.evaluate(net, images)
    assert again["kl"] == pytest.approx(chain.fidelity["images"]["kl"], abs=1e-5)


def test_round_trip(tmp_path: object) -> None:
    chain = extract_chain(planted(), pictures(), target_kl=0.05, max_steps=30, progress=False)
    chain.save(f"{tmp_path}/chain")
    back = Chain.load(f"{tmp_path}/chain")
    assert back.summary() == chain.summary()
    assert all(torch.equal(back.kept[name], chain.kept[name]) for name in chain.kept)


def one_class() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    ).eval()


def with_nan() -> nn.Module:
    net = planted()
    net.conv1.weight.data[0, 0, 0, 0] = float("nan")
    return net


@pytest.mark.parametrize(
    ("model", "images", "options", "words"),
    [
        (planted, lambda: torch.zeros(0, 3, 12, 12), {}, "image"),
        (planted, lambda: torch.full((1, 3, 12, 12), float("nan")), {}, "NaN"),
        (planted, lambda: torch.zeros(2, 5, 12, 12), {}, "model"),
        (planted, lambda: pictures().to("meta"), {}, "device"),
        (lambda: planted().train(), pictures, {}, r"model.eval\(\)"),
        (with_nan, pictures, {}, "conv1.weight"),
        (one_class, pictures, {}, "two classes"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 4)).eval(), pictures, {}, "hidden units"),
        (planted, pictures, {"threshold": 1.5}, r"threshold in \(0, 1\)"),
        (planted, pictures, {"sparsity_weight": -1.0}, "sparsity_weight >= 0"),
        (planted, pictures, {"target_kl": 0.0}, "target_kl > 0"),
        (planted, pictures, {"target_keep": 2.0}, "target_keep"),
        (planted, pictures, {"target_kl": 0.1, "target_keep": 0.1}, "both"),
        (planted, pictures, {"mode": "soft"}, "mode"),
        (planted, pictures, {"max_steps": 0}, "max_steps"),
        (planted, pictures, {"temperature": 0.0}, "temperature"),
        (planted, pictures, {"keep": [0, 9]}, "classes from 0 to 3"),
        (planted, pictures, {"sites": ["nowhere"]}, "nowhere"),
        (planted, pictures, {"precision": torch.int8}, "precision"),
    ],
)
def test_bad_input_is_one_clear_error(model, images, options, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        pyinterp.extract_chain(model(), images(), progress=False, **options)


def test_something_that_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        extract_chain("resnet50", pictures())  # type: ignore[arg-type]


def test_infinite_logits_are_named() -> None:
    net = planted()
    net.head.weight.data.mul_(1e38)
    with pytest.raises(ValueError, match="finite"):
        extract_chain(net, pictures() * 1e3, progress=False)


def test_ctrl_c_while_the_scores_are_tuned_keeps_the_chain() -> None:
    def stop(measures: Mapping[str, Any]) -> None:
        if measures["phase"] == "tune":
            raise KeyboardInterrupt

    chain = extract_chain(planted(0.1), pictures(), target_keep=0.4, max_steps=20, progress=stop)
    assert chain.interrupted and "interrupted" in chain.message
    assert 0 < chain.kept_fraction <= 0.4


def test_ctrl_c_between_annealing_and_tuning_keeps_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "value_whole", stop)
    chain = extract_chain(planted(0.1), pictures(), target_keep=0.4, max_steps=20, progress=False)
    assert chain.interrupted and 0 < chain.kept_fraction <= 0.4


def test_few_steps_say_that_nothing_was_removed() -> None:
    chain = extract_chain(planted(0.3), pictures(), target_kl=1e-6, max_steps=1, progress=False)
    assert chain.bound_met and chain.kept_fraction > 0.9
    assert "max_steps" in chain.summary()


def test_ctrl_c_while_pruning_keeps_what_was_pruned() -> None:
    closed = []

    def stop(measures: Mapping[str, Any]) -> None:
        if measures["phase"] == "prune":
            closed.append(measures["kept"])
            if len(closed) == 2:
                raise KeyboardInterrupt

    net, images = planted(0.1), pictures()
    chain = extract_chain(net, images, mode="exact", target_kl=0.3, max_steps=8, progress=stop)
    assert chain.interrupted and chain.bound_met
    assert chain.kept_fraction == pytest.approx(closed[-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_kl": "0.1"}, "target_kl a number"),
        ({"max_steps": 3.5}, "max_steps an integer"),
        ({"seed": None}, "seed an integer"),
    ],
)
def test_options_of_another_type(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        extract_chain(planted(), pictures(), progress=False, **options)


def test_a_large_seed() -> None:
    chain = extract_chain(planted(), pictures(), target_kl=0.1, max_steps=6, seed=2**62, progress=False)
    assert chain.bound_met


def test_nan_in_a_buffer_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 144, 3)).eval()
    net[1].running_mean[0] = float("nan")
    with pytest.raises(ValueError, match=r"1\.running_mean"):
        extract_chain(net, pictures(), progress=False)
