"""Who answers: whom to wait for in the next round, and whom plans reckon with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from coopt.problem.saved_state import table, wholes

if TYPE_CHECKING:
    from coopt.online.round_plan import RoundPlan

Ints = npt.NDArray[np.int64]

# A device may hang for ever: the second deadline that passes in vain is the last one.
WAITS_IN_VAIN = 2


@dataclass(frozen=True, eq=False)
class Attendance:
    """How long each device has not answered.

    Attributes
    ----------
    missed : numpy.ndarray of int, shape (N,)
        Rounds in a row that it was to take part in, and did not; being absent counts.
    in_vain : numpy.ndarray of int, shape (N,)
        Rounds in a row in which the server waited for it until the end of the round, and it never answered.
    """

    missed: Ints
    in_vain: Ints

    @classmethod
    def empty(cls, devices: int) -> Self:
        """Nobody has missed anything."""
        return cls(*(np.zeros(devices, dtype=np.int64) for _ in fields(cls)))

    def reckoned(self, patience: int) -> npt.NDArray[np.bool_]:
        """Devices that can be reckoned with, shape (N,)."""
        return (self.missed < patience) & (self.in_vain < WAITS_IN_VAIN)

    def after(self, plan: RoundPlan, answered: Ints, arrived: Ints, absent: npt.NDArray[np.bool_]) -> Self:
        """What is known after a round.

        Parameters
        ----------
        plan : RoundPlan
            The round.
        answered : numpy.ndarray of int
            Devices from which anything was heard, about whichever round.
        arrived : numpy.ndarray of int
            Those that answered in this one.
        absent : numpy.ndarray of bool, shape (N,)
            Devices that were known not to work.
        """
        missed, in_vain = self.missed.copy(), self.in_vain.copy()
        missed[plan.participants] += 1
        # Where enough have answered the round is over, and has not lasted longer for those that have not.
        if len(arrived) < plan.enough(len(plan.participants)):
            waited = plan.expected[~absent[plan.expected]]
            in_vain[waited] += 1
        missed[answered] = 0
        in_vain[answered] = 0
        return replace(self, missed=missed, in_vain=in_vain)

    def joined_by(self, newcomers: int) -> Self:
        """The same with so many devices more, that have missed nothing."""
        none = np.zeros(newcomers, dtype=np.int64)
        return replace(self, missed=np.append(self.missed, none), in_vain=np.append(self.in_vain, none))

    def state_dict(self) -> dict[str, Any]:
        """Give what `restored` needs."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` gave of as many devices; `place` is for messages."""
        counts = wholes(self.missed.shape)
        return replace(self, **table(place, state, {field.name: counts for field in fields(self)}))
