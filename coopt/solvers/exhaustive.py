"""Every (K, tau) one by one: for bounds that declare nothing that a search could prune with."""

from __future__ import annotations

import heapq
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
    trace: dict[str, float] = {"inner_solves": 0, "boxes": pairs}
    # A good plan and a bound everywhere first; the optimum then only where the bound leaves it open.
    below: list[tuple[float, int, int]] = []
    for tau in range(first, last + 1):
        for rounds in range(ranges.rounds[0], ranges.most_rounds(tau) + 1):
            if time.perf_counter() > deadline:
                return Found(best, -math.inf, False, trace)
            plan, proved = _solve_pair(problem, bound, rounds, tau, None)
            trace["inner_solves"] += 1
            best = min(best, plan, key=lambda p: p.rank)
            below.append((proved, rounds, tau))
    heapq.heapify(below)
    lowest = math.inf
    while below and below[0][0] < min(lowest, best.value) and time.perf_counter() <= deadline:
        _, rounds, tau = heapq.heappop(below)
        plan, proved = _solve_pair(problem, bound, rounds, tau, best.value)
        trace["inner_solves"] += 1
        best = min(best, plan, key=lambda p: p.rank)
        lowest = min(lowest, proved)
    left = below[0][0] if below else math.inf
    finished = not left < min(lowest, best.value)
    return Found(best, min(lowest, left, best.value), finished, trace)


def _judge(problem: Problem, bound: Objective, rounds: int, local_steps: int, batches: Ints) -> Incumbent:
    return Incumbent(bound.value(problem, rounds, local_steps, batches), rounds, local_steps, batches, bound)


def _solve_pair(
    problem: Problem, bound: Objective, rounds: int, local_steps: int, cutoff: float | None
) -> tuple[Incumbent, float]:
    """A good plan, and a bound on all; the best one if it is below `cutoff`."""
    offset, weights = bound.coefficients(problem, rounds, local_steps)
    level = None if cutoff is None else cutoff - offset
    found = whole_batches(problem.plain, weights, rounds, local_steps, cutoff=level)
    return (
        _judge(problem, bound, rounds, local_steps, found.batch_sizes),
        offset + found.lower_bound,
    )
