"""Whole batch sizes within a budget where a unit costs more on some devices than on others.

Minimise sum g_i / t_i over whole t_i with sum c_i t_i <= S. The best price of the budget gives a lower bound
and units that nearly fit (:mod:`coopt.solvers.whole_units.unit_prices`); the best plan near that price is
found and proved by partial plans (:mod:`coopt.solvers.whole_units.near_prices`). Where all costs are nearly
multiples of one cost, the price is too coarse, and plans with the same number of units are looked at together
(:mod:`coopt.solvers.whole_units.branch_on_counts`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from coopt.problem.exact_sum import exact_sum
from coopt.solvers.roundoff import LAST_DIGITS, LOOSENED
from coopt.solvers.whole_units.branch_on_counts import fill_by_count
from coopt.solvers.whole_units.near_prices import StartingPoint, improve
from coopt.solvers.whole_units.unit_prices import BestPrice, Filled, Floats, Ints, Knapsack, best_price

# The fill stops when no candidate fits; each pass takes at least one.
FILL_PASSES = 64
# Unit costs that are whole multiples of a decimal fraction down to this power are counted in it.
FINEST_DECIMAL = 6
# Relative gap from which on there is nothing left to look for.
CLOSED = 1e-13


def fill(
    gains: Floats,
    prices: Floats,
    budget: float,
    least: Ints,
    most: Ints,
    price: float,
    cutoff: float | None = None,
) -> Filled:
    """Whole units within the budget, and how good they are at least.

    Parameters
    ----------
    gains, prices : ndarray, shape (N,)
        g_i >= 0 and c_i >= 0.
    budget : float
        S, up to the rounding of sums; the units `least` must fit.
    least, most : ndarray of int64, shape (N,)
        1 <= least <= t <= most; most = least where more units gain nothing.
    price : float
        Where to look for the best price first: the multiplier of the continuous problem.
    cutoff : float, optional
        Values from here on are of no interest: the optimum, or that no plan is below this, is proved.
        None is content with the dual value as lower bound and a greedy plan.

    Returns
    -------
    Filled
    """
    if float(np.sum(prices * most)) <= budget:
        value = float(np.sum(gains / most))
        return Filled(most, value, value)
    knapsack = Knapsack(gains, prices, budget, least, most)
    priced = best_price(knapsack, price)
    units = _top_up(knapsack, priced.affordable)
    value = float(np.sum(gains / units))
    found = Filled(units, value, min(priced.dual, value))
    if cutoff is None or min(value, cutoff) <= priced.dual:
        return found
    return _close(*_exact(knapsack, priced), found, cutoff)


def _top_up(knapsack: Knapsack, taken: Ints) -> Ints:
    """Spend what is left on the best gain per cost that still fits."""
    taken, gains, costs = taken.copy(), knapsack.gains, knapsack.costs
    for _ in range(FILL_PASSES):
        left = knapsack.budget * (1.0 - LAST_DIGITS) - float(np.sum(costs * taken))
        fits = np.flatnonzero((taken < knapsack.most) & (costs <= left) & (gains > 0.0))
        if fits.size == 0:
            break
        units = taken[fits].astype(np.float64)
        rate = gains[fits] / (units * (units + 1.0)) / np.maximum(costs[fits], np.finfo(float).tiny)
        order = fits[np.argsort(-rate, kind="stable")]
        affordable = order[np.cumsum(costs[order]) <= left]
        taken[affordable if affordable.size else order[:1]] += 1
    return taken


def _exact(knapsack: Knapsack, priced: BestPrice) -> tuple[Knapsack, BestPrice]:
    """The same with whole costs, if a power of ten makes them whole as it does prices in cents.

    Whole costs add up exactly, so plans of equal cost are seen to be; a part of a unit buys nothing.
    """
    costs, budget = knapsack.costs, knapsack.budget * (1.0 - LAST_DIGITS)
    for exponent in range(FINEST_DECIMAL + 1):
        scale = 10.0**exponent
        whole = np.rint(costs * scale)
        if bool((np.abs(costs * scale - whole) <= LOOSENED * costs * scale).all()):
            exact = replace(knapsack, costs=whole, budget=float(math.floor(budget * scale)))
            return exact, replace(priced, price=priced.price / scale)
    return replace(knapsack, budget=budget), priced


def _close(knapsack: Knapsack, priced: BestPrice, found: Filled, cutoff: float) -> Filled:
    """The best plan, or the proof that none is below the cutoff."""
    found = fill_by_count(knapsack, priced, found, cutoff)
    goal = min(found.value, cutoff)
    if goal - found.lower_bound <= CLOSED * goal:
        return found
    units, price = priced.units, priced.price
    left = knapsack.budget - exact_sum(knapsack.costs * units)
    point = StartingPoint(
        gains=knapsack.gains,
        charges=price * knapsack.costs,
        uses=np.array([knapsack.costs, np.zeros(units.size)]),
        least=knapsack.least,
        most=knapsack.most,
        units=units,
        price=price,
        missing=np.array([left, 0.0]),
        # At the budget as it is counted here, which may be a little less than where the price was found.
        dual=float(np.sum(knapsack.gains / units)) - price * left,
    )
    found, bound = improve(point, found, cutoff)
    return replace(found, lower_bound=max(bound, found.lower_bound))
