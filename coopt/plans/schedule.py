"""A plan that changes on the way: its phases, what they cost, and the loss that is forecast of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.phases import Phases
from coopt.objectives.forecast.source import Source
from coopt.plans.allocation import HasForecast, Status, measured
from coopt.plans.device_rows import device_rows
from coopt.plans.phase import Phase
from coopt.problem.exact_sum import exact_sum
from coopt.problem.json_text import json_object, write_json
from coopt.problem.problem import Problem
from coopt.problem.readable import Fact, readable
from coopt.problem.result_table import ResultTable
from coopt.problem.validation import real, same_value

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure

# Phases are listed one by one up to this many, and then the first and the last of them.
LISTED_PHASES, SHOWN_PHASES = 12, 5


@readable
@dataclass(frozen=True)
class ScheduleCertificate:
    """What :meth:`Schedule.certify` recomputed.

    Attributes
    ----------
    predicted_error : float
        Round by round, from what was measured [loss].
    cost, time : float
        From exact sums [cost, s].
    relative_difference : float
        Between the claimed and the recomputed forecast.
    """

    __module__ = "coopt"

    predicted_error: float
    cost: float
    time: float
    relative_difference: float


@readable
@dataclass(frozen=True, eq=False)
class Schedule(ResultTable):
    """A plan in phases, each with its rounds, local steps, batches and learning rate.

    Attributes
    ----------
    problem : Problem
        Its limits hold for all phases together. Its learning rate plays no part.
    phases : tuple of Phase
        In the order in which they run.
    predicted_error : float
        Forecast of F - F* at the end [loss]. No bound: real training may end above or below.
    cost, time : float
        What all phases use together [cost, s]; the slowest device sets the time of each round.
    lower_bound : float
        No plan of one phase within the limits is forecast a smaller error, where the schedule has one phase
        at a given rate. -inf otherwise: nothing is proved of plans of several phases, or of other rates.
    status : Status
    source : Source
        The measurement that the forecast was made from (its SHA-256 in ``measurement``).
    solve_seconds : float
        Wall-clock time; not compared.
    trace : dict of str to number
        What the search did; not compared.
    forecast : Forecast or None
        What predicted the error; None where the schedule was read from a file. Not compared.

    Notes
    -----
    Schedules compare by value and do not hash.
    """

    __module__ = "coopt"

    problem: Problem
    phases: tuple[Phase, ...]
    predicted_error: float
    cost: float
    time: float
    lower_bound: float
    status: Status
    source: Source
    solve_seconds: float = field(compare=False, default=0.0)
    trace: dict[str, float] = field(compare=False, default_factory=dict)
    forecast: Forecast | None = field(compare=False, default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    @property
    def rounds(self) -> int:
        """Rounds of all phases together."""
        return sum(phase.rounds for phase in self.phases)

    @property
    def energy(self) -> float:
        """What all phases use of ``Budget.energy`` [J]."""
        return exact_sum(
            self.problem.energy(phase.rounds, phase.local_steps, phase.batch_sizes) for phase in self.phases
        )

    @property
    def gap(self) -> float:
        """(predicted_error - lower_bound) / abs(predicted_error); inf where nothing is proved."""
        if not math.isfinite(self.predicted_error):
            return math.inf
        if self.predicted_error == self.lower_bound:
            return 0.0
        if self.predicted_error == 0.0:
            return math.inf
        return (self.predicted_error - self.lower_bound) / abs(self.predicted_error)

    def forecast_from(self, measurement: HasForecast | None = None) -> Forecast:
        """The forecast that judges the schedule, from the measurement where it was read from a file.

        Raises
        ------
        InvalidProblemError
            If there is none, or the measurement is another one.
        """
        if measurement is None:
            if self.forecast is None:
                raise InvalidProblemError(
                    "measurement is missing: the file of a schedule holds only its SHA-256, "
                    f"{self.source.measurement[:12]}...; give the Measurement or the Forecast behind it"
                )
            return self.forecast
        given = measured(measurement)
        if given.model.digest != self.source.measurement:
            raise InvalidProblemError(
                f"measurement is another one: its SHA-256 is {given.model.digest[:12]}..., and that of the "
                f"schedule {self.source.measurement[:12]}..."
            )
        return Forecast(given.model, trained=self.source.trained, optimiser=self.source.optimiser)

    def curve(self, measurement: HasForecast | None = None) -> NDArray[np.float64]:
        """Forecast of F - F* before training and after each round, shape (1 + rounds,) [loss].

        Parameters
        ----------
        measurement : Measurement or Forecast, optional
            What the schedule was made with, where it was read from a file.
        """
        phases = Phases(self.forecast_from(measurement), self.problem)
        batches = np.array([phase.batch_sizes for phase in self.phases], dtype=np.float64)
        return phases.curve([phase.setting for phase in self.phases], batches)

    def certify(self, measurement: HasForecast | None = None) -> ScheduleCertificate:
        """Recompute limits, cost and time in exact arithmetic, and the forecast round by round.

        Shares no code with the search.

        Parameters
        ----------
        measurement : Measurement or Forecast, optional
            What the schedule was made with, where it was read from a file.

        Raises
        ------
        CertificateError
            If anything disagrees with what the schedule claims.
        """
        from coopt.plans.schedule_certificate import certify

        return certify(self, self.forecast_from(measurement))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists; :meth:`from_dict` gives back an equal schedule."""
        from coopt.problem.files import problem_to_dict

        return {
            "problem": problem_to_dict(self.problem),
            "phases": [phase.to_dict() for phase in self.phases],
            "predicted_error": self.predicted_error,
            "cost": self.cost,
            "time": self.time,
            "lower_bound": self.lower_bound,
            "status": self.status.name,
            "forecast": self.source.to_dict(),
            "solve_seconds": self.solve_seconds,
            "trace": dict(self.trace),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild a schedule from :meth:`to_dict`; wrong or missing keys are InvalidProblemError."""
        from coopt.problem.files import problem_from_dict

        try:
            values = dict(data)
            values["problem"] = problem_from_dict(values["problem"])
            values["phases"] = tuple(Phase.from_dict(phase) for phase in values["phases"])
            devices = len(values["problem"].fleet)
            for place, phase in enumerate(values["phases"]):
                if phase.batch_sizes.size != devices:
                    raise InvalidProblemError(
                        f"phases[{place}] has {phase.batch_sizes.size} batch sizes: must have {devices}, one "
                        "a device"
                    )
            for name in ("predicted_error", "cost", "time"):
                values[name] = real(name, values[name], infinite=True)
            values["lower_bound"] = float(values["lower_bound"])
            values["status"] = Status[values["status"]]
            values["source"] = Source.from_dict(values.pop("forecast"))
            return cls(**values)
        except InvalidProblemError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidProblemError(f"not a schedule: {error}") from error

    def to_json(self, path: str | Path | None = None) -> str:
        """The schedule as JSON text (infinities as in Python's json), written to `path` if given."""
        return write_json(self.to_dict(), path)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild a schedule from :meth:`to_json`; no file that the text names is opened."""
        return cls.from_dict(json_object(text, "not a schedule"))

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict for each phase and device: what is asked of it, and what that takes [cost, s]."""
        return [
            {
                "phase": place,
                "rounds": phase.rounds,
                "local_steps": phase.local_steps,
                "learning_rate": phase.learning_rate,
                **row,
            }
            for place, phase in enumerate(self.phases, start=1)
            for row in device_rows(self.problem, phase)
        ]

    def _shown(self) -> list[Fact]:
        names = ("rounds", "predicted_error", "cost", "time")
        pairs: list[Fact] = [(name, getattr(self, name)) for name in names]
        size = self.phases[0].batch_sizes.size
        return [f"{size} devices", f"{len(self.phases)} phases", *pairs, self.status.name]

    def _first_rows(self, count: int) -> tuple[list[dict[str, Any]], int]:
        rows = [
            {
                "phase": place,
                "rounds": phase.rounds,
                "local_steps": phase.local_steps,
                "learning_rate": phase.learning_rate,
                "batch_sizes": phase.batch_sizes,
            }
            for place, phase in enumerate(self.phases[:count], start=1)
        ]
        return rows, len(self.phases)

    def plot(self, measurement: HasForecast | None = None) -> DescribedFigure:
        """Draw learning rates, local steps, batches and the forecast over cost and time.

        Needs the extra ``plot``, and the measurement where the schedule was read from a file.
        """
        from coopt.plans.plot_schedule import plot_schedule

        return plot_schedule(self, self.forecast_from(measurement))

    def __str__(self) -> str:
        limits = self.problem.budget
        proved = f"gap {self.gap:.2g}" if math.isfinite(self.lower_bound) else "none is proved"
        return "\n".join(
            [
                "phase   rounds    steps          rate  batches",
                *self._lines(),
                f"predicted error {self.predicted_error:.6g} (forecast)",
                f"cost            {self.cost:.6g} of {limits.cost:.6g}",
                f"time            {self.time:.6g} s of {limits.time:.6g} s",
                f"lower bound     {proved}",
            ]
        )

    def _lines(self) -> list[str]:
        lines = []
        for place, phase in enumerate(self.phases):
            low, middle, high = np.percentile(phase.batch_sizes, [0, 50, 100])
            lines.append(
                f"{place + 1:5d} {phase.rounds:8d} {phase.local_steps:8d} {phase.learning_rate:13.6g}  "
                f"{low:.0f} to {high:.0f}, median {middle:.0f}"
            )
        if len(lines) <= LISTED_PHASES:
            return lines
        return [*lines[:SHOWN_PHASES], f"  ... {len(lines) - 2 * SHOWN_PHASES} more", *lines[-SHOWN_PHASES:]]
