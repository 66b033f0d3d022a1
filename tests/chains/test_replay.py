"""What a step asks of a GPU can be recorded: no copy from the host, no wait.

Seen without a GPU by tensors on torch's "meta" device, which have no numbers that anything could wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from planted import pictures, planted
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyinterp.chains import penalty
from pyinterp.chains.adam import Adam
from pyinterp.chains.anneal import Anneal, Schedule, Target
from pyinterp.chains.checks import Options
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Keep, Objective
from pyinterp.chains.progress import Recorder
from pyinterp.chains.replay import Replay
from pyinterp.models.graph import trace
from pyinterp.models.prefix import SplitNetwork
from pyinterp.models.sites import find_sites

BOUND = Target(kl=0.1)
OWN = (Anneal, Engine, Objective, Adam, SplitNetwork, Replay)


class OnTheGpu(TorchDispatchMode):
    """Refuses what a recording can't hold: tensors of the host, but for single numbers, which travel with a launch."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in tree_leaves((args, kwargs or {})) if isinstance(value, Tensor)]
        result = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        moved = (
            func is torch.ops.aten.lift_fresh.default
        )  # torch.tensor(...) makes what it is given on the host
        moved |= {value.device.type for value in given} == {"cpu"} and any(value.is_meta for value in made)
        if moved or any(value.device.type == "cpu" and value.dim() for value in given):
            raise AssertionError(f"{func} reads memory of the host")
        return result


def to_gpu(thing: Any, seen: set[int]) -> Any:
    """Put all tensors of our objects on the device without numbers; what holds them is changed in place."""
    if isinstance(thing, Tensor):
        return thing.detach().to("meta")
    if isinstance(thing, (list, tuple)):
        return type(thing)(to_gpu(part, seen) for part in thing)
    if isinstance(thing, nn.Module):
        for owner in thing.modules():
            for name, value in owner._buffers.items():
                owner._buffers[name] = to_gpu(value, seen)
    elif isinstance(thing, OWN) and id(thing) not in seen:
        seen.add(id(thing))
        for name, value in vars(thing).items():
            vars(thing)[name] = to_gpu(value, seen)
        if isinstance(thing, Anneal):  # the network remembers its last images by their identity
            network = thing.engine.network
            assert network.remembered[0] is not None
            network.remembered = (thing.images, network.remembered[1])
    return thing


def on_the_gpu(run: Anneal, call: Callable[[], Any]) -> Any:
    to_gpu(run, set())
    with OnTheGpu():
        return call()


def a_run(
    keep: Keep = None, trials: int = 1, target: Target = BOUND, scaled: bool = False, left: float = 1.0
) -> Anneal:
    """With only the first ``left`` of all units physically there."""
    images = pictures(6)
    net = planted(0.1)
    traced = trace(net, images[:1])
    engine = Engine(traced, [site for site in find_sites(traced) if site.kind != "layer"])
    engine.close_all_but(torch.arange(len(engine)) < left * len(engine), images[:1])
    assert engine.stored.float().mean() <= left
    with torch.no_grad():
        objective = Objective(net(images), keep)
    group = torch.arange(6) * trials // 6
    run = Anneal(engine, images, objective, group, target, Schedule(), scaled, 0)
    run.done = 0.05
    objective.agrees(objective.logits)  # what is made once is there before the recording
    engine.logits(torch.ones(len(engine)), run.images)
    return run


@pytest.mark.parametrize("keep", [None, [0, 1], 1])
@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize("left", [1.0, 0.4])
def test_a_step_neither_waits_nor_reads_the_host(keep: Keep, trials: int, left: float) -> None:
    run = a_run(keep, trials, left=left)
    plain = run.ask._work(run.a[run.group], run.strictness)
    shapes = [value.shape for value in plain]

    def both() -> list[Any]:
        found = run._slope(run.a[run.group], run.strictness)
        assert all(value.is_meta for value in found)
        assert all(value.is_meta for value in run._look(run.a))
        return [value.shape for value in found]

    assert on_the_gpu(run, both) == shapes


