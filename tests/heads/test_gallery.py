"""Pictures of samples come from whatever their features came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pyinterp.heads.gallery import Gallery
from pyinterp.models.images import load_images


@pytest.mark.parametrize("kind", ["tensor", "set", "list", "paths", "folder"])
def test_pictures_come_from_whatever_the_features_came_from(tmp_path: Path, kind: str) -> None:
    pixels = torch.randint(256, (9, 3, 12, 24), generator=torch.Generator().manual_seed(0)).byte()
    pictures = [Image.fromarray(np.ascontiguousarray(one.permute(1, 2, 0).numpy())) for one in pixels]
    paths = [tmp_path / f"{i}.png" for i in range(len(pixels))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    given: Any = {
        "tensor": pixels.float() / 255,
        "set": load_images(pixels.float() / 255, to_tensor),
        "list": pictures,
        "paths": paths,
        "folder": tmp_path,
    }[kind]
    found = Gallery(given, [path.name for path in paths], to_tensor).pictures([7, 0, 3], 24)
    assert torch.equal(found, pixels[[7, 0, 3]])


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
