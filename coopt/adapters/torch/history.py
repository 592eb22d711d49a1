"""What happened in each round of a training run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.online.round_plan import Stopped, StopReason
from coopt.problem.readable import Fact, readable
from coopt.problem.result_table import ResultTable
from coopt.problem.saved_state import Reader, listed, number, optional, table, text, whole
from coopt.problem.validation import choice

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure


@readable
@dataclass(frozen=True)
class RoundRecord:
    """One round.

    Attributes
    ----------
    round : int
        Round, from 0.
    local_steps : int
        tau.
    batch_sizes : tuple of int
        s_i as planned.
    learning_rate : float
        eta.
    arrived : int
        Clients whose models arrived in time; those that were averaged, where none is left out.
    train_loss : float
        Mean loss of the clients' first mini-batches at the model that they received, weighted as the models
        are; weight decay included. NaN if nobody arrived.
    test_loss, metric : float
        Of the new model on the test data; NaN where not evaluated.
    cost, seconds : float
        Spent since the start of training, this round included.
    ignored : tuple of str
        What was left out of the average or of the estimates, and why; each names its client. What was
        noticed in measuring before the round comes first.
    """

    round: int
    local_steps: int
    batch_sizes: tuple[int, ...]
    learning_rate: float
    arrived: int
    train_loss: float
    test_loss: float
    metric: float
    cost: float
    seconds: float
    ignored: tuple[str, ...] = ()

    @property
    def mean_batch(self) -> float:
        """Mean of the batch sizes."""
        return sum(self.batch_sizes) / len(self.batch_sizes)


_COLUMNS = (
    *(f.name for f in fields(RoundRecord) if f.name not in ("batch_sizes", "ignored")),
    "mean_batch",
)


def _record(place: str, value: object) -> RoundRecord:
    """Read one round of a history that was written down."""
    known, spent = number(nan=True, infinite=True), number(minimum=0.0)
    readers: dict[str, Reader[Any]] = {
        "round": whole(),
        "local_steps": whole(1),
        "batch_sizes": listed(whole()),
        "learning_rate": number(minimum=0.0, strict=True),
        "arrived": whole(),
        **dict.fromkeys(("train_loss", "test_loss", "metric"), known),
        **dict.fromkeys(("cost", "seconds"), spent),
        "ignored": listed(text),
    }
    row = table(place, value, readers)
    return RoundRecord(**(row | {name: tuple(row[name]) for name in ("batch_sizes", "ignored")}))


def _stopped(place: str, value: object) -> Stopped:
    spent = number(minimum=0.0)
    row = table(place, value, {"reason": text, "rounds": whole(), "cost": spent, "seconds": spent})
    choice(f"{place}.reason", row["reason"], tuple(StopReason.__members__))
    return Stopped(**(row | {"reason": StopReason[row["reason"]]}))


@readable
@dataclass
class History(ResultTable):
    """All rounds of a training run.

    Attributes
    ----------
    mode : str
        "loop" or "vectorised": how the clients were trained.
    records : list of RoundRecord
        One entry a round.
    stopped : Stopped, optional
        Why the planner ended the training; None while it runs, and where a callback ended it.

    Notes
    -----
    ``len(history)`` counts the rounds, iteration gives their records.
    """

    mode: str
    records: list[RoundRecord] = field(default_factory=list)
    stopped: Stopped | None = None

    def __len__(self) -> int:
        """Count the rounds."""
        return len(self.records)

    def _shown(self) -> list[Fact]:
        last: list[Fact] = [
            (name, getattr(self.records[-1], name))
            for name in ("train_loss", "test_loss", "metric", "cost", "seconds")
            if self.records
        ]
        ended = [] if self.stopped is None else [self.stopped.reason.name]
        return [f"{len(self)} rounds", *last, *ended]

    def __iter__(self) -> Iterator[RoundRecord]:
        """Iterate over the rounds."""
        return iter(self.records)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Give one number of every round.

        Parameters
        ----------
        name : str
            A field of RoundRecord, or "mean_batch".

        Returns
        -------
        numpy.ndarray, shape (rounds,); for "batch_sizes" shape (rounds, N)

        Raises
        ------
        InvalidProblemError
            If there is no such column.
        """
        if name not in (*_COLUMNS, "batch_sizes"):
            raise InvalidProblemError(f"no column {name!r}: there are {', '.join(_COLUMNS)} and batch_sizes")
        return np.array([getattr(record, name) for record in self.records])

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a round, without the batch sizes of single devices."""
        return [{name: getattr(record, name) for name in _COLUMNS} for record in self.records]

    def plot(self) -> DescribedFigure:
        """Draw losses and metric, and what was planned and spent, round by round.

        Returns
        -------
        matplotlib.figure.Figure
            With its ``description`` in words.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        from coopt.plans.plot_run import plot_rounds

        names = ("train_loss", "test_loss", "metric", "local_steps", "learning_rate", "cost", "seconds")
        return plot_rounds({name: self.column(name) for name in names}, self.column("batch_sizes"))

    def state_dict(self) -> dict[str, Any]:
        """Give everything that `from_state` needs, as numbers, strings, lists and dictionaries."""
        stopped = (
            None if self.stopped is None else asdict(self.stopped) | {"reason": self.stopped.reason.name}
        )
        return {
            "mode": self.mode,
            "records": [
                asdict(record) | {name: list(getattr(record, name)) for name in ("batch_sizes", "ignored")}
                for record in self.records
            ],
            "stopped": stopped,
        }

    @classmethod
    def from_state(cls, place: str, state: object) -> Self:
        """Rebuild what `state_dict` wrote; `place` is how messages name it."""
        read = table(
            place,
            state,
            {"mode": text, "records": listed(_record), "stopped": optional(_stopped)},
        )
        return cls(**read)


@dataclass(frozen=True)
class EarlyStop:
    """A callback that ends the training.

    Parameters
    ----------
    metric : float, optional
        End when the metric on the test data reaches this.
    patience : int, optional
        End when the loss on the test data has not fallen below its least for this many evaluations.

    Examples
    --------
    >>> stop = EarlyStop(metric=0.9, patience=20)
    """

    metric: float = math.inf
    patience: int | None = None

    def __call__(self, history: History) -> bool:
        """Tell whether to end."""
        if history.records[-1].metric >= self.metric:
            return True
        if self.patience is None:
            return False
        losses = history.column("test_loss")
        losses = losses[np.isfinite(losses)]
        return len(losses) > 0 and len(losses) - 1 - int(np.argmin(losses)) >= self.patience
