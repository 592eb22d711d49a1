"""The one account of cost and time, from reports that may be missing or wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.measuring.answer_times import AnswerTimes
from coopt.measuring.estimates.estimate import gradients_evaluated
from coopt.measuring.estimates.wall_clock import WallClock
from coopt.measuring.ignored import Ignored
from coopt.measuring.observations import Observations
from coopt.measuring.report import ClientReport
from coopt.measuring.screening import LARGEST, Memory, screen
from coopt.measuring.told_costs import Prices
from coopt.problem.saved_state import consistent, number, table, whole
from coopt.problem.validation import count, entries, flag, float_array, instance, real

if TYPE_CHECKING:
    from coopt.online.availability import Availability
    from coopt.online.round_plan import RoundPlan
    from coopt.problem.budget import Budget

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-9  # of a sum of costs


@dataclass(frozen=True, eq=False)
class Closed:
    """What a planner learns as a round is charged.

    Attributes
    ----------
    seen : Observations
        What is believed of the reports.
    ignored : list of Ignored
        What is not, and what was planned and not done.
    absent : numpy.ndarray of bool, shape (N,)
        Devices known not to have worked.
    steps : numpy.ndarray of int, shape (N,)
        Local steps that each device did.
    seconds : float
        How long the round took [s].
    answered : numpy.ndarray, shape (N,), or None
        When each device's answer came, where the server noted that [s].
    """

    seen: Observations
    ignored: list[Ignored]
    absent: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    seconds: float
    answered: Floats | None


@dataclass(eq=False)
class Account:
    """What a training has spent so far: every planner keeps one, and only here is anything charged.

    Attributes
    ----------
    devices : int
        N.
    round_cost : float
        Cost of a round beyond its samples and its devices.
    round : int
        Rounds that are closed.
    cost, seconds : float
        What they took, and what was waited for besides.
    """

    devices: int
    round_cost: float
    round: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def close(
        self,
        plan: RoundPlan,
        reports: Iterable[ClientReport],
        *,
        sample_cost: Floats,
        step_cost: Floats,
        device_cost: Floats,
        seconds: float | None,
        absent: Iterable[int],
        answered: npt.ArrayLike | None = None,
        clock: WallClock | None = None,
        witnessed: bool = False,
        memory: Memory | None = None,
        stated_cost: Floats | None = None,
        lowest_loss: float = -math.inf,
    ) -> Closed:
        """Charge the planned round, and give what is believed of its reports.

        Parameters
        ----------
        plan : RoundPlan
            What the devices were told.
        reports : iterable of ClientReport
            What arrived, late reports about earlier rounds included.
        sample_cost : numpy.ndarray, shape (N,)
            Cost per sample where a client reports none.
        step_cost : numpy.ndarray, shape (N,)
            Cost per local step there, whatever its batch.
        device_cost : numpy.ndarray, shape (N,)
            Cost of the round on each device that takes part in it.
        seconds : float or None
            How long the round took by the server's clock; None: what `answered` or the reports say.
        absent : iterable of int
            Devices known not to have worked, besides those that were given no work.
        answered : array_like, shape (N,), optional
            When each device's answer came, by the server's clock from the beginning of the round; infinite
            where none did [s].
        clock : WallClock, optional
            What that clock said in earlier rounds.
        witnessed : bool, default False
            Whether the server saw the work: if not, a device that says it did less is charged the plan.
        memory : dict, optional
            Values believed before, to judge the reports by.
        stated_cost : numpy.ndarray, shape (N,), optional
            Cost per sample as the fleet states it, to hold told costs to; default: `sample_cost`.
        lowest_loss : float, optional
            What no loss can be below.

        Raises
        ------
        InvalidProblemError
            If a report is none, `seconds` or an entry of `answered` is no number of at least 0, or a device
            is absent that the fleet does not have.
        """
        arrived = entries("reports", reports)
        for place, report in enumerate(arrived):
            instance(f"reports[{place}]", report, ClientReport)
        if seconds is not None:
            seconds = real("seconds", seconds, minimum=0.0)
        flag("witnessed", witnessed)
        named = self.marked(entries("absent", absent))
        gone = named.copy()
        gone |= ~np.isin(np.arange(self.devices), plan.participants)
        times = None
        if answered is not None:
            times = self._answer_times(plan, answered, WallClock() if clock is None else clock)
            if seconds is None:
                seconds = plan.closes(times.seconds, np.flatnonzero(gone).tolist())
        seen, ignored = screen(
            arrived,
            devices=self.devices,
            round=self.round,
            memory=memory,
            most_seconds=LARGEST if seconds is None else seconds,
            answers=times,
            # A loop that gives all local steps to a device that was to take fewer made it do that work.
            planned_samples=samples_processed(
                np.where(plan.steps > 0, plan.local_steps, 0), plan.batch_sizes, plan.extra_evaluation
            ),
            prices=Prices(sample_cost if stated_cost is None else stated_cost, step_cost, sample_cost),
            lowest_loss=lowest_loss,
        )
        steps, short = steps_done(plan, seen)
        ignored.extend(
            Ignored(client, f"{planned - done} of its {planned} local steps", f"it says that it did {done}")
            for client, done, planned in short
        )
        self.cost += charge(plan, sample_cost, step_cost, seen, gone, witnessed)
        self.cost += self.round_cost + float(np.sum(device_cost[plan.participants]))
        took = duration(plan, seen, gone) if seconds is None else seconds
        self.seconds += took
        self.round += 1
        return Closed(seen, ignored, named, steps, took, None if times is None else times.seconds)

    def _answer_times(self, plan: RoundPlan, answered: npt.ArrayLike, clock: WallClock) -> AnswerTimes:
        came = float_array("answered", answered, self.devices, minimum=0.0, infinite=True)
        came = np.where(came > LARGEST, np.inf, came)
        return AnswerTimes(came, samples_of(plan), clock.links(self.devices), clock.works(self.devices))

    def wait(self, seconds: float) -> None:
        """Charge time that passes outside the rounds; raises InvalidProblemError if it is negative."""
        self.seconds += real("seconds", seconds, minimum=0.0)

    def charge(self, cost: float, seconds: float) -> None:
        """Charge what was done outside the rounds, such as measuring."""
        self.cost += cost
        self.seconds += seconds

    def left(self, budget: Budget) -> Budget:
        """Give what is left of a budget."""
        return replace(
            budget,
            cost=max(budget.cost - self.cost, 0.0),
            time=max(budget.time - self.seconds, 0.0),
            max_rounds=None if budget.max_rounds is None else budget.max_rounds - self.round,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give what `restored` needs."""
        return {"round": self.round, "cost": self.cost, "seconds": self.seconds}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` gave of an account like this one; `place` is for messages."""
        spent = number(minimum=0.0)
        found = replace(self, **table(place, state, {"round": whole(), "cost": spent, "seconds": spent}))
        least = found.round * self.round_cost * (1 - ROUNDING)
        consistent(f"{place}.cost", found.cost >= least, f"{found.round} rounds cost {least:.6g} at least")
        consistent(f"{place}.round", found.round > 0 or found.cost == 0, "nothing costs before a round")
        return found

    def marked(self, absent: Iterable[int]) -> npt.NDArray[np.bool_]:
        """Mark devices, shape (N,); raises InvalidProblemError if the fleet does not have one of them."""
        gone = np.zeros(self.devices, dtype=bool)
        for device in absent:
            place = count("absent", device, minimum=0)
            if place >= self.devices:
                raise InvalidProblemError(
                    f"absent = {place}: there is no such device; valid are 0 to {self.devices - 1}"
                )
            gone[place] = True
        return gone


def check_budget(budget: Budget, availability: Availability | None) -> None:
    """Raise InvalidProblemError if a controller cannot keep a limit.

    Clients report what they cost and how long they take, and no energy.
    """
    if budget.energy < math.inf:
        raise InvalidProblemError(
            f"energy = {budget.energy!r}: a controller keeps no account of energy, which clients do not "
            "report; use solve_allocation, and run its plan as a FixedPlan (coopt.adapters.fixed_plan)"
        )
    budget.refuse_rent("a controller")
    if availability is not None and budget.cost < math.inf and math.isinf(budget.time):
        raise InvalidProblemError(
            f"cost = {budget.cost!r} with availability and no limit on the time: give Budget.time too, over "
            "which the cost is to be spread"
        )


def samples_of(plan: RoundPlan) -> Floats:
    """Give the samples that each device processes under a plan, extra evaluation included, shape (N,)."""
    return samples_processed(plan.steps, plan.batch_sizes, plan.extra_evaluation)


def samples_processed(
    local_steps: npt.NDArray[np.int64] | int, batch_sizes: npt.NDArray[np.int64], extra: bool
) -> Floats:
    """Give the samples that each device processes in a round, shape (N,)."""
    probe = np.where(batch_sizes >= 2, 2 * np.maximum(1, batch_sizes // 4), 0) if extra else 0
    return np.asarray(local_steps * batch_sizes + probe, dtype=np.float64)


def gradients_planned(
    local_steps: npt.NDArray[np.int64] | int,
    batch_sizes: npt.NDArray[np.int64],
    extra: bool,
    halves: bool = True,
    micro_batch: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Give the gradients that each device evaluates in a round, shape (N,).

    With `halves`, the first batch comes in two parts, from which its noise is measured.
    """
    several = batch_sizes >= 2
    return gradients_evaluated(local_steps, batch_sizes, several & halves, several & extra, micro_batch)


def steps_done(
    plan: RoundPlan, seen: Observations
) -> tuple[npt.NDArray[np.int64], list[tuple[int, int, int]]]:
    """Give the local steps that each device did: as reported if fewer, else as planned.

    And the devices that did fewer: who, how many, and how many were planned.
    """
    steps = plan.steps.copy()
    rows = seen.current & np.isfinite(seen["local_steps"])
    clients, done = seen.client[rows], seen["local_steps"][rows]
    fewer = done < steps[clients]
    planned = steps[clients[fewer]]
    steps[clients[fewer]] = done[fewer].astype(np.int64)
    short = zip(clients[fewer].tolist(), steps[clients[fewer]].tolist(), planned.tolist(), strict=True)
    return steps, list(short)


def charge(
    plan: RoundPlan,
    sample_cost: Floats,
    step_cost: Floats,
    seen: Observations,
    absent: npt.NDArray[np.bool_],
    witnessed: bool = False,
) -> float:
    """Add up what the devices spent in a round, without the cost of the round itself.

    Parameters
    ----------
    plan : RoundPlan
        The plan that they were given.
    sample_cost : numpy.ndarray, shape (N,)
        Cost per sample where a client reports none.
    step_cost : numpy.ndarray, shape (N,)
        Cost per local step there, whatever its batch.
    seen : Observations
        What is believed of the reports.
    absent : numpy.ndarray of bool, shape (N,)
        Devices known not to have worked.
    witnessed : bool, default False
        Whether the server saw the work.

    Returns
    -------
    float
        Reported costs, as far as they are believed; without one, samples processed times cost per sample, and
        the planned steps; without any believable report, what was planned, since the device may have worked
        and failed to say so. A device that says it took fewer steps than planned is charged all of them, at
        the price that it says, unless the server saw it; the extra evaluation is up to the device.
    """
    told_steps, _ = steps_done(plan, seen)
    steps = plan.steps
    spent = np.where(absent, 0.0, samples_of(plan) * sample_cost + steps * step_cost)
    rows, client = seen.current, seen.client[seen.current]
    processed = seen["samples_processed"][rows]
    believed = np.isfinite(processed)
    worked, work, cost = client[believed], processed[believed], seen["cost"][rows][believed]
    if witnessed:
        counted, steps = work, told_steps
    else:
        counted = np.maximum(work, (steps * plan.batch_sizes)[worked])
    spent[worked] = counted * sample_cost[worked] + steps[worked] * step_cost[worked]
    told = np.isfinite(cost)
    spent[worked[told]] = cost[told] * counted[told] / work[told]
    return float(np.sum(spent))


def duration(plan: RoundPlan, seen: Observations, absent: npt.NDArray[np.bool_]) -> float:
    """Give the seconds that a round took, when the server has not measured them.

    Returns
    -------
    float
        The slowest believable report; where one that was waited for is missing and not known to be absent,
        when the round was over without it.
    """
    took = seen["seconds_computing"][seen.current] + seen["seconds_communicating"][seen.current]
    took = np.where(np.isnan(took), plan.predicted_seconds, took)
    answered = np.full(len(plan.batch_sizes), np.inf)
    answered[seen.client[seen.current]] = took
    slowest = float(np.max(took, initial=0.0))
    closed = plan.closes(answered, np.flatnonzero(absent).tolist())
    return max(slowest, closed if closed < math.inf else plan.predicted_seconds)
