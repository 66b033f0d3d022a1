"""``extract_features``: a model and data in, the features of its last linear layer out, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features.data import WHERE, Batch, Source, open_source
from pyinterp.features.features import Features, features_from, require_finite_rows
from pyinterp.features.labels import as_labels
from pyinterp.features.rows import FileRows, Rows
from pyinterp.memory import reused_memory
from pyinterp.models.classifier import find_classifier, reading_features
from pyinterp.models.graph import require_eval, require_own_forward
from pyinterp.models.identity import model_digest
from pyinterp.models.images import Preprocessor
from pyinterp.models.inputs import Inputs, rows_of
from pyinterp.progress import Progress, Ticker


@reused_memory()
def extract_features(
    model: nn.Module,
    data: Any,
    labels: Any = None,
    *,
    file: str | PathLike[str] | None = None,
    batch_size: int = 64,
    preprocess: Preprocessor | None = None,
    example: Inputs | None = None,
    progress: Progress = None,
) -> Features:
    """Compute what the last linear layer of ``model`` reads, for all of ``data``.

    Args:
        model: Maps inputs to logits (N, K), or to an object with ``.logits``; in eval mode. See `find_classifier` for
            which models have such a layer.
        data: One of:

            - a tensor (N, ...) as the model takes it, or a dict of tensors that it takes by keyword;
            - pictures: a path, a PIL image, a folder of them, a list of these, or what `load_images` gives;
            - a folder with one sub-folder per class, as torchvision's ImageFolder takes: labels and their names come
              from it, both sorted;
            - a Dataset of samples, or a DataLoader or any other iterable of batches: inputs alone, pairs
              (inputs, labels), or dicts of inputs, whose ``labels`` or ``label`` are taken out.

            Pictures and data sets are read batch by batch; a DataLoader with ``num_workers`` reads ahead.
        labels: N classes as whole numbers, or targets (N, m) as floats, where the data bring none.
        file: ``PATH.npy`` to write the features to while they are made; ``PATH.json`` beside it holds the rest. They
            are brought up to date every 30 s and at the end, also after Ctrl-C or an error. If they are there already,
            of the same model and data, only what is missing is computed.
        batch_size: Rows at a time; a DataLoader and other iterables come with their own.
        preprocess: PIL image -> (C, H, W), usually ``LoadedModel.preprocess``; not applied to tensors.
        example: Inputs to find the layer with; None takes the first rows of the data.
        progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}.

    Returns:
        Features: With a file their values are read from it when they are used.

    Raises:
        ValueError: The model has no such layer or is in train mode; data that do not fit it, cannot be read, or have
            no rows; labels that do not fit; features that are NaN or infinite (nothing of that batch is kept); a file
            of another model or of other data, or one that is cut off or damaged.
        TypeError: Data, labels or a batch size of another type.
        OSError: The file can't be written: the message says what is kept.
    """
    require_eval(model)
    require_own_forward(WHERE, model)
    _check_batch_size(batch_size)
    source = open_source(data, preprocess, batch_size)
    given = _given(labels, source, file is not None)
    digest = model_digest(model)
    rows = Rows(digest, source.digest, source.rows) if file is None else FileRows(file, digest, source.digest)
    try:
        if not rows.finished:
            _fill(rows, model, source, given is not None, example, progress)
        if given is not None:
            as_labels(WHERE, given, rows.count)
        if given is not None or not rows.finished:
            names = source.names or tuple(map(source.name, range(rows.count)))
            rows.finish(given, names, source.class_names)
    except KeyboardInterrupt as stop:
        rows.close()
        if file is None or not rows.count:
            raise
        told = f"{rows.count} rows are kept in {file}; call again to go on from there"
        raise KeyboardInterrupt(told) from stop
    finally:
        rows.close()
    return features_from(rows.values(), rows.head)


def _check_batch_size(batch_size: Any) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool):
        raise TypeError(explain(WHERE, "batch_size as a whole number", repr(batch_size), "Pass 64."))
    if batch_size < 1:
        raise ValueError(explain(WHERE, "batch_size >= 1", batch_size, "Pass 64."))


def _given(labels: Any, source: Source, to_file: bool) -> Tensor | None:
    """The labels that are known before any row is read."""
    if not source.ordered and (to_file or labels is not None):
        what = "go with a list of labels" if labels is not None else "can be gone on with in a file"
        fix = "Make the DataLoader with shuffle=False."
        raise ValueError(explain(WHERE, f"data that {what}", "a DataLoader that shuffles", fix))
    if labels is None:
        return source.labels
    if source.labels is not None:
        raise _labels_twice()
    return as_labels(WHERE, labels, source.rows)


def _labels_twice() -> ValueError:
    fix = "Leave the argument labels out, or take them out of the data."
    return ValueError(explain(WHERE, "labels once", "labels in the data and as an argument", fix))


def _fill(
    rows: Rows,
    model: nn.Module,
    source: Source,
    has_labels: bool,
    example: Inputs | None,
    progress: Progress,
) -> None:
    """Compute and keep the rows that are missing."""
    batches = source.batches(rows.count)
    first = next(batches, None)
    if first is None:
        if not rows.count:
            raise ValueError(explain(WHERE, "at least one row", "none", "Pass some data."))
        return
    classifier = find_classifier(model, first.inputs if example is None else example)
    rows.begin(classifier.name, classifier.features)
    ticker = Ticker(progress, source.rows, rows.count, f"{source.noun}s")
    with reading_features(model, classifier) as read, closing(ticker):
        for inputs, labels in _with_labels(chain([first], batches), rows, source, has_labels):
            values = read(inputs).to("cpu", torch.float32)
            names = [source.name(i) for i in range(rows.count, rows.count + len(values))]
            require_finite_rows(WHERE, values, names)
            rows.append(values, labels)
            ticker(len(values))


def _with_labels(
    batches: Iterator[Batch], rows: Rows, source: Source, has_labels: bool
) -> Iterator[tuple[Inputs, Tensor | None]]:
    """The batches with their labels in one form; every batch has labels, or none has."""
    for inputs, labels in batches:
        if labels is not None and has_labels:
            raise _labels_twice()
        made = None if labels is None else as_labels(WHERE, labels, rows_of(WHERE, inputs))
        kind = None if made is None else made.dtype
        if rows.count and not has_labels and kind != rows.label_dtype:
            words = f"labels of one kind with every batch ({rows.label_dtype or 'none'}, as before)"
            got = f"{kind or 'none'} from {source.name(rows.count)!r} on"
            raise ValueError(explain(WHERE, words, got, "Make all batches of one kind."))
        yield inputs, made
