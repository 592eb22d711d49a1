"""What the page draws and lists of a plan, as rows: batches, phases, the error, limits and trade-offs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from coopt.cli.explore.what_if import Case, Plan, Setting, judge_of, kept, phases_of, problem_of
from coopt.errors import BoundWarning
from coopt.objectives.forecast.forecast import Forecast
from coopt.plans.allocation import Allocation
from coopt.plans.plot import bound_surface
from coopt.plans.schedule import Schedule
from coopt.problem import limits
from coopt.questions.changes import sensitivity
from coopt.questions.pareto import frontier

# Points of a curve, of a trade-off, and along the two axes of the landscape: enough to see, quick to compute.
CURVE, TRADE, ROUNDS, LOCAL_STEPS = 60, 9, 14, 11
# By which share a limit is loosened to see what more of it buys.
MORE = 0.01


def batch_rows(case: Case, setting: Setting, plan: Plan) -> list[dict[str, Any]]:
    """One row a device and phase: its batch, and the largest that it holds and finishes in time."""
    names = [case.names[place] for place in kept(case, setting)]
    fleet = plan.problem.fleet
    most = fleet.batch_range()[1]
    timed = None
    if isinstance(plan, Allocation):
        timed = limits.time_caps(plan.problem, plan.rounds, plan.local_steps)
    rows = []
    for place, (_, _, batches, _) in enumerate(phases_of(plan)):
        for device, batch in enumerate(batches):
            cap = math.inf if timed is None else float(timed[device])
            rows.append(
                {
                    "device": names[device],
                    "phase": place + 1,
                    "batch": int(batch),
                    "holds": int(most[device]),
                    "in time": cap if math.isfinite(cap) else None,
                }
            )
    return rows


def phase_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row a phase, for a table."""
    return [
        {
            "phase": place + 1,
            "rounds": rounds,
            "local steps": steps,
            "smallest batch": int(batches.min()),
            "largest batch": int(batches.max()),
            "learning rate": rate,
        }
        for place, (rounds, steps, batches, rate) in enumerate(phases_of(plan))
    ]


def curve_rows(plan: Plan) -> list[dict[str, float]]:
    """What is predicted of the error during training: points over rounds, time and cost."""
    error = _error_after(plan)
    seconds, spent, first, rows = 0.0, 0.0, 0, []
    phases = phases_of(plan)
    for rounds, steps, batches, _ in phases:
        time, cost = plan.problem.time(1, steps, batches), plan.problem.cost(1, steps, batches)
        marks = np.unique(np.geomspace(1, rounds, CURVE // len(phases)).round()).astype(int).tolist()
        # The end of a phase is the start of the next: it is drawn once.
        rows += [
            {
                "round": first + mark,
                "time": seconds + mark * time,
                "cost": spent + mark * cost,
                "error": error(first + mark),
            }
            for mark in (marks if first else [0, *marks])
        ]
        seconds, spent, first = seconds + rounds * time, spent + rounds * cost, first + rounds
    return [row for row in rows if math.isfinite(row["error"])]


def _error_after(plan: Plan) -> Callable[[int], float]:
    """The error that is predicted after so many rounds; nan before the first where a bound says nothing."""
    if isinstance(plan, Schedule):
        return plan.curve().item
    judge = plan.bound_object
    if judge.forecast is not None:
        return judge.forecast.curve(plan).item

    def bound_after(rounds: int) -> float:
        if not rounds:
            return math.nan
        return judge.value(plan.problem, rounds, plan.local_steps, plan.batch_sizes)

    return bound_after


def limit_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row a limit: what the plan uses of it, whether it binds, and what one more unit buys.

    Whether a limit binds and what it is worth is known of plans in one phase alone.
    """
    budget = plan.problem.budget
    binding, prices = (plan.binding, plan.shadow_prices) if isinstance(plan, Allocation) else ((), {})
    used = {
        "cost": (plan.cost, budget.cost),
        "time": (plan.time, budget.time),
        "energy": (plan.energy, budget.energy),
        "max_rounds": (plan.rounds, budget.max_rounds),
        "max_local_steps": (max(steps for _, steps, _, _ in phases_of(plan)), budget.max_local_steps),
    }
    rows = [
        {"limit": name, "used": use, "allowed": most, "binds": name in binding, "price": prices.get(name)}
        for name, (use, most) in used.items()
        if most is not None and most < math.inf
    ]
    if "max_batch" in binding:
        rows.append({"limit": "max_batch", "used": None, "allowed": None, "binds": True, "price": None})
    return rows


def more_rows(plan: Allocation, judge: str | Forecast) -> Iterator[list[dict[str, Any]]]:
    """One row a limit on cost and on time: what one per cent more of it buys, solved for."""
    for name in ("cost", "time"):
        allowed = getattr(plan.problem.budget, name)
        if not 0.0 < allowed < math.inf:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundWarning)
            found = sensitivity(
                plan.problem,
                bound=judge,
                quantities=[name],
                extra_cost=MORE * allowed,
                extra_time=MORE * allowed,
                warm_start=plan,
            )
        (change,) = found.changes
        share = change.gain / plan.predicted_error if plan.predicted_error else 0.0
        yield [{"limit": name, "more": change.amount, "gain": change.gain, "share": share}]


def landscape_rows(plan: Allocation) -> Iterator[list[dict[str, Any]]]:
    """The error over rounds and local steps, each with its best batches: rows of one local step at a time.

    The error is None beyond the limits.
    """
    lower, _ = plan.problem.fleet.batch_range()
    most = limits.most_rounds(plan.problem, 1, lower)
    top = plan.rounds * 6 if most is None else min(most, plan.rounds * 6)
    rounds = _spread(max(plan.rounds // 12, 1), max(top, plan.rounds), ROUNDS, plan.rounds)
    for tau in _spread(1, max(plan.local_steps * 6, 12), LOCAL_STEPS, plan.local_steps):
        surface = bound_surface(plan, rounds, np.array([tau]))[:, 0]
        yield [
            {
                "rounds": int(k),
                "local steps": int(tau),
                "error": float(value) if math.isfinite(value) else None,
            }
            for k, value in zip(rounds, surface, strict=True)
        ]


def _spread(low: int, high: int, points: int, exactly: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.unique([*np.geomspace(low, high, points).round(), exactly]).astype(np.int64)


def trade_rows(
    case: Case, setting: Setting, vary: str, positions: Iterable[float]
) -> Iterator[list[dict[str, Any]]]:
    """The smallest error of plans in one phase at several positions of one slider, one at a time.

    Where that slider stands plays no part, so that moving it changes nothing here. Positions at which no plan
    fits have no row.
    """
    finite = [value for value in positions if math.isfinite(value)]
    places = {round(place) for place in np.linspace(0, len(finite) - 1, TRADE).tolist()} if finite else set()
    problem, judge = problem_of(case, setting), judge_of(case, setting)
    for place in sorted(places):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundWarning)
            found = frontier(problem, vary=vary, values=[finite[place]], bound=judge)
        yield [
            {"value": point.value, "error": point.allocation.predicted_error}
            for point in found.points
            if point.allocation is not None and math.isfinite(point.allocation.predicted_error)
        ]
