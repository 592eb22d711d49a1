"""How far a plan in phases has got."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.plans.phase import Phase
from coopt.problem.saved_state import Reader, listed, number, table, whole
from coopt.problem.validation import flag, integer_array


@dataclass(frozen=True, eq=False)
class ScheduleProgress:
    """A plan in phases that is under way, and what of it is done.

    Attributes
    ----------
    measured_at : int
        The round before which the measurement was taken that the plan rests on.
    ahead : tuple of Phase
        What is still to run; the first of them is the present phase.
    behind : tuple of Phase
        What has run since the measurement, a phase each, with the batches that it had last.
    refill_in : int
        Rounds until the batches are chosen anew.
    delay : float
        How much longer rounds were expected to last than their slowest device when batches were chosen last.
    longer_pays : bool
        Whether rounds longer than the measurement is trusted for are forecast to end much better.
    """

    measured_at: int
    ahead: tuple[Phase, ...]
    behind: tuple[Phase, ...]
    refill_in: int
    delay: float = 1.0
    longer_pays: bool = False

    def after_round(self) -> Self:
        """The same after one round of the present phase."""
        now, later = self.ahead[0], self.ahead[1:]
        behind, last = self.behind, self.behind[-1] if self.behind else None
        if last is not None and _alike(last, now):
            behind = (*behind[:-1], replaced(now, rounds=last.rounds + 1))
        else:
            behind = (*behind, replaced(now, rounds=1))
        if now.rounds > 1:
            return replace(
                self,
                ahead=(replaced(now, rounds=now.rounds - 1), *later),
                behind=behind,
                refill_in=max(self.refill_in - 1, 0),
            )
        # A phase that begins has batches of its own, for what is left by then.
        return replace(self, ahead=later, behind=behind, refill_in=0)

    def of(self, devices: npt.NDArray[np.int64]) -> Self:
        """The same for some of the devices."""
        return self._with_batches(lambda batches: batches[devices])

    def spread(self, devices: npt.NDArray[np.int64], otherwise: npt.NDArray[np.int64]) -> Self:
        """The same for all devices, where the plan is for some of them and the others have `otherwise`."""

        def filled(batches: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            every = otherwise.copy()
            every[devices] = batches
            return every

        return self._with_batches(filled)

    def _with_batches(self, change: Any) -> Self:
        def changed(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
            return tuple(replaced(phase, batch_sizes=change(phase.batch_sizes)) for phase in phases)

        return replace(self, ahead=changed(self.ahead), behind=changed(self.behind))

    def state_dict(self) -> dict[str, Any]:
        """Give numbers and lists that `from_state` turns back into the same."""
        return {
            "measured_at": self.measured_at,
            "ahead": [phase.to_dict() for phase in self.ahead],
            "behind": [phase.to_dict() for phase in self.behind],
            "refill_in": self.refill_in,
            "delay": self.delay,
            "longer_pays": self.longer_pays,
        }

    @classmethod
    def from_state(cls, place: str, state: object) -> Self:
        """Rebuild what `state_dict` gave; `place` is for messages."""
        return cls(**table(place, state, _ENTRIES))


def _phases(place: str, value: object) -> tuple[Phase, ...]:
    return tuple(Phase(**each) for each in listed(_phase)(place, value))


def _phase(place: str, value: object) -> dict[str, Any]:
    return table(place, value, _PHASE)


def _batches(place: str, value: Any) -> npt.NDArray[np.int64]:
    return integer_array(place, value, None, minimum=1)


# What may stand in a state that was written down.
_PHASE: dict[str, Reader[Any]] = {
    "rounds": whole(1),
    "local_steps": whole(1),
    "batch_sizes": _batches,
    "learning_rate": number(minimum=0.0, strict=True),
}
_ENTRIES: dict[str, Reader[Any]] = {
    "measured_at": whole(),
    "ahead": _phases,
    "behind": _phases,
    "refill_in": whole(),
    "delay": number(minimum=0.0, strict=True),
    "longer_pays": flag,
}


def replaced(phase: Phase, **changes: Any) -> Phase:
    """A phase with some of its values changed."""
    return Phase(**(phase.to_dict() | changes))


def _alike(one: Phase, other: Phase) -> bool:
    return (one.local_steps, one.learning_rate) == (other.local_steps, other.learning_rate)
