"""The front door: plan an allocation, or judge one that somebody else made."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InfeasibleError, SolverError
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.protocol import Bound, Objective
from coopt.plans.allocation import Allocation
from coopt.plans.describe import Asked, binding_limits, describe
from coopt.problem.device_steps import at_device_steps, checked_steps
from coopt.problem.problem import Problem
from coopt.problem.validation import count, integer_array
from coopt.questions.proposers import PROPOSERS
from coopt.questions.question import Question, at_rate, checked_bound, forecast_for_own_steps
from coopt.questions.rented import solve_rented
from coopt.solvers import exhaustive, inverse
from coopt.solvers import learning_rate as rates
from coopt.solvers.contract import Found, Incumbent, Solver
from coopt.solvers.exact import box_search as exact
from coopt.solvers.forecast import device_steps as uneven
from coopt.solvers.forecast import search as forecasts
from coopt.solvers.forecast.rates import best_rate
from coopt.solvers.proposers import convex
from coopt.solvers.proposers.own_constraints import Constraints, meets
from coopt.solvers.ranges import feasible_ranges, least_use
from coopt.solvers.roundoff import LOOSENED
from coopt.solvers.whole_units.batches import allocate_batches

Ints = NDArray[np.int64]

__all__ = ["allocate_batches", "evaluate", "solve_allocation"]

# What a plan of another solver is compared with is proved to this relative gap: much finer than the distance.
PROOF_TOLERANCE = 1e-3
# Finer with constraints of the user's own, since the exact plan is the answer where it meets them.
SLACK_TOLERANCE = 1e-4
# Answers without rent are found to this part of the gap that is asked for, as far as rounding allows.
RENT_SHARE, FINEST_TOLERANCE = 1e-2, 1e-12


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
    device_steps: Literal["auto"] | None = None,
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
    device_steps : {"auto"}, optional
        "auto" lets devices take fewer local steps than others where their smallest batches take long, under a
        limit on time; their changes then count as often as those of the others. Only for a forecast: a bound
        says nothing of unequal steps. The plan is at least as good as the best one with equal steps, and not
        proved the best: its lower bound is that of the loss.

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
    # What is beyond floats is infinite, and never optimal.
    with np.errstate(over="ignore"):
        question = Question.asked(
            problem,
            bound=bound,
            learning_rate=learning_rate,
            solver=solver,
            objective=objective,
            target_error=target_error,
            rounds=rounds,
            local_steps=local_steps,
            gap_tolerance=gap_tolerance,
            time_limit=time_limit,
            warm_start=warm_start,
            constraints=constraints,
            backend=backend,
            device_steps=device_steps,
        )
        if question.problem.budget.second_cost:
            return _rented(question)
        # Warnings point at the caller of this function, so it is here that the plan is described.
        return describe(question.problem, *_answer(question), begun)


def evaluate(
    problem: Problem,
    rounds: int,
    local_steps: int,
    batch_sizes: ArrayLike,
    bound: str | Bound = "certified",
    device_steps: ArrayLike | None = None,
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
    device_steps : array_like of int, shape (N,), optional
        tau_i, where some devices take fewer local steps than `local_steps`, which is the largest of them.
        Only for a forecast: a bound says nothing of unequal steps.

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
    with np.errstate(over="ignore"):
        chosen = checked_bound(problem, bound)
        k, tau = count("rounds", rounds), count("local_steps", local_steps)
        batches = integer_array("batch_sizes", batch_sizes, len(problem.fleet), minimum=1).copy()
        steps = None if device_steps is None else checked_steps(device_steps, tau, len(problem.fleet))
        broken = at_device_steps(problem, tau, steps).violations(k, tau, batches)
        if broken:
            raise InfeasibleError("the plan breaks " + "; ".join(map(str, broken)), binding=broken[0].limit)
        problem, chosen = at_rate(problem, chosen, None)
        if steps is not None:
            chosen = forecast_for_own_steps(chosen).with_device_steps(steps)
        value, member = chosen.best_member(problem, k, tau, batches)
        best = Incumbent(value, k, tau, batches, member, device_steps=steps)
        return describe(problem, Found(best), Asked("evaluate"), begun)


def _answer(question: Question) -> tuple[Found, Asked]:
    if question.target is not None:
        return _inverse(question, question.target)
    if question.free_rate:
        return _at_best_rate(question)
    if question.own_steps and question.problem.budget.time < math.inf:
        # Fewer steps save nothing but time.
        return _own_steps(question, forecast_for_own_steps(question.bound))
    if question.solver in PROPOSERS:
        return _proposed(question, PROPOSERS[question.solver])
    return _proved(question)


def _rented(question: Question) -> Allocation:
    """The answer where every second costs something: from answers to the same question without rent."""
    problem, proves = question.problem, question.solver not in PROPOSERS
    # What the parts leave open, the whole cannot close.
    finer = min(question.tolerance, max(question.tolerance * RENT_SHARE, FINEST_TOLERANCE))
    # Raises if not even the smallest plan fits with what it takes in rent.
    feasible_ranges(problem, *question.fixed)

    def without_rent(free: Problem, left: float | None) -> Allocation:
        begun = time.perf_counter()
        part = replace(question, problem=free, seconds=left, start=None, tolerance=finer)
        return describe(free, *_answer(part), begun)

    return solve_rented(
        problem,
        without_rent,
        _least_use(question, "time"),
        Asked(question.solver, proves, question.objective, question.target, question.tolerance),
        question.seconds,
    )


def _inverse(question: Question, target: float) -> tuple[Found, Asked]:
    """The cheapest or fastest plan whose bound is at most the target."""
    problem, forecast = question.problem, question.bound.forecast
    deadline = None if question.seconds is None else time.perf_counter() + question.seconds

    def minimise(limited: Problem) -> Found:
        left = None if deadline is None else max(deadline - time.perf_counter(), 0.0)
        if forecast is not None:
            ranges, enough = feasible_ranges(limited, *question.fixed), target * (1.0 + LOOSENED)
            found = forecasts.search(limited, forecast, ranges, question.tolerance, left, target=enough)
            # Within all that the budget has, the error that can be reached instead is of interest.
            if found.best.value <= enough or limited.budget != problem.budget:
                return found
        return _minimise(replace(question, problem=limited, seconds=left, start=None))

    def binding(plan: Incumbent) -> tuple[str, ...]:
        return binding_limits(problem, plan.rounds, plan.local_steps, plan.batch_sizes)

    least = _least_use(question, question.objective)
    found = inverse.search(problem, question.objective, target, least, minimise, binding)
    name, claim = _exact_name(question.bound), question.claim
    return found, Asked(name, True, question.objective, target, question.tolerance, claim)


def _at_best_rate(question: Question) -> tuple[Found, Asked]:
    """The best plan at the best learning rate: from a grid for a forecast, proved for a bound."""
    problem, tolerance, seconds = question.problem, question.tolerance, question.seconds
    ranges, forecast = feasible_ranges(problem, *question.fixed), question.bound.forecast
    if forecast is not None:
        return best_rate(problem, forecast, ranges, tolerance, seconds), Asked("exact", proves=False)
    limit = rates.PROOF_SECONDS if seconds is None else seconds
    found = rates.search(problem, question.bound, ranges, tolerance, limit)
    return found, Asked("exact", gap_tolerance=max(tolerance, rates.FINEST_TOLERANCE))


def _proposed(question: Question, propose: Solver) -> tuple[Found, Asked]:
    """A plan of another solver, with the lower bound that the exact solver proves."""
    problem, constraints, bound = question.problem, question.constraints, question.bound.prunable
    if bound is None:
        raise SolverError(
            f"solver {question.solver!r} needs a bound with a monotone form, and {question.bound.name!r} "
            "declares none: use solver='exact'"
        )
    if question.solver == "cvxpy":
        propose = partial(convex.solve, constraints=constraints, backend=question.backend)
    ranges = feasible_ranges(problem, *question.fixed)
    proposed = propose(problem, bound, ranges)
    best, trace = proposed.best, dict(proposed.trace)
    finest = PROOF_TOLERANCE if constraints is None else SLACK_TOLERANCE
    found = exact.search(
        problem.plain,
        bound.monotone_form(problem),
        ranges,
        max(question.tolerance, finest),
        question.seconds,
        (best.rounds, best.local_steps, best.batch_sizes),
    )
    own = found.best
    if constraints is not None and own.value < best.value and meets(constraints, own.batch_sizes):
        best, trace = own, trace | {"exact_plan": 1}
    lower = min(max(found.lower_bound, proposed.lower_bound), best.value)
    answer = replace(proposed, best=best, lower_bound=lower, trace=trace, finished=found.finished)
    return answer, Asked(question.solver, False, gap_tolerance=question.tolerance, claim=question.claim)


def _own_steps(question: Question, forecast: Forecast) -> tuple[Found, Asked]:
    """The better of the best plan with equal steps and what is found with steps of each device's own."""
    begun = time.perf_counter()
    equal = _minimise(question)
    left = question.seconds
    if left is not None:
        left = max(left - (time.perf_counter() - begun), 0.0)
    return uneven.search(question.problem, forecast, equal.best, left), Asked("exact", proves=False)


