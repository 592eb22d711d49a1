"""Whole batch sizes next to continuous ones that still meet a user's own constraints."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from coopt.errors import SolverError
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.proposers.backend import run
from coopt.solvers.proposers.own_constraints import Constraints, meets, own_constraints, scaled
from coopt.solvers.whole_units.batches import Ints

Floats = NDArray[np.float64]

# The choice between two neighbours for every device is a small integer program; this ends it.
SECONDS = 10.0
# Distances to the next whole batch below this are the backend's inaccuracy.
NEAR = 1e-6
# Where neither neighbours of a point meet constraints that curve, these shares of it are tried.
SHRUNK = (0.999, 0.99, 0.95, 0.8, 0.5, 0.0)


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
    if fleet.batch_choices is not None:
        raise SolverError(
            "solver 'cvxpy' with constraints rounds to neighbouring batches, and batch_choices may have none "
            "there: use batch_multiple"
        )
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
        (fleet.sample_energy, limits.step_energy_budget(problem, rounds, local_steps)),
    ):
        if limit < np.inf:
            rules.append(sample @ batches <= limit)
    worth = gains / (float(gains.max()) or 1.0)
    if not all(term.is_affine() for rule in rules for term in rule.args):
        return None
    up.value = np.zeros(down.size)
    choice = cp.Problem(cp.Maximize(worth @ up), scaled(rules))
    try:
        # scipy brings HiGHS, and is always there.
        if run(choice, "SCIPY", scipy_options={"time_limit": SECONDS, "mip_rel_gap": 1e-6}) is None:
            return None
    except SolverError:
        # Out of time without a point: the greedy rounding is left.
        return None
    raised: Ints = down + step * np.round(up.value).astype(np.int64)
    return raised


def _starts(problem: Problem, down: Ints, step: Ints) -> Iterator[Ints]:
    """Batches to try: the lower neighbours, the upper ones, and ever smaller ones."""
    multiple = problem.fleet.batch_multiple
    lower, _ = problem.fleet.batch_range()
    yield down
    yield down + step
    for share in SHRUNK:
        yield lower + np.floor(share * (down - lower) / multiple).astype(np.int64) * multiple


def _raised(
    problem: Problem,
    constraints: Constraints,
    down: Ints,
    step: Ints,
    gains: Floats,
    rounds: int,
    local_steps: int,
) -> Ints | None:
    start = next(
        (s for s in _starts(problem, down, step) if _fits(problem, constraints, s, rounds, local_steps)), None
    )
    if start is None or (start > down).any():
        return start
    batches = start.copy()
    for i in np.argsort(-gains, kind="stable").tolist():
        if step[i] == 0 or gains[i] == 0.0:
            continue
        batches[i] += step[i]
        if not _fits(problem, constraints, batches, rounds, local_steps):
            batches[i] -= step[i]
    return batches
