"""Plans whose cost includes every second that they take: machines that are rented by the hour.

With w the cost of a second, a plan of cost c and completion time T costs c + w T. No solver takes such a
limit, since T is the time of the slowest device. But a plan that takes between t1 and t2 seconds

* keeps the limits ``cost <= R - w t1`` and ``time <= t2``, so that the optimum within those two bounds all of
  them from below, and
* any plan with ``cost <= R - w t2`` and ``time <= t2`` costs no more than R.

So ranges of completion times are divided, best bound first, and each is answered by the solver that was asked
for. Between the time that the plan of a range takes and the time that it can afford lies the next cut: it is
in neither part again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from coopt.errors import InfeasibleError
from coopt.plans.allocation import Allocation
from coopt.plans.describe import Asked, describe
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.best_first import search
from coopt.solvers.contract import Found, Incumbent

# Ranges of times are divided until the gap is at most this, and no more often than that.
FINEST = 1e-6
MOST_PARTS = 400

Solve = Callable[[Problem, float | None], Allocation]
"""(a problem without rent, seconds that are left) -> its optimum."""


@dataclass(frozen=True)
class _Part:
    """Completion times from `first` to `last` [s], and the optimum within limits that hold all of them."""

    first: float
    last: float
    relaxed: Allocation


class _Search:
    """Best plans under a limit on cost with rent; `best` is the best so far, with its value."""

    def __init__(self, problem: Problem, solve: Solve, objective: str, deadline: float | None) -> None:
        self.problem, self.solve, self.objective = problem, solve, objective
        self.rent, self.limit = problem.budget.second_cost, problem.budget.cost
        self.deadline = deadline
        self.best: Allocation | None = None
        self.value = math.inf
        self.solves = 0

    def within(self, first: float, last: float) -> Allocation | None:
        """The optimum among plans that cost no more than the limit less the rent to `first`, until `last`."""
        left = None if self.deadline is None else max(self.deadline - time.perf_counter(), 0.0)
        cost = max(self.limit - self.rent * first, 0.0)
        budget = replace(self.problem.budget, cost=cost, time=last, second_cost=0.0)
        self.solves += 1
        try:
            found = self.solve(replace(self.problem, budget=budget), left)
        except InfeasibleError:
            return None
        self.consider(found)
        return found

    def consider(self, plan: Allocation) -> None:
        """Keep a plan if, with its rent, it fits and is better."""
        cost = plan.cost + self.rent * plan.time
        value = {"error": plan.predicted_error, "cost": cost, "time": plan.time}[self.objective]
        if limits.within(cost, self.limit) and value < self.value:
            self.best, self.value = plan, value

    def bound(self, first: float, relaxed: Allocation) -> float:
        """What no plan that takes at least `first` seconds is below, from the optimum without its rent."""
        if self.objective == "cost":
            return relaxed.lower_bound + self.rent * first
        return max(relaxed.lower_bound, first) if self.objective == "time" else relaxed.lower_bound

    def branch(self, part: _Part, _bound: float) -> Iterator[tuple[float, _Part | None]]:
        """The times before and after a cut, or that nothing is left to divide."""
        plan = part.relaxed
        affordable = (self.limit - plan.cost) / self.rent
        start = part.first if self.objective == "cost" else max(affordable, part.first)
        cut = start + (plan.time - start) / 2.0
        if not part.first < cut < min(plan.time, part.last):
            yield self.bound(part.first, plan), None
            return
        self.within(cut, cut)
        for first, last in ((part.first, cut), (cut, part.last)):
            relaxed = self.within(first, last)
            if relaxed is not None:
                yield self.bound(first, relaxed), _Part(first, last, relaxed)


def solve_rented(
    problem: Problem,
    solve: Solve,
    least_time: float,
    asked: Asked,
    seconds: float | None,
) -> Allocation:
    """The best plan where every second costs something.

    Parameters
    ----------
    problem : Problem
        Its budget has a ``second_cost``.
    solve : callable
        Answers the same question without rent.
    least_time : float
        Seconds that every plan takes at least.
    asked : Asked
        The question.
    seconds : float or None
        Time limit.

    Raises
    ------
    InfeasibleError
        If no plan reaches the target within the limits.
    """
    begun = time.perf_counter()
    state = _Search(problem, solve, asked.objective, None if seconds is None else begun + seconds)
    last = min(problem.budget.time, problem.budget.cost / problem.budget.second_cost)
    tolerance = max(asked.gap_tolerance, FINEST)
    state.within(least_time, least_time)
    whole = state.within(least_time, last)
    roots = [] if whole is None else [(state.bound(least_time, whole), _Part(least_time, last, whole))]
    proof = search(
        roots,
        state.branch,
        lambda: state.value - tolerance * abs(state.value) if math.isfinite(state.value) else math.inf,
        math.inf if state.deadline is None else state.deadline,
        MOST_PARTS,
    )
    best = state.best
    if best is None:
        raise InfeasibleError(
            f"no plan reaches target_error = {asked.target_error!r} within cost = {problem.budget.cost!r}, "
            f"of which every second takes second_cost = {problem.budget.second_cost!r}",
            binding="cost",
        )
    rate = best.learning_rate if best.learning_rate != problem.constants.learning_rate else None
    incumbent = Incumbent(
        best.predicted_error, best.rounds, best.local_steps, best.batch_sizes, best.bound_object, rate
    )
    found = Found(
        incumbent,
        min(proof.lower_bound, state.value),
        proof.finished,
        {"inner_solves": state.solves, "parts": proof.parts},
    )
    asked = replace(asked, solver=best.solver, gap_tolerance=tolerance)
    return describe(problem, found, asked, begun)
