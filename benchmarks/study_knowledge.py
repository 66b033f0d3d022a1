"""What the layers of small networks know: claims of "Layerwise Change of Knowledge" (ICML 2024), with intervals.

python benchmarks/study_knowledge.py --out FILE [--images 30] [--draws 5] [--baseline mean] [--reports FOLDER]

Four networks (MLP-7, VGG, ResNet, ViT) are trained on 80 % of scikit-learn's digits, a VGG on 80 % of scikit-image's
faces (lfw_subset: face or not); the rest is for accuracies and for the images that are explained, 12 players each.
Masked parts show the mean training image, as in the paper, or zero (`--baseline zero`), which is the background of
digits. Each claim comes with a number that would have another sign if it did not hold, and its 95 % interval over
images:

- low orders are stronger: the sum of |I| over orders 1 to 3 minus that over orders 4 and more, at the output, as a
  share of both (of 4,096 subsets, 298 are of the low ones);
- low orders generalise: IoU, corrected for chance, of orders 1 to 3 minus that of orders 4 and more, between the
  outputs of two networks;
- low orders are steadier: |mean| / (|mean| + deviation) over input noise, of orders 1 to 3 minus that of orders 4 and
  more (the paper's |mean| / deviation, told by order, has no end, and one effect can outweigh all others);
- middle layers hold most: completeness at the layer in the middle, minus one half;
- last layers mostly remove: what is forgotten minus what is new on the way from the layer at three quarters of the
  depth to the output, over what the output has.

The last two by strength, by share of each layer's strength, and by number: scores of networks, which are trained to be
sure, are larger than those of probes, whose strength is chosen on other samples, so that a probe can hold an
interaction and not its strength.

A claim holds if its interval is above zero, fails if it is below, and is open otherwise. Checkpoints of one training
run are compared with its end, for the two phases of learning: orders 4 and more first shrink, then grow.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environment import environment
from pyinterp import write_report
from pyinterp.games import dataset_mean, grid_players
from pyinterp.knowledge import (
    Estimate,
    LayerKnowledge,
    bootstrap,
    compare_knowledge,
    corrected,
    fit_probes,
    jaccard,
    measure_knowledge,
)
from pyinterp.knowledge.metrics import by_order

LOW = 3
SEED = 0


def mlp(classes: int, size: int) -> nn.Module:
    widths = [size * size, 128, 128, 128, 96, 64, 48]
    steps: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        steps += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*steps, nn.Linear(widths[-1], classes))


def vgg(classes: int, size: int) -> nn.Module:
    def conv(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]

    return nn.Sequential(
        *(*conv(1, 16), *conv(16, 16), nn.MaxPool2d(2)),
        *(*conv(16, 32), *conv(32, 32), nn.MaxPool2d(2)),
        *(*conv(32, 64), *conv(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(64, classes),
    )


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.second, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        return torch.relu(self.short(x) + inner)


def resnet(classes: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        *(Block(16, 16, 1), Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1)),
        *(Block(32, 64, 2), Block(64, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(64, classes),
    )


def vit(classes: int, size: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=size,
        patch_size=max(2, size // 6),
        in_chans=1,
        num_classes=classes,
        embed_dim=48,
        depth=7,
        num_heads=4,
        mlp_ratio=2,
    )


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {"mlp": mlp, "vgg": vgg, "resnet": resnet, "vit": vit}


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    return torch.tensor(pictures).float().view(-1, 1, 8, 8) / 16, torch.tensor(labels)


def faces() -> tuple[Tensor, Tensor]:
    from skimage.data import lfw_subset

    pictures = torch.tensor(lfw_subset()).float()[:, None]
    return pictures, (torch.arange(len(pictures)) < 100).long()


def trained(
    name: str,
    pictures: Tensor,
    labels: Tensor,
    train: Tensor,
    epochs: int,
    seed: int,
    keep: Sequence[int] = (),
) -> tuple[nn.Module, list[nn.Module]]:
    """The network after all epochs, and copies of it after some."""
    torch.manual_seed(seed)
    network = NETWORKS[name](int(labels.max()) + 1, pictures.shape[-1])
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=epochs * (-(-len(train) // 64))
    )
    kept = []
    for epoch in range(epochs):
        network.train()
        for rows in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(pictures[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
        if epoch + 1 in keep:
            kept.append(copy.deepcopy(network).eval())
    return network.eval(), kept


def claim(*values: Tensor, statistic: Callable[..., Tensor] = lambda mean: mean) -> dict[str, Any]:
    """Of one number per image, or a statistic of the means of several."""
    found = bootstrap(values, statistic)
    low, high = float(found.low), float(found.high)
    verdict = "holds" if low > 0 else "fails" if high < 0 else "open"
    return {"value": plain(float(found.value)), "low": plain(low), "high": plain(high), "verdict": verdict}


def low_minus_high(amounts: Tensor, counts: Tensor) -> Tensor:
    """(M, n + 1) sums and counts by order -> (M,) mean over orders 1 to 3 minus mean over the higher ones."""
    parts = [
        (amounts[:, some].sum(1), counts[:, some].sum(1))
        for some in (slice(1, LOW + 1), slice(LOW + 1, None))
    ]
    low, high = (torch.where(count > 0, amount / count, torch.nan) for amount, count in parts)
    return low - high


def strength_claim(found: LayerKnowledge) -> dict[str, Any]:
    sums = by_order(found.effects[:, -1].abs().double()).sum(1)
    low, high = sums[:, 1 : LOW + 1].sum(1), sums[:, LOW + 1 :].sum(1)
    return claim(low, high, statistic=lambda low, high: (low - high) / (low + high))


def stability_claim(found: LayerKnowledge) -> dict[str, Any]:
    assert found.spread is not None
    mean, deviation = found.spread[:, -1].double().unbind(-1)
    known = found.salient[:, -1]
    ratio = torch.where(known, mean.abs() / (mean.abs() + deviation), 0)
    return claim(low_minus_high(by_order(ratio).sum(1), by_order(known).sum(1)))


def middle_claim(found: LayerKnowledge, counts: bool) -> dict[str, Any]:
    parts = found.transfer(counts=counts)
    middle = (len(found.layers) - 1) // 2
    shared = (part[:, middle].sum((1, 2)) for part in (parts.overlap, parts.new))
    found_there = claim(*shared, statistic=lambda overlap, new: overlap / (overlap + new) - 0.5)
    return {"layer": found.layers[middle], **found_there}


def removal_claim(found: LayerKnowledge, counts: bool) -> dict[str, Any]:
    parts = found.transfer(counts=counts)
    late = round(0.75 * (len(found.layers) - 1))
    forget, new = (part[:, late].sum((1, 2)) for part in (parts.forget, parts.new))
    last = found.kept[:, -1].double()
    whole = (last.sign() if counts else last).abs().sum((1, 2))
    removed = claim(forget, new, whole, statistic=lambda forget, new, whole: (forget - new) / whole)
    return {"layer": found.layers[late], **removed}


def claims_of(found: LayerKnowledge) -> dict[str, Any]:
    return {
        "low orders are stronger": strength_claim(found),
        "the middle layer holds most, by strength": middle_claim(found, False),
        "the middle layer holds most, by share": middle_claim(found.relative(), False),
        "the middle layer holds most, by number": middle_claim(found, True),
        "last layers mostly remove, by strength": removal_claim(found, False),
        "last layers mostly remove, by share": removal_claim(found.relative(), False),
        "last layers mostly remove, by number": removal_claim(found, True),
    }


def likeness(first: LayerKnowledge, second: LayerKnowledge) -> dict[str, Any]:
    """IoU of the outputs of two networks by order, and the claim."""
    parts = jaccard(first.salient[:, -1], second.salient[:, -1])

    def low_minus_high(found: Tensor, expected: Tensor) -> Tensor:
        iou = corrected(found, expected)
        return iou[:, 1 : LOW + 1].nanmean() - iou[:, LOW + 1 :].nanmean()

    return {"iou": told(bootstrap(parts, corrected)), "claim": claim(*parts, statistic=low_minus_high)}


def plain(value: float) -> float | None:
    """As JSON has numbers."""
    return round(value, 5) if math.isfinite(value) else None


def told(estimate: Estimate) -> dict[str, Any]:
    parts = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {
        name: [[plain(v) for v in row] for row in part.view(-1, part.shape[-1]).tolist()]
        for name, part in parts.items()
    }


def described(found: LayerKnowledge) -> dict[str, Any]:
    complete, redundant = found.completeness(), found.redundancy()
    return {
        "layers": found.layers,
        "accuracy": [plain(one) for one in found.accuracy.tolist()],
        "judged": found.judged,
        "salient_per_image": [
            round(one, 2) for one in (found.salient.sum((0, 2, 3)) / len(found.effects)).tolist()
        ],
        "below_floor": int(found.below_floor.sum()),
        "sigma": float(found.sigma.max()),
        "completeness": told(complete),
        "completeness_of_shares": told(found.relative().completeness()),
        "redundancy": told(redundant),
        "overlap": told(found.overlap()),
        "forget": told(found.forget()),
        "new": told(found.new()),
        "strength": told(found.strength()),
        "stability": told(found.stability()) if found.draws else None,
        "forwards": found.forwards,
        "seconds": round(found.seconds, 1),
    }


PLAYERS = grid_players(3, 4)
EPOCHS = (1, 2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--baseline", choices=("mean", "zero"), default="mean")
    chosen = parser.parse_args()
    start = time.perf_counter()
    measured: dict[str, LayerKnowledge] = {}
    report: dict[str, Any] = {
        "suite": "knowledge",
        **environment(),
        "images": chosen.images,
        "draws": chosen.draws,
        "baseline": chosen.baseline,
    }
    report["networks"] = {}
    for data, names in ((digits, tuple(NETWORKS)), (faces, ("vgg",))):
        pictures, labels = data()
        test = torch.arange(0, len(labels), 5)
        train = torch.ones(len(labels), dtype=torch.bool).index_fill(0, test, False).nonzero()[:, 0]
        baseline = "zero" if chosen.baseline == "zero" else dataset_mean(pictures[train])
        for name in names:
            keep = EPOCHS if (name, data) == ("vgg", digits) else ()
            network, kept = trained(name, pictures, labels, train, 32, SEED, keep)
            probes = fit_probes(network, pictures, labels, held_out=test, seed=SEED, progress=False)
            found = measure_knowledge(
                network,
                pictures,
                players=PLAYERS,
                probes=probes,
                count=chosen.images,
                draws=chosen.draws,
                baseline=baseline,
                seed=SEED,
                progress=False,
            )
            called = f"{data.__name__}-{name}"
            measured[called] = found
            claims = {**claims_of(found), "low orders are steadier": stability_claim(found)}
            report["networks"][called] = {**described(found), "claims": claims}
            print(
                called,
                round(time.perf_counter() - start),
                "s",
                found.summary(),
                json.dumps(claims),
                sep="\n",
                flush=True,
            )
            if kept:
                rows = probes.held[: chosen.images]
                measured["digits-vgg-checkpoints"] = compare_knowledge(
                    kept[0],
                    kept[1:],
                    pictures[rows],
                    labels[rows],
                    names=[f"epoch {epoch}" for epoch in keep],
                    players=PLAYERS,
                    baseline=baseline,
                    progress=False,
                )
                report["checkpoints"] = described(measured["digits-vgg-checkpoints"])
    pairs = [("mlp", "vgg"), ("vgg", "resnet"), ("vgg", "vit"), ("mlp", "vit")]
    if chosen.reports:
        chosen.reports.mkdir(parents=True, exist_ok=True)
        for called, one in measured.items():
            write_report(one, chosen.reports / f"{called}.html")
    report["likeness"] = {
        f"{a} and {b}": likeness(measured[f"digits-{a}"], measured[f"digits-{b}"]) for a, b in pairs
    }
    report["seconds"] = round(time.perf_counter() - start)
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({pair: one["claim"] for pair, one in report["likeness"].items()}, indent=1))


if __name__ == "__main__":
    main()
