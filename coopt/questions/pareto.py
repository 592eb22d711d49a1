"""Trade-offs: the optimum as one limit varies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from coopt.errors import InfeasibleError, InvalidProblemError
from coopt.objectives.protocol import Bound
from coopt.objectives.registry import resolve_bound
from coopt.plans.allocation import Allocation
from coopt.plans.plan_columns import plan_columns
from coopt.problem import units
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem
from coopt.problem.readable import readable
from coopt.problem.result_table import ResultTable
from coopt.problem.validation import choice, entries, instance, real
from coopt.questions.kept_form import keeping_form
from coopt.questions.question import OBJECTIVES
from coopt.questions.solve import solve_allocation

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure

VARIED = ("cost", "time", "target_error")


@readable
@dataclass(frozen=True)
class FrontierPoint:
    """One point of a trade-off.

    Attributes
    ----------
    value : float
        Of the quantity that varies.
    allocation : Allocation or None
        The optimum there; None where no plan is feasible.
    reason : str
        Why no plan is feasible; empty where one is.
    """

    __module__ = "coopt"

    value: float
    allocation: Allocation | None
    reason: str = ""


@readable
@dataclass(frozen=True)
class Frontier(ResultTable):
    """The optimum of one objective as one limit varies.

    Attributes
    ----------
    objective, vary : str
    points : tuple of FrontierPoint
        In the order of the values asked for.
    """

    __module__ = "coopt"

    objective: str
    vary: str
    points: tuple[FrontierPoint, ...]

    def _shown(self) -> list[str]:
        without = sum(point.allocation is None for point in self.points)
        varies = f"smallest {self.objective} at {len(self.points)} values of {self.vary}"
        return [varies, f"{without} without a plan"]

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a point, as data frames take them; infeasible points hold None."""
        return [
            {self.vary: point.value, **plan_columns(point.allocation), "reason": point.reason}
            for point in self.points
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, with the whole plan of every point."""
        return {
            "objective": self.objective,
            "vary": self.vary,
            "points": [
                {
                    "value": point.value,
                    "plan": None if point.allocation is None else point.allocation.to_dict(),
                    "reason": point.reason,
                }
                for point in self.points
            ],
        }

    def plot(self) -> DescribedFigure:
        """Draw the objective against what varies; needs the extra ``plot``."""
        from coopt.questions.plot_frontier import plot_frontier

        return plot_frontier(self)


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def frontier(
    problem: Problem,
    objective: str = "error",
    vary: str = "cost",
    values: Iterable[float | str | timedelta] = (),
    *,
    bound: str | Bound = "certified",
    target_error: float | None = None,
) -> Frontier:
    """Solve a problem for several values of one limit.

    Parameters
    ----------
    problem : Problem
    objective : {"error", "cost", "time"}, default "error"
    vary : {"cost", "time", "target_error"}, default "cost"
        The limit that takes the given values, in place of what `problem` says.
    values : iterable of float, str or timedelta
        Times may have units (``"1h 30min"``), costs may be counted in epochs (``"5 epochs"``).
    bound : str or Bound, default "certified"
    target_error : float, optional
        For the objectives "cost" and "time", where it is not what varies.

    Returns
    -------
    Frontier
        Every point is solved to proved optimality; the plan of one point starts the next.

    Raises
    ------
    InvalidProblemError
        If an argument is wrong, or objective and varied limit are the same.

    Examples
    --------
    >>> from coopt import Budget, Constants, Fleet, Problem, frontier
    >>> problem = Problem(
    ...     Fleet(samples=[600, 300, 100], gradient_noise=4.0, divergence=0.05),
    ...     Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5),
    ...     Budget(cost=20_000, round_cost=200),
    ... )
    >>> trade = frontier(problem, vary="cost", values=[100, 10_000, 40_000])
    >>> [point.allocation and point.allocation.rounds for point in trade.points]
    [None, 29, 142]
    """
    instance("problem", problem, Problem)
    choice("objective", objective, OBJECTIVES)
    choice("vary", vary, VARIED)
    if vary == objective or (vary == "target_error" and objective == "error"):
        raise InvalidProblemError(f"vary = {vary!r}: is the objective itself, so it cannot be given")
    chosen = keeping_form(resolve_bound(bound))
    points = []
    start = None
    for number in entries("values", values):
        value = real(vary, _in_own_units(vary, number, problem.fleet), minimum=0.0)
        changed, target = problem, target_error
        if vary == "target_error":
            target = value
        else:
            budget = problem.budget
            budget = replace(budget, cost=value) if vary == "cost" else replace(budget, time=value)
            changed = replace(problem, budget=budget)
        try:
            plan = solve_allocation(
                changed, bound=chosen, objective=objective, target_error=target, warm_start=start
            )
        except InfeasibleError as error:
            points.append(FrontierPoint(value, None, str(error)))
        else:
            points.append(FrontierPoint(value, plan))
            start = plan
    return Frontier(objective, vary, tuple(points))


def _in_own_units(vary: str, value: object, fleet: Fleet) -> object:
    """A value that may be a text as a number of seconds, or of the unit of the cost."""
    if vary == "time":
        return units.seconds(vary, value)
    return units.cost(vary, value, fleet) if vary == "cost" else value
