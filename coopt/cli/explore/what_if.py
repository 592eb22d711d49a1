"""What the page shows for one position of its sliders: plain functions, without a page.

A :class:`Case` is what was opened: a fleet, a job, and what plans are judged by. A :class:`Setting` is where
the sliders stand. Everything shown follows from these two, so that the lines of Python which the page offers,
run anywhere, give the plan that it showed.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from coopt.errors import BoundWarning
from coopt.objectives.forecast.forecast import Forecast
from coopt.plans.allocation import Allocation
from coopt.plans.plot import bound_surface
from coopt.plans.schedule import Schedule
from coopt.problem import limits
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.files import problem_to_dict
from coopt.problem.fleet_fields import device_name
from coopt.problem.problem import Problem
from coopt.questions.changes import sensitivity
from coopt.questions.cohort import leave_out
from coopt.questions.pareto import frontier
from coopt.questions.schedule import solve_schedule
from coopt.questions.solve import solve_allocation

Plan = Allocation | Schedule

# A slider's positions: so many to a doubling, and so many doublings down and up from the job's own value.
STEPS, DOWN, UP = 4, 4, 3
# Learning rates are tried in smaller steps, up to where training is unstable.
RATE_STEPS, RATE_DOWN, RATE_UP = 4, 3, 2
# Points of a curve, of a trade-off, and along the two axes of the landscape: enough to see, quick to compute.
CURVE, TRADE, ROUNDS, LOCAL_STEPS = 60, 9, 14, 11
MOST_PHASES = 3
# Seconds for a first plan in phases, near the one before.
QUICK = 0.06
# By which share a limit is loosened to see what more of it buys.
MORE = 0.01


@dataclass(frozen=True, eq=False)
class Case:
    """What was opened.

    Attributes
    ----------
    problem : Problem
    bound : str
        Name of the bound that judges plans where there is no measurement.
    forecast : Forecast or None
    fleet_file, measurement_file : str
        As they were named, for the lines of Python.
    """

    problem: Problem
    bound: str
    forecast: Forecast | None
    fleet_file: str
    measurement_file: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each device."""
        fleet = self.problem.fleet
        return tuple(device_name(fleet.names, place) for place in range(len(fleet)))


@dataclass(frozen=True)
class Setting:
    """Where the sliders stand.

    Attributes
    ----------
    cost, time : float
        The budget and the deadline [s].
    learning_rate : float
    phases : int
        More than one needs a forecast.
    left_out : tuple of int
        Devices that never train, ascending.
    """

    cost: float
    time: float
    learning_rate: float
    phases: int = 1
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True)
class Choices:
    """The positions of each slider; a slider with one position is not shown."""

    cost: tuple[float, ...]
    time: tuple[float, ...]
    learning_rate: tuple[float, ...]
    phases: tuple[int, ...]


def start(case: Case) -> Setting:
    """The job as it was opened."""
    budget = case.problem.budget
    return Setting(budget.cost, budget.time, case.problem.constants.learning_rate)


def choices(case: Case) -> Choices:
    """Positions around the job's own values, each of which is one of them.

    Raises
    ------
    CooptError
        If a limit is infinite, and no plan can be found that shows what range of it matters.
    """
    setting, plan = start(case), None
    if math.inf in (setting.cost, setting.time):
        plan = solve(case, setting).plan
    ranges = []
    for value, used in ((setting.cost, plan and plan.cost), (setting.time, plan and plan.time)):
        if value < math.inf:
            ranges.append(_around(value, STEPS, DOWN, UP))
        else:
            # Without a limit, what the plan uses is the scale; a limit on nothing would say nothing.
            ranges.append((*(_around(used, STEPS, DOWN, UP) if used else ()), math.inf))
    forecast, rate = case.forecast, setting.learning_rate
    stable = math.inf if forecast is None else forecast.largest_rate
    rates = tuple(eta for eta in _around(rate, RATE_STEPS, RATE_DOWN, RATE_UP) if eta < stable or eta == rate)
    return Choices(ranges[0], ranges[1], rates, tuple(range(1, MOST_PHASES + 1)) if forecast else (1,))


def _around(value: float, steps: int, down: int, up: int) -> tuple[float, ...]:
    """Values with three digits, evenly on a logarithmic scale, and the value itself."""
    if not value:
        return (value,)
    powers = range(-down * steps, up * steps + 1)
    return tuple(float(f"{value * 2.0 ** (n / steps):.3g}") if n else value for n in powers)


def problem_of(case: Case, setting: Setting) -> Problem:
    """The problem that the sliders describe."""
    problem = case.problem
    changed = replace(
        problem,
        constants=replace(problem.constants, learning_rate=setting.learning_rate),
        budget=replace(problem.budget, cost=setting.cost, time=setting.time),
    )
    return leave_out(changed, setting.left_out) if setting.left_out else changed


def judge_of(case: Case, setting: Setting) -> str | Forecast:
    """What judges plans for the devices that train."""
    if case.forecast is None:
        return case.bound
    return case.forecast.restricted(_kept(case, setting)) if setting.left_out else case.forecast


def _kept(case: Case, setting: Setting) -> list[int]:
    return [place for place in range(len(case.problem.fleet)) if place not in setting.left_out]


