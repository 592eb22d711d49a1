"""Simulated devices that are late: their models count for nothing, their reports once they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coopt.measuring.report import ClientReport
from coopt.online.planner import Planner
from coopt.online.round_plan import RoundPlan, Stopped
from coopt.problem.saved_state import listed, number, table, text

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a device is still at work on.

    Attributes
    ----------
    due : float
        When it is done, on the clock of the run [s].
    report : ClientReport
        On that round.
    """

    due: float
    report: ClientReport


class LateAnswers:
    """Devices that are still busy with a round that is over.

    As in a real federation, a device finishes what it has begun. Until then it is given no new work; then its
    report tells the planner how slow it is, which would stay unknown if whoever is late were not heard.

    Examples
    --------
    >>> from coopt import ClientReport
    >>> late = LateAnswers()
    >>> reports = [
    ...     ClientReport(client=i, round=0, samples=9, local_steps=1, batch_size=4, samples_processed=4,
    ...                  loss=0.5, seconds_computing=seconds)
    ...     for i, seconds in enumerate((1.0, 7.0))
    ... ]
    >>> done = np.array([1.0, 7.0])
    >>> [report.client for report in late.heard(reports, done, over=2.0)], late.busy(2, now=2.0)
    ([0], array([False,  True]))
    >>> [report.client for report in late.heard([], done, over=9.0)], late.busy(2, now=9.0)
    ([1], array([False, False]))
    """

    def __init__(self) -> None:
        self._under_way: dict[int, Answer] = {}

    def busy(self, devices: int, now: float) -> npt.NDArray[np.bool_]:
        """Tell who is still at work, shape (N,)."""
        found = np.zeros(devices, dtype=bool)
        found[[device for device, answer in self._under_way.items() if answer.due > now]] = True
        return found

    def pause(self, participants: Ints, now: float) -> float:
        """Seconds until one of some devices is free, 0 where one is now: a round without any has no end."""
        waits = [
            self._under_way[device].due - now if device in self._under_way else 0.0
            for device in participants.tolist()
        ]
        return max(min(waits, default=0.0), 0.0)

    def next_plan(
        self,
        planner: Planner,
        away: Callable[[], npt.NDArray[np.bool_]],
        sleep: Callable[[float], object] | None = None,
    ) -> RoundPlan | Stopped:
        """Plan the next round, and wait until it begins and a participant is free.

        Parameters
        ----------
        planner : Planner
        away : callable
            Tells who is not there, shape (N,): where some devices are drawn, they are not, nor are busy ones.
        sleep : callable, optional
            Lets so many seconds pass until the round begins, where no simulated clock does.
        """
        absent: list[int] = []
        if planner.budget.participants is not None:
            gone = away()
            absent = np.flatnonzero(gone | self.busy(gone.size, planner.spent_seconds)).tolist()
        plan = planner.plan(absent=absent) if absent else planner.plan()
        if isinstance(plan, Stopped):
            return plan
        if sleep is not None:
            sleep(plan.starts_in)
        planner.wait(plan.starts_in)
        pause = self.pause(plan.participants, planner.spent_seconds)
        planner.wait(pause)
        return planner.plan() if pause > 0.0 else plan

    def heard(self, reports: Iterable[ClientReport], done: Floats, over: float) -> list[ClientReport]:
        """Give the reports that come before a round is over, in the order of the devices, and keep the rest.

        Parameters
        ----------
        reports : iterable of ClientReport
            Of this round; those of earlier rounds that were late come besides.
        done : numpy.ndarray, shape (N,)
            When each device is done [s].
        over : float
            When the round is over [s].
        """
        self._under_way |= {each.client: Answer(float(done[each.client]), each) for each in reports}
        come = [device for device, answer in self._under_way.items() if answer.due <= over]
        return [self._under_way.pop(device).report for device in sorted(come)]

    def state_dict(self) -> list[dict[str, Any]]:
        """Numbers and strings that `load_state_dict` turns back into the same."""
        return [{"due": each.due, "report": each.report.to_json()} for each in self._under_way.values()]

    def load_state_dict(self, place: str, state: object) -> None:
        """Go on from what `state_dict` gave; `place` is for messages."""
        answers = listed(_answer)(place, state)
        self._under_way = {answer.report.client: answer for answer in answers}


def _answer(place: str, value: object) -> Answer:
    row = table(place, value, {"due": number(minimum=0.0), "report": text})
    return Answer(row["due"], ClientReport.from_json(row["report"]))
