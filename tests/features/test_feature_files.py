"""Features on disk: gone on with after an interruption, refused where they are another's, never half written."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deep_nets import by_hand, class_folder, counted, draw, images
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from pyinterp.features import Features, extract_features, rows


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond ``limit`` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def same(one: Features, two: Features) -> bool:
    tensors = [("values", "mean", "std", "max", "constant")]
    equal = all(torch.equal(getattr(one, name), getattr(two, name)) for name in tensors[0])
    labels = (one.labels is None and two.labels is None) or torch.equal(one.labels, two.labels)
    told = [(f.names, f.class_names, f.classifier_name, f.model_digest, f.data_digest) for f in (one, two)]
    return equal and labels and told[0] == told[1]


def labelled(count: int = 10) -> DataLoader:
    return DataLoader(TensorDataset(images(count), torch.arange(count) % 3), batch_size=3)


# ---- what is in the files


def test_the_files_hold_what_memory_holds(tmp_path: Path) -> None:
    model = counted()
    for name, data in (("loader", labelled()), ("folder", class_folder(tmp_path / "pictures"))):
        plain = extract_features(model, data, batch_size=4)
        found = extract_features(model, data, batch_size=4, file=tmp_path / f"{name}.npy")
        assert same(found, plain)
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), plain.values.numpy())
        assert same(Features.load(tmp_path / name, model), plain)
    head = json.loads((tmp_path / "folder.json").read_text())
    assert (head["rows"], head["features"], head["dtype"], head["classifier"]) == (6, 6, "float32", "fc")
    assert head["labels"] == [0, 0, 0, 1, 1, 1] and head["class_names"] == ["cat", "dog"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "folder.json", "folder.npy", "loader.json", "loader.npy", "pictures",
    ]  # fmt: skip


def test_values_stay_in_the_file_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    found = extract_features(counted(), images(), file=tmp_path / "f")
    before = (tmp_path / "f.npy").read_bytes()
    expected = found.values.clone()
    found.values.zero_()
    assert (tmp_path / "f.npy").read_bytes() == before
    assert torch.equal(Features.load(tmp_path / "f").values, expected)
    with open(tmp_path / "f.npy", "r+b") as file:  # another value in the file is seen: it is no copy
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(7).tobytes())
    assert float(Features.load(tmp_path / "f").values[-1, -1]) == 7


def test_save_and_load(tmp_path: Path) -> None:
    model = counted()
    found = extract_features(model, images(), torch.randn(10, 2, dtype=torch.float64))
    found.save(tmp_path / "a.npy")
    loaded = Features.load(tmp_path / "a", model)
    assert same(loaded, found) and loaded.labels.dtype == torch.float64
    loaded.save(tmp_path / "a")  # onto the file that it reads from
    assert same(Features.load(tmp_path / "a.npy"), found)
    part = found.subset(slice(0, 10, 2))
    part.save(tmp_path / "part")
    assert same(Features.load(tmp_path / "part"), part)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    own = Features.of(torch.rand(3, 2))
    own.save(tmp_path / "own")
    assert same(Features.load(tmp_path / "own"), own)


def test_saved_features_count_as_extracted(tmp_path: Path) -> None:
    model = counted()
    found = extract_features(model, images())
    found.save(tmp_path / "f")
    model.seen.clear()
    assert same(extract_features(model, images(), file=tmp_path / "f"), found)
    assert model.seen == []


# ---- going on


@pytest.mark.parametrize("kind", ["tensor", "loader", "generator", "folder"])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, kind: str) -> None:
    model, file = counted(), tmp_path / "f.npy"
    folder = class_folder(tmp_path / "pictures")
    make: Any = {
        "tensor": lambda: images(),
        "loader": labelled,
        "generator": lambda: ((images()[i : i + 3], [i] * len(images()[i : i + 3])) for i in range(0, 10, 3)),
        "folder": lambda: folder,
    }[kind]
    count = 6 if kind == "folder" else 10
    plain = extract_features(model, make(), batch_size=3)
    assert model.seen == [2, 2, *([3, 3] if count == 6 else [3, 3, 3, 1])]
    model.seen.clear()
    model.stop_at = 3  # two forwards find the layer, one batch passes
    with pytest.raises(KeyboardInterrupt, match=r"3 rows are kept in .*f\.npy; call again"):
        extract_features(model, make(), batch_size=3, file=file)
    with pytest.raises(ValueError, match=r"all features in .*, got the first 3 rows of them"):
        Features.load(file)
    assert np.array_equal(np.load(file), plain.values[:3].numpy())
    model.seen.clear()
    model.stop_at = -1
    found = extract_features(model, make(), batch_size=3, file=file)
    assert model.seen == [2, 2, *([3] if count == 6 else [3, 3, 1])]
    assert torch.equal(found.values, plain.values)
    torch.testing.assert_close(found.std, plain.std, rtol=1e-12, atol=0)
    assert same(found, plain)
    model.seen.clear()
    assert same(extract_features(model, make(), batch_size=3, file=file), plain)
    assert model.seen == []


def test_another_batch_size_may_go_on(tmp_path: Path) -> None:
    model, file = counted(), tmp_path / "f"
    model.stop_at = 4
    with pytest.raises(KeyboardInterrupt, match="6 rows are kept"):
        extract_features(model, labelled(), file=file)
    model.stop_at = -1
    other = DataLoader(TensorDataset(images(), torch.arange(10) % 3), batch_size=4)
    found = extract_features(model, other, file=file)
    torch.testing.assert_close(found.values, by_hand(model, images()))
    assert found.labels.tolist() == [i % 3 for i in range(10)]


def test_ctrl_c_in_memory_is_passed_on_as_it_is() -> None:
    model = counted()
    model.stop_at = 3
    with pytest.raises(KeyboardInterrupt) as caught:
        extract_features(model, images(), batch_size=3)
    assert not caught.value.args


def test_a_bad_batch_leaves_the_good_ones(tmp_path: Path) -> None:
    model, x = counted(), images()
    x[7, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 3 rows of a batch: image 7"):
        extract_features(model, DataLoader(TensorDataset(x), 3), file=tmp_path / "f")
    assert json.loads((tmp_path / "f.json").read_text())["rows"] == 6
    model.seen.clear()
    found = extract_features(model, DataLoader(TensorDataset(images()), 3), file=tmp_path / "f")
    assert model.seen == [2, 2, 3, 1]
    torch.testing.assert_close(found.values, by_hand(model, images()))


def test_what_a_killed_process_left_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows behind those that count, as after a kill between two updates, are written anew."""
    model, file = counted(), tmp_path / "f"
    monkeypatch.setattr(rows, "EVERY", -1.0)
    written: list[int] = []
    genuine = rows.write_head

    def until_six(where: str, path: Path, head: Any, fix: str) -> None:
        written.append(head.statistics.rows)
        if head.statistics.rows <= 6:
            genuine(where, path, head, fix)

    monkeypatch.setattr(rows, "write_head", until_six)
    plain = extract_features(model, images(), batch_size=3, file=file)
    assert written == [0, 0, 3, 6, 9, 10]
    assert np.load(tmp_path / "f.npy").shape == (10, 6)
    with open(tmp_path / "f.npy", "ab") as left:
        left.write(b"half a row")
    monkeypatch.setattr(rows, "write_head", genuine)
    model.seen.clear()
    found = extract_features(model, images(), batch_size=3, file=file)
    assert model.seen == [2, 2, 3, 1]
    assert torch.equal(found.values, plain.values)
    assert (tmp_path / "f.npy").stat().st_size == 128 + 4 * 60


