"""CoOptFL, the algorithm published with DYNAMITE, and two simple ways to split a batch budget.

For given K the cost limit fixes tau * s, the samples that a device processes per round if all process
alike. The algorithm scans tau along that curve with the same batch everywhere and keeps the tau with the
smallest bound. Then it splits the batch budget of that tau in proportion to p_i sqrt(M_i): devices that
would not finish in time are fixed at the batch that they can finish, the rest is split again, and what
rounding down leaves over goes to the device whose noise falls most, sample by sample.

The algorithm takes K as given. Without one, it is run for a geometric grid of K and the best plan is kept,
so that its distance from the optimum is not that of a badly chosen K.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError, InvalidProblemError, SolverError
from coopt.objectives.monotone import MonotoneBound, MonotoneForm, member_values
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.contract import Found, Incumbent
from coopt.solvers.ranges import Ranges
from coopt.solvers.whole_batches import whole_batches
from coopt.solvers.whole_units.batches import relax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The scan over tau ends here; the published experiments scan 1 to 10.
MOST_LOCAL_STEPS = 100
# Ratio of neighbouring K where none is given.
ROUNDS_RATIO = 1.1


def solve(problem: Problem, bound: MonotoneBound, ranges: Ranges) -> Found:
    """The plan of the published algorithm; see the module's text.

    Raises
    ------
    SolverError
        If nothing limits the cost.

    References
    ----------
    Liu et al., "DYNAMITE: Dynamic Interplay of Mini-Batch Size and Aggregation Frequency for Federated
    Learning with Static and Streaming Dataset", arXiv:2310.14906, Algorithm 1.
    """
    problem = problem.plain
    if problem.budget.cost == math.inf:
        raise SolverError(
            "solver 'coopt-fl' splits a cost budget, and there is none: set Budget(cost=...), or use "
            "solver='exact'"
        )
    form = bound.monotone_form(problem)
    grid = _grid(*ranges.rounds)
    best: Incumbent | None = None
    for rounds, tau in zip(grid, _scan(problem, form, ranges, grid), strict=True):
        if tau == 0:
            continue
        batches = proportional_split(problem, rounds, tau)
        values = member_values(form, rounds, tau, batches.astype(np.float64))
        member = int(values.argmin())
        if best is None or float(values[member]) < best.value:
            best = Incumbent(float(values[member]), rounds, tau, batches, form.members[member])
    if best is None:
        raise SolverError("solver 'coopt-fl' found no plan: use solver='exact'")
    return Found(best, trace={"rounds_tried": len(grid)})


def _scan(problem: Problem, form: MonotoneForm, ranges: Ranges, grid: list[int]) -> list[int]:
    """The tau for each K whose bound is smallest when all devices process alike; 0 where none fits."""
    rounds = np.array(grid)
    total = float(np.sum(problem.fleet.sample_cost))
    spend = problem.budget.cost * (1.0 + limits.TOLERANCE) / rounds - problem.budget.round_cost
    largest = float(problem.fleet.samples.max())
    everyone = np.arange(len(form.members))
    best, chosen = np.full(rounds.shape, math.inf), np.zeros(rounds.shape, dtype=np.int64)
    first, last = ranges.local_steps
    for tau in range(first, min(last, first + MOST_LOCAL_STEPS - 1) + 1):
        fits = rounds <= ranges.most_rounds(tau)
        if not fits.any():
            break
        floor = form.floor(tau, everyone)
        same = (spend / tau - problem.fleet.whole_step_cost) / total if total > 0.0 else largest
        inverse = 1.0 / np.maximum(same, 1.0)
        start, slope = form.progress((rounds * tau).astype(np.float64), everyone)
        noise = np.zeros_like(start)
        for share, basis in zip(floor.shares.T, floor.basis, strict=True):
            amount = float(np.sum(basis)) * inverse
            if form.population is not None:
                # A common batch may exceed what a device holds: then it has no noise, not less than none.
                amount = np.maximum(amount - float(np.sum(basis / form.population)), 0.0)
            # An infinite share of no noise is none.
            noise += np.where(amount == 0.0, 0.0, share[:, None]) * amount
        values = (start + slope * (floor.offsets[:, None] + noise)).min(axis=0)
        better = fits & ((values < best) | (chosen == 0))
        best[better], chosen[better] = values[better], tau
    return [int(tau) for tau in chosen]


def proportional_split(problem: Problem, rounds: int, local_steps: int) -> Ints:
    """Batches in proportion to p_i sqrt(M_i), within the cost, the time and the limits of each batch.

    Parameters
    ----------
    problem : Problem
    rounds, local_steps : int
        K and tau.

    Returns
    -------
    ndarray of int64, shape (N,)

    Raises
    ------
    InfeasibleError
        If not even the smallest batches fit.
    """
    fleet = problem.fleet
    return _split(problem, rounds, local_steps, fleet.weights * np.sqrt(fleet.gradient_noise), top_up=True)


def no_straggler_split(problem: Problem, rounds: int, local_steps: int) -> Ints:
    """Batches in proportion to throughput, so that all devices compute for as long as each other.

    Parameters
    ----------
    problem : Problem
    rounds, local_steps : int
        K and tau.

    Returns
    -------
    ndarray of int64, shape (N,)

    Raises
    ------
    InfeasibleError
        If not even the smallest batches fit.
    InvalidProblemError
        If a throughput is infinite.
    """
    infinite = np.isinf(problem.fleet.throughput)
    if infinite.any():
        raise InvalidProblemError(
            f"throughput[{int(infinite.argmax())}] = inf: batches in proportion to it need a finite number"
        )
    return _split(problem, rounds, local_steps, problem.fleet.throughput, top_up=False)


def uniform_split(problem: Problem, rounds: int, local_steps: int) -> Ints:
    """The largest batch that every device can have, the same for all up to their own limits.

    Parameters
    ----------
    problem : Problem
    rounds, local_steps : int
        K and tau.

    Returns
    -------
    ndarray of int64, shape (N,)

    Raises
    ------
    InfeasibleError
        If not even the smallest batches fit.
    """
    _, upper = _ends(problem, rounds, local_steps)
    return _split(
        problem, rounds, local_steps, np.ones(len(problem.fleet)), top_up=False, most=float(upper.min())
    )


def _split(
    problem: Problem,
    rounds: int,
    local_steps: int,
    shares: Floats,
    top_up: bool,
    most: float = math.inf,
) -> Ints:
    fleet = problem.fleet
    lower, upper = _ends(problem, rounds, local_steps)
    ends = np.maximum(np.minimum(upper, most), lower)
    spend = limits.step_budget(problem, rounds, local_steps)
    # Fixing capped devices and splitting the rest again ends at one level nu with s_i = clip(nu share_i):
    # the optimum of these weights.
    # A device whose samples cost nothing is held by its own limits alone.
    weights = shares * shares * np.where(fleet.sample_cost > 0.0, fleet.sample_cost, 1.0)
    level = relax(weights, fleet.sample_cost, spend, lower, ends)
    down = fleet.rounded_down(level.batch_sizes)
    if not top_up:
        return down
    gains = fleet.weights**2 * fleet.gradient_noise
    return whole_batches(problem, gains, rounds, local_steps, down).batch_sizes


def _ends(problem: Problem, rounds: int, local_steps: int) -> tuple[Ints, Ints]:
    """Smallest and largest batches at (K, tau)."""
    lower, upper = problem.fleet.batch_range()
    broken = limits.violations(problem, rounds, local_steps, lower.astype(np.float64))
    if broken:
        raise InfeasibleError(
            f"no batches fit {rounds} rounds of {local_steps} local steps: " + "; ".join(map(str, broken)),
            binding=broken[0].limit,
        )
    return lower, limits.largest_batches(problem, rounds, local_steps, upper)


def _grid(first: int, last: int) -> list[int]:
    count = math.ceil(math.log(last / first) / math.log(ROUNDS_RATIO)) + 1 if last > first else 1
    return sorted({round(k) for k in np.geomspace(first, last, count).tolist()})
