"""Who takes part in a round, and for whom the server waits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.online.attendance import Attendance
from coopt.problem.participation import check_participants, probabilities
from coopt.problem.saved_state import Reader, consistent, optional, table, wholes

if TYPE_CHECKING:
    from coopt.online.accounting import Closed
    from coopt.online.availability import Availability
    from coopt.online.round_plan import RoundPlan
    from coopt.problem.budget import Budget

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Most times at which somebody comes or goes that are looked at for a round that can be run.
MOST_CHANGES = 1000
# Weight of the devices that come, from which on the loss is another one.
MUCH_OTHER = 0.1


@dataclass(frozen=True, eq=False)
class Call:
    """Who is called for a round.

    Attributes
    ----------
    begin : float
        When the round begins, by the planner's seconds [s].
    active : numpy.ndarray of int
        Devices that are there and can be reckoned with: the policy plans for them.
    participants : numpy.ndarray of int
        Devices that are given work.
    draws : numpy.ndarray of int, shape (N,), or None
        How often each was drawn; None: all that are there take part.
    likely : numpy.ndarray, shape (N,)
        How likely each was to take part.
    cost : float
        What may have been spent by the next time that somebody comes or goes.
    ends : float
        That time, where it limits what may be spent; else infinite [s].
    """

    begin: float
    active: Ints
    participants: Ints
    draws: Ints | None
    likely: Floats
    cost: float = math.inf
    ends: float = math.inf

    @property
    def expected(self) -> Ints:
        """For whom to wait."""
        expected = np.intersect1d(self.active, self.participants)
        return expected if expected.size else self.participants

    def left(self, left: Budget, spent_cost: float, spent_seconds: float) -> Budget:
        """What of a budget is left for the rounds until somebody comes or goes."""
        return replace(
            left,
            cost=max(min(left.cost, self.cost - spent_cost), 0.0),
            time=max(min(left.time + spent_seconds, self.ends) - self.begin, 0.0),
        )


class Roster:
    """The devices of a fleet: who is there, who answers, and who is drawn.

    Parameters
    ----------
    weights : numpy.ndarray, shape (N,)
        p_i, of all devices, those that have left included.
    budget : Budget
        How many devices take part in a round, and what there is to spend.
    patience : int
        Rounds that a device may miss in a row before it is not reckoned with.
    availability : Availability, optional
        When devices are there; default: always.
    seed : int, default 0
        Source of the draws.
    """

    def __init__(
        self,
        weights: Floats,
        budget: Budget,
        *,
        patience: int,
        availability: Availability | None = None,
        seed: int = 0,
    ) -> None:
        if not np.any(weights > 0):
            raise InvalidProblemError("no device of the fleet has a weight")
        check_participants(weights, budget.participants, budget.distinct_participants)
        self.given, self._budget, self._patience, self._seed = weights, budget, patience, seed
        self._availability = None if availability is None else availability.of(len(weights))
        self.attendance = Attendance.empty(len(weights))
        self.away = np.zeros(len(weights), dtype=bool)
        self._there: npt.NDArray[np.bool_] | None = None  # in the last round, by their times

    @property
    def weights(self) -> Floats:
        """p_i, of which those that have left have none, shape (N,)."""
        if not self.away.any():
            return self.given
        present: Floats = np.where(self.away, 0.0, self.given)
        return present / float(present.sum())

    def beginnings(self, now: float) -> Iterator[float]:
        """When a round may begin: now, or when somebody comes or goes."""
        for _ in range(MOST_CHANGES):
            yield now
            now = math.inf if self._availability is None else self._availability.next_change(now)
            if now >= self._budget.time:
                return

    def call(self, number: int, begin: float, absent: npt.NDArray[np.bool_] | None = None) -> Call | None:
        """Call devices for a round; None where nobody that counts is there.

        Parameters
        ----------
        number : int
            The round.
        begin : float
            When it begins [s].
        absent : numpy.ndarray of bool, shape (N,), optional
            Devices known not to be there now.
        """
        present = ~self.away
        if self._availability is not None:
            present &= self._availability.there(begin)
        if not np.any(self.weights[present] > 0):
            return None
        return self.call_among(present, number, begin, absent)

    def call_among(
        self,
        present: npt.NDArray[np.bool_],
        number: int,
        begin: float,
        absent: npt.NDArray[np.bool_] | None = None,
    ) -> Call:
        """The same where `present`, shape (N,), are there, one of them with a weight."""
        weights = self.weights
        reckoned = present & self.attendance.reckoned(self._patience)
        active = np.flatnonzero(reckoned if np.any(weights[reckoned] > 0) else present)
        cost, ends = self._share(begin)
        call = Call(begin, active, np.flatnonzero(present), None, present.astype(np.float64), cost, ends)
        return call if self._budget.participants is None else self._draw(call, number, present, absent)

    def _draw(
        self,
        call: Call,
        number: int,
        present: npt.NDArray[np.bool_],
        absent: npt.NDArray[np.bool_] | None,
    ) -> Call:
        """Draw among those that are there, or all if nobody is."""
        weights, many = self.weights, self._budget.participants or 1
        here = present if absent is None else present & ~absent
        here = here if np.any(weights[here] > 0) else present
        likely, draws = np.zeros(len(weights)), np.zeros(len(weights), dtype=np.int64)
        rng = np.random.default_rng([self._seed, number])
        if self._budget.distinct_participants:
            hat = np.flatnonzero(here & (weights > 0))
            many = min(many, hat.size)
            draws[rng.choice(hat, many, replace=False)] = 1
            likely[hat] = many / hat.size
        else:
            hat = np.flatnonzero(here)
            shares = weights[hat] / weights[hat].sum()
            draws[hat] = rng.multinomial(many, shares)
            likely[hat] = probabilities(shares, many, distinct=False)
        # Who may be drawn is reckoned with, who is away for the moment is not.
        reckoned = np.intersect1d(call.active, hat)
        active = reckoned if np.any(weights[reckoned] > 0) else hat
        return replace(call, active=active, participants=np.flatnonzero(draws), draws=draws, likely=likely)

    def _share(self, begin: float) -> tuple[float, float]:
        """What may have been spent by the next time that somebody comes or goes, and when that is.

        Every device has its part p_i of the cost, spread over the time that it is there: what is spent before
        the others come is spent on a part of the data.
        """
        budget, availability = self._budget, self._availability
        if availability is None or math.isinf(budget.cost):
            return math.inf, math.inf
        ends = availability.next_change(begin)
        if ends >= budget.time:
            return math.inf, math.inf
        whole = availability.seconds(budget.time)
        comes = whole > 0
        weights = self.weights[comes] / float(self.weights[comes].sum())
        part = float(weights @ (availability.seconds(ends)[comes] / whole[comes]))
        return budget.cost * part, ends

    def others_came(self, begin: float) -> bool:
        """Note who is there in a round that began then; tell whether much of the weight was not before."""
        if self._availability is None:
            return False
        before, self._there = self._there, self._availability.there(begin)
        return before is not None and float(self.weights @ (self._there & ~before)) > MUCH_OTHER

    def note(self, plan: RoundPlan, closed: Closed) -> None:
        """Note who answered in a round."""
        seen = closed.seen
        self.attendance = self.attendance.after(plan, seen.client, seen.client[seen.current], closed.absent)

    def leave(self, device: int) -> None:
        """Take a device out; raises InvalidProblemError if nobody that counts would be left."""
        away = self.away.copy()
        away[device] = True
        if not np.any(self.given[~away] > 0):
            raise InvalidProblemError(f"leave({device}): no device with a weight would be left")
        self.away = away

    def come_back(self, device: int) -> None:
        """Take a device in again that had left."""
        self.away = self.away.copy()
        self.away[device] = False
        for name in ("missed", "in_vain"):
            getattr(self.attendance, name)[device] = 0

    def state_dict(self) -> dict[str, Any]:
        """Give what `restored` needs."""
        there = None if self._there is None else self._there.astype(np.int64).tolist()
        away = self.away.astype(np.int64).tolist()
        return {"attendance": self.attendance.state_dict(), "away": away, "there": there}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` gave of the same devices; `place` is for messages."""
        marks = wholes(self.away.shape)
        readers: dict[str, Reader[Any]] = {
            "attendance": self.attendance.restored,
            "away": marks,
            "there": optional(marks),
        }
        read = table(place, state, readers)
        found, there = copy(self), read["there"]
        found.attendance, found.away = read["attendance"], read["away"] > 0
        found._there = None if there is None else there > 0
        left = self.given[~found.away]
        consistent(f"{place}.away", np.any(left > 0), "a device with a weight is there")
        return found

    def check(self, place: str, rounds: int) -> None:
        """Raise InvalidProblemError unless this can be known after so many rounds."""
        for name, count in self.attendance.state_dict().items():
            law = f"there were {rounds} rounds"
            consistent(f"{place}.attendance.{name}", np.asarray(count) <= rounds, law)

    def grown(self, other: Roster) -> Roster:
        """One of more devices, `other`, that knows what this one knows of the first."""
        more = len(other.given) - len(self.given)
        other.attendance = self.attendance.joined_by(more)
        other.away[: len(self.away)] = self.away
        if self._there is not None:
            other._there = np.append(self._there, np.zeros(more, dtype=bool))
        return other