def test_files_are_brought_up_to_date_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    genuine = rows.write_head
    monkeypatch.setattr(rows, "write_head", lambda *args: (times.append(1), genuine(*args))[1])
    extract_features(counted(), images(), batch_size=1, file=tmp_path / "seldom")
    assert len(times) == 2
    monkeypatch.setattr(rows, "EVERY", -1.0)
    extract_features(counted(), images(), batch_size=1, file=tmp_path / "often")
    assert len(times) == 2 + 12


def test_labels_may_be_given_to_finished_features(tmp_path: Path) -> None:
    model = counted()
    extract_features(model, images(), file=tmp_path / "f")
    model.seen.clear()
    found = extract_features(model, images(), list(range(10)), file=tmp_path / "f")
    assert found.labels.tolist() == list(range(10)) and model.seen == []
    assert Features.load(tmp_path / "f").labels.tolist() == list(range(10))
    assert extract_features(model, images(), file=tmp_path / "f").labels.tolist() == list(range(10))


# ---- files that are refused


def changed() -> Any:
    model = counted()
    model.conv.weight.data[0, 0, 0, 0] += 1e-6
    return model


def test_features_of_another_model_or_of_other_data_are_refused(tmp_path: Path) -> None:
    model, file = counted(), tmp_path / "f"
    extract_features(model, images(), file=file)
    before = [(tmp_path / name).read_bytes() for name in ("f.npy", "f.json")]
    for network, data, words in (
        (changed(), images(), "features of another model"),
        (model, images(seed=1), "features of other data"),
        (model, images(9), "features of other data"),
        (changed(), images(9), "features of another model and of other data"),
    ):
        with pytest.raises(ValueError, match=rf"these data in .*f\.npy, got {words}"):
            extract_features(network, data, file=file)
    with pytest.raises(ValueError, match=r"features of this model in .*, got features of another model"):
        Features.load(file, changed())
    assert before == [(tmp_path / name).read_bytes() for name in ("f.npy", "f.json")]


