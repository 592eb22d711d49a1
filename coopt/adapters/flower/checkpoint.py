"""A run on disk: what has been done, what has been spent, and the model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, MetricRecord

from coopt.adapters.flower.result import CoOptResult, FlowerRound
from coopt.errors import InvalidProblemError
from coopt.online.checkpoint_file import CheckpointFile
from coopt.online.fingerprint import Fingerprint
from coopt.problem.saved_state import anything, listed, number, optional, table, text, whole
from coopt.problem.validation import flag

RUN, BEGUN = "run.npz", "begun.npz"
_METRICS = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Begun:
    """A round, or a measurement before it, that has begun.

    Attributes
    ----------
    at : float
        When, by the server's wall clock.
    absent : list of int
        Devices that were given no work.
    measuring : tuple of float, or None
        What the measurement costs, and the most seconds that it takes; None: it is a round.
    """

    at: float
    absent: list[int]
    measuring: tuple[float, float] | None = None


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
    """A folder that holds a run: ``run.npz`` after the last finished round, ``begun.npz`` the next one.

    Before each round only what has begun is written, which is small; it names the run that it belongs to by
    its digest, and counts for nothing beside another one. Both are `coopt.online.checkpoint_file` files. Use
    it as a context: from entering on, no other server has the folder.

    Parameters
    ----------
    folder : str or Path
        Made if it does not exist.
    fingerprint : dict, optional
        What makes the run the one that it is; default: to look at any run.
    may_differ : collection of str
        Entries of it that may be others when the run goes on.
    """

    def __init__(
        self, folder: str | Path, fingerprint: Fingerprint | None = None, *, may_differ: Collection[str] = ()
    ) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidProblemError(
                f"checkpoint = {str(folder)!r}: no folder can be made there: {error}"
            ) from error
        self._run = CheckpointFile(self.folder / RUN, fingerprint, may_differ=may_differ)
        self._begun = CheckpointFile(self.folder / BEGUN, fingerprint, may_differ=may_differ)
        self._model: Arrays = {}
        self._base: dict[str, Any] = {}
        self._arrays: Arrays = {}

    def __enter__(self) -> Self:
        self._run.__enter__()
        self._begun.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._begun.__exit__(kind, error, trace)
        self._run.__exit__(kind, error, trace)

    def save_model(self, result: CoOptResult, base: dict[str, Any], arrays: Arrays) -> None:
        """Take the model after the last finished round; `save` must follow.

        Parameters
        ----------
        result : CoOptResult
            The run.
        base, arrays : dict
            State of the base strategy, and its arrays by name.
        """
        self._model = {key: array.numpy() for key, array in result.arrays.items()}
        self._base, self._arrays = base, arrays

    def save(self, result: CoOptResult, controller: dict[str, Any], begun: Begun | None = None) -> None:
        """Write the state.

        Parameters
        ----------
        result : CoOptResult
            History and metrics.
        controller : dict
            State of the controller.
        begun : Begun, optional
            The round that is about to begin: only that, and the controller, are written.

        Raises
        ------
        CheckpointError
            If the disk refuses it; what was saved before is still there.
        """
        if begun is not None:
            self._begun.write({"of": self._run.digest, "controller": controller, **asdict(begun)})
            return
        metrics = {
            key: {str(number): dict(record) for number, record in getattr(result, key).items()}
            for key in _METRICS
        }
        state = {
            "controller": controller,
            "model": self._model,
            "base": self._base,
            "arrays": self._arrays,
            "rounds": [asdict(record) for record in result.rounds],
            "metrics": metrics,
        }
        self._run.write(state)

    def load(self) -> Saved | None:
        """Read the run that the folder holds, if there is one.

        Raises
        ------
        InvalidProblemError
            If the files are not a run, of another run, or damaged with no whole ones before them.
        """
        state = self._run.read()
        if state is None:
            return None
        read = table(
            "run",
            state,
            {
                **dict.fromkeys(("controller", "base"), anything),
                **dict.fromkeys(("model", "arrays"), _arrays),
                "rounds": listed(_round),
                "metrics": _metrics,
            },
        )
        self._model, self._base, self._arrays = read["model"], read["base"], read["arrays"]
        arrays = ArrayRecord({key: Array(array) for key, array in self._model.items()})
        result = CoOptResult(arrays=arrays, rounds=read["rounds"])
        for key, records in read["metrics"].items():
            getattr(result, key).update(records)
        controller, begun = self._load_begun(read["controller"])
        return Saved(result, controller, self._base, self._arrays, begun)

    def _load_begun(self, controller: dict[str, Any]) -> tuple[dict[str, Any], Begun | None]:
        """Give the controller as it was when the next round began, if it had."""
        state = self._begun.read()
        if state is None or state.get("of") != self._run.digest:
            return controller, None
        read = table(
            "begun",
            state,
            {
                "of": text,
                "controller": anything,
                "at": number(),
                "absent": listed(whole()),
                "measuring": optional(listed(number(minimum=0.0, infinite=True), 2)),
            },
        )
        measuring = None if read["measuring"] is None else (read["measuring"][0], read["measuring"][1])
        return read["controller"], Begun(read["at"], read["absent"], measuring)


def _arrays(place: str, value: object) -> Arrays:
    if not isinstance(value, dict) or not all(isinstance(item, np.ndarray) for item in value.values()):
        raise InvalidProblemError(f"{place} must be a dictionary of arrays")
    return value


def _round(place: str, value: object) -> FlowerRound:
    spent = number(minimum=0.0)
    row = table(
        place,
        value,
        {
            **dict.fromkeys(("round", "sent", "arrived", "reports", "late"), whole()),
            "local_steps": whole(1),
            "batch_sizes": listed(whole()),
            "learning_rate": number(minimum=0.0, strict=True),
            "train_loss": number(nan=True, infinite=True),
            **dict.fromkeys(("cost", "seconds"), spent),
            "interrupted": flag,
            "policy": text,
        },
    )
    return FlowerRound(**{**row, "batch_sizes": tuple(row["batch_sizes"])})


def _metrics(place: str, value: object) -> dict[str, dict[int, MetricRecord]]:
    read = table(place, value, dict.fromkeys(_METRICS, anything))
    try:
        return {
            key: {int(number): MetricRecord(record) for number, record in records.items()}
            for key, records in read.items()
        }
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise InvalidProblemError(f"{place} holds no metrics: {error}") from error
