"""The picture of docs/spurious.md: images in which a suspect is largest, and where in them it comes from.

python benchmarks/picture_spurious.py --out docs/spurious.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from benchmarks.planted import GREY, PLANS, plant
from benchmarks.study_spurious import CELLS, Case
from pyinterp.features.place import locate_features
from pyinterp.heads import suspects, top_samples

SEEDS = {"digits": 3, "faces": 2}
SHOWN, SIDE, GAP, MARGIN, LINE = 8, 80, 4, 12, 22
RED = torch.tensor([0.85, 0.1, 0.1])


def strip(images: Tensor) -> Image.Image:
    """(N, 3, H, W) in [0, 1], side by side, every pixel to be seen."""
    large = functional.interpolate(images, (SIDE, SIDE), mode="nearest")
    row = torch.ones(3, SIDE, len(images) * (SIDE + GAP) - GAP)
    for i, image in enumerate(large):
        row[:, :, i * (SIDE + GAP) : i * (SIDE + GAP) + SIDE] = image
    return Image.fromarray((row.permute(1, 2, 0) * 255).round().byte().numpy())


def rows(case: Case, feature: int) -> list[Image.Image]:
    """Its top images, shown without their noise, and the same under its places."""
    planted = case.planted
    top = planted.audit[top_samples(case.audit["field"], feature, SHOWN)]
    images = planted.images("field", top)
    pixels = (images - planted.noise[top] + GREY).clamp(0, 1).expand(-1, 3, -1, -1)
    found = locate_features(case.network, images, [feature], cells=CELLS).scores.clamp_min(0)
    heat = functional.interpolate(found / found.amax((2, 3), keepdim=True), images.shape[2:], mode="nearest")
    return [strip(pixels), strip((1 - heat) * (0.5 + 0.5 * pixels) + heat * RED[:, None, None])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    parts: list[tuple[str, list[Image.Image]]] = []
    for name, seed in SEEDS.items():
        case = Case(plant(PLANS[name], seed), "biased", seed)
        suspect = suspects(case.head, case.audit["moved"], case.audit_labels)[0].feature
        other = min(case.used, key=lambda j: float(case.moves[j].abs()))
        for words, feature in (
            ("the first suspect", suspect),
            ("one that the mark leaves alone", other),
        ):
            title = f"{name}: feature {feature}, {words}: where it is largest, and the places it comes from"
            parts.append((title, rows(case, feature)))
    width = 2 * MARGIN + parts[0][1][0].width
    height = 2 * MARGIN + len(parts) * (LINE + 2 * (SIDE + GAP) + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(sheet), MARGIN
    for title, strips in parts:
        draw.text((MARGIN, y), title, fill="black", font_size=14)
        y += LINE
        for one in strips:
            sheet.paste(one, (MARGIN, y))
            y += SIDE + GAP
        y += GAP
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main()
