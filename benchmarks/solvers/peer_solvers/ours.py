"""What coopt has: its own solvers, the published algorithms, and enumeration."""

from __future__ import annotations

import numpy as np

from benchmarks.solvers.peer_solvers.formula import MOST_ROUNDS, Answer
from coopt import Dynamite, Problem, solve_allocation
from coopt.solvers import exhaustive
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.whole_batches import whole_batches


def coopt_exact(problem: Problem) -> Answer:
    plan = solve_allocation(problem, bound="dynamite")
    return Answer(plan.rounds, plan.local_steps, plan.batch_sizes, f"proved, gap {plan.gap:.0e}")


def coopt_closed_form(problem: Problem) -> Answer:
    plan = solve_allocation(problem, bound="dynamite", solver="closed-form")
    return Answer(plan.rounds, plan.local_steps, plan.batch_sizes, f"gap {plan.gap:.0e}")


def coopt_fl(problem: Problem) -> Answer:
    plan = solve_allocation(problem, bound="dynamite", solver="coopt-fl")
    return Answer(plan.rounds, plan.local_steps, plan.batch_sizes, f"gap {plan.gap:.0e}")


def brute_force(problem: Problem) -> Answer:
    best = exhaustive.search(problem, Dynamite(), feasible_ranges(problem, None, None), None).best
    return Answer(best.rounds, best.local_steps, best.batch_sizes, "proved by enumeration")


def adacoopt(problem: Problem) -> Answer:
    """AdaCoOpt's greedy: tau in 1 .. 10 by the bound of one round, batches in proportion to the samples held.

    It takes K as given; here it is run for a grid of K, and the best plan is kept.
    """
    bound, ranges = Dynamite(), feasible_ranges(problem, None, None)
    best: tuple[float, int, int, np.ndarray] | None = None
    for rounds in np.unique(np.geomspace(1, MOST_ROUNDS, 68).round().astype(int)).tolist():
        taus = [tau for tau in range(1, 11) if rounds <= ranges.most_rounds(tau)]
        if not taus:
            continue
        # Proportional with caps, what is left over to the largest d^2/(s (s + 1)): the best for weights d^2.
        split = {
            tau: whole_batches(problem, problem.fleet.weights**2, rounds, tau).batch_sizes for tau in taus
        }
        tau = min(taus, key=lambda tau: bound.value(problem, 1, tau, split[tau]))
        value = bound.value(problem, rounds, tau, split[tau])
        if best is None or value < best[0]:
            best = value, rounds, tau, split[tau]
    assert best is not None
    return Answer(*best[1:], "no bound")
