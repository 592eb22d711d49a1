"""Whole batch sizes next to continuous ones that still meet a user's own constraints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt.errors import SolverError
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.proposers.backend import Constraints, own_constraints, run
from coopt.solvers.whole_units.batches import Ints

Floats = NDArray[np.float64]

# A constraint is met within this fraction of the largest number in it: the rounding of its sums.
SLACK = 1e-9
# The choice between two neighbours for every device is a small integer program; this ends it.
SECONDS = 10.0
# Distances to the next whole batch below this are the backend's inaccuracy.
NEAR = 1e-6


def next_to(
    problem: Problem,
    constraints: Constraints,
    batch_sizes: Floats,
    weights: Floats,
    rounds: int,
    local_steps: int,
) -> Ints | None:
    """The best whole batches, each next to the given one, within all limits and constraints.

    With linear constraints an integer program chooses for each device between the two neighbours; where
    constraints curve, batches are rounded down and raised one by one, largest gain first, while all is met.

    Returns
    -------
    ndarray of int64, shape (N,), or None
        None if no such batches were found.
    """
    fleet = problem.fleet
    multiple = fleet.batch_multiple
    lower, upper = fleet.batch_range()
    caps = limits.largest_batches(problem, rounds, local_steps, upper)
    near = np.floor(batch_sizes * (1.0 + NEAR) / multiple).astype(np.int64) * multiple
    down = np.minimum(np.maximum(near, lower), caps)
    step = np.where(down + multiple <= caps, multiple, 0)
    gains = weights / down - weights / (down + step)
    chosen = _integer_program(problem, constraints, down, step, gains, rounds, local_steps)
    if chosen is not None and _fits(problem, constraints, chosen, rounds, local_steps):
        return chosen
    return _raised(problem, constraints, down, step, gains, rounds, local_steps)


def meets(constraints: Constraints, batch_sizes: Ints) -> bool:
    """Whether whole batches meet the user's constraints."""
    import cvxpy as cp

    for rule in own_constraints(constraints, cp.Constant(batch_sizes)):
        size = max(float(np.max(np.abs(term.value))) for term in rule.args)
        if float(np.max(rule.violation())) > SLACK * size:
            return False
    return True


def _fits(
    problem: Problem, constraints: Constraints, batch_sizes: Ints, rounds: int, local_steps: int
) -> bool:
    return not problem.violations(rounds, local_steps, batch_sizes) and meets(constraints, batch_sizes)


def _integer_program(
    problem: Problem,
    constraints: Constraints,
    down: Ints,
    step: Ints,
    gains: Floats,
    rounds: int,
    local_steps: int,
) -> Ints | None:
    import cvxpy as cp

    up = cp.Variable(down.size, boolean=True)
    batches = down + cp.multiply(step, up)
    rules = own_constraints(constraints, batches)
    fleet = problem.fleet
    for sample, limit in (
        (fleet.sample_cost, limits.step_budget(problem, rounds, local_steps)),
        (fleet.sample_energy, limits.step_energy(problem, rounds, local_steps)),
    ):
        if limit < np.inf:
            rules.append(sample @ batches <= limit)
    worth = gains / (float(gains.max()) or 1.0)
    choice = cp.Problem(cp.Maximize(worth @ up), rules)
    if not choice.is_mixed_integer() or not all(term.is_affine() for rule in rules for term in rule.args):
        return None
    try:
        # scipy brings HiGHS, and is always there.
        if run(choice, "SCIPY", scipy_options={"time_limit": SECONDS, "mip_rel_gap": 1e-6}) is None:
            return None
    except SolverError:
        # Out of time without a point: the greedy rounding is left.
        return None
    raised: Ints = down + step * np.round(up.value).astype(np.int64)
    return raised


def _raised(
    problem: Problem,
    constraints: Constraints,
    down: Ints,
    step: Ints,
    gains: Floats,
    rounds: int,
    local_steps: int,
) -> Ints | None:
    batches = down.copy()
    if not _fits(problem, constraints, batches, rounds, local_steps):
        batches = down + step
        return batches if _fits(problem, constraints, batches, rounds, local_steps) else None
    for i in np.argsort(-gains, kind="stable").tolist():
        if step[i] == 0 or gains[i] == 0.0:
            continue
        batches[i] += step[i]
        if not _fits(problem, constraints, batches, rounds, local_steps):
            batches[i] -= step[i]
    return batches