@pytest.mark.parametrize("target", [Target(kl=0.1), Target(keep=0.5)])
@pytest.mark.parametrize("done", [0.05, 0.5, 0.9])
def test_the_whole_step_does_not_wait_either(
    done: float, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(target=target, scaled=True)
    run.done = done
    monkeypatch.setattr(run, "_noise", lambda: 0.0)  # random numbers of a GPU need one
    measures = on_the_gpu(run, run._step)
    assert set(measures) == {"kl", "agreement", "kept", "loss"} and measures["kl"].is_meta


@pytest.mark.parametrize("trials", [1, 2])
def test_a_step_of_the_papers_recipe_does_not_wait_either(
    trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(trials=trials)
    asked = []

    class OnMeta(Replay):
        def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            """Ask once on the device without numbers, with all that the function holds there too."""
            shapes = [value.shape for value in self._work(*inputs)]
            to_gpu(run, set())
            held = dict(zip(self._work.__code__.co_freevars, self._work.__closure__, strict=True))
            for cell in held.values():
                cell.cell_contents = to_gpu(cell.cell_contents, set())
            network = run.engine.network
            network.remembered = (held["images"].cell_contents, network.remembered[1])
            given = [value.to("meta") for value in inputs]
            with OnTheGpu():
                found = self._work(*given)
            asked.extend(value.shape for value in found)
            assert asked == shapes and all(value.is_meta for value in found)
            raise KeyboardInterrupt

    monkeypatch.setattr(penalty, "Replay", OnMeta)
    options = Options("exact", None, None, 0.005, 2.0, 0.2, 0.1, 0.005, 5, 0)
    penalty.optimise_scores(run.engine, run.images, run.objective, run.group, options, Recorder(False, 5))
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda x: x * torch.arange(3.0), RuntimeError),
        (lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device), AssertionError),
        (lambda x: x * float(x.sum()), RuntimeError),
        (lambda x: x[x > 0], RuntimeError),
    ],
    ids=["a tensor of the host", "a copy from the host", "a wait", "a size that depends on numbers"],
)
def test_the_check_sees_what_can_not_be_recorded(
    work: Callable[[Tensor], Tensor], error: type[Exception]
) -> None:
    x = torch.ones(3, device="meta")
    with pytest.raises(error), OnTheGpu():
        work(x)


def test_on_a_cpu_the_function_itself_runs() -> None:
    run = a_run()
    calls = []
    replay = Replay(run.engine, lambda x: (calls.append(1), (2 * x,))[1])
    for _ in range(2):
        assert torch.equal(replay(torch.ones(2))[0], torch.full((2,), 2.0))
    assert len(calls) == 2


@pytest.mark.gpu
def test_a_recording_gives_what_the_function_gives_also_when_the_network_gets_smaller() -> None:
    images = pictures(6).cuda()
    net = planted(0.1).cuda()
    traced = trace(net, images[:1])
    engine = Engine(traced, [site for site in find_sites(traced) if site.kind != "layer"])
    with torch.no_grad():
        objective = Objective(net(images))
    group = torch.zeros(6, dtype=torch.long, device="cuda")
    run = Anneal(engine, images, objective, group, Target(kl=0.1), Schedule(), False, 0)
    for size in (len(engine), len(engine) // 3, 2):
        engine.close_all_but(torch.arange(len(engine), device="cuda") < size, images[:1])
        for _ in range(3):
            scores = torch.rand(6, len(engine), device="cuda")
            wanted = [value.clone() for value in run._slope(scores, run.strictness)]
            found = run.ask(scores, run.strictness)
            assert run.ask._graph is not None
            for one, other in zip(found, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
            engine.logits(scores[0], images[:1])  # another question in between changes nothing


@pytest.mark.gpu
def test_what_can_not_be_recorded_runs_as_it_is_and_says_so() -> None:
    images = pictures(6).cuda()
    traced = trace(planted(0.1).cuda(), images[:1])
    engine = Engine(traced, [site for site in find_sites(traced) if site.kind != "layer"])
    replay = Replay(engine, lambda x: (x * float(x.sum()),))
    with pytest.warns(UserWarning, match="kernels can be recorded"):
        assert replay(torch.ones(2, device="cuda"))[0].tolist() == [2.0, 2.0]
    assert replay(torch.ones(2, device="cuda"))[0].tolist() == [2.0, 2.0]


def test_a_search_is_the_same_with_a_bar_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [a_run() for _ in range(2)]
    for run in runs:
        run.schedule = Schedule(steps=20)
    plain, shown = Recorder(False, 20), Recorder(True, 20)
    found = [run.run(recorder) for run, recorder in zip(runs, (plain, shown), strict=True)]
    shown.close()
    assert torch.equal(found[0].logits, found[1].logits)
    assert plain.history(0)["kl"] == shown.history(0)["kl"]
