"""A question for the solvers, with every argument checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.protocol import Bound, Objective
from coopt.objectives.registry import resolve_bound
from coopt.plans.allocation import Allocation, Claim
from coopt.problem.problem import Problem
from coopt.problem.validation import choice, instance, optional_count, real, shown
from coopt.questions.kept_form import keeping_form
from coopt.questions.proposers import SOLVERS
from coopt.solvers.proposers.own_constraints import Constraints

OBJECTIVES = ("error", "cost", "time")


@dataclass(frozen=True)
class Question:
    """What :func:`coopt.solve_allocation` is asked.

    Attributes
    ----------
    problem : Problem
        At the rate that was asked for.
    bound : Objective
        At that rate as well.
    free_rate : bool
        Whether the learning rate is chosen with the plan.
    solver : str
        "auto" only where there are no constraints of the user's own.
    objective : {"error", "cost", "time"}
    target : float or None
        The error to be reached, for "cost" and "time".
    fixed : (int or None, int or None)
        K and tau, where they are given.
    tolerance : float
        Relative gap at which a search may stop.
    seconds : float or None
        Time limit.
    start : Allocation or None
        A plan to start from.
    constraints : callable or None
    backend : str or None
        Both for solver "cvxpy".
    own_steps : bool
        Whether devices may take fewer local steps than others.
    """

    problem: Problem
    bound: Objective
    free_rate: bool
    solver: str
    objective: str
    target: float | None
    fixed: tuple[int | None, int | None]
    tolerance: float
    seconds: float | None
    start: Allocation | None
    constraints: Constraints | None
    backend: str | None
    own_steps: bool = False

    @classmethod
    def asked(
        cls,
        problem: Problem,
        *,
        bound: str | Bound,
        learning_rate: float | str | None,
        solver: str,
        objective: str,
        target_error: float | None,
        rounds: int | None,
        local_steps: int | None,
        gap_tolerance: float,
        time_limit: float | None,
        warm_start: Allocation | None,
        constraints: Constraints | None,
        backend: str | None,
        device_steps: str | None = None,
    ) -> Self:
        """What the arguments ask; raises InvalidProblemError, which names the one that is wrong."""
        # What is proposed, minimised for one target after the other, and bounded has one form.
        judge = keeping_form(checked_bound(problem, bound))
        choice("solver", solver, SOLVERS)
        if solver == "auto" and constraints is not None:
            solver = "cvxpy"
        if isinstance(learning_rate, str):
            choice("learning_rate", learning_rate, ("auto",))
        else:
            problem, judge = at_rate(problem, judge, learning_rate)
        _check_own(solver, constraints, backend)
        choice("objective", objective, OBJECTIVES)
        if learning_rate == "auto":
            _check_free_rate(problem, judge, objective, solver)
        if solver == "coopt-fl":
            _check_published(problem)
        if warm_start is not None:
            instance("warm_start", warm_start, Allocation)
        question = cls(
            problem,
            judge,
            learning_rate == "auto",
            solver,
            objective,
            tolerance=real("gap_tolerance", gap_tolerance, minimum=0.0),
            seconds=None
            if time_limit is None
            else real("time_limit", time_limit, minimum=0.0, infinite=True),
            fixed=(optional_count("rounds", rounds), optional_count("local_steps", local_steps)),
            target=checked_target(objective, target_error, solver),
            start=warm_start,
            constraints=constraints,
            backend=backend,
            own_steps=device_steps is not None,
        )
        if device_steps is not None:
            choice("device_steps", device_steps, ("auto",))
            check_own_steps(question)
        return question

    @property
    def claim(self) -> Claim | None:
        """What the lower bound of the answer is about; constraints of the user's own may raise that bound."""
        return None if self.constraints is not None else Claim(self.bound.original, *self.fixed)


def checked_bound(problem: Problem, bound: str | Bound) -> Objective:
    """What plans are judged by; raises InvalidProblemError, also for what is no problem."""
    instance("problem", problem, Problem)
    return resolve_bound(bound)


