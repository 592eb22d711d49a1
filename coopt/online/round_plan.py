"""What the controller answers: the plan of the next round, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """What every device does in one round.

    Attributes
    ----------
    round : int
        Number of the round, from 0.
    local_steps : int
        tau, the same for all devices.
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

    Notes
    -----
    Plans compare by value and do not hash.
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

    def __post_init__(self) -> None:
        batches = np.array(self.batch_sizes, dtype=np.int64)
        batches.flags.writeable = False
        object.__setattr__(self, "batch_sizes", batches)

    def __eq__(self, other: object) -> bool:
        """Tell whether all values agree; NaN equals NaN."""
        if not isinstance(other, RoundPlan):
            return NotImplemented
        return repr(self.to_dict()) == repr(other.to_dict())

    def __hash__(self) -> int:
        """Hash the values."""
        return hash(repr(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Numbers and one list that `from_dict` turns back into the same plan."""
        return {**self.__dict__, "batch_sizes": self.batch_sizes.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild what `to_dict` wrote."""
        return cls(**values)


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
