"""The front door: plan an allocation, or judge one that somebody else made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.allocation import Allocation, Status
from coopt.bound import resolve_bound
from coopt.describe import Outcome, describe
from coopt.errors import InfeasibleError, InvalidProblemError, SolverError
from coopt.monotone import Bound, MonotoneBound, member_values
from coopt.problem import Problem
from coopt.solvers import closed_form, coopt_fl, exact, exhaustive
from coopt.solvers.batch import allocate_batches
from coopt.solvers.proposal import Proposal
from coopt.solvers.ranges import Ranges, feasible_ranges
from coopt.solvers.search import ROUNDING, Search
from coopt.validation import count, integer_array, optional_count, real

Ints = NDArray[np.int64]

__all__ = ["allocate_batches", "evaluate", "solve_allocation"]

# Solvers that propose a plan, which the exact solver then bounds.
PROPOSERS: dict[str, Callable[[Problem, MonotoneBound, Ranges], Proposal]] = {
    "closed-form": closed_form.solve,
    "coopt-fl": coopt_fl.solve,
}
SOLVERS = ("auto", "exact", *PROPOSERS)
OBJECTIVES = ("error",)
# What a plan of another solver is compared with is proved to this relative gap: much finer than the distance.
PROOF_TOLERANCE = 1e-3


def solve_allocation(
    problem: Problem,
    *,
    bound: str | Bound = "certified",
    solver: str = "auto",
    objective: str = "error",
    rounds: int | None = None,
    local_steps: int | None = None,
    gap_tolerance: float = 1e-12,
    time_limit: float | None = None,
    warm_start: Allocation | None = None,
) -> Allocation:
    """Find the rounds, local steps and batch sizes that minimise the error bound within the budget.

    Parameters
    ----------
    problem : Problem
    bound : str or Bound, default "certified"
        ``"certified"``, ``"dynamite"``, ``"adacoopt"``, ``"nonconvex"``, or any :class:`Bound`.
    solver : {"auto", "exact", "closed-form", "cvxpy", "coopt-fl"}, default "auto"
        "auto" takes the exact solver. Plans of the others carry a lower bound as well, proved by the exact
        solver to a gap of 1e-3 (or `gap_tolerance`, if larger).
    objective : {"error"}, default "error"
    rounds, local_steps : int, optional
        Fix K or tau.
    gap_tolerance : float, default 1e-12
        Relative gap at which the search may stop.
    time_limit : float, optional
        Seconds after which the best plan so far is returned with its honest gap.
    warm_start : Allocation, optional
        A plan to start from; ignored where it does not fit the limits of this problem, which the
        ``trace`` of the result records as ``"warm_start_used"``.

    Returns
    -------
    Allocation
        With ``gap`` 0 up to rounding where one unit of batch costs the same on every device.

    Raises
    ------
    InfeasibleError
        If no plan fits; it names the limit and the smallest cost and time that would do.
    InvalidProblemError
        If an argument is wrong, the bound lacks a constant, or nothing limits K or tau.
    SolverError
        If a bound that declares no monotone form leaves too many (K, tau) to try one by one.

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
    (60, 6, array([31, 16,  5]))
    >>> plan.gap <= 1e-12, plan.binding
    (True, ('cost',))
    """
    begun = time.perf_counter()
    chosen = _checked_bound(problem, bound)
    _choice("solver", solver, SOLVERS)
    _choice("objective", objective, OBJECTIVES)
    tolerance = real("gap_tolerance", gap_tolerance, minimum=0.0)
    seconds = None if time_limit is None else real("time_limit", time_limit, minimum=0.0, infinite=True)
    fixed_rounds, fixed_steps = optional_count("rounds", rounds), optional_count("local_steps", local_steps)
    ranges = feasible_ranges(problem, fixed_rounds, fixed_steps)
    start = _usable_start(problem, warm_start, fixed_rounds, fixed_steps)
    if solver in PROPOSERS:
        if not isinstance(chosen, MonotoneBound):
            raise SolverError(
                f"solver {solver!r} needs a bound with a monotone form, and {chosen.name!r} declares none: "
                "use solver='exact'"
            )
        proposal = PROPOSERS[solver](problem, chosen, ranges)
        found = _bounded(problem, chosen, ranges, proposal, max(tolerance, PROOF_TOLERANCE), seconds)
        return describe(problem, _outcome(found, tolerance, solver, proposal.trace), begun)
    if isinstance(chosen, MonotoneBound):
        name = "exact"
        found = exact.search(problem, chosen.monotone_form(problem), ranges, tolerance, seconds, start)
    else:
        name = "exhaustive"
        found = exhaustive.search(problem, chosen, ranges, seconds, start)
    trace: dict[str, float] = {"inner_solves": found.inner_solves, "boxes": found.boxes}
    if warm_start is not None:
        trace["warm_start_used"] = int(start is not None)
    return describe(problem, _outcome(found, tolerance, name, trace), begun)


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
    if isinstance(chosen, MonotoneBound):
        form = chosen.monotone_form(problem)
        values = member_values(form, k, tau, batches.astype(np.float64))
        value, member = float(values.min()), form.members[int(values.argmin())]
    else:
        value, member = chosen.value(problem, k, tau, batches), chosen
    outcome = Outcome(k, tau, batches, value, member, -math.inf, Status.EVALUATED, "evaluate", {})
    return describe(problem, outcome, begun)


def _checked_bound(problem: Problem, bound: str | Bound) -> Bound:
    if not isinstance(problem, Problem):
        raise InvalidProblemError(f"problem = {problem!r}: must be a coopt.Problem")
    return resolve_bound(bound)


def _choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InvalidProblemError(f"{name} = {value!r}: must be one of {', '.join(map(repr, valid))}")


def _usable_start(
    problem: Problem, warm_start: Allocation | None, rounds: int | None, local_steps: int | None
) -> tuple[int, int, Ints] | None:
    if warm_start is None:
        return None
    k, tau, batches = warm_start.rounds, warm_start.local_steps, warm_start.batch_sizes
    if rounds not in (None, k) or local_steps not in (None, tau) or batches.size != len(problem.fleet):
        return None
    return None if problem.violations(k, tau, batches) else (k, tau, batches)


def _bounded(
    problem: Problem,
    bound: MonotoneBound,
    ranges: Ranges,
    proposal: Proposal,
    tolerance: float,
    time_limit: float | None,
) -> Search:
    """A plan of another solver with the lower bound that the exact solver proves."""
    best = proposal.best
    start = (best.rounds, best.local_steps, best.batch_sizes)
    found = exact.search(problem, bound.monotone_form(problem), ranges, tolerance, time_limit, start)
    lower = min(max(found.lower_bound, proposal.lower_bound), best.value)
    return replace(found, best=best, lower_bound=lower)


def _outcome(found: Search, tolerance: float, solver: str, trace: dict[str, float]) -> Outcome:
    best = found.best
    status = _status(found, tolerance)
    if solver in PROPOSERS and status is not Status.OPTIMAL:
        status = Status.HEURISTIC
    return Outcome(
        best.rounds,
        best.local_steps,
        best.batch_sizes,
        best.value,
        best.bound,
        found.lower_bound,
        status,
        solver,
        trace,
    )


def _status(found: Search, tolerance: float) -> Status:
    value, lower = found.best.value, found.lower_bound
    if value == lower or value - lower <= ROUNDING * abs(value):
        return Status.OPTIMAL
    if not found.finished:
        return Status.TIME_LIMIT
    return Status.GAP_TOLERANCE if value - lower <= tolerance * abs(value) else Status.INTEGRALITY_GAP
