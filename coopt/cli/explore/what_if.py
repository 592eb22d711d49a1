"""What was opened, where the sliders stand, and the best plan there: plain functions, without a page.

A :class:`Case` is what was opened: a fleet, a job, and what plans are judged by. A :class:`Setting` is where
the sliders stand. Everything shown follows from these two, so that the lines of Python which the page offers,
run anywhere, give the plan that it showed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from coopt.errors import BoundWarning
from coopt.objectives.forecast.forecast import Forecast
from coopt.plans.allocation import Allocation
from coopt.plans.schedule import Schedule
from coopt.problem.fleet_fields import device_name
from coopt.problem.problem import Problem
from coopt.questions.cohort import leave_out
from coopt.questions.schedule import solve_schedule
from coopt.questions.solve import solve_allocation

Plan = Allocation | Schedule

# A slider's positions: so many to a doubling, and so many doublings down and up from the job's own value.
STEPS, DOWN, UP = 4, 4, 3
# Learning rates are tried in smaller steps, up to where training is unstable.
RATE_STEPS, RATE_DOWN, RATE_UP = 4, 3, 2
MOST_PHASES = 3
# Seconds for a first plan in phases, near the one before.
QUICK = 0.06


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
    return case.forecast.restricted(kept(case, setting)) if setting.left_out else case.forecast


def kept(case: Case, setting: Setting) -> list[int]:
    """The devices that train, by their places."""
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


def phases_of(plan: Plan) -> list[tuple[int, int, Any, float]]:
    """Rounds, local steps, batches and learning rate of each phase; an allocation has one."""
    if isinstance(plan, Allocation):
        return [(plan.rounds, plan.local_steps, plan.batch_sizes, plan.learning_rate)]
    return [(p.rounds, p.local_steps, p.batch_sizes, p.learning_rate) for p in plan.phases]
