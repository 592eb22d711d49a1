"""The one account of cost and time, from reports that may be missing or wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.measuring.estimates.estimate import gradients_evaluated
from coopt.measuring.ignored import Ignored
from coopt.measuring.screening import LARGEST, Memory, Observations, screen
from coopt.measuring.told_costs import Prices
from coopt.problem.validation import count, real

if TYPE_CHECKING:
    from coopt.measuring.report import ClientReport
    from coopt.online.round_plan import RoundPlan
    from coopt.problem.budget import Budget
    from coopt.problem.fleet import Fleet

Floats = npt.NDArray[np.float64]

# A client may do more than it was told, but a report of more than this is an error, not an account.
MOST_OVER_PLAN = 2.0


@dataclass(eq=False)
class Account:
    """What a training has spent so far: every planner keeps one, and only here is anything charged.

    Attributes
    ----------
    devices : int
        N.
    round_cost : float
        Cost of a round beyond its samples, on the server and on all devices.
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
        seconds: float | None,
        absent: Iterable[int],
        memory: Memory | None = None,
        stated_cost: Floats | None = None,
    ) -> tuple[Observations, list[Ignored]]:
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
        seconds : float or None
            How long the round took by the server's clock; None: what the reports say.
        absent : iterable of int
            Devices known not to have worked.
        memory : dict, optional
            Values believed before, to judge the reports by.
        stated_cost : numpy.ndarray, shape (N,), optional
            Cost per sample as the fleet states it, to hold told costs to; default: `sample_cost`.

        Raises
        ------
        InvalidProblemError
            If `seconds` is no number of at least 0, or a device is absent that the fleet does not have.
        """
        if seconds is not None:
            seconds = real("seconds", seconds, minimum=0.0)
        gone = self._absent(absent)
        seen, ignored = screen(
            reports,
            devices=self.devices,
            round=self.round,
            memory=memory,
            most_seconds=LARGEST if seconds is None else seconds,
            most_samples=MOST_OVER_PLAN * samples_of(plan),
            prices=Prices(sample_cost if stated_cost is None else stated_cost, step_cost, sample_cost),
        )
        self.cost += charge(plan, sample_cost, step_cost, seen, gone) + self.round_cost
        self.seconds += duration(plan, seen, gone) if seconds is None else seconds
        self.round += 1
        return seen, ignored

    def wait(self, seconds: float) -> None:
        """Charge time that passes outside the rounds; raises InvalidProblemError if it is negative."""
        self.seconds += real("seconds", seconds, minimum=0.0)

    def left(self, budget: Budget) -> Budget:
        """Give what is left of a budget."""
        return replace(
            budget,
            cost=max(budget.cost - self.cost, 0.0),
            time=max(budget.time - self.seconds, 0.0),
            max_rounds=None if budget.max_rounds is None else budget.max_rounds - self.round,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give what `load_state_dict` needs."""
        return {"round": self.round, "spent_cost": self.cost, "spent_seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        rounds = count("round", state["round"], minimum=0)
        cost = real("spent_cost", state["spent_cost"], minimum=0.0)
        seconds = real("spent_seconds", state["spent_seconds"], minimum=0.0)
        self.round, self.cost, self.seconds = rounds, cost, seconds

    def _absent(self, absent: Iterable[int]) -> npt.NDArray[np.bool_]:
        gone = np.zeros(self.devices, dtype=bool)
        for device in absent:
            place = count("absent", device, minimum=0)
            if place >= self.devices:
                raise InvalidProblemError(
                    f"absent = {place}: there is no such device; valid are 0 to {self.devices - 1}"
                )
            gone[place] = True
        return gone


def budget_for_all(budget: Budget, fleet: Fleet) -> Budget:
    """Give the budget with what a round costs on every device in it.

    Raises
    ------
    InvalidProblemError
        If it is for some of the devices, or limits energy: a controller asks all devices every round, and
        what they report is cost and time.
    """
    if budget.energy < math.inf:
        raise InvalidProblemError(
            f"energy = {budget.energy!r}: a controller keeps no account of energy, which clients do not "
            "report; use solve_allocation, and run its plan as a FixedPlan (coopt.adapters.fixed_plan)"
        )
    if budget.participants is not None:
        raise InvalidProblemError(
            f"participants = {budget.participants}: a controller plans for all devices in every round"
        )
    return budget.including(fleet)


def samples_of(plan: RoundPlan) -> Floats:
    """Give the samples that each device processes under a plan, extra evaluation included, shape (N,)."""
    return samples_processed(plan.local_steps, plan.batch_sizes, plan.extra_evaluation)


def samples_processed(local_steps: int, batch_sizes: npt.NDArray[np.int64], extra: bool) -> Floats:
    """Give the samples that each device processes in a round, shape (N,)."""
    probe = np.where(batch_sizes >= 2, 2 * np.maximum(1, batch_sizes // 4), 0) if extra else 0
    return np.asarray(local_steps * batch_sizes + probe, dtype=np.float64)


def gradients_planned(
    local_steps: int,
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


def charge(
    plan: RoundPlan,
    sample_cost: Floats,
    step_cost: Floats,
    seen: Observations,
    absent: npt.NDArray[np.bool_],
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

    Returns
    -------
    float
        Reported costs, as far as they are believed; without one, samples processed times cost per sample, and
        the planned steps; without any believable report, what was planned, since the device may have worked
        and failed to say so.
    """
    steps = plan.local_steps * step_cost
    spent = np.where(absent, 0.0, samples_of(plan) * sample_cost + steps)
    rows, client = seen.current, seen.client[seen.current]
    processed = seen["samples_processed"][rows]
    believed = np.isfinite(processed)
    worked = client[believed]
    spent[worked] = processed[believed] * sample_cost[worked] + steps[worked]
    cost = seen["cost"][rows]
    told = np.isfinite(cost) & believed
    spent[client[told]] = cost[told]
    return float(np.sum(spent))


def duration(plan: RoundPlan, seen: Observations, absent: npt.NDArray[np.bool_]) -> float:
    """Give the seconds that a round took, when the server has not measured them.

    Returns
    -------
    float
        The slowest believable report; the deadline, if a device is missing that was not known to be absent.
    """
    took = seen["seconds_computing"][seen.current] + seen["seconds_communicating"][seen.current]
    slowest = float(np.max(took[np.isfinite(took)], initial=0.0))
    missing = ~absent
    missing[seen.client[seen.current]] = False
    if np.any(missing):
        slowest = max(slowest, plan.deadline if math.isfinite(plan.deadline) else plan.predicted_seconds)
    return max(slowest, plan.predicted_seconds) if np.any(np.isnan(took)) else slowest
