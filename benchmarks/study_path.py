"""The sparse path beside its peers, to an equal violation of the optimality conditions, all in one run.

python benchmarks/study_path.py --out FILE [--case digits] [--kind grouped] [--peer saga] [--tolerance 1e-4]

Cases: "digits" (1,437 deep features of a small network on scikit-learn's digits, d = 128, K = 10), "ten" (N = 20,000,
d = 512, K = 10) and "hundred" (N = 10,000, d = 512, K = 100), both correlated and rectified. Every contender gets the
same standardised features in memory and the same falling lambdas; after each of its points the objective and the KKT
violation are computed here, in float64, from the definition. Times are the best of as many calls as fit a second.
scikit-learn and FISTA run to about our violation; glm_saga runs with the settings of its authors, which have no such
aim. Peers: pip install -e ".[peers]".
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environment import environment
from pyinterp.heads import fit_sparse_path

ALPHA = 0.99
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Head = tuple[Tensor, Tensor]  # weights (K, d) and biases (K,)
Run = Callable[[Tensor, Tensor, list[float], float], list[Head]]  # the last is the wanted KKT violation


def rectified(count: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Deep features as they look: class centres in a small space, mixed, rectified."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    small = max(classes // 2, 16)
    centres, labels = normal(classes, small), torch.randint(0, classes, (count,), generator=generator)
    hidden = 0.6 * centres[labels] + normal(count, small)
    mixed = hidden @ normal(small, width) / math.sqrt(small)
    return F.relu(mixed + 0.5 * normal(count, width) + 0.3), labels


def digits() -> tuple[Tensor, Tensor]:
    """Deep features of a small network, trained here on four fifths of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    pictures, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    pictures = pictures.float().view(-1, 1, 8, 8) / 16
    body = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
    )
    network = nn.Sequential(body, nn.Linear(128, 10))
    train = torch.arange(len(labels)) % 5 != 0
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(12):
        for batch in train.nonzero()[:, 0][torch.randperm(int(train.sum()))].split(128):
            optimizer.zero_grad()
            F.cross_entropy(network(pictures[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return body(pictures[train]), labels[train]


def ours(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float, **options: Any) -> list[Head]:
    path = fit_sparse_path(
        z.to(DEVICE),
        labels.to(DEVICE),
        alpha=ALPHA,
        lambdas=lambdas,
        tolerance=tolerance,
        progress=False,
        **options,
    )
    return list(zip(path.weights.cpu(), path.biases.cpu(), strict=True))


def fista(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float) -> list[Head]:
    return ours(z, labels, lambdas, tolerance, solver="fista")


def grouped(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float) -> list[Head]:
    return ours(z, labels, lambdas, tolerance, grouped=True)


def saga(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float) -> list[Head]:
    """scikit-learn: warm starts by hand."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(l1_ratio=ALPHA, solver="saga", tol=1e-4, max_iter=400, warm_start=True)
    rows, classes, heads = z.numpy(), labels.numpy(), []
    for strength in lambdas:
        model.set_params(C=1 / (strength * len(z))).fit(rows, classes)
        heads.append((torch.tensor(model.coef_), torch.tensor(model.intercept_)))
    return heads


def glm_saga(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float) -> list[Head]:
    """The solver of the paper, settings of its toolkit: step 0.1, batches of 256, lookbehind 3, tolerance 1e-4."""
    from glm_saga.elasticnet import IndexedTensorDataset, glm_saga
    from torch.utils.data import DataLoader

    linear = nn.Linear(z.shape[1], int(labels.max()) + 1)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    loader = DataLoader(IndexedTensorDataset(z, labels), batch_size=256, shuffle=True)
    count = len(lambdas)
    with contextlib.redirect_stdout(io.StringIO()):
        found = glm_saga(
            *(linear, loader, 0.1, 2000, ALPHA),
            n_classes=int(labels.max()) + 1,
            n_ex=len(z),
            k=count,
            epsilon=lambdas[-1] / lambdas[0],
            lookbehind=3,
            tol=1e-4,
            do_zero=False,
        )
    return [(point["weight"], point["bias"]) for point in found["path"]]


def adelie(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float) -> list[Head]:
    """Grouped penalties; its loss is divided by K, and its groups have no factor sqrt(K) here, as ours."""
    import adelie as ad

    onehot = F.one_hot(labels).double().numpy()
    count, classes = z.shape[1], onehot.shape[1]
    state = ad.grpnet(
        X=np.asfortranarray(z.double().numpy()),
        glm=ad.glm.multinomial(y=np.asfortranarray(onehot), dtype=np.float64),
        alpha=ALPHA,
        penalty=np.ones(count),
        lmda_path=np.array(lambdas) / classes,
        early_exit=False,
        progress_bar=False,
        n_threads=torch.get_num_threads(),
    )
    weights = torch.tensor(state.betas.toarray()).view(-1, count, classes).transpose(1, 2)
    return list(zip(weights, torch.tensor(state.intercepts), strict=True))


def binary(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float) -> list[Head]:
    return ours(z, (labels % 2).long(), lambdas, tolerance, family="binary")


def skglm(z: Tensor, labels: Tensor, lambdas: list[float], tolerance: float) -> list[Head]:
    """Elastic-net logistic regression of the even classes against the odd ones, warm starts by hand."""
    from skglm import GeneralizedLinearEstimator
    from skglm.datafits import Logistic
    from skglm.penalties import L1_plus_L2
    from skglm.solvers import ProxNewton

    rows, signs = np.asfortranarray(z.numpy(), dtype=np.float64), 2.0 * (labels % 2).numpy() - 1
    heads = []
    estimator = GeneralizedLinearEstimator(
        Logistic(), L1_plus_L2(lambdas[0], ALPHA), ProxNewton(fit_intercept=True, warm_start=True, tol=1e-5)
    )
    for strength in lambdas:
        estimator.penalty = L1_plus_L2(strength, ALPHA)
        estimator.solver.tol = tolerance * strength * ALPHA
        estimator.fit(rows, signs)
        heads.append((torch.tensor(estimator.coef_).view(1, -1), torch.tensor(estimator.intercept_).view(1)))
    return heads


KINDS: dict[str, dict[str, Run]] = {
    "elementwise": {"pyinterp": ours, "fista": fista, "saga": saga, "glm_saga": glm_saga},
    "grouped": {"pyinterp": grouped, "adelie": adelie},
    "binary": {"pyinterp": binary, "skglm": skglm},
}
CASES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "digits": digits,
    "ten": lambda: rectified(20000, 512, 10),
    "hundred": lambda: rectified(10000, 512, 100),
}


def judge(kind: str, z: Tensor, labels: Tensor, strength: float, head: Head) -> tuple[float, float, float]:
    """Objective, relative KKT violation and non-zero weights per class, from the definition, in float64."""
    weights, bias = (part.double() for part in head)
    weights = torch.where(weights.abs() < 1e-12, 0.0, weights)
    z, l1, l2 = z.double(), strength * ALPHA, strength * (1 - ALPHA)
    logits = z @ weights.T + bias
    if kind == "binary":
        signs = (labels % 2).double()[:, None]
        loss, slope = (F.softplus(logits) - signs * logits).mean(), torch.sigmoid(logits) - signs
    else:
        loss, slope = F.cross_entropy(logits, labels), torch.softmax(logits, 1) - F.one_hot(labels)
    gradient = slope.T @ z / len(z) + l2 * weights
    if kind == "grouped":
        length = weights.norm(dim=0)
        used = (gradient + l1 * weights / length.clamp_min(1e-300)).norm(dim=0)
        distance = torch.where(length > 0, used, (gradient.norm(dim=0) - l1).clamp_min(0))
        norm = length.sum()
    else:
        used = (gradient + l1 * weights.sign()).abs()
        distance = torch.where(weights != 0, used, (gradient.abs() - l1).clamp_min(0))
        norm = weights.abs().sum()
    value = loss + l1 * norm + l2 / 2 * weights.square().sum()
    worst = max(float(distance.max()), float(slope.mean(0).abs().max()))
    return float(value), worst / l1, float((weights != 0).sum()) / len(weights)


def grid(kind: str, z: Tensor, labels: Tensor, points: int, ratio: float) -> list[float]:
    classes = (labels % 2).long() if kind == "binary" else labels
    family = "binary" if kind == "binary" else "multinomial"
    first = fit_sparse_path(
        z, classes, alpha=ALPHA, n_lambdas=1, family=family, grouped=kind == "grouped", progress=False
    )
    return [float(first.lambdas[0]) * ratio ** (i / (points - 1)) for i in range(points)]


def best_of(step: Callable[[], list[Head]]) -> tuple[float, list[Head]]:
    """Seconds of the best of several calls, one second in all or five of them; and what the last one gave."""
    times: list[float] = []
    while sum(times) < 1 and len(times) < 5:
        start = time.perf_counter()
        heads = step()
        times.append(time.perf_counter() - start)
    return min(times), heads


def measure(
    case: str, kind: str, peers: list[str], points: int, ratio: float, tolerance: float
) -> dict[str, Any]:
    features, labels = CASES[case]()
    z = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0).clamp_min(
        1e-9
    )
    z = z.float()
    lambdas = grid(kind, z, labels, points, ratio)
    row: dict[str, Any] = {
        "case": case,
        "kind": kind,
        "points": points,
        "last_ratio": ratio,
        "contenders": {},
    }
    row["shape"] = [*z.shape, int(labels.max()) + 1]
    for name, run in KINDS[kind].items():
        if peers and name not in (*peers, "pyinterp"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "skglm":  # what numba compiles is not timed
                run(z[:200], labels[:200], lambdas[:2], tolerance)
            seconds, heads = best_of(partial(run, z, labels, lambdas, tolerance))
        judged = [judge(kind, z, labels, *entry) for entry in zip(lambdas, heads, strict=True)]
        row["contenders"][name] = {
            "seconds": round(seconds, 4),
            "worst_kkt": max(entry[1] for entry in judged),
            "last_kkt": judged[-1][1],
            "last_objective": judged[-1][0],
            "worst_excess": max(
                a[0] - b for a, b in zip(judged, row.get("_best", [math.inf] * points), strict=True)
            ),
            "features_per_class": round(judged[-1][2], 1),
        }
        if name == "pyinterp":
            row["_best"] = [entry[0] for entry in judged]
        mine = row["contenders"]["pyinterp"]
        row["contenders"][name]["times_our_seconds"] = round(seconds / mine["seconds"], 2)
        print(case, kind, name, json.dumps(row["contenders"][name]), flush=True)
    del row["_best"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=[*CASES], action="append")
    parser.add_argument("--kind", choices=[*KINDS], action="append")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--ratio", type=float, default=0.03)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tolerance", type=float, default=1e-3)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    rows = [
        measure(case, kind, chosen.peer, chosen.points, chosen.ratio, chosen.tolerance)
        for case in chosen.case or CASES
        for kind in chosen.kind or KINDS
    ]
    report = {"suite": "path", **environment(), "tolerance": chosen.tolerance, "rows": rows}
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
