"""Features are what the last layer reads, from every kind of data, with the labels that belong to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deep_nets import by_hand, class_folder, counted, draw, images, snapshot
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyinterp.features import extract_features
from pyinterp.features.data import open_source, require_readable
from pyinterp.models.images import load_images


class Samples(Dataset):
    """(image, label) pairs that notes which it has given."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.read = items, []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return self.items[index]


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(x, i) for i, x in enumerate(images())])


def scaled(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def pairs() -> list[tuple[Tensor, int]]:
    return [(x, i) for i, x in enumerate(images())]


# ---- every kind of data


NUMBERED = list(range(10))
KINDS = {
    "tensor": (lambda: images(), None),
    "dict": (lambda: {"x": images()}, None),
    "dict with labels": (lambda: {"x": images(), "labels": torch.arange(10)}, NUMBERED),
    "list of images": (lambda: list(images()), None),
    "ImageSet": (lambda: load_images(images()), None),
    "Dataset": (lambda: Samples(pairs()), NUMBERED),
    "Dataset of inputs": (lambda: Samples(list(images())), None),
    "Dataset of dicts": (lambda: Samples([{"x": x, "label": i} for x, i in pairs()]), NUMBERED),
    "TensorDataset": (lambda: TensorDataset(images(), torch.arange(10)), NUMBERED),
    "TensorDataset of inputs": (lambda: TensorDataset(images()), None),
    "DataLoader": (lambda: DataLoader(Samples(pairs()), batch_size=3), NUMBERED),
    "IterableDataset": (Stream, NUMBERED),
    "batches": (lambda: [images()[:7], images()[7:]], None),
    "pairs of batches": (lambda: [(images()[i : i + 5], torch.arange(i, i + 5)) for i in (0, 5)], NUMBERED),
    "generator": (lambda: (images()[i : i + 1] for i in range(10)), None),
    "float64": (lambda: images().double(), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gives_the_same_features(kind: str) -> None:
    model, (make, labels) = counted(), KINDS[kind]
    found = extract_features(model, make(), batch_size=4)
    torch.testing.assert_close(found.values, by_hand(model, images()), rtol=1e-5, atol=1e-6)
    assert found.values.dtype == torch.float32 and not found.values.requires_grad
    assert found.labels is None if labels is None else found.labels.tolist() == labels
    assert found.names == tuple(f"{'row' if 'dict' in kind.lower() else 'image'} {i}" for i in range(10))
    assert (found.classifier_name, len(found), found.class_names) == ("fc", 10, ())
    assert max(model.seen) <= 7


def test_a_batch_at_a_time_is_read() -> None:
    model, data = counted(), Samples(pairs())
    extract_features(model, data, batch_size=4)
    assert model.seen == [2, 2, 4, 4, 2]  # two rows twice to find the layer
    assert data.read == [0, 3, 6, 9, *range(10)]  # four rows tell the data from others


def test_a_folder_of_classes_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    folder = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").ImageFolder
    root, model = class_folder(tmp_path), counted()
    (tmp_path / ".cache").rmdir()  # torchvision takes it for an empty class
    found, theirs = extract_features(model, root, batch_size=2), folder(root, transform=scaled)
    assert found.labels.tolist() == theirs.targets == [0, 0, 0, 1, 1, 1]
    assert found.class_names == tuple(theirs.classes) == ("cat", "dog")
    assert found.names == tuple(Path(path).relative_to(root).as_posix() for path, _ in theirs.samples)
    assert found.names == (
        "cat/k.bmp",
        "cat/z.png",
        "cat/deep/y.png",
        "dog/a.JPG",
        "dog/b.png",
        "dog/deep/c.png",
    )
    expected = by_hand(model, torch.stack([theirs[i][0] for i in range(6)]))
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-6)
    again = extract_features(model, folder(root), batch_size=2, preprocess=scaled)
    assert torch.equal(again.values, found.values) and torch.equal(again.labels, found.labels)


def test_pictures_and_their_names(tmp_path: Path) -> None:
    model = counted()
    paths = [draw(tmp_path / f"{name}.png", seed) for seed, name in enumerate("bca")]
    opened = [Image.open(path) for path in paths]
    turned = lambda image: scaled(image).flip(0)
    expected = by_hand(model, torch.stack([turned(image.convert("RGB")) for image in opened]))
    for data, order in ((paths, [0, 1, 2]), (tmp_path, [2, 0, 1]), (str(paths[1]), [1]), (opened, [0, 1, 2])):
        found = extract_features(model, data, batch_size=2, preprocess=turned)
        torch.testing.assert_close(found.values, expected[order], rtol=1e-5, atol=1e-6)
        assert found.names == tuple(paths[i].name for i in order)
    assert extract_features(model, scaled_image(), [2]).names == ("image 0",)


def scaled_image() -> Image.Image:
    return Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


def test_text_models_take_dicts() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.BertConfig(**sizes, num_attention_heads=2, num_labels=3)
    model = transformers.BertForSequenceClassification(config).eval()
    ids = torch.randint(2, 50, (6, 7))
    mask = torch.arange(7) < torch.tensor([7, 3, 5, 7, 4, 6])[:, None]
    words = {"input_ids": ids, "attention_mask": mask.long(), "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    with torch.no_grad():
        pooled = model.bert(ids, attention_mask=mask.long()).pooler_output
    batches = [{name: value[i : i + 2] for name, value in words.items()} for i in (0, 2, 4)]
    for data in (
        words,
        batches,
        DataLoader(Samples([{n: v[i] for n, v in words.items()} for i in range(6)]), 4),
    ):
        found = extract_features(model, data, batch_size=4)
        torch.testing.assert_close(found.values, pooled, rtol=1e-5, atol=1e-6)
        assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert found.names[5] == "row 5"


def test_models_in_half_precision_give_float32() -> None:
    model = counted().bfloat16()
    found = extract_features(model, images())
    assert found.values.dtype == torch.float32
    assert torch.equal(found.values, by_hand(model, images().bfloat16()).float())


def test_the_model_comes_back_as_it_was_and_says_where_it_runs(device: str) -> None:
    model = counted().to(device)
    model.conv.weight.requires_grad_(False)
    before = snapshot(model)
    found = extract_features(model, images(), batch_size=4)
    torch.testing.assert_close(found.values, by_hand(model, images().to(device)).cpu(), rtol=1e-5, atol=1e-5)
    assert found.values.device.type == found.mean.device.type == "cpu"
    with pytest.raises(ValueError, match="infinity"):
        extract_features(model, [images(), images() * torch.nan])
    model.stop_at = len(model.seen) + 2
    with pytest.raises(KeyboardInterrupt):
        extract_features(model, images(), batch_size=4)
    assert snapshot(model) == before


def test_a_bar_stands_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    extract_features(counted(), images(), batch_size=4)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    extract_features(counted(), (batch for batch in images().split(4)), batch_size=4)
    extract_features(counted(), images(), batch_size=4)
    shown = capsys.readouterr().err
    assert "images" in shown and "10/10" in shown


# ---- labels


def test_labels_in_every_form() -> None:
    model = counted()
    for labels in (NUMBERED, np.arange(10), torch.arange(10, dtype=torch.int32), torch.arange(10)):
        found = extract_features(model, images(), labels).labels
        assert found.dtype == torch.int64 and found.tolist() == NUMBERED
    targets = torch.randn(10, 2, dtype=torch.float64)
    assert torch.equal(extract_features(model, images(), targets).labels, targets)
    assert extract_features(model, images(), targets[:, 0]).labels.shape == (10, 1)
    streamed = extract_features(model, [(images()[:6], targets[:6]), (images()[6:], targets[6:])])
    assert torch.equal(streamed.labels, targets)
    assert extract_features(model, images(), [True] * 10).labels.tolist() == [1] * 10


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        ([0] * 9, ValueError, "10 labels, got 9"),
        (torch.zeros(10, 3, dtype=torch.int64), ValueError, r"float \(N, m\), got torch.int64 \(10, 3\)"),
        (torch.zeros(10, 3, 2), ValueError, r"got torch.float32 \(10, 3, 2\)"),
        ([float("nan")] * 10, ValueError, "finite targets"),
        (["cat"] * 10, TypeError, "names of classes must be numbered"),
        (torch.zeros(10, dtype=torch.complex64), TypeError, "complex64"),
        (3, ValueError, r"int \(N,\)"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, kind: type[Exception], words: str) -> None:
    model = counted()
    with pytest.raises(kind, match=words):
        extract_features(model, images(), labels)
    assert model.seen == []


def test_labels_come_from_one_place_and_in_one_kind(tmp_path: Path) -> None:
    model, whole = counted(), images()
    with pytest.raises(ValueError, match="labels in the data and as an argument"):
        extract_features(model, Samples(pairs()), NUMBERED)
    with pytest.raises(ValueError, match="labels in the data and as an argument"):
        extract_features(model, class_folder(tmp_path), [0] * 6)
    mixed = [(whole[:5], torch.arange(5)), whole[5:]]
    for batches in (mixed, mixed[::-1], [mixed[0], (whole[5:], torch.zeros(5))]):
        with pytest.raises(ValueError, match=r"labels of one kind with every batch .* from 'image 5' on"):
            extract_features(model, batches)
    with pytest.raises(ValueError, match="5 labels, got 4"):
        extract_features(model, [(whole[:5], torch.arange(4))])
    with pytest.raises(ValueError, match="7 labels, got 10"):
        extract_features(model, (batch for batch in [whole[:7]]), NUMBERED)
    with pytest.raises(ValueError, match=r"a DataLoader that shuffles.*shuffle=False"):
        extract_features(model, DataLoader(Samples(pairs()), 4, shuffle=True), NUMBERED)


# ---- bad input


def test_bad_features_are_named() -> None:
    model, x = counted(), images()
    model.fc = nn.Linear(6, 3).eval()
    x[[6, 9], 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="infinity in 2 of 4 rows of a batch: image 6, image 9"):
        extract_features(model, [x[:6], x[6:]])
    x[2:] = 1e30
    with torch.no_grad():
        model.conv.weight.fill_(1e30)
        model.conv.bias.zero_()
    x[:2] = 0
    with pytest.raises(ValueError, match=r"in 8 of 10 rows of a batch: image 2, .*image 6, \.\.\."):
        extract_features(model, x)


def test_unreadable_pictures_are_named_by_their_path(tmp_path: Path) -> None:
    root, model = class_folder(tmp_path), counted()
    (root / "dog" / "b.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"1 of 2 that can't \(dog/b\.png: not an image file"):
        extract_features(model, root, batch_size=2)
    draw(root / "dog" / "b.png", 0, size=9)
    with pytest.raises(ValueError, match=r"one size, got \(3, 8, 8\), and \(3, 9, 9\) from 'dog/b\.png' on"):
        extract_features(model, root, batch_size=1)
    (root / "bird").mkdir()
    with pytest.raises(ValueError, match=r"pictures in each folder of .*, got none in bird"):
        extract_features(model, root)
    (root / "bird").rmdir()
    draw(root / "stray.png", 0)
    with pytest.raises(ValueError, match=r"pictures or folders of classes in .*, got both"):
        extract_features(model, root)


def test_all_unreadable_files_are_found_at_once(tmp_path: Path) -> None:
    root, told = class_folder(tmp_path), []
    source = open_source(root, None, 1)
    require_readable(source, told.append)
    assert source.rows == len(source.pictures) == told[-1]["done"] == told[-1]["total"]
    for i in range(12):
        (root / "cat" / f"x{i:02}.png").write_text("no picture")
    draw(root / "cat" / "x05.png", 0)
    with pytest.raises(ValueError, match=r"got 11 of \d+ that can't \(cat/x00\.png: not an image") as caught:
        require_readable(open_source(root, None, 1), False)
    assert "x10.png" in str(caught.value) and "x11.png" not in str(caught.value)
    assert "; ...). Repair or remove them." in str(caught.value)
    require_readable(open_source(images(), None, 1), False)  # nothing to be read


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (torch.zeros(0, 3, 8, 8), ValueError, "at least one sample"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), TypeError, r"torch\.uint8.*preprocess"),
        ([], ValueError, "at least one image"),
        (iter([]), ValueError, "at least one batch"),
        (Samples([]), ValueError, "an empty data set"),
        (Samples([(torch.zeros(3, 8, 8), 0, 1)]), ValueError, "3 things per item"),
        (Samples([torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)]), ValueError, "samples that make a batch"),
        (np.zeros((2, 3, 8, 8)), TypeError, r"torch\.from_numpy"),
        (7, TypeError, r"got builtins\.int"),
        ([3, 4], TypeError, r"inputs \(N, \.\.\.\), got int"),
        ({"x": [1, 2]}, TypeError, r"inputs \(N, \.\.\.\)"),
        (torch.zeros(2, 4, 8, 8), ValueError, "takes the example"),
        ("/nowhere/at/all.png", ValueError, "no such file"),
    ],
)
def test_data_that_are_none(data: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        extract_features(counted(), data)


def test_other_arguments_that_do_not_fit() -> None:
    for size, kind in ((0, ValueError), (True, TypeError), (2.5, TypeError)):
        with pytest.raises(kind, match="batch_size"):
            extract_features(counted(), images(), batch_size=size)
    with pytest.raises(ValueError, match="train mode"):
        extract_features(counted().train(), images())
    with pytest.raises(ValueError, match="takes the example"):
        extract_features(counted(), images(), example=torch.zeros(1, 4))
    assert len(extract_features(counted(), images(1), example=images(3))) == 1