def at_rate(problem: Problem, bound: Objective, rate: float | None) -> tuple[Problem, Objective]:
    """Both at the rate that was asked for; else at the forecast's own, if it has one; else the problem's."""
    forecast = bound.forecast
    if forecast is not None:
        rate = forecast.learning_rate if rate is None else rate
        bound = forecast.with_learning_rate(rate)
    if rate is None:
        return problem, bound
    return replace(problem, constants=replace(problem.constants, learning_rate=rate)), bound


def checked_target(objective: str, target_error: float | None, solver: str) -> float | None:
    """The error to be reached, where the objective needs one; raises InvalidProblemError."""
    if objective == "error":
        if target_error is not None:
            raise InvalidProblemError(
                f"target_error = {target_error!r}: needs the objective 'cost' or 'time'"
            )
        return None
    if target_error is None:
        raise InvalidProblemError(
            f"target_error is missing: the objective {objective!r} needs the error to reach"
        )
    if solver not in ("auto", "exact"):
        raise InvalidProblemError(
            f"solver = {solver!r}: objective={objective!r} is answered by 'exact', or 'auto'"
        )
    return real("target_error", target_error, minimum=0.0)


def forecast_for_own_steps(bound: Objective) -> Forecast:
    """The forecast among objectives, which alone knows devices with steps of their own."""
    if bound.forecast is None:
        raise InvalidProblemError(
            f"device_steps: bound {bound.name!r} holds where all devices take tau steps: with unequal ones "
            "changes are stretched, and their noise and drift with them, which it does not cover; take a "
            "Forecast"
        )
    return bound.forecast


def check_own_steps(question: Question) -> None:
    """Raise InvalidProblemError where steps of each device's own cannot be chosen."""
    _ = forecast_for_own_steps(question.bound)
    budget = question.problem.budget
    for name, given, plain in (
        ("solver", question.solver, ("auto", "exact")),
        ("objective", question.objective, ("error",)),
        ("rounds", question.fixed[0], (None,)),
        ("local_steps", question.fixed[1], (None,)),
        ("learning_rate", "auto" if question.free_rate else None, (None,)),
        ("participants", budget.participants, (None,)),
        ("second_cost", budget.second_cost, (0.0,)),
    ):
        if given not in plain:
            raise InvalidProblemError(
                f"{name} = {shown(given)}: device_steps='auto' finds the smallest forecast at a given rate, "
                "with all devices, free rounds and local steps, and no price of seconds"
            )


def _check_own(solver: str, constraints: object, backend: object) -> None:
    if solver != "cvxpy" and (constraints is not None or backend is not None):
        raise InvalidProblemError(
            f"constraints and backend are for solver='cvxpy', not for solver={solver!r}"
        )
    if constraints is not None and not callable(constraints):
        raise InvalidProblemError(f"constraints = {shown(constraints)}: must be a function of batch sizes")


def _check_free_rate(problem: Problem, bound: Objective, objective: str, solver: str) -> None:
    if objective != "error" or solver not in ("auto", "exact"):
        raise InvalidProblemError(
            "learning_rate = 'auto': is chosen for the smallest error, so not for "
            + (f"objective {objective!r}" if objective != "error" else f"solver {solver!r}")
        )
    # A forecast knows the gradients of the devices that never train.
    if problem.constants.gradient_bias and bound.forecast is None:
        raise InvalidProblemError(
            f"gradient_bias = {problem.constants.gradient_bias!r}: needs a learning rate in numbers"
        )


def _check_published(problem: Problem) -> None:
    budget = problem.budget
    for name, value in (("energy", budget.energy), ("participants", budget.participants)):
        if value not in (math.inf, None):
            raise InvalidProblemError(
                f"{name} = {value!r}: solver='coopt-fl' is the published algorithm, which knows of no "
                "such limit; use solver='exact', 'cvxpy' or 'closed-form'"
            )
