"""The best whole batches of a problem at one (K, tau)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.exact.batch_choices import chosen
from coopt.solvers.exact.cost_and_energy import BothLimits
from coopt.solvers.ranges import Ranges
from coopt.solvers.whole_units.batches import Ints, Rounded, relax, round_batches
from coopt.solvers.whole_units.two_limits import fill_both


def whole_batches(
    problem: Problem,
    weights: NDArray[np.float64],
    rounds: int,
    local_steps: int,
    lower: Ints | None = None,
    cutoff: float | None = None,
) -> Rounded:
    """Minimise sum w_i / s_i over whole batches within all limits; exact where unit costs are equal.

    `lower` are batches to start from that fit the limits, by default the smallest. Where unit costs differ,
    or energy is limited too, the optimum is found if it is below `cutoff`; a good point and a bound if None.
    Where sizes are chosen from lists, `lower` and `cutoff` do not matter.
    """
    fleet = problem.fleet
    if fleet.choice_table is not None:
        return chosen(problem, fleet.choice_table, weights, rounds, local_steps, None)
    least, most = fleet.batch_range()
    start = least if lower is None else lower
    caps = limits.largest_batches(problem, rounds, local_steps, most)
    if problem.budget.energy < math.inf:
        demand, prices, _ = BothLimits(problem).demand(weights, (rounds, local_steps), start, caps)
        both = fill_both(demand, prices, cutoff)
        return Rounded(both.units * fleet.batch_multiple, both.value, both.lower_bound)
    spend = limits.step_budget(problem, rounds, local_steps)
    unit = fleet.unit_cost
    units = None if unit is None else limits.step_units(problem, rounds, local_steps, unit)
    price = relax(weights, fleet.sample_cost, spend, start, caps).multiplier
    return round_batches(
        weights,
        fleet.sample_cost,
        spend,
        start,
        caps,
        price,
        units,
        fleet.batch_multiple,
        cutoff=cutoff,
    )


def rounds_near(problem: Problem, ranges: Ranges, rounds: float, local_steps: int) -> list[int]:
    """Numbers of rounds worth a try next to a real one.

    Its two neighbours, and the most rounds in which one step still processes as many units as at the lower
    neighbour, or one fewer or more: between those the cost limit leaves something unspent.
    """
    fleet, budget = problem.fleet, problem.budget
    unit = fleet.unit_cost
    down = max(math.floor(rounds), 1)
    found = {down, down + 1}
    if unit is not None and budget.cost < math.inf:
        units = limits.step_units(problem, down, local_steps, unit)
        limit = budget.cost * (1.0 + limits.TOLERANCE)
        found |= {
            math.floor(limit / (local_steps * (unit * n + fleet.whole_step_cost) + budget.round_cost))
            for n in range(max(units - 1, 1), units + 2)
        }
    fewest, most = ranges.rounds[0], ranges.most_rounds(local_steps)
    return sorted({min(max(k, fewest), most) for k in found})
