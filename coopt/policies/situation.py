"""What a policy knows when it chooses, and what it chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.trend import Estimate
from coopt.policies.schedule_progress import ScheduleProgress
from coopt.problem import limits
from coopt.problem.saved_state import Reader, number, optional, table, text, whole
from coopt.problem.validation import integer_array

if TYPE_CHECKING:
    from coopt.measuring.estimates.estimate_published import PublishedEstimates
    from coopt.objectives.forecast.forecast import Forecast
    from coopt.problem.budget import Budget
    from coopt.problem.problem import Problem

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

UNKNOWN = Estimate(math.nan, math.inf)


@dataclass(frozen=True, eq=False)
class Choice:
    """What every device does in the next round.

    Attributes
    ----------
    local_steps : int
        tau.
    batch_sizes : numpy.ndarray, shape (n,)
        Mini-batch of each participating device.
    rounds : int
        Rounds that the policy reckons with, this one included.
    predicted_error : float
        Loss above the minimum that it expects at the end; NaN if it expects nothing.
    rest_local_steps : int
        Local steps that it reckons with afterwards.
    learning_rate : float or None
        eta of the round; None for that of the controller.
    policy : str
        The rule that chose, where it is not the one that was asked.
    gap : float or None
        Loss above the minimum that it expects now, by the measure of `predicted_error`; None: the calibrated
        gap.
    progress : ScheduleProgress or None
        The plan in phases that the round belongs to, this round not yet run.
    """

    local_steps: int
    batch_sizes: Ints
    rounds: int = 1
    predicted_error: float = float("nan")
    rest_local_steps: int = 1
    learning_rate: float | None = None
    policy: str = ""
    gap: float | None = None
    progress: ScheduleProgress | None = None

    def state_dict(self) -> dict[str, Any]:
        """Give numbers and lists that `from_state` turns back into the same choice."""
        progress = None if self.progress is None else self.progress.state_dict()
        return {**self.__dict__, "batch_sizes": self.batch_sizes.tolist(), "progress": progress}

    @classmethod
    def from_state(cls, place: str, state: object) -> Self:
        """Rebuild what `state_dict` gave; `place` is for messages."""
        return cls(**table(place, state, _ENTRIES))


def _batches(place: str, value: Any) -> Ints:
    return integer_array(place, value, None, minimum=1)


# What may stand in a choice that was written down.
_ENTRIES: dict[str, Reader[Any]] = {
    "local_steps": whole(1),
    "batch_sizes": _batches,
    "rounds": whole(1),
    "predicted_error": number(nan=True, infinite=True),
    "rest_local_steps": whole(1),
    "learning_rate": optional(number(minimum=0.0, strict=True)),
    "policy": text,
    "gap": optional(number(infinite=True)),
    "progress": optional(ScheduleProgress.from_state),
}


@dataclass(frozen=True, eq=False)
class Situation:
    """Everything that a policy may base its choice on.

    Attributes
    ----------
    round : int
        Number of the next round, from 0.
    problem : Problem
        The participating devices with their estimated noise and speed, the calibrated constants, and what is
        left of the budget.
    total : Budget
        The whole budget.
    loss : float
        Current loss above the lowest that it can have; NaN before the first report [loss].
    squared_gradient : float
        Estimated squared norm of the global gradient; NaN before the first report.
    published : PublishedEstimates
        Last round's values of the published estimators.
    gradient_error : float
        Error that bounded buffers add to the averaged gradient, see `coopt.streaming.gradient_error`.
    participation_noise : float
        Variance of the averaged gradient because devices miss rounds, gradient^2: the same at all steps of a
        round, and no batch is large enough to reduce it.
    previous : Choice or None
        The choice before this one, for the same devices; None if there is none.
    untimed : numpy.ndarray of bool, shape (n,), or None
        Devices whose times do not tell yet what a step takes from what a sample takes; None: no matter.
    devices : numpy.ndarray of int, shape (n,), or None
        Which devices of the whole fleet these are; None: all.
    loss_error : float
        Standard error of `loss`.
    spread : float
        Standard deviation of the logarithm of a device's seconds from round to round.
    delay : Estimate
        How long rounds took over what was predicted, on average, and the standard error of that.
    forecast : Forecast or None
        What the last measurement of the whole fleet says of plans; None if there is none.
    measured_at : int
        The round before which it was taken.
    measured_steps : int
        Local steps of the round before that.
    measured_loss : Estimate
        The loss then, above the lowest that it can have.
    drawn : Problem or None
        `problem` says what a round is expected to cost where devices are drawn for it; this one has the costs
        of those that are, and says how many. None where all take part, or nothing is measured.
    """

    round: int
    problem: Problem
    total: Budget
    loss: float
    squared_gradient: float
    published: PublishedEstimates
    gradient_error: float
    participation_noise: float
    previous: Choice | None
    untimed: npt.NDArray[np.bool_] | None = None
    devices: Ints | None = None
    loss_error: float = math.inf
    spread: float = 0.0
    delay: Estimate = UNKNOWN
    forecast: Forecast | None = None
    measured_at: int = -1
    measured_steps: int = 1
    measured_loss: Estimate = UNKNOWN
    drawn: Problem | None = None


@runtime_checkable
class Policy(Protocol):
    """A rule that chooses the next round; it keeps no state of its own."""

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        ...

    @property
    def needs_estimates(self) -> bool:
        """Whether the controller has to measure before the rule can be applied."""
        ...

    @property
    def measures_curvature(self) -> bool:
        """Whether clients should evaluate the extra gradient from time to time."""
        ...

    def choose(self, situation: Situation) -> Choice:
        """Choose local steps and batch sizes; the controller cuts them to what is left of the budget."""
        ...

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """Loss above the minimum that the rule expects after the round as it was cut; NaN for nothing."""
        ...


@runtime_checkable
class MeasuringPolicy(Policy, Protocol):
    """A rule that plans by a measurement of the whole fleet, once there is one."""

    def departed(self, situation: Situation) -> float:
        """Share of each limit that measuring again may take; 0 while training is as was forecast."""
        ...


@runtime_checkable
class ExpectingPolicy(Policy, Protocol):
    """A rule that can tell how well training will end with some devices, and how well with others."""

    def expects(self, situation: Situation, enough: float = -math.inf) -> float:
        """Loss above the minimum that it expects at the end, quickly: not by the plan that it will make.

        Of less than `enough` nobody asks how much less: any such value will do, if it is not too small.
        """
        ...

    def expects_at_least(self, situation: Situation) -> float:
        """What it cannot expect less than with such an error of the gradient, whoever takes part; at once."""
        ...


def clip_batches(problem: Problem, wanted: npt.ArrayLike) -> Ints:
    """Round batch sizes to the admissible range of every device."""
    return problem.fleet.rounded_down(np.asarray(wanted, dtype=np.float64))


def rounds_left(problem: Problem, local_steps: int, batch_sizes: Ints) -> int:
    """Count the rounds of this kind that fit into what is left, at least 1."""
    most = limits.most_rounds(problem, local_steps, batch_sizes)
    return max(1, most) if most is not None else 1
