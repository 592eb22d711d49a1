"""Many problems in one call: sweeps, fleets to compare, scenarios."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coopt.errors import CooptError, InvalidProblemError
from coopt.objectives.protocol import Bound
from coopt.objectives.registry import resolve_bound
from coopt.plans.allocation import Allocation
from coopt.plans.plan_columns import plan_columns
from coopt.problem.problem import Problem
from coopt.problem.readable import readable
from coopt.problem.result_table import ResultTable
from coopt.problem.validation import choice, entries, instance, shown
from coopt.questions.kept_form import keeping_form
from coopt.questions.proposers import SOLVERS
from coopt.questions.question import OBJECTIVES, checked_target
from coopt.questions.solve import solve_allocation


@readable
@dataclass(frozen=True)
class Solutions(ResultTable):
    """What was found for each of several problems.

    Attributes
    ----------
    names : tuple of str
        Of the problems: the keys they were given under, or their numbers from 0.
    outcomes : tuple of Allocation or CooptError
        The plan of each problem, or the error that solving it ended with.
    """

    __module__ = "coopt"

    names: tuple[str, ...]
    outcomes: tuple[Allocation | CooptError, ...]

    @property
    def allocations(self) -> tuple[Allocation | None, ...]:
        """The plan of each problem, None where there is none."""
        return tuple(outcome if isinstance(outcome, Allocation) else None for outcome in self.outcomes)

    @property
    def errors(self) -> dict[str, CooptError]:
        """The errors by the names of their problems."""
        pairs = zip(self.names, self.outcomes, strict=True)
        return {name: outcome for name, outcome in pairs if isinstance(outcome, CooptError)}

    def __len__(self) -> int:
        return len(self.outcomes)

    def _shown(self) -> list[str]:
        return [f"{len(self)} problems", f"{len(self.errors)} without a plan"]

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a problem, as data frames take them; problems without a plan hold None."""
        return [
            {
                "problem": name,
                **plan_columns(plan),
                "objective_value": plan and plan.objective_value,
                "learning_rate": plan and plan.learning_rate,
                "bound": plan and plan.bound,
                "binding": plan and " ".join(plan.binding),
                "status": plan and plan.status.name,
                "reason": str(self.errors[name]) if plan is None else "",
            }
            for name, plan in zip(self.names, self.allocations, strict=True)
        ]


def solve_many(
    problems: Iterable[Problem] | Mapping[str, Problem],
    *,
    bound: str | Bound = "certified",
    solver: str = "auto",
    objective: str = "error",
    target_error: float | None = None,
    learning_rate: float | Literal["auto"] | None = None,
    gap_tolerance: float = 1e-12,
    time_limit: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Solutions:
    """Solve several problems one after the other; a problem that cannot be solved does not stop the rest.

    Parameters
    ----------
    problems : iterable of Problem, or mapping of str to Problem
        In an order in which neighbours are alike, if there is one.
    bound, solver, objective, target_error, learning_rate, gap_tolerance
        As for :func:`solve_allocation`, the same for every problem.
    time_limit : float, optional
        Seconds for each problem.
    progress : callable, optional
        Called with the numbers of problems that are done and of all, after each.

    Returns
    -------
    Solutions
        In the order of the problems. Each is what :func:`solve_allocation` finds alone, up to
        `gap_tolerance`, and depends on nothing but the problems and their order.

    Raises
    ------
    InvalidProblemError
        If an argument is wrong for every problem, or an entry is no :class:`Problem`. What
        :func:`solve_allocation` raises for one problem is its outcome instead.

    Warns
    -----
    BoundWarning
        As :func:`solve_allocation` does for each problem.

    Notes
    -----
    Problems with the same :class:`Fleet` object and equal constants in a row share the floors of the bound;
    the plan of one problem starts the next where it has as many devices and the plan fits.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from coopt import Budget, Constants, Fleet, Problem, solve_many
    >>> problem = Problem(
    ...     Fleet(samples=[600, 300, 100], gradient_noise=4.0, divergence=0.05),
    ...     Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5),
    ...     Budget(cost=20_000, round_cost=200),
    ... )
    >>> cheap = replace(problem, budget=Budget(cost=100, round_cost=200))
    >>> found = solve_many({"as it is": problem, "cheap": cheap})
    >>> [plan and plan.rounds for plan in found.allocations]
    [51, None]
    >>> found.errors["cheap"].smallest_cost
    203.0
    """
    named = problems if isinstance(problems, Mapping) else dict(enumerate(entries("problems", problems)))
    for name, problem in named.items():
        instance(f"problems[{name!r}]", problem, Problem)
    chosen = keeping_form(resolve_bound(bound))
    choice("solver", solver, SOLVERS)
    choice("objective", objective, OBJECTIVES)
    checked_target(objective, target_error, solver)
    if progress is not None and not callable(progress):
        raise InvalidProblemError(f"progress = {shown(progress)}: must be a function, or None")
    outcomes: list[Allocation | CooptError] = []
    start: Allocation | None = None
    for problem in named.values():
        try:
            start = solve_allocation(
                problem,
                bound=chosen,
                solver=solver,
                objective=objective,
                target_error=target_error,
                learning_rate=learning_rate,
                gap_tolerance=gap_tolerance,
                time_limit=time_limit,
                warm_start=start,
            )
            outcomes.append(start)
        except CooptError as error:
            outcomes.append(error)
        if progress is not None:
            progress(len(outcomes), len(named))
    return Solutions(tuple(map(str, named)), tuple(outcomes))
