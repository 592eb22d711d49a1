"""Branch and bound over the units of single devices, for two limits where plans cannot all be listed.

Where a few devices have units that use much and others ones that use next to nothing, what the best plan
lacks of the dual value is due to the few: at the best prices one of them would take a part of a unit. It gets
no more than the whole number below in one branch, and no less than the one above in the other. Both have
larger dual values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from coopt.solvers import best_first
from coopt.solvers.whole_units.two_limits_listing import rises
from coopt.solvers.whole_units.two_limits_prices import AtPrices, Demand
from coopt.solvers.whole_units.unit_prices import Filled

# A set of plans, and the best prices for it.
Branch = tuple[Demand, AtPrices]
# Branches at most, times devices.
MOST_WORK = 2_000
# A device whose next unit is worth its price to this part of the dearest unit is torn between two numbers.
TIE = 1e-6


def divide(
    demand: Demand,
    priced: AtPrices,
    found: Filled,
    cutoff: float,
    solve: Callable[[Demand, AtPrices, float], tuple[AtPrices, Filled]],
) -> Filled:
    """The best plan, or the one found, with the smallest bound of any branch that is left.

    Parameters
    ----------
    demand : Demand
    priced : AtPrices
        At the best prices.
    found : Filled
        The best plan and bound known.
    cutoff : float
        Values from here on are of no interest.
    solve : callable
        Takes a branch, what was priced before, and a bound that is enough; returns the best prices, and a
        plan with a bound.
    """
    best = found

    def branch(part: Branch, _bound: float) -> Iterator[tuple[float, Branch]]:
        nonlocal best
        node, here = part
        if node is not demand:
            # It was only bounded, at prices as good as that took.
            here, plan = solve(node, here, math.inf)
            if plan.value < best.value:
                best = plan
        for smaller in _branches(node, here):
            there, plan = solve(smaller, here, min(best.value, cutoff))
            if plan.value < best.value:
                best = plan
            yield plan.lower_bound, (smaller, there)

    proof = best_first.search(
        [(found.lower_bound, (demand, priced))],
        branch,
        lambda: min(best.value, cutoff),
        most_parts=MOST_WORK // demand.gains.size,
    )
    return replace(best, lower_bound=min(proof.lower_bound, best.value, cutoff))


def _branches(node: Demand, here: AtPrices) -> list[Demand]:
    """The branch divided at the number of units of the device that is torn and whose units are dearest."""
    everyone = np.arange(node.gains.size)
    up, down = (rises(node, here, everyone, sign) for sign in (1, -1))
    price = here.prices @ node.uses
    torn = np.where(np.minimum(up, down) <= TIE * price.max(), price, -1.0)
    device = int(torn.argmax())
    if torn[device] < 0.0:
        device = int(np.minimum(up, down).argmin())
    if not np.isfinite(min(up[device], down[device])):
        return []
    split = int(here.units[device]) - (0 if up[device] <= down[device] else 1)
    most, least = node.most.copy(), node.least.copy()
    most[device], least[device] = split, split + 1
    raised = replace(node, least=least)
    return [replace(node, most=most), *([raised] if bool((raised.left(least) >= 0.0).all()) else [])]