def test_data_are_told_apart(tmp_path: Path) -> None:
    model, root = counted(), class_folder(tmp_path / "pictures")
    sets: list[tuple[Any, Any]] = [
        (root, None),
        (root, lambda image: torch.zeros(3, 8, 8)),
        (labelled(), None),
        (labelled(9), None),
        ([images(9)], None),
        ([images(9), images(9)], None),
        (iter([images(9)]), None),
        (TensorDataset(images(9)), None),
        (TensorDataset(images(8)), None),
        ({"x": images()}, None),
    ]
    digests = [extract_features(model, data, preprocess=how).data_digest for data, how in sets]
    draw(root / "cat" / "z.png", 1, size=8)
    (root / "cat" / "k.bmp").rename(root / "cat" / "l.bmp")
    digests.append(extract_features(model, root).data_digest)
    draw(root / "cat" / "l.png", 3)
    digests.append(extract_features(model, root).data_digest)
    assert len(set(digests)) == len(sets) + 2
    assert extract_features(model, labelled()).data_digest == digests[2]


def test_shuffled_loaders_are_refused_with_a_file(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(images()), batch_size=3, shuffle=True)
    with pytest.raises(ValueError, match=r"can be gone on with in a file.*shuffle=False"):
        extract_features(counted(), loader, file=tmp_path / "f")
    assert len(extract_features(counted(), loader)) == 10


def cut(folder: Path) -> None:
    whole = (folder / "f.npy").read_bytes()
    (folder / "f.npy").write_bytes(whole[: 128 + 4 * 6 * 4 + 5])


def edited(**values: Any) -> Any:
    def edit(folder: Path) -> None:
        head = json.loads((folder / "f.json").read_text())
        (folder / "f.json").write_text(json.dumps({**head, **values}))

    return edit


