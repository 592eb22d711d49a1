"""Plans that change on the way: find one, or judge one that somebody else made."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from coopt.errors import BoundWarning, InfeasibleError, InvalidProblemError
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.phases import Phases, Setting
from coopt.plans.allocation import Allocation, HasForecast, Status, measured
from coopt.plans.phase import Phase
from coopt.plans.schedule import Schedule
from coopt.problem import limits
from coopt.problem.exact_sum import exact_sum
from coopt.problem.limits import Violation
from coopt.problem.problem import Problem
from coopt.problem.validation import (
    choice,
    count,
    entries,
    instance,
    integer_array,
    optional_real,
    real,
    shown,
)
from coopt.questions.solve import solve_allocation
from coopt.solvers.schedule.search import Course, search, stretched

__all__ = ["evaluate_schedule", "solve_schedule"]


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def solve_schedule(
    problem: Problem,
    forecast: HasForecast,
    *,
    phases: int = 2,
    learning_rate: float | Literal["auto"] | None = None,
    gap_tolerance: float = 1e-3,
    time_limit: float | None = None,
    warm_start: Allocation | Schedule | None = None,
    progress: Callable[[int], object] | None = None,
) -> Schedule:
    """Find a plan in phases, each with its own rounds, local steps, batches and learning rate.

    Early on the loss is far from its lowest value and noise hardly matters: many local steps with tiny
    batches go far for little. Late it is the noise that matters, and drift: few local steps, large batches.
    The limits hold for all phases together.

    Parameters
    ----------
    problem : Problem
    forecast : Forecast or Measurement
    phases : int, default 2
        At most so many. One phase is the plan of :func:`solve_allocation`.
    learning_rate : float or "auto", optional
        The rate of all phases; default the forecast's own, or else the problem's. "auto" chooses one for
        every phase, each with the smallest batch that it can be trusted with. Where the measured loss is
        not convex, a network's, none is above the problem's own rate, which should be the one of the rounds
        before the measurement: see ``rate_growth`` of :meth:`Measurement.forecast`.
    gap_tolerance : float, default 1e-3
        Relative gap at which the proof for a plan of one phase may stop.
    time_limit : float, optional
        Seconds after which the best plan so far is returned.
    warm_start : Allocation or Schedule, optional
        A plan for a problem like this one, such as the answer before a limit was moved a little. The search
        starts from it, with as many rounds as fit now, and not from the best plan of one phase, which takes
        longer to find. One that does not help (another number of devices, more phases, or none of its forms
        fits) is ignored; ``trace["warm_start_used"]`` says which.
    progress : callable, optional
        Called with the number of settings looked at, again and again. What it raises ends the search.

    Returns
    -------
    Schedule
        Never forecast worse than the best plan found with fewer phases, unless it starts from `warm_start`.
        For given rounds, local steps and
        rates the batches of all devices and phases are chosen together; over the former the search is a
        descent from several starts, which proves nothing: ``lower_bound`` is -inf but for one phase at a
        given rate.

    Raises
    ------
    InfeasibleError
        If no plan fits; it names the limit and the smallest cost and time that would do.
    InvalidProblemError
        If an argument is wrong, or nothing limits rounds or local steps.

    Examples
    --------
    >>> import numpy as np
    >>> from coopt import Budget, Constants, Fleet, Forecast, LocalModel, Problem, solve_schedule
    >>> model = LocalModel(
    ...     weights=[0.5, 0.5],
    ...     gradients=[[1.0, 0.2], [1.0, -0.2]],
    ...     curvatures=[np.diag([1.0, 0.5]), np.diag([1.0, 0.1])],
    ...     covariances=[4.0 * np.eye(2)] * 2,
    ...     samples=[2000, 2000],
    ... )
    >>> problem = Problem(
    ...     Fleet([2000, 2000], 8.0, 0.2), Constants(0.2, 1.0, 0.5), Budget(cost=20_000, round_cost=5)
    ... )
    >>> one, two = (solve_schedule(problem, Forecast(model), phases=phases) for phases in (1, 2))
    >>> two.predicted_error < 0.8 * one.predicted_error
    True
    >>> [(phase.rounds, phase.local_steps, int(phase.batch_sizes.mean())) for phase in two.phases]
    [(16, 1, 297), (6, 1, 865)]
    """
    begun = time.perf_counter()
    instance("problem", problem, Problem)
    problem.budget.refuse_rent("solve_schedule")
    own = measured(forecast)
    most = count("phases", phases)
    if isinstance(learning_rate, str):
        choice("learning_rate", learning_rate, ("auto",))
    if most > 1 and problem.fleet.batch_choices is not None:
        raise InvalidProblemError(
            "batch_choices: plans of several phases take no lists of sizes; use phases=1, or batch_multiple"
        )
    seconds = None if time_limit is None else real("time_limit", time_limit, minimum=0.0, infinite=True)
    if progress is not None and not callable(progress):
        raise InvalidProblemError(f"progress = {shown(progress)}: must be a function, or None")
    free, looked_at = learning_rate == "auto", 0
    deadline = math.inf if seconds is None else begun + seconds
    course, lower_bound, status = None, -math.inf, Status.HEURISTIC
    trace: dict[str, float] = {}
    if warm_start is not None:
        course = _warm(problem, own, warm_start, most, learning_rate, deadline)
        trace["warm_start_used"] = int(course is not None)
    if course is None:
        first = solve_allocation(
            problem,
            bound=own,
            learning_rate=learning_rate,
            gap_tolerance=gap_tolerance,
            time_limit=seconds if most == 1 else 0.0,
        )
        alone = (Setting(first.rounds, first.local_steps, first.learning_rate),)
        course = Course(first.predicted_error, alone, first.batch_sizes[None, :])
        if most == 1 and not free:
            lower_bound, status = first.lower_bound, first.status
    if most > 1:
        course, looked_at = search(
            problem, own, course, most, free=free, deadline=deadline, progress=progress
        )
    made = tuple(
        Phase(each.rounds, each.local_steps, batches, each.learning_rate)
        for each, batches in zip(course.settings, course.batch_sizes, strict=True)
    )
    return _described(
        problem,
        own,
        made,
        course.value,
        lower_bound,
        status,
        begun,
        {"settings": looked_at} | trace,
    )


def _warm(
    problem: Problem,
    forecast: Forecast,
    plan: Allocation | Schedule,
    phases: int,
    learning_rate: float | str | None,
    deadline: float,
) -> Course | None:
    """Where a plan for other limits leads; None where it does not help."""
    if not isinstance(plan, Allocation | Schedule):
        raise InvalidProblemError(f"warm_start = {shown(plan)}: must be an Allocation or a Schedule")
    made: Sequence[Allocation | Phase] = (plan,) if isinstance(plan, Allocation) else plan.phases
    if len(plan.problem.fleet) != len(problem.fleet) or len(made) > phases:
        return None
    if learning_rate == "auto":
        most = forecast.largest_choice(problem)
        rates = [min(each.learning_rate, most) for each in made]
    else:
        given = optional_real("learning_rate", learning_rate, minimum=0.0, strict=True)
        rates = [forecast.rate(problem) if given is None else given] * len(made)
    settings = tuple(
        Setting(each.rounds, each.local_steps, rate) for each, rate in zip(made, rates, strict=True)
    )
    return stretched(problem, forecast, settings, free=learning_rate == "auto", deadline=deadline)


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def evaluate_schedule(problem: Problem, forecast: HasForecast, phases: Sequence[Phase]) -> Schedule:
    """Judge a plan in phases that somebody else made, such as a cosine decay of the learning rate.

    Parameters
    ----------
    problem : Problem
    forecast : Forecast or Measurement
    phases : sequence of Phase
        One batch size for all devices, or one each. :meth:`Phase.each_round` makes them of a rate for every
        round.

    Returns
    -------
    Schedule
        With status EVALUATED and a ``lower_bound`` of -inf: nothing is claimed about other plans. A
        :class:`BoundWarning` names the first phase that may diverge.

    Raises
    ------
    InfeasibleError
        If the plan breaks a limit; the message says which and by how much.
    InvalidProblemError
        If an argument is wrong, or a learning rate is not stable.

    Examples
    --------
    >>> import numpy as np
    >>> from coopt import (
    ...     Budget, Constants, Fleet, Forecast, LocalModel, Phase, Problem, evaluate_schedule
    ... )
    >>> model = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[4.0]]], samples=[100])
    >>> problem = Problem(Fleet([100], 4.0, 0.0), Constants(0.2, 1.0, 0.5), Budget(cost=4000))
    >>> rates = 0.2 * (1 + np.cos(np.pi * np.arange(100) / 100))
    >>> cosine = Phase.each_round(rates, local_steps=5, batch_sizes=8)
    >>> judged = evaluate_schedule(problem, Forecast(model), cosine)
    >>> judged.cost, round(judged.predicted_error, 5)
    (4000.0, 0.0023)
    """
    begun = time.perf_counter()
    instance("problem", problem, Problem)
    own, devices = measured(forecast), len(problem.fleet)
    made = []
    for place, phase in enumerate(entries("phases", phases)):
        instance(f"phases[{place}]", phase, Phase)
        given = phase.batch_sizes[0] if phase.batch_sizes.size == 1 else phase.batch_sizes
        made.append(replace(phase, batch_sizes=integer_array("batch_sizes", given, devices, minimum=1)))
    if not made:
        raise InvalidProblemError("phases is empty: must have at least one phase")
    broken = _violations(problem, made)
    if broken:
        raise InfeasibleError("the schedule breaks " + "; ".join(broken.values()), binding=next(iter(broken)))
    batches = np.array([phase.batch_sizes for phase in made], dtype=np.float64)
    _warn_of(problem, own, made)
    value = Phases(own, problem).value([phase.setting for phase in made], batches)
    return _described(problem, own, tuple(made), value, -math.inf, Status.EVALUATED, begun, {})


def _warn_of(problem: Problem, forecast: Forecast, phases: Sequence[Phase]) -> None:
    """Warn of the first phase that may diverge."""
    for place, phase in enumerate(phases):
        at_rate = forecast.with_learning_rate(phase.learning_rate)
        batches = phase.batch_sizes.astype(np.float64)
        for caution in at_rate.cautions(problem, phase.rounds, phase.local_steps, batches, math.nan):
            warnings.warn(f"phase {place + 1}: {caution}", BoundWarning, stacklevel=3)
            return


def _described(
    problem: Problem,
    forecast: Forecast,
    phases: tuple[Phase, ...],
    value: float,
    lower_bound: float,
    status: Status,
    begun: float,
    trace: dict[str, float],
) -> Schedule:
    return Schedule(
        problem=problem,
        phases=phases,
        predicted_error=value,
        cost=exact_sum(problem.cost(p.rounds, p.local_steps, p.batch_sizes) for p in phases),
        time=exact_sum(problem.time(p.rounds, p.local_steps, p.batch_sizes) for p in phases),
        lower_bound=lower_bound,
        status=status,
        source=forecast.source,
        solve_seconds=time.perf_counter() - begun,
        trace=trace,
        forecast=forecast,
    )


def _violations(problem: Problem, phases: Sequence[Phase]) -> dict[str, str]:
    """The limits that a plan breaks, each with a text that says by how much."""
    budget = problem.budget
    used = {
        name: exact_sum(measure(p.rounds, p.local_steps, p.batch_sizes) for p in phases)
        for name, measure in (("cost", problem.cost), ("time", problem.time), ("energy", problem.energy))
    }
    used["max_rounds"] = sum(p.rounds for p in phases)
    allowed = {
        "cost": budget.cost,
        "time": budget.time,
        "energy": budget.energy,
        "max_rounds": math.inf if budget.max_rounds is None else budget.max_rounds,
    }
    found = {
        name: str(Violation(name, used[name], limit))
        for name, limit in allowed.items()
        if not limits.within(used[name], limit)
    }
    # Each phase on its own, without the limits that hold for all together.
    alone = replace(
        problem, budget=replace(budget, cost=math.inf, time=math.inf, energy=math.inf, max_rounds=None)
    )
    for place, phase in enumerate(phases):
        for broken in alone.violations(phase.rounds, phase.local_steps, phase.batch_sizes):
            found.setdefault(broken.limit, f"{broken} in phase {place + 1}")
    return found
