"""A run on disk: what has been done, what has been spent, and the model."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, MetricRecord

from coopt.adapters.flower.result import CoOptResult, FlowerRound
from coopt.errors import InvalidProblemError
from coopt.online.atomic_file import write_atomically

STATE = "state.json"
VERSION = 1
_MODEL = "model/"
_METRICS = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Begun:
    """A round that has begun.

    Attributes
    ----------
    at : float
        When, by the server's wall clock.
    absent : list of int
        Devices that were given no work.
    """

    at: float
    absent: list[int]


@dataclass(frozen=True)
class Saved:
    """A run as it was saved.

    Attributes
    ----------
    result : CoOptResult
        History, metrics and model.
    controller : dict
        State of the controller.
    base : dict
        State of the base strategy, and the arrays that it names.
    arrays : dict of numpy.ndarray
        Those arrays.
    begun : Begun or None
        The round that was under way.
    """

    result: CoOptResult
    controller: dict[str, Any]
    base: dict[str, Any]
    arrays: Arrays
    begun: Begun | None


class Checkpoint:
    """A folder that holds a run: ``state.json``, and the model after the last finished round.

    The state names the file of the model and is replaced atomically once that file is on disk: the two
    belong together whenever the server dies.

    Parameters
    ----------
    folder : str or Path
        Made if it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._model = ""
        self._base: dict[str, Any] = {}

    def save_model(self, result: CoOptResult, base: dict[str, Any], arrays: Arrays) -> None:
        """Write the model after the last finished round; `save` must follow.

        Parameters
        ----------
        result : CoOptResult
            The run.
        base, arrays : dict
            State of the base strategy, and its arrays by name.
        """
        name = f"model-{len(result.rounds):06d}.npz"
        model = {f"{_MODEL}{key}": array.numpy() for key, array in result.arrays.items()}
        with (self.folder / name).open("wb") as file:
            np.savez(file, allow_pickle=False, **model, **arrays)
            file.flush()
            os.fsync(file.fileno())
        self._model, self._base = name, base

    def save(self, result: CoOptResult, controller: dict[str, Any], begun: Begun | None = None) -> None:
        """Write the state.

        Parameters
        ----------
        result : CoOptResult
            History and metrics.
        controller : dict
            State of the controller.
        begun : Begun, optional
            The round that is about to begin.
        """
        state = {
            "version": VERSION,
            "controller": controller,
            "begun": None if begun is None else asdict(begun),
            "model": self._model,
            "base": self._base,
            "rounds": [asdict(record) for record in result.rounds],
            "metrics": {
                key: {str(number): dict(record) for number, record in getattr(result, key).items()}
                for key in _METRICS
            },
        }
        write_atomically(self.folder / STATE, json.dumps(state))
        for old in self.folder.glob("model-*.npz"):
            if old.name != self._model:
                old.unlink()

    def load(self) -> Saved | None:
        """Read the run that the folder holds, if there is one.

        Raises
        ------
        InvalidProblemError
            If the files are not a run, or not complete.
        """
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["version"] != VERSION:
                raise InvalidProblemError(f"{path} has version {state['version']}, this is {VERSION}")
            self._model, self._base = state["model"], state["base"]
            with (self.folder / self._model).open("rb") as file, np.load(file, allow_pickle=False) as content:
                arrays = dict(content)
            names = [key for key in arrays if key.startswith(_MODEL)]
            model = {key.removeprefix(_MODEL): Array(arrays.pop(key)) for key in names}
            rounds = [
                FlowerRound(**{**record, "batch_sizes": tuple(record["batch_sizes"])})
                for record in state["rounds"]
            ]
            result = CoOptResult(arrays=ArrayRecord(model), rounds=rounds)
            for key in _METRICS:
                records = state["metrics"][key].items()
                getattr(result, key).update({int(number): MetricRecord(record) for number, record in records})
            begun = None if state["begun"] is None else Begun(**state["begun"])
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise InvalidProblemError(f"{self.folder} holds no complete run: {error}") from error
        return Saved(result, state["controller"], self._base, arrays, begun)