DAMAGES = {
    "cut off": (cut, r"f\.npy that is cut off: 4 of 10 rows"),
    "no json": (lambda folder: (folder / "f.json").unlink(), r"got no f\.json"),
    "no npy": (lambda folder: (folder / "f.npy").unlink(), r"got no f\.npy"),
    "other json": (lambda folder: (folder / "f.json").write_text('{"a": 1}'), "this version has not written"),
    "broken json": (
        lambda folder: (folder / "f.json").write_text('{"a": '),
        r"got a f\.json that is damaged \(Expecting value",
    ),
    "list": (lambda folder: (folder / "f.json").write_text("[]"), "this version has not written"),
    "other npy": (lambda folder: np.save(folder / "f.npy", np.zeros((10, 6))), "float64 values of shape"),
    "transposed": (
        lambda folder: np.save(folder / "f.npy", np.zeros((10, 6), np.float32, order="F")),
        "float32 values of shape",
    ),
    "wider": (lambda folder: np.save(folder / "f.npy", np.zeros((10, 7), np.float32)), r"\(10, 7\) beside"),
    "fewer": (lambda folder: np.save(folder / "f.npy", np.zeros((9, 6), np.float32)), r"\(9, 6\) beside"),
    "no array": (lambda folder: (folder / "f.npy").write_text("no array at all"), "magic"),
    "empty": (lambda folder: (folder / "f.npy").write_bytes(b""), "magic|EOF|read"),
    "labels": (edited(labels=[1, 2], labels_dtype="int64"), "2 labels for 10 rows"),
    "dtype": (edited(labels=[1] * 10, labels_dtype="int65"), "AttributeError"),
    "statistics": (edited(statistics={"mean": [1], "squares": [1], "max": [1]}), "another width"),
    "missing": (edited(statistics={}), "KeyError"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    model, (harm, words) = counted(), DAMAGES[damage]
    extract_features(model, images(), file=tmp_path / "f")
    harm(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=words):
        Features.load(tmp_path / "f")
    with pytest.raises(ValueError, match=words):
        extract_features(model, images(), file=tmp_path / "f")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_paths_that_name_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the two files of features"):
        Features.load(tmp_path / "none")
    for path in ("", f"{tmp_path}/", f"{tmp_path}/.npy"):
        with pytest.raises(ValueError, match="ends in the name of a file"):
            extract_features(counted(), images(), file=path)


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=r"write .*f\.npy, got No such file.*Choose a file in a folder that exists"
    ):
        extract_features(counted(), images(), file=tmp_path / "gone" / "f")
    assert not (tmp_path / "gone").exists()
    with pytest.raises(OSError, match=r"Features\.save: .* got No such file"):
        Features.of(torch.rand(2, 2)).save(tmp_path / "gone" / "f")


def test_a_full_disk_keeps_what_is_done(tmp_path: Path) -> None:
    model, x = counted(), images(2000, size=4)
    full = 128 + 4 * 6 * 1500 + 7
    with (
        small_disk(full),
        pytest.raises(OSError, match=r"got File too large\. Its first 1500 rows are kept: free"),
    ):
        extract_features(model, x, batch_size=100, file=tmp_path / "f")
    assert json.loads((tmp_path / "f.json").read_text())["rows"] == 1500
    model.seen.clear()
    found = extract_features(model, x, batch_size=100, file=tmp_path / "f")
    assert model.seen == [2, 2, 100, 100, 100, 100, 100]
    torch.testing.assert_close(found.values, by_hand(model, x))


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(100), pytest.raises(OSError, match=r"got File too large\. Choose a file"):
        extract_features(counted(), images(), file=tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    model = counted()
    model.stop_at = 0
    with pytest.raises(KeyboardInterrupt) as caught:
        extract_features(model, images(), file=tmp_path / "f")
    assert not caught.value.args
    assert len(extract_features(counted(), images(), file=tmp_path / "f")) == 10


def test_a_full_disk_leaves_older_files_whole(tmp_path: Path) -> None:
    old, new = Features.of(torch.rand(4, 3)), Features.of(torch.rand(400, 3))
    old.save(tmp_path / "f")
    with small_disk(1000), pytest.raises(OSError, match=r"Features\.save: .*got File too large.*save again"):
        new.save(tmp_path / "f")
    assert same(Features.load(tmp_path / "f"), old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.json", "f.npy"]


def test_one_row_may_be_longer_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyinterp.features.files._CHUNK", 10)
    values: Tensor = torch.rand(7, 5)
    Features.of(values).save(tmp_path / "f")
    assert torch.equal(Features.load(tmp_path / "f").values, values)
