"""The annealed search of `extract_chain` against a plain eager loop that multiplies by gates in forward hooks.

python -m pytest benchmarks/bench_chain.py            (CHAIN_STEPS=560 for the whole recipe; 300 steps by default)

Default network, 10 images; on a GPU also ResNet-50 and VGG-19 with 20 images: random weights, and a last layer that
tells from which of two photographs an image is. The search is the annealing alone, until it ends, and must meet its
bound, which the network without any unit is far from. The eager loop, whose steps all cost the same, runs two after
every CHAIN_STEPS / 15 steps of it, so that a busy machine troubles both alike; the first gets its memory, the second is
timed. Compared are the search's total and the eager loop's median times the number of steps. Some steps of the search
ask the network twice (once soft, once rounded), and the checks and rebuilds of the shrinking network are in its time;
the eager step is the bare minimum. "compile" is the channels-last loop through torch.compile, without the time to
compile. "together" is a step of several chains at once over a step of one, each of as many images.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks import harness
from benchmarks.study_chain import crop_set
from pyinterp.chains.anneal import Anneal, Schedule, Target
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.progress import Recorder
from pyinterp.games.forward import full_float32
from pyinterp.memory import reused_memory
from pyinterp.models import Site, load, sites, trace

STEPS = int(os.environ.get("CHAIN_STEPS", "300"))
SAMPLES, BOUND = 15, 0.1
ON_GPU = harness.DEVICE.type == "cuda"
NETWORKS = ("default", "resnet50", "vgg19") if ON_GPU else ("default",)
TOGETHER = 16 if ON_GPU else 4
ROWS: list[dict[str, Any]] = []
FORMATS = {
    "eager": torch.contiguous_format,
    "eager_channels_last": torch.channels_last,
    "compile": torch.channels_last,
}


class Hooked:
    """A network whose filters are multiplied, before the activation, by sigmoid(a); Adam on a."""

    def __init__(
        self,
        model: nn.Module,
        filters: Sequence[Site],
        images: Tensor,
        objective: Objective,
        form: torch.memory_format,
    ) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).to(memory_format=form)
        self.images, self.objective = images.contiguous(memory_format=form), objective
        self.sizes = [site.units for site in filters]
        self.a = torch.full((sum(self.sizes),), 2.0, requires_grad=True, device=images.device)
        self.adam = torch.optim.Adam([self.a], lr=0.1)
        self.gates: tuple[Tensor, ...] = ()
        for index, site in enumerate(filters):
            _gated_module(self.model, site.node).register_forward_hook(self._multiply(index))

    def _multiply(self, index: int) -> Callable[..., Tensor]:
        return lambda _module, _inputs, output: output * self.gates[index][:, None, None]

    def logits(self, scores: Tensor) -> Tensor:
        self.gates = scores.split(self.sizes)
        return self.model(self.images)

    def step(self) -> None:
        gates = self.a.sigmoid()
        loss = self.objective.divergence(self.logits(gates)).mean() + 0.003 * gates.sum()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


def _gated_module(model: nn.Module, node: str) -> nn.Module:
    """The module whose output a site multiplies: "batch_norm_3" is what the fourth norm of the network answers."""
    kind = "batch_norm" if node.startswith("batch_norm") else "conv2d"
    wanted = {"batch_norm": nn.BatchNorm2d, "conv2d": nn.Conv2d}[kind]
    number = int(node.removeprefix(kind).removeprefix("_") or 0)
    module = [one for one in model.modules() if isinstance(one, wanted)][number]
    own = dict(module.named_children())
    return own.get("drop", module)  # timm runs it between a norm and the activation that the norm contains


class Meanwhile(Recorder):
    """Times the search, and every now and then an eager step, outside the search's time."""

    def __init__(self, eager: dict[str, Hooked]) -> None:
        super().__init__(False, STEPS)
        self.eager, self.steps, self.search = eager, 0, 0.0
        self.seconds: dict[str, list[float]] = {name: [] for name in eager}
        self.memory = ExitStack()
        self.last = self.start()

    def start(self) -> float:
        """The search goes on, with freed memory used again, as in `extract_chain`."""
        self.memory.enter_context(reused_memory())
        return time.perf_counter()

    def __call__(
        self, measures: dict[str, Tensor], trial: int | None = None, over: Tensor | None = None
    ) -> None:
        self.steps += 1
        if self.steps % max(1, STEPS // SAMPLES) == 0:
            self.stop()
            for name, loop in self.eager.items():
                loop.step()
                _wait()
                start = time.perf_counter()
                loop.step()
                _wait()
                self.seconds[name].append(time.perf_counter() - start)
            self.last = self.start()

    def stop(self) -> None:
        """Add what the search has taken since it went on; what runs now gets its memory as torch usually does."""
        _wait()
        self.memory.close()
        self.search += time.perf_counter() - self.last


def _wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def compare(model: nn.Module, images: Tensor) -> tuple[dict[str, Any], harness.Step]:
    """Run the search and the eager loops; return what was measured, and a step on the whole network."""
    with torch.no_grad():
        objective = Objective(model(images))
    filters = [site for site in sites(model, images) if site.kind != "layer"]
    engine = Engine(trace(model, images[:1]), filters)
    eager = {name: Hooked(model, filters, images, objective, form) for name, form in FORMATS.items()}
    eager["compile"].model.compile()
    drawn = 1 - 0.1 * torch.rand(len(engine), generator=torch.Generator().manual_seed(0))
    scores = drawn.to(images.device).requires_grad_()

    def step(logits: Callable[[Tensor], Tensor]) -> harness.Step:
        return lambda: torch.autograd.grad(objective.divergence(logits(scores)).mean(), scores)

    whole = {name: step(loop.logits) for name, loop in eager.items()}
    whole["pyinterp"] = step(lambda gates: engine.logits(gates, images))
    for name in eager:
        with full_float32(allow_tf32=False):  # times are those of torch's own choice
            harness.validate(whole["pyinterp"], whole[name])
        eager[name].step()
    first = harness.race(whole, turns=4)
    group = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    search = Anneal(engine, images, objective, group, Target(kl=BOUND), Schedule(STEPS), scaled=False, seed=0)
    clock = Meanwhile(eager)
    found = search.run(clock)
    clock.stop()
    stored = float(engine.stored.float().mean())
    engine.reopen()
    if not found.met[0]:
        raise AssertionError(f"expected a chain within {BOUND} nats, got none")
    with torch.no_grad():
        empty = objective.divergence(engine.logits(torch.zeros_like(scores), images)).mean()
    if not empty > 3 * BOUND:
        raise AssertionError(f"expected a network whose units matter, got {empty:.3g} nats without any")
    per_step = {name: median(times) for name, times in clock.seconds.items()}
    with torch.no_grad():
        answer = eager["eager"].logits(found.best[0].float())
    return {
        "images": len(images),
        "steps": clock.steps,
        "search_seconds": round(clock.search, 2),
        "search_seconds_per_step": round(clock.search / clock.steps, 4),
        "eager_seconds_per_step": {name: round(value, 4) for name, value in per_step.items()},
        "eager_steps_timed": len(clock.seconds["eager"]),
        "faster_than": {n: round(value * clock.steps / clock.search, 3) for n, value in per_step.items()},
        "whole_network_milliseconds": {name: round(value, 2) for name, value in first.items()},
        "kl_without_any_unit": round(float(empty), 3),
        "kept_percent": round(100 * float(found.best[0].float().mean()), 3),
        "kl_in_eager": round(float(objective.divergence(answer).mean()), 4),
        "agreement_in_eager": float(objective.agrees(answer).float().mean()),
        "stored_percent_at_end": round(100 * stored, 2),
    }, whole["pyinterp"]


def telling(name: str, images: Tensor, labels: Tensor) -> nn.Module:
    """A network of random weights whose last layer, fitted by least squares, tells the labels (N,) bool apart."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"zero_init_last": False} if name.startswith("resnet") else {}
    model: Any = timm.create_model(name, num_classes=2, **options).to(images.device)
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0  # its statistics are those of the images
        model.train(bool(norms))(images)
        model.eval()
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        centred = features - features.mean(0)
        ridge = 0.01 * centred.square().sum() / len(centred) * torch.eye(len(centred), device=images.device)
        slope = centred.T @ torch.linalg.solve(centred @ centred.T + ridge, 8.0 * labels.float() - 4)
        last = model.get_classifier()
        last.weight.copy_(torch.stack([-slope / 2, slope / 2]))
        last.bias.copy_(-(last.weight @ features.mean(0)))
    return model


def search_of(model: nn.Module, images: Tensor, count: int) -> Anneal:
    """``count`` searches at once, each on its own copy of the images."""
    all_images = images.repeat(count, 1, 1, 1)
    filters = [site for site in sites(model, images) if site.kind != "layer"]
    engine = Engine(trace(model, images[:1]), filters)
    with torch.no_grad():
        objective = Objective(model(all_images))
    group = torch.arange(count, device=images.device).repeat_interleave(len(images))
    return Anneal(
        engine, all_images, objective, group, Target(kl=BOUND), Schedule(STEPS), scaled=False, seed=0
    )


def compare_together(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """A step of several searches over a step of one."""
    one, together = (search_of(model, images, count) for count in (1, TOGETHER))
    with full_float32(allow_tf32=False):
        answers = [
            run._slope(one.a.sigmoid().expand(len(run.group), -1), run.strictness)[1]
            for run in (one, together)
        ]
    harness.validate(lambda: [answers[1]], lambda: [answers[0].repeat(TOGETHER)])
    times = harness.race({"one": one._step, "together": together._step}, turns=8)
    return {
        "chains": TOGETHER,
        "images_each": len(images),
        "over_one": round(times["together"] / times["one"], 3),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_chain(benchmark: BenchmarkFixture, name: str) -> None:
    loaded = load("default", device=harness.DEVICE)
    each = 5 if name == "default" else 10
    images = crop_set(loaded, {"chelsea": each, "coffee": each}, seed=0).to(harness.DEVICE)
    labels = torch.arange(2 * each, device=harness.DEVICE) < each
    model = loaded.model if name == "default" else telling(name, images, labels)
    row, step = compare(model, images)
    row["together"] = compare_together(model, images[:each] if ON_GPU else images[:2])
    ROWS.append({"network": name, **row})
    harness.write("chain", how=" ".join(__doc__.split("\n\n")[2].split()), rows=ROWS)
    told = ", ".join(f"{n} {r:.2f}x" for n, r in row["faster_than"].items())
    print(
        f"\nchain {name}: search faster than {told}; {TOGETHER} at once: {row['together']['over_one']} steps of one"
    )
    benchmark.extra_info.update(row)
    benchmark.pedantic(step, rounds=5, warmup_rounds=1)
