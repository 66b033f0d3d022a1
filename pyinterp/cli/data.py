"""Images with classes, as the commands take them: a folder of folders, or crops of photographs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinterp.errors import explain

if TYPE_CHECKING:
    from pyinterp.features.data import Source

CROPS, CROPS_SEED = 20, 0


@dataclass(frozen=True)
class Data:
    """What is classified.

    Attributes:
        images: A folder with one sub-folder per class, or pictures.
        labels: Of pictures; None where folders tell.
        class_names: Of pictures.
        names: Of pictures.
        counts: Images of each class, by its name.
        source: The files of a folder; None of pictures.
    """

    images: Any
    labels: list[int] | None
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    counts: dict[str, int]
    source: Source | None


def class_folders(data: Path) -> Data:
    """A folder per class, looked at but not read."""
    from pyinterp.features.data import open_source

    wanted = "a folder with one sub-folder of images per class"
    if not data.is_dir():
        raise ValueError(explain("--data", wanted, f"no folder {data}", "Check the path."))
    if not any(one.is_dir() and not one.name.startswith(".") for one in data.iterdir()):
        fix = "Make a folder of each class's name in it, and put its images there."
        raise ValueError(explain("--data", wanted, f"{data} without sub-folders", fix))
    source = open_source(data, None, 1)
    assert source.labels is not None
    counts = source.labels.bincount().tolist()
    return Data(data, None, (), (), dict(zip(source.class_names, counts, strict=True)), source)


def unlabelled(data: Path) -> Data:
    """All images of a folder, or of its sub-folders, as one class."""
    from pyinterp.features.data import open_source

    if not data.is_dir():
        fix = "Check the path."
        raise ValueError(explain("--data", "a folder of images", f"no folder {data}", fix))
    source = open_source(data, None, 1)
    return Data(data, None, (), (), {"all": len(source.pictures)}, source)


def photograph_crops() -> Data:
    """Crops of photographs that installed packages hold; the photograph is the class."""
    from pyinterp import models

    photographs = models.photographs()
    images, labels, names = [], [], []
    for number, (name, photograph) in enumerate(sorted(photographs.items())):
        images += models.crops(photograph, CROPS, size=256, seed=CROPS_SEED)
        labels += [number] * CROPS
        names += [f"{name}, crop {i + 1}" for i in range(CROPS)]
    classes = tuple(sorted(photographs))
    return Data(images, labels, classes, tuple(names), dict.fromkeys(classes, CROPS), None)


def require_classes(counts: dict[str, int], purpose: str) -> None:
    """Refuse fewer than two classes, and fewer than two images of a class, before the network runs."""
    if len(counts) < 2:
        fix = f"{purpose} tells classes apart: add the folder of another class."
        raise ValueError(explain("--data", "at least two classes", f"one ({next(iter(counts))})", fix))
    single = [name for name, count in counts.items() if count < 2]
    if single:
        more = ", ..." if len(single) > 5 else ""
        got = f"one of {', '.join(single[:5])}{more}"
        fix = "Add images, or remove these folders."
        raise ValueError(explain("--data", "at least 2 images of each class", got, fix))


def grid_of(text: str) -> tuple[int, int]:
    """Rows and columns of "3x4"."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.strip().lower())
    if found is None:
        fix = "Write 3x4 for three rows and four columns."
        raise ValueError(explain("--players", "ROWSxCOLUMNS", repr(text), fix))
    return int(found[1]), int(found[2])
