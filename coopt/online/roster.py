"""Who takes part in a round, and for whom the server waits."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from coopt.online.attendance import Attendance
from coopt.problem.saved_state import consistent, table

if TYPE_CHECKING:
    from coopt.online.accounting import Closed
    from coopt.online.round_plan import RoundPlan

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Roster:
    """The devices of a fleet, and who of them answers.

    Parameters
    ----------
    weights : numpy.ndarray, shape (N,)
        p_i.
    patience : int
        Rounds that a device may miss in a row before it is not reckoned with.
    """

    def __init__(self, weights: Floats, *, patience: int) -> None:
        self.weights, self.patience = weights, patience
        self.attendance = Attendance.empty(len(weights))

    def active(self) -> Ints:
        """The devices that can be reckoned with: those that reported of late, or else all."""
        active = np.flatnonzero(self.attendance.reckoned(self.patience))
        return active if np.any(self.weights[active] > 0) else np.arange(len(self.weights))

    def note(self, plan: RoundPlan, closed: Closed) -> None:
        """Note who answered in a round."""
        seen = closed.seen
        self.attendance = self.attendance.after(plan, seen.client, seen.client[seen.current], closed.absent)

    def state_dict(self) -> dict[str, Any]:
        """Give what `restored` needs."""
        return {"attendance": self.attendance.state_dict()}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` gave of the same devices; `place` is for messages."""
        found = copy(self)
        found.attendance = table(place, state, {"attendance": self.attendance.restored})["attendance"]
        return found

    def check(self, place: str, rounds: int) -> None:
        """Raise InvalidProblemError unless this can be known after so many rounds."""
        for name, count in self.attendance.state_dict().items():
            law = f"there were {rounds} rounds"
            consistent(f"{place}.attendance.{name}", np.asarray(count) <= rounds, law)
