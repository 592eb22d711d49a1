"""The best whole batches of a problem at one (K, tau)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt import limits
from coopt.problem import Problem
from coopt.solvers.batch import Ints, Rounded, relax, round_batches


def whole_batches(
    problem: Problem,
    weights: NDArray[np.float64],
    rounds: int,
    local_steps: int,
    lower: Ints | None = None,
) -> Rounded:
    """Minimise sum w_i / s_i over whole batches within all limits; exact where unit costs are equal.

    `lower` are batches to start from that fit the limits, by default the smallest.
    """
    fleet = problem.fleet
    least, most = fleet.batch_range()
    start = least if lower is None else lower
    caps = limits.largest_batches(problem, rounds, local_steps, most)
    spend = limits.step_budget(problem, rounds, local_steps)
    unit_costs = fleet.sample_cost * fleet.batch_multiple
    unit = float(unit_costs[0])
    units = None
    if unit > 0.0 and bool((unit_costs == unit).all()):
        units = limits.step_units(problem, rounds, local_steps, unit)
    price = relax(weights, fleet.sample_cost, spend, start, caps).multiplier
    return round_batches(weights, fleet.sample_cost, spend, start, caps, price, units, fleet.batch_multiple)
