"""Every (K, tau) one by one: for bounds that declare nothing that a search could prune with."""

from __future__ import annotations

import math
import time

from coopt.errors import SolverError
from coopt.objectives.protocol import Objective
from coopt.problem.problem import Problem
from coopt.solvers.contract import Found, Incumbent
from coopt.solvers.ranges import Ranges
from coopt.solvers.whole_batches import whole_batches
from coopt.solvers.whole_units.batches import Ints

# Some seconds of inner solves for a small fleet; a bound with a monotone form has no such limit.
MOST_PAIRS = 200_000


def search(
    problem: Problem,
    bound: Objective,
    ranges: Ranges,
    time_limit: float | None,
    start: tuple[int, int, Ints] | None = None,
) -> Found:
    """Minimise any bound over the ranges; see :func:`coopt.solvers.exact.box_search.search`.

    Raises
    ------
    SolverError
        If more than :data:`MOST_PAIRS` pairs (K, tau) would have to be tried.
    """
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    first, last = ranges.local_steps
    pairs = 0
    for tau in range(first, last + 1):
        pairs += max(ranges.most_rounds(tau) - ranges.rounds[0] + 1, 0)
        if pairs > MOST_PAIRS:
            raise SolverError(
                f"bound {bound.name!r} declares no monotone form, and more than {MOST_PAIRS} pairs of "
                "rounds and local steps would have to be tried one by one: give it a monotone_form, or lower "
                "Budget(max_rounds=..., max_local_steps=...)"
            )
    lower, _ = problem.fleet.batch_range()
    search_start = start or (ranges.rounds[0], first, lower)
    best = _judge(problem, bound, *search_start)
    proved, solves = math.inf, 0
    for tau in range(first, last + 1):
        for rounds in range(ranges.rounds[0], ranges.most_rounds(tau) + 1):
            if time.perf_counter() > deadline:
                return Found(best, -math.inf, False, {"inner_solves": solves, "boxes": pairs})
            plan, bound_here = _solve_pair(problem, bound, rounds, tau)
            solves += 1
            proved = min(proved, bound_here)
            best = min(best, plan, key=lambda p: p.rank)
    return Found(best, min(proved, best.value), trace={"inner_solves": solves, "boxes": pairs})


def _judge(problem: Problem, bound: Objective, rounds: int, local_steps: int, batches: Ints) -> Incumbent:
    return Incumbent(bound.value(problem, rounds, local_steps, batches), rounds, local_steps, batches, bound)


def _solve_pair(problem: Problem, bound: Objective, rounds: int, local_steps: int) -> tuple[Incumbent, float]:
    offset, weights = bound.coefficients(problem, rounds, local_steps)
    found = whole_batches(problem.plain, weights, rounds, local_steps)
    return (
        _judge(problem, bound, rounds, local_steps, found.batch_sizes),
        offset + found.lower_bound,
    )