@dataclass(frozen=True, eq=False)
class Answer:
    """The best plan, and what a user should know before trusting its value."""

    plan: Plan
    cautions: tuple[str, ...]


def solve(
    case: Case,
    setting: Setting,
    *,
    near: Plan | None = None,
    progress: Callable[[int], object] | None = None,
) -> Answer:
    """The best plan within the limits.

    Parameters
    ----------
    case : Case
    setting : Setting
    near : Allocation or Schedule, optional
        Only look at plans in phases near this one, and not for long: what is shown while a slider moves.
    progress : callable, optional
        Called with the number of plans in phases that were looked at.

    Raises
    ------
    InfeasibleError
        If no plan fits; it names the smallest cost and time that would do.
    InvalidProblemError
        If the sliders describe no problem, such as one without devices.
    """
    problem, judge = problem_of(case, setting), judge_of(case, setting)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BoundWarning)
        plan: Plan
        if setting.phases > 1 and not isinstance(judge, str):
            plan = solve_schedule(
                problem,
                judge,
                phases=setting.phases,
                warm_start=near,
                time_limit=None if near is None else QUICK,
                progress=progress,
            )
        else:
            plan = solve_allocation(problem, bound=judge)
    return Answer(plan, tuple(str(each.message) for each in caught if each.category is BoundWarning))


def batch_rows(case: Case, setting: Setting, plan: Plan) -> list[dict[str, Any]]:
    """One row a device and phase: its batch, and the largest that it holds and finishes in time."""
    names = [case.names[place] for place in _kept(case, setting)]
    fleet = plan.problem.fleet
    most = fleet.batch_range()[1]
    timed = None
    if isinstance(plan, Allocation):
        timed = limits.time_caps(plan.problem, plan.rounds, plan.local_steps)
    rows = []
    for place, (_, _, batches, _) in enumerate(_phases(plan)):
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


def _phases(plan: Plan) -> list[tuple[int, int, Any, float]]:
    """Rounds, local steps, batches and learning rate of each phase; an allocation has one."""
    if isinstance(plan, Allocation):
        return [(plan.rounds, plan.local_steps, plan.batch_sizes, plan.learning_rate)]
    return [(p.rounds, p.local_steps, p.batch_sizes, p.learning_rate) for p in plan.phases]


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
        for place, (rounds, steps, batches, rate) in enumerate(_phases(plan))
    ]


def curve_rows(plan: Plan) -> list[dict[str, float]]:
    """What is predicted of the error during training: points over rounds, time and cost."""
    error = _error_after(plan)
    seconds, spent, first, rows = 0.0, 0.0, 0, []
    phases = _phases(plan)
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
        "max_local_steps": (max(steps for _, steps, _, _ in _phases(plan)), budget.max_local_steps),
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


def plan_csv(case: Case, setting: Setting, plan: Plan) -> str:
    """The plan as CSV: one row a phase and device."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("phase", "rounds", "local_steps", "learning_rate", "device", "batch_size"))
    names = [case.names[place] for place in _kept(case, setting)]
    for place, (rounds, steps, batches, rate) in enumerate(_phases(plan)):
        for name, batch in zip(names, batches, strict=True):
            writer.writerow((place + 1, rounds, steps, rate, name, int(batch)))
    return stream.getvalue()


def problem_toml(problem: Problem) -> str:
    """The problem as one TOML file, which :meth:`coopt.Problem.from_toml` reads."""
    import tomli_w

    return tomli_w.dumps(problem_to_dict(problem))


def python_lines(case: Case, setting: Setting) -> str:
    """Python that gives the same plan from the same files."""
    problem = case.problem
    constants = replace(problem.constants, learning_rate=setting.learning_rate)
    budget = replace(problem.budget, cost=setting.cost, time=setting.time)
    names = ["Budget", "Constants", "Fleet", "Problem"]
    lines = [
        f"fleet = Fleet.from_csv({str(Path(case.fleet_file))!r})",
        f"constants = {_call(constants)}",
        f"budget = {_call(budget)}",
        "problem = Problem(fleet, constants, budget)",
    ]
    if setting.left_out:
        names.append("leave_out")
        lines.append(f"problem = leave_out(problem, {list(setting.left_out)})")
    judge = repr(case.bound)
    if case.forecast is not None:
        names.append("Measurement")
        judge = "forecast"
        lines.append(f"forecast = Measurement.load({str(Path(case.measurement_file))!r}).forecast()")
        if setting.left_out:
            lines.append(f"forecast = forecast.restricted({_kept(case, setting)})")
    if setting.phases > 1:
        names.append("solve_schedule")
        lines.append(f"plan = solve_schedule(problem, {judge}, phases={setting.phases})")
    else:
        names.append("solve_allocation")
        lines.append(f"plan = solve_allocation(problem, bound={judge})")
    return "\n".join([f"from coopt import {', '.join(sorted(names))}", "", *lines, "print(plan)", ""])


def _call(part: Constants | Budget) -> str:
    """What makes an equal value, with what differs from the defaults."""
    given = ", ".join(
        f"{field.name}={value!r}"
        for field in fields(part)
        if (value := getattr(part, field.name)) != field.default or field.default is MISSING
    )
    return f"{type(part).__name__}({given})"
