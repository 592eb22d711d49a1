"""The front door: plan an allocation, or judge one that somebody else made."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InfeasibleError, InvalidProblemError, SolverError
from coopt.objectives.monotone import MonotoneBase
from coopt.objectives.protocol import Bound, Objective
from coopt.objectives.registry import resolve_bound
from coopt.plans.allocation import Allocation, Claim
from coopt.plans.describe import Asked, binding_limits, describe
from coopt.problem.problem import Problem
from coopt.problem.validation import choice, count, instance, integer_array, optional_count, real, shown
from coopt.questions.kept_form import keeping_form
from coopt.questions.rented import solve_rented
from coopt.solvers import exhaustive, inverse
from coopt.solvers import learning_rate as rates
from coopt.solvers.contract import Found, Incumbent, Solver
from coopt.solvers.exact import box_search as exact
from coopt.solvers.forecast import search as forecasts
from coopt.solvers.forecast.rates import best_rate
from coopt.solvers.proposers import closed_form, convex, coopt_fl
from coopt.solvers.proposers.own_constraints import Constraints, meets
from coopt.solvers.ranges import Ranges, feasible_ranges, least_use
from coopt.solvers.roundoff import LOOSENED
from coopt.solvers.whole_units.batches import allocate_batches

Ints = NDArray[np.int64]

__all__ = ["allocate_batches", "evaluate", "solve_allocation"]

# Solvers that propose a plan, which the exact solver then bounds.
PROPOSERS: dict[str, Solver] = {
    "closed-form": closed_form.solve,
    "cvxpy": convex.solve,
    "coopt-fl": coopt_fl.solve,
}
SOLVERS = ("auto", "exact", *PROPOSERS)
OBJECTIVES = ("error", "cost", "time")
# What a plan of another solver is compared with is proved to this relative gap: much finer than the distance.
PROOF_TOLERANCE = 1e-3
# Finer with constraints of the user's own, since the exact plan is the answer where it meets them.
SLACK_TOLERANCE = 1e-4


def solve_allocation(
    problem: Problem,
    *,
    bound: str | Bound = "certified",
    solver: str = "auto",
    objective: str = "error",
    target_error: float | None = None,
    rounds: int | None = None,
    local_steps: int | None = None,
    learning_rate: float | Literal["auto"] | None = None,
    gap_tolerance: float = 1e-12,
    time_limit: float | None = None,
    warm_start: Allocation | None = None,
    constraints: Constraints | None = None,
    backend: str | None = None,
) -> Allocation:
    """Find the rounds, local steps and batch sizes with the smallest predicted error within the budget.

    Parameters
    ----------
    problem : Problem
    bound : str or Bound, default "certified"
        What plans are judged by: a :class:`Forecast`, ``"certified"``, ``"dynamite"``, ``"adacoopt"``,
        ``"nonconvex"``, ``"tradeoff(gamma=..., ratio=...)"`` (see :class:`TradeOff`), or any :class:`Bound`.
    solver : {"auto", "exact", "closed-form", "cvxpy", "coopt-fl"}, default "auto"
        "auto" takes the exact solver, or "cvxpy" where there are `constraints`. Plans of the others carry a
        lower bound as well, proved by the exact solver to a gap of 1e-3 (or `gap_tolerance`, if larger).
    objective : {"error", "cost", "time"}, default "error"
        What to minimise. "cost" and "time" need `target_error`, are answered by the exact solver, and
        treat the budget as limits all the same; without any, K and tau need no limit either.
    target_error : float, optional
        The error to be reached, for the objectives "cost" and "time".
    rounds, local_steps : int, optional
        Fix K or tau.
    learning_rate : float or "auto", optional
        In place of the problem's. "auto" chooses it together with the plan: for coopt's own bounds with a
        proved gap of 1 % at best; for a forecast from a grid of stable rates, each with the smallest batch
        that it can be trusted with. The problem of the result has the rate that was chosen.
    gap_tolerance : float, default 1e-12
        Relative gap at which the search may stop.
    time_limit : float, optional
        Seconds after which the best plan so far is returned with its honest gap; default none, but 30 for
        the proof that a learning rate is the best.
    warm_start : Allocation, optional
        A plan to start from; ignored where it does not fit the limits of this problem, which the
        ``trace`` of the result records as ``"warm_start_used"``.
    constraints : callable, optional
        Constraints of your own on the batch sizes: takes them as a cvxpy expression of shape (N,) and
        returns a list of convex cvxpy constraints. Only for solver "cvxpy".
    backend : str, optional
        Name of an installed cvxpy solver; default Clarabel. Only for solver "cvxpy".

    Returns
    -------
    Allocation
        With ``gap`` 0 up to rounding, unless a search among batches at unequal sample costs, or with limits
        on cost and energy that both bind, meets its limit; for the objectives "cost" and "time", up to the
        tolerance of 1e-9 with which every limit is met.

    Raises
    ------
    InfeasibleError
        If no plan fits; it names the limit and the smallest cost and time that would do. If no plan
        reaches the target: it says which error can be reached.
    InvalidProblemError
        If an argument is wrong, the bound lacks a constant, or nothing limits K or tau.
    SolverError
        If a bound that declares no monotone form leaves too many (K, tau) to try one by one, or the chosen
        solver or its backend cannot do what was asked.

    Warns
    -----
    BoundWarning
        If the bound says little at the chosen plan, or rests on a constant that cannot hold.

    Examples
    --------
    >>> from coopt import Budget, Constants, Fleet, Problem, solve_allocation
    >>> problem = Problem(
    ...     Fleet(samples=[600, 300, 100], gradient_noise=4.0, divergence=0.05, throughput=[40, 20, 80]),
    ...     Constants(
    ...         learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0
    ...     ),
    ...     Budget(cost=20_000, time=600, round_cost=20),
    ... )
    >>> plan = solve_allocation(problem)
    >>> plan.rounds, plan.local_steps, plan.batch_sizes
    (172, 1, array([57, 29, 10]))
    >>> plan.gap <= 1e-12, plan.binding
    (True, ('cost',))
    >>> cheapest = solve_allocation(problem, objective="cost", target_error=0.05)
    >>> cheapest.cost, cheapest.error_bound <= 0.05
    (3157.0, True)
    """
    begun = time.perf_counter()
    # What is proposed, minimised for one target after the other, and bounded has one form.
    chosen = keeping_form(_checked_bound(problem, bound))
    choice("solver", solver, SOLVERS)
    if solver == "auto" and constraints is not None:
        solver = "cvxpy"
    if isinstance(learning_rate, str):
        choice("learning_rate", learning_rate, ("auto",))
    else:
        problem, chosen = _at_rate(problem, chosen, learning_rate)
    _check_own(solver, constraints, backend)
    choice("objective", objective, OBJECTIVES)
    if learning_rate == "auto":
        _only_error(objective, solver)
    _check_budget(problem, chosen, solver, learning_rate)
    tolerance = real("gap_tolerance", gap_tolerance, minimum=0.0)
    seconds = None if time_limit is None else real("time_limit", time_limit, minimum=0.0, infinite=True)
    fixed_rounds, fixed_steps = optional_count("rounds", rounds), optional_count("local_steps", local_steps)
    target = checked_target(objective, target_error, solver)
    if problem.budget.second_cost:
        rentless = partial(
            solve_allocation,
            bound=bound,
            solver=solver,
            objective=objective,
            target_error=target_error,
            rounds=rounds,
            local_steps=local_steps,
            learning_rate=learning_rate,
            gap_tolerance=gap_tolerance,
            constraints=constraints,
            backend=backend,
        )
        # Raises if not even the smallest plan fits with what it takes in rent.
        feasible_ranges(problem, fixed_rounds, fixed_steps)
        return solve_rented(
            problem,
            lambda free, left: rentless(free, time_limit=left),
            least_use(problem, fixed_rounds or 1, fixed_steps or 1, "time"),
            Asked(solver, solver in ("auto", "exact"), objective, target, tolerance),
            seconds,
        )
    fixed, claim = (fixed_rounds, fixed_steps), Claim(chosen.original, fixed_rounds, fixed_steps)
    if target is not None:
        found = _invert(problem, chosen, objective, target, fixed, tolerance, seconds)
        asked = Asked(_exact_name(chosen), True, objective, target, tolerance, claim)
        return describe(problem, found, asked, begun)
    ranges = feasible_ranges(problem, *fixed)
    if learning_rate == "auto" and chosen.forecast is not None:
        found = best_rate(problem, chosen.forecast, ranges, tolerance, seconds)
        return describe(problem, found, Asked("exact", proves=False), begun)
    if learning_rate == "auto":
        found = rates.search(
            problem, chosen, ranges, tolerance, rates.PROOF_SECONDS if seconds is None else seconds
        )
        asked = Asked("exact", gap_tolerance=max(tolerance, rates.FINEST_TOLERANCE))
        return describe(problem, found, asked, begun)
    start = _usable_start(problem, warm_start, *fixed)
    if solver in PROPOSERS:
        prunable = chosen.prunable
        if prunable is None:
            raise SolverError(
                f"solver {solver!r} needs a bound with a monotone form, and {chosen.name!r} declares none: "
                "use solver='exact'"
            )
        propose = PROPOSERS[solver]
        if solver == "cvxpy":
            propose = partial(convex.solve, constraints=constraints, backend=backend)
        proposed = propose(problem, prunable, ranges)
        finest = PROOF_TOLERANCE if constraints is None else SLACK_TOLERANCE
        found = _bounded(problem, prunable, ranges, proposed, max(tolerance, finest), seconds, constraints)
        # Constraints of the user's own may have raised the lower bound.
        about = None if constraints is not None else claim
        return describe(problem, found, Asked(solver, False, gap_tolerance=tolerance, claim=about), begun)
    found = _minimise(problem, chosen, ranges, tolerance, seconds, start)
    if warm_start is not None:
        found = replace(found, trace=found.trace | {"warm_start_used": int(start is not None)})
    return describe(problem, found, Asked(_exact_name(chosen), gap_tolerance=tolerance, claim=claim), begun)


def evaluate(
    problem: Problem,
    rounds: int,
    local_steps: int,
    batch_sizes: ArrayLike,
    bound: str | Bound = "certified",
) -> Allocation:
    """Judge a plan that somebody else made.

    Parameters
    ----------
    problem : Problem
    rounds, local_steps : int
        K and tau.
    batch_sizes : array_like of int, shape (N,) or scalar
        s_i.
    bound : str or Bound, default "certified"

    Returns
    -------
    Allocation
        With status EVALUATED and a ``lower_bound`` of -inf: nothing is claimed about other plans.

    Raises
    ------
    InfeasibleError
        If the plan breaks a limit; the message says which and by how much.
    InvalidProblemError
        If an argument is wrong.

    Examples
    --------
    >>> from coopt import Budget, Constants, Fleet, Problem, evaluate
    >>> problem = Problem(
    ...     Fleet(samples=[600, 300], gradient_noise=4.0, divergence=0.05),
    ...     Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5),
    ...     Budget(cost=20_000),
    ... )
    >>> evaluate(problem, rounds=100, local_steps=2, batch_sizes=32).cost
    12800.0
    """
    begun = time.perf_counter()
    chosen = _checked_bound(problem, bound)
    k, tau = count("rounds", rounds), count("local_steps", local_steps)
    batches = integer_array("batch_sizes", batch_sizes, len(problem.fleet), minimum=1).copy()
    broken = problem.violations(k, tau, batches)
    if broken:
        raise InfeasibleError("the plan breaks " + "; ".join(map(str, broken)), binding=broken[0].limit)
    problem, chosen = _at_rate(problem, chosen, None)
    value, member = chosen.best_member(problem, k, tau, batches)
    return describe(problem, Found(Incumbent(value, k, tau, batches, member)), Asked("evaluate"), begun)


def _checked_bound(problem: Problem, bound: str | Bound) -> Objective:
    instance("problem", problem, Problem)
    return resolve_bound(bound)


def _check_own(solver: str, constraints: object, backend: object) -> None:
    if solver != "cvxpy" and (constraints is not None or backend is not None):
        raise InvalidProblemError(
            f"constraints and backend are for solver='cvxpy', not for solver={solver!r}"
        )
    if constraints is not None and not callable(constraints):
        raise InvalidProblemError(f"constraints = {shown(constraints)}: must be a function of batch sizes")


def _at_rate(problem: Problem, bound: Objective, rate: float | None) -> tuple[Problem, Objective]:
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
                f"target_error = {target_error!r}: needs objective='cost' or objective='time'"
            )
        return None
    if target_error is None:
        raise InvalidProblemError(
            f"target_error is missing: objective={objective!r} needs the error to reach"
        )
    if solver not in ("auto", "exact"):
        raise InvalidProblemError(
            f"solver = {solver!r}: objective={objective!r} is answered by 'exact', or 'auto'"
        )
    return real("target_error", target_error, minimum=0.0)


def _check_budget(problem: Problem, bound: Objective, solver: str, learning_rate: float | str | None) -> None:
    budget = problem.budget
    # A forecast knows the gradients of the devices that never train.
    if problem.constants.gradient_bias and learning_rate == "auto" and bound.forecast is None:
        raise InvalidProblemError(
            f"gradient_bias = {problem.constants.gradient_bias!r}: needs a learning rate in numbers"
        )
    for name, value in (("energy", budget.energy), ("participants", budget.participants)):
        if solver == "coopt-fl" and value not in (math.inf, None):
            raise InvalidProblemError(
                f"{name} = {value!r}: solver='coopt-fl' is the published algorithm, which knows of no "
                "such limit; use solver='exact', 'cvxpy' or 'closed-form'"
            )


def _only_error(objective: str, solver: str) -> None:
    if objective != "error" or solver not in ("auto", "exact"):
        raise InvalidProblemError(
            f"learning_rate = 'auto': needs objective='error' and solver='exact' (or 'auto'), not "
            f"objective={objective!r} with solver={solver!r}"
        )


def _exact_name(bound: Objective) -> str:
    return "exhaustive" if bound.prunable is None and bound.forecast is None else "exact"


def _minimise(
    problem: Problem,
    bound: Objective,
    ranges: Ranges,
    tolerance: float,
    seconds: float | None,
    start: tuple[int, int, Ints] | None,
) -> Found:
    prunable, forecast = bound.prunable, bound.forecast
    if forecast is not None:
        return forecasts.search(problem, forecast, ranges, tolerance, seconds, start)
    if prunable is None:
        return exhaustive.search(problem, bound, ranges, seconds, start)
    return exact.search(problem.plain, prunable.monotone_form(problem), ranges, tolerance, seconds, start)


def _invert(
    problem: Problem,
    bound: Objective,
    objective: str,
    target: float,
    fixed: tuple[int | None, int | None],
    tolerance: float,
    seconds: float | None,
) -> Found:
    """The cheapest or fastest plan whose bound is at most the target."""
    deadline = math.inf if seconds is None else time.perf_counter() + seconds

    def minimise(limited: Problem) -> Found:
        left = None if seconds is None else max(deadline - time.perf_counter(), 0.0)
        ranges, forecast = feasible_ranges(limited, *fixed), bound.forecast
        if forecast is not None:
            enough = target * (1.0 + LOOSENED)
            found = forecasts.search(limited, forecast, ranges, tolerance, left, target=enough)
            # Within all that the budget has, the error that can be reached instead is of interest.
            if found.best.value <= enough or limited.budget != problem.budget:
                return found
        return _minimise(limited, bound, ranges, tolerance, left, None)

    least = least_use(problem, fixed[0] or 1, fixed[1] or 1, objective)

    def binding(plan: Incumbent) -> tuple[str, ...]:
        return binding_limits(problem, plan.rounds, plan.local_steps, plan.batch_sizes)

    return inverse.search(problem, objective, target, least, minimise, binding)


def _usable_start(
    problem: Problem, warm_start: Allocation | None, rounds: int | None, local_steps: int | None
) -> tuple[int, int, Ints] | None:
    if warm_start is None:
        return None
    instance("warm_start", warm_start, Allocation)
    k, tau, batches = warm_start.rounds, warm_start.local_steps, warm_start.batch_sizes
    if rounds not in (None, k) or local_steps not in (None, tau) or batches.size != len(problem.fleet):
        return None
    return None if problem.violations(k, tau, batches) else (k, tau, batches)


def _bounded(
    problem: Problem,
    bound: MonotoneBase,
    ranges: Ranges,
    proposed: Found,
    tolerance: float,
    time_limit: float | None,
    constraints: Constraints | None,
) -> Found:
    """A plan of another solver with the lower bound that the exact solver proves.

    Where the user has constraints and the exact solver's plan meets them, that plan is taken if it is better.
    """
    best, trace = proposed.best, dict(proposed.trace)
    start = (best.rounds, best.local_steps, best.batch_sizes)
    found = exact.search(problem.plain, bound.monotone_form(problem), ranges, tolerance, time_limit, start)
    own = found.best
    if constraints is not None and own.value < best.value and meets(constraints, own.batch_sizes):
        best, trace = own, trace | {"exact_plan": 1}
    lower = min(max(found.lower_bound, proposed.lower_bound), best.value)
    return replace(proposed, best=best, lower_bound=lower, trace=trace, finished=found.finished)
