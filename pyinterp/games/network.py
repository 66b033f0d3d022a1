"""What the games of networks share: a model, a score of its logits, copies on other devices and in other precision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.evaluate import Worker
from pyinterp.games.forward import Forward, full_float32, plain_numerics, replica
from pyinterp.games.game import Device, Game
from pyinterp.games.scores import Score, Scorer, make_scorer
from pyinterp.memory import is_out_of_memory
from pyinterp.models.graph import logits_of, require_eval
from pyinterp.models.identity import model_digest
from pyinterp.models.inputs import place_of

_WIDER = {torch.float32: torch.float64, torch.float16: torch.float32, torch.bfloat16: torch.float32}


class NetworkGame(Game):
    """A game whose score is read off a network's logits.

    Args:
        names: Of the players.
        model: In eval mode; it is never changed.
        answer: The model's answer on the whole input, a batch of one, given the model.
        given: This input in words, for errors.
        target: See `Scorer`; None is the predicted class.
        score: See `Scorer`.
        allow_tf32: Let GPUs round float32 products to TF32.
        classes: Names of the classes, if known.

    Attributes:
        model: As given.
        target: The class.
    """

    def __init__(
        self,
        names: Sequence[str],
        model: nn.Module,
        answer: Callable[[nn.Module], Any],
        *,
        given: str,
        target: int | None,
        score: Score,
        allow_tf32: bool,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(names)
        self.model, self.allow_tf32 = model, allow_tf32
        self.device, place = place_of(model)
        self.dtype = torch.promote_types(place, torch.float32)
        self._place, self._class_names = place, tuple(classes)
        with full_float32(allow_tf32), plain_numerics(self.device):
            self._plain = logits_of(self._first(answer, given))
            if not torch.isfinite(self._plain).all():
                fix = "Check its weights and the preprocessing."
                raise ValueError(
                    explain(self._name, "finite logits on the whole input", "NaN or infinity", fix)
                )
            self._scorer: Scorer = make_scorer(self._name, score, target, self._plain)
        self.target, self.score_shape = self._scorer.target, self._scorer.shape

    def _first(self, answer: Callable[[nn.Module], Any], given: str) -> Any:
        """The model's answer on the whole input, which shows whether the two fit."""
        try:
            return answer(self.model)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            got = f"{in_one_line(error)} on {given}"
            fix = "Preprocess the input as the model expects it."
            raise ValueError(explain(self._name, "a model that takes the input", got, fix)) from error

    @abstractmethod
    def _forward(self, model: nn.Module) -> Forward:
        """Codes -> logits by ``model``: the game's own, or a copy of it elsewhere or in another precision."""

    def _faster(self, model: nn.Module, plain: Forward, evaluations: int) -> Forward:
        """``plain``, or what gives its logits faster when so many are asked for."""
        return plain

    @abstractmethod
    def _parts(self) -> Mapping[str, str]:
        """Digests of what is played on: input, players, baseline, masking."""

    def evaluate(self, codes: Tensor) -> Tensor:
        """Scores (B,) of the subsets (B,) int64, as one batch; bit i of a code says that player i is present.

        Raises:
            ValueError: The model is in train mode.
        """
        with self._settings():
            return self._worker(self.model)(codes)

    def logits(self, codes: Tensor) -> Tensor:
        """The network's answers (B, classes) on the subsets (B,) int64, as one batch; see `evaluate`.

        Raises:
            ValueError: The model is in train mode.
        """
        require_eval(self.model)
        with self._settings(), plain_numerics(self.device):
            answers = self._forward(self.model)(codes)
        return answers.clone()  # outside of inference mode, so that it is a tensor like any other

    def identity(self) -> dict[str, str]:
        """What tells this game from others, part by part: a checkpoint is taken only if all are equal."""
        score = self._scorer.fingerprint(self._plain.shape[1], self.device)
        own = {"model": model_digest(self.model), "target": str(self.target), "score": score}
        return {**super().identity(), **own, "precision": self._precision, **self._parts()}

    @property
    def _name(self) -> str:
        return type(self).__qualname__

    @property
    def _precision(self) -> str:
        return str(self._place).removeprefix("torch.") + (" with TF32 allowed" if self.allow_tf32 else "")

    def _settings(self) -> AbstractContextManager[None]:
        return full_float32(self.allow_tf32)

    def _worker(self, model: nn.Module, evaluations: int = 1) -> Worker:
        require_eval(model)
        device = place_of(model)[0]
        forward = self._faster(model, self._forward(model), evaluations)

        def work(codes: Tensor) -> Tensor:
            with plain_numerics(device):
                return self._scorer(forward(codes))

        return work

    def _workers(self, devices: Sequence[Device] | None, evaluations: int) -> list[Worker]:
        if devices is None:
            return [self._worker(self.model, evaluations)]
        if not isinstance(devices, Sequence) or not devices or isinstance(devices, str):
            fix = 'For example devices=["cuda:0", "cuda:1"], or leave it out.'
            raise ValueError(explain("devices", "a list of devices", repr(devices), fix))
        found: list[Worker] = []
        for device in devices:
            own = not found and str(device) == str(self.device)
            model = self.model if own else self._copy_on(device)
            found.append(self._worker(model, evaluations // len(devices)))
        return found

    def _copy_on(self, device: Device) -> nn.Module:
        try:
            return replica(self.model, device=torch.device(device))
        except Exception as error:  # no such device, none in this machine, torch built without it
            if is_out_of_memory(error):
                raise
            fix = 'For example devices=["cuda:0", "cuda:1"], or leave it out.'
            got = f"{device!r} ({in_one_line(error)})"
            raise ValueError(explain("devices", "devices that hold a copy of the model", got, fix)) from error

    def _precise(self) -> Worker | str:
        if self._place not in _WIDER:
            return ""
        try:
            return self._worker(replica(self.model, dtype=_WIDER[self._place]))
        except Exception as error:  # a model that can't be copied, a device without float64
            return in_one_line(error)

    def _played(self) -> dict[str, Any]:
        names = self._class_names
        return {
            "game": self._name,
            "target": self.target,
            "target_name": names[self.target] if self.target < len(names) else f"class {self.target}",
            "score": self._scorer.name,
            "precision": self._precision,
        }


def in_one_line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def as_module(where: str, model: Any) -> nn.Module:
    """The network of a game, in eval mode.

    Raises:
        TypeError: It is no module.
        ValueError: It is in train mode.
    """
    if not isinstance(model, nn.Module):
        fix = "Pass a torch.nn.Module, or what pyinterp.models.load returns."
        raise TypeError(explain(where, "a network", type(model).__name__, fix))
    require_eval(model)
    return model
