"""The annealing: its start, its noise, and what happens when nothing meets the bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted import USED, WIDTH, pictures, planted
from torch import Tensor

from pyinterp.chains.anneal import Anneal, Schedule, Target
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.progress import Recorder
from pyinterp.models.graph import trace
from pyinterp.models.sites import find_sites


def an_anneal(images: Tensor, group: Tensor, schedule: Schedule, kl: float = 0.02) -> Anneal:
    net = planted(0.1).to(images.dtype)
    traced = trace(net, images[:1])
    engine = Engine(traced, [site for site in find_sites(traced) if site.kind != "layer"])
    with torch.no_grad():
        objective = Objective(net(images))
    return Anneal(engine, images, objective, group, Target(kl=kl), schedule, False, 7)


def one_trial(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long)


def test_units_with_the_larger_slopes_start_further_open() -> None:
    run = an_anneal(pictures(), one_trial(6), Schedule())
    last = run.a[0, WIDTH:]
    assert float(last.min()) >= 0.5 and float(last.max()) <= 3.5
    assert last[:USED].min() > last[USED:].max()


def test_noise_starts_late_and_is_that_of_the_same_place_in_every_trial() -> None:
    images, group = pictures(5), torch.tensor([0, 0, 1, 1, 1])
    run = an_anneal(images, group, Schedule(steps=10))
    assert run._noise() == 0
    run.done, run.taken = 1.0, 10
    noise = run._noise()
    assert isinstance(noise, Tensor) and noise.shape == (5, 2 * WIDTH)
    torch.testing.assert_close(noise[:2], noise[2:4], rtol=0, atol=0)
    assert not torch.equal(noise[0], noise[1])
    alone = an_anneal(images[:2], group[:2], Schedule(steps=10))
    alone.done, alone.taken = 1.0, 10
    torch.testing.assert_close(alone._noise(), noise[:2], rtol=0, atol=0)
    run.taken = 11
    assert not torch.equal(noise, run._noise())


def test_the_temperature_falls_through_its_three_marks() -> None:
    run = an_anneal(pictures(), one_trial(6), Schedule())
    marks = []
    for run.done in (0.0, 0.7, 1.0):
        marks.append(run._temperature())
    assert marks == pytest.approx([1.0, 0.25, 0.1])


def test_where_nothing_meets_the_bound_units_are_given_back() -> None:
    """A penalty that closes too much, as it is not steered; the extra steps have all units again, and no penalty."""
    greedy = replace(Schedule(steps=200), weight=0.01, gain=0.0, judge_from=1.0)
    run = an_anneal(pictures(), one_trial(6), greedy)
    recorder = Recorder(False, 200)
    found = run.run(recorder)
    history = recorder.history(0)
    assert max(history["kl"][150:200]) > 0.02, "the penalty did not close too much"
    assert len(history["kl"]) > 200 and run.available.all()
    assert bool(found.met[0]) and int(found.best.sum()) > history["kept"][199] * 2 * WIDTH


@pytest.mark.parametrize("kl", [0.2, 0.1])
def test_a_run_ends_when_nothing_smaller_comes_and_a_trial_that_waits_keeps_its_result(kl: float) -> None:
    """With kl=0.1 the second trial ends early, and the first one needs more steps than it was given."""
    batches, schedule = [pictures(4, seed=1).double(), pictures(3, seed=2).double()], Schedule(steps=160)
    runs = [an_anneal(images, one_trial(len(images)), schedule, kl) for images in batches]
    recorders = [Recorder(False, 160) for _ in runs]
    alone = [run.run(recorder) for run, recorder in zip(runs, recorders, strict=True)]
    ends = [len(recorder.history(0)["kl"]) for recorder in recorders]
    assert ends[1] < min(ends[0], 160) and (ends[0] < 160) == (kl == 0.2), ends
    run = an_anneal(torch.cat(batches), torch.tensor([0] * 4 + [1] * 3), schedule, kl)
    recorder = Recorder(False, 160)
    together = run.run(recorder)
    assert [len(recorder.history(trial)["kl"]) for trial in (0, 1)] == ends
    assert ends[0] <= run.taken < ends[0] + schedule.look
    for trial, found in enumerate(alone):
        assert torch.equal(together.best[trial], found.best[0])
        torch.testing.assert_close(together.logits[trial], found.logits[0])


def test_small_gains_add_up_and_a_run_that_still_shrinks_goes_on() -> None:
    """Each step's sub-network is by 0.3 % of the first one smaller, less than what counts as a gain."""
    run = an_anneal(pictures(), one_trial(6), Schedule(steps=100))
    whole = run.objective.logits
    run.look_at = lambda scores: (run.objective.divergence(whole), run.objective.agrees(whole))  # type: ignore[assignment]
    settled = []
    for size in (*range(1000, 820, -3), *[820] * 16):
        run.engine.tied = lambda values, size=size: values * 0 + size  # type: ignore[method-assign, misc]
        run._judge(torch.ones_like(run.a))
        settled.append(bool(run.settled))
    assert not any(settled[:60]) and settled[-1]


def test_a_share_of_units_is_judged_by_the_most_open_ones_and_the_best_are_remembered() -> None:
    run = an_anneal(pictures(), one_trial(6), Schedule(steps=30))
    run.target = Target(keep=0.3)
    found = run.run(Recorder(False, 30))
    assert bool(found.met[0]) and run.taken == 30
    assert 0 < int(found.best.sum()) <= 0.3 * len(run.engine)
