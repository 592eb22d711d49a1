"""What the controller answers: the plan of the next round, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.problem.device_steps import steps_of
from coopt.problem.readable import readable
from coopt.problem.saved_state import Reader, consistent, listed, number, optional, table, text, whole
from coopt.problem.validation import flag, integer_array

Ints = npt.NDArray[np.int64]

# Where no speed is known, every tenth of the devices that is missing makes the wait so much longer.
MISSING_SHARE = 0.1
_ALL: Ints = np.empty(0, dtype=np.int64)
_ARRAYS = ("batch_sizes", "participants", "expected", "draws", "device_steps")


def _counts(minimum: int) -> Reader[Ints]:
    """Make a reader of whole numbers, one a device."""
    return lambda place, value: integer_array(place, value, None, minimum=minimum)


def _devices(place: str, value: Any) -> Ints:
    """Read some devices; there may be none."""
    return np.array(listed(whole())(place, value), dtype=np.int64)


# What may stand in a plan that was written down.
_ENTRIES: dict[str, Reader[Any]] = {
    "round": whole(),
    "local_steps": whole(1),
    "batch_sizes": _counts(1),
    "learning_rate": number(minimum=0.0, strict=True),
    "extra_evaluation": flag,
    "deadline": number(minimum=0.0, infinite=True),
    "predicted_cost": number(minimum=0.0),
    "predicted_seconds": number(minimum=0.0),
    "rounds_left": whole(1),
    "predicted_error": number(nan=True, infinite=True),
    "rest_local_steps": whole(1),
    "participants": _devices,
    "expected": _devices,
    "quorum": number(minimum=0.0, strict=True),
    "quorum_count": optional(whole(1)),
    "slack": number(minimum=0.0, infinite=True),
    "draws": optional(_counts(0)),
    "device_steps": optional(_counts(0)),
    "starts_in": number(minimum=0.0),
    "policy": text,
}


@readable
@dataclass(frozen=True, eq=False)
class RoundPlan:
    """What every device does in one round, and for whom the server waits.

    Attributes
    ----------
    round : int
        Number of the round, from 0.
    local_steps : int
        tau, the most that a device takes.
    batch_sizes : numpy.ndarray of int, shape (N,)
        s_i, read-only.
    learning_rate : float
        eta.
    extra_evaluation : bool
        Whether clients evaluate one more gradient to measure curvature, see `ClientProbe.end`.
    deadline : float
        Seconds after which the server should go on without the missing devices; never more than what is left.
    predicted_cost, predicted_seconds : float
        What the round should cost, and how long it should take if all devices take part.
    rounds_left : int
        Rounds that the policy reckons with, this one included.
    predicted_error : float
        Loss above the minimum that the policy expects at the end; NaN during warm-up.
    rest_local_steps : int
        Local steps that the policy reckons with afterwards.
    participants : numpy.ndarray of int
        Devices that are given work, increasing; default: all.
    expected : numpy.ndarray of int
        Those of them to wait for, increasing; default: all. The others are given work too, and count if they
        answer before the round is over.
    quorum : float
        Share of the participants whose answers end the round.
    quorum_count : int or None
        So many answers end it too, whoever gives them; None: only the share does.
    slack : float
        Where nobody knows how fast the devices are, the round ends when it has lasted so many times as long
        as the last answer took, and more where many are missing, see `closes`; infinite where speeds are
        known.
    draws : numpy.ndarray of int, shape (N,), or None
        How often each device was drawn, which is its weight in the average; None: it counts by its weight.
    device_steps : numpy.ndarray of int, shape (N,), or None
        tau_i, where some devices take fewer steps than others; None: all take `local_steps`.
    starts_in : float
        Seconds to wait before the round begins; tell the planner's `wait`.
    policy : str
        The rule that chose: "warm-up" at first, the name of the policy, or that of the rule that it falls
        back on; empty for a plan made beforehand.

    Notes
    -----
    Plans compare by value.
    """

    __module__ = "coopt"

    round: int
    local_steps: int
    batch_sizes: npt.NDArray[np.int64]
    learning_rate: float
    extra_evaluation: bool
    deadline: float
    predicted_cost: float
    predicted_seconds: float
    rounds_left: int
    predicted_error: float
    rest_local_steps: int
    participants: Ints = field(default_factory=lambda: _ALL)
    expected: Ints = field(default_factory=lambda: _ALL)
    quorum: float = 1.0
    slack: float = math.inf
    draws: Ints | None = None
    device_steps: Ints | None = None
    starts_in: float = 0.0
    policy: str = ""
    quorum_count: int | None = None

    def __post_init__(self) -> None:
        if self.participants is _ALL:
            object.__setattr__(self, "participants", np.arange(len(self.batch_sizes)))
        if self.expected is _ALL:
            object.__setattr__(self, "expected", self.participants)
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is not None:
                array = np.array(value, dtype=np.int64)
                array.flags.writeable = False
                object.__setattr__(self, name, array)

    @property
    def steps(self) -> Ints:
        """Local steps of each device, shape (N,)."""
        return steps_of(self.device_steps, self.local_steps, len(self.batch_sizes))

    def enough(self, asked: int) -> int:
        """Count the answers that end a round of so many devices."""
        share = math.ceil(self.quorum * asked)
        return share if self.quorum_count is None else min(share, self.quorum_count)

    def closes(self, seconds: npt.ArrayLike, absent: Iterable[int] = ()) -> float:
        """When the round is over, as far as the answers tell.

        Parameters
        ----------
        seconds : array_like, shape (N,)
            When each device answered, from the beginning of the round; infinite for one that has not, yet or
            ever [s].
        absent : iterable of int, optional
            Devices known not to work: nobody waits for them.

        Returns
        -------
        float
            The first of these: all that are expected have answered, or the quorum has, or the deadline. While
            no speed is known, also ``slack`` times as long as the last answer took, times ten times the share
            that is missing where that is more than a tenth: nobody waits in vain for a quarter of the whole
            time, and not for long where most have not answered yet [s].

        Examples
        --------
        >>> import numpy as np
        >>> from coopt import RoundPlan
        >>> plan = RoundPlan(
        ...     round=0, local_steps=2, batch_sizes=[8, 8, 8, 8], learning_rate=0.1, extra_evaluation=False,
        ...     deadline=900.0, predicted_cost=64.0, predicted_seconds=0.0, rounds_left=9,
        ...     predicted_error=0.5, rest_local_steps=2, slack=2.0,
        ... )
        >>> plan.closes([1.0, 1.2, 1.1, 1.5]), plan.closes([1.0, 1.2, 1.1, np.inf])
        (1.5, 6.0)
        """
        there = np.ones(len(self.batch_sizes), dtype=bool)
        there[np.fromiter(absent, dtype=np.int64)] = False
        answered = np.asarray(seconds, dtype=np.float64)
        asked = self.participants[there[self.participants]]
        waited = self.expected[there[self.expected]]
        if not asked.size:
            return 0.0
        if not waited.size:
            # Nobody that answered of late is there: wait for whoever is.
            waited = asked
        times = np.sort(answered[waited])
        ends = min(float(times[-1]), self.deadline)
        enough = self.enough(asked.size)
        if enough < asked.size:
            ends = min(ends, float(np.partition(answered[asked], enough - 1)[enough - 1]))
        if self.slack < math.inf and times.size > 1:
            missing = 1.0 - np.arange(1, times.size) / times.size
            limits = self.slack * np.maximum(missing / MISSING_SHARE, 1.0) * times[:-1]
            over = np.flatnonzero(times[1:] > limits)
            if over.size:
                ends = min(ends, float(limits[over[0]]))
        return ends

    def __eq__(self, other: object) -> bool:
        """Tell whether all values agree; NaN equals NaN."""
        if not isinstance(other, RoundPlan):
            return NotImplemented
        return repr(self.to_dict()) == repr(other.to_dict())

    def __hash__(self) -> int:
        """Hash the values."""
        return hash(repr(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists that `from_dict` turns back into the same plan."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {name: values[name].tolist() for name in _ARRAYS if values[name] is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild what `to_dict` wrote.

        Raises
        ------
        InvalidProblemError
            If an entry is missing, unknown or wrong; the message names it.
        """
        return cls.from_state("plan", values)

    @classmethod
    def from_state(cls, place: str, state: object) -> Self:
        """Rebuild what `to_dict` wrote; `place` is how messages name it."""
        plan = cls(**table(place, state, _ENTRIES))
        plan._check(place)
        return plan

    def _check(self, place: str) -> None:
        """Raise InvalidProblemError where the parts of the plan do not fit together."""
        devices = len(self.batch_sizes)
        for name in ("draws", "device_steps"):
            value = getattr(self, name)
            consistent(
                f"{place}.{name}", value is None or len(value) == devices, f"there are {devices} devices"
            )
        for name, above in (("participants", np.arange(devices)), ("expected", self.participants)):
            value = getattr(self, name)
            known = np.isin(value, above).all() and (np.diff(value) > 0).all()
            consistent(
                f"{place}.{name}",
                known,
                "some of those that are asked, in their order",
            )
        consistent(f"{place}.quorum", self.quorum <= 1, "a share is at most 1")
        if self.device_steps is not None:
            most = (self.device_steps <= self.local_steps).all()
            consistent(f"{place}.device_steps", most, "no device takes more than local_steps")


class StopReason(Enum):
    """Why training ends; the value is advice to the user."""

    COST = "the next round does not fit in the cost that is left: raise Budget.cost to go on"
    TIME = "the next round does not fit in the time that is left: raise Budget.time to go on"
    ROUNDS = "all rounds are done: raise Budget.max_rounds to go on"
    NOT_FINITE = (
        "no client's model was finite: lower the learning rate, or look at the data of the clients that are "
        "named"
    )
    GAIN = "what is left of the budget would hardly improve the model: lower min_gain to go on"


@readable
@dataclass(frozen=True)
class Stopped:
    """Training is over.

    Attributes
    ----------
    reason : StopReason
        Why; its text is advice.
    rounds : int
        Rounds that were run.
    cost, seconds : float
        What they took.
    """

    __module__ = "coopt"

    reason: StopReason
    rounds: int
    cost: float
    seconds: float
