"""What a round cost and how long it took, from reports that may be missing or wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from coopt.measuring.screening import Observations
    from coopt.online.round_plan import RoundPlan
    from coopt.problem.problem import Budget, Fleet

Floats = npt.NDArray[np.float64]

# A client may do more than it was told, but a report of more than this is an error, not an account.
MOST_OVER_PLAN = 2.0


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


def charge(plan: RoundPlan, sample_cost: Floats, seen: Observations, absent: npt.NDArray[np.bool_]) -> float:
    """Add up what the devices spent in a round, without the cost of the round itself.

    Parameters
    ----------
    plan : RoundPlan
        The plan that they were given.
    sample_cost : numpy.ndarray, shape (N,)
        Cost per sample where a client reports none.
    seen : Observations
        What is believed of the reports.
    absent : numpy.ndarray of bool, shape (N,)
        Devices known not to have worked.

    Returns
    -------
    float
        Reported costs; without one, samples processed times cost per sample; without any believable report,
        what was planned, since the device may have worked and failed to say so.
    """
    planned = samples_of(plan)
    spent = np.where(absent, 0.0, planned * sample_cost)
    rows, client = seen.current, seen.client[seen.current]
    processed = seen["samples_processed"][rows]
    believed = np.isfinite(processed)
    spent[client[believed]] = processed[believed] * sample_cost[client[believed]]
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
