"""Reading weights: never by running code that a file brings along, and with words when they can't be had."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from pyinterp.errors import explain

_FORCE_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORCE_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def reading_weights(name: str) -> Iterator[None]:
    """Within: every ``torch.load``, also timm's and torchvision's, reads tensors only; errors name the model.

    Raises:
        ConnectionError: The weights are neither here nor reachable.
        ValueError: The file is damaged, does not fit the model, or would run code when read.
    """
    with _tensors_only():
        try:
            yield
        except OSError as error:
            raise ConnectionError(
                explain(
                    "load",
                    f"the pretrained weights of {name!r} on disk or over the network",
                    _first_line(error),
                    "Check the name and the network connection; the model 'default' brings its weights along "
                    "and works offline (pretrained=False gives random weights, for tests).",
                )
            ) from error
        except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
            raise ValueError(
                explain(
                    "load",
                    f"a file of plain tensors that fit {name!r}",
                    _first_line(error),
                    "The file is damaged, belongs to another model, or would run code when read, which is "
                    "never done. Delete it to fetch it again, or choose a model stored as safetensors.",
                )
            ) from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.hub itself passes weights_only=False, and only the environment variable overrules an argument."""
    before = {key: os.environ.pop(key, None) for key in (_FORCE_SAFE, _FORCE_UNSAFE)}
    os.environ[_FORCE_SAFE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE_SAFE]
        os.environ.update({key: value for key, value in before.items() if value is not None})


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__