def _proved(question: Question) -> tuple[Found, Asked]:
    """The best plan of all."""
    found = _minimise(question)
    return found, Asked(_exact_name(question.bound), gap_tolerance=question.tolerance, claim=question.claim)


def _minimise(question: Question) -> Found:
    problem, bound = question.problem, question.bound
    tolerance, seconds = question.tolerance, question.seconds
    ranges, start = feasible_ranges(problem, *question.fixed), _usable_start(question)
    if bound.forecast is not None:
        found = forecasts.search(problem, bound.forecast, ranges, tolerance, seconds, start)
    elif bound.prunable is None:
        found = exhaustive.search(problem, bound, ranges, seconds, start)
    else:
        form = bound.prunable.monotone_form(problem)
        found = exact.search(problem.plain, form, ranges, tolerance, seconds, start)
    if question.start is None:
        return found
    return replace(found, trace=found.trace | {"warm_start_used": int(start is not None)})


def _usable_start(question: Question) -> tuple[int, int, Ints] | None:
    """The plan to start from, where it answers the question."""
    problem, plan, (rounds, local_steps) = question.problem, question.start, question.fixed
    if plan is None:
        return None
    k, tau, batches = plan.rounds, plan.local_steps, plan.batch_sizes
    if rounds not in (None, k) or local_steps not in (None, tau) or batches.size != len(problem.fleet):
        return None
    return None if problem.violations(k, tau, batches) else (k, tau, batches)


def _least_use(question: Question, limit: str) -> float:
    """What every plan takes at least, of cost or time."""
    rounds, local_steps = question.fixed
    return least_use(question.problem, rounds or 1, local_steps or 1, limit)


def _exact_name(bound: Objective) -> str:
    return "exhaustive" if bound.prunable is None and bound.forecast is None else "exact"
