"""What the default ImageNet network knows of photographs, with probes and by its own answer alone.

python benchmarks/study_knowledge_photographs.py --out FILE [--images 10] [--draws 5] [--reports FOLDER]

Forty crops of each of five photographs, 9 players. The class of a crop is what the network calls most crops of its
photograph; probes are fitted to four fifths of the crops, and some of the others are explained. Without labels, so
without probes: other crops, for the class that the network predicts among all thousand, played again with input noise.
The claims are those of study_knowledge.py.

Then two networks that were made from it are compared with it, by their answers on crops of one photograph: a chain that
keeps its answers there to a mean KL of 0.1, and a copy whose weights are rounded to 6 bits, filter by filter.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environment import environment
from benchmarks.study_knowledge import SEED, claims_of, described, stability_claim, strength_claim, told
from pyinterp import compare_knowledge, extract_chain, measure_knowledge, models, write_report
from pyinterp.games import grid_players

CROPS, BITS = 40, 6
PLAYERS = grid_players(3, 3)


def rounded(model: nn.Module, bits: int) -> nn.Module:
    """A copy whose weights have 2^bits - 1 values in each filter, as far from each other as its largest |w| asks."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in other.parameters():
            if value.dim() > 1:
                step = value.flatten(1).abs().amax(1).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
                step = step.view(-1, *[1] * (value.dim() - 1))
                value.copy_((value / step).round() * step)
    return other


def beside(
    model: nn.Module, other: nn.Module, names: tuple[str, str], images: Tensor, folder: Path | None
) -> dict[str, Any]:
    """What of the first network the second one has."""
    found = compare_knowledge(model, other, images, names=names, players=PLAYERS, progress=False)
    print(found.summary())
    if folder:
        write_report(found, folder / f"{names[1]}.html")
    return {
        **described(found),
        "iou": told(found.iou("next")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--draws", type=int, default=5)
    chosen = parser.parse_args()
    start = time.perf_counter()
    loaded = models.load("default")
    sets = [models.crops(photo, CROPS, size=224, seed=SEED) for photo in models.photographs().values()]
    images = models.load_images([crop for one in sets for crop in one], loaded.preprocess).tensor
    with torch.no_grad():
        answers = torch.cat([loaded.model(some).argmax(1) for some in images.split(32)])
    labels = torch.cat([part.mode().values.expand(len(part)) for part in answers.split(CROPS)])
    own = {"players": PLAYERS, "count": chosen.images, "seed": SEED, "progress": False}
    probed = measure_knowledge(loaded, images, labels, **own)
    alone = measure_knowledge(loaded, images, layers="output", draws=chosen.draws, **own)
    claims = {
        "low orders are stronger": strength_claim(alone),
        "low orders are steadier": stability_claim(alone),
    }
    if chosen.reports:
        chosen.reports.mkdir(parents=True, exist_ok=True)
        write_report(probed, chosen.reports / "photographs.html")
        write_report(alone, chosen.reports / "photographs-output.html")
    print(probed.summary(), alone.summary(), json.dumps(claims, indent=1), sep="\n", flush=True)
    shown = images[: chosen.images]
    chain = extract_chain(loaded, shown, target_kl=0.1, seed=SEED, progress=False)
    print(chain.summary(), flush=True)
    made = {
        "chain": chain.compact(loaded.model, shown),
        f"{BITS} bits": rounded(loaded.model, BITS),
    }
    report = {
        "suite": "knowledge_photographs",
        **environment(),
        "images": chosen.images,
        "draws": chosen.draws,
        "networks": {
            "probed": {**described(probed), "claims": claims_of(probed)},
            "output": {**described(alone), "claims": claims},
            **{
                name: beside(loaded.model, other, ("network", name), shown, chosen.reports)
                for name, other in made.items()
            },
        },
        "seconds": round(time.perf_counter() - start),
    }
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
