"""Whole batch sizes within two budgets at once, on cost and on energy.

Minimise sum g_i / t_i over whole t_i with sum_i u_ji t_i <= 1 for j = 1, 2: uses are in units of the limits.
At prices y = (y_1, y_2) >= 0 device i takes its best number of units on its own, and the dual value

    L(y) = sum_i min_t (g_i / t + sum_j y_j u_ji t) - sum_j y_j

is a lower bound. At the best prices, what the devices take is made to fit, device by device; where that lacks
more of the dual value than is of interest, :mod:`coopt.solvers.whole_units.two_limits_listing` finds the
optimum.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.roundoff import LOST_IN_SUMS
from coopt.solvers.whole_units.knapsack import fill
from coopt.solvers.whole_units.two_limits_branching import divide
from coopt.solvers.whole_units.two_limits_listing import close
from coopt.solvers.whole_units.two_limits_prices import AtPrices, Demand, at, best_prices
from coopt.solvers.whole_units.unit_prices import Filled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Relative accuracy of the dual value where it only has to bound, and where it has to be closed.
ROUGH, FINE = 1e-6, 1e-14
# A price so much smaller than the other is none.
NO_PRICE = 1e-6
# Passes over the devices that take units away, or add some.
PASSES = 64


def fill_both(demand: Demand, prices: Floats, cutoff: float | None = None) -> Filled:
    """Whole units within both limits, and how good they are at least.

    Parameters
    ----------
    demand : Demand
        The units `least` must fit; most = least where more units gain nothing.
    prices : ndarray, shape (2,)
        Where to look for the best prices first: the multipliers of the continuous problem.
    cutoff : float, optional
        Values from here on are of no interest: the optimum, or that no plan is below this, is proved.
        None is content with a dual value as lower bound and a greedy plan.

    Returns
    -------
    Filled
    """
    accuracy = ROUGH if cutoff is None else FINE

    def rounded(demand: Demand, prices: Floats, wanted: float = math.inf) -> tuple[AtPrices, Filled]:
        if bool((demand.left(demand.most) >= 0.0).all()):
            return at(demand, np.zeros(2)), _of(demand, demand.most, math.inf)
        priced = best_prices(demand, prices, accuracy, wanted)
        units = _topped_up(demand, _reduced(demand, priced), priced.prices)
        return priced, _of(demand, units, priced.dual)

    demand = _capped(demand)
    priced, found = rounded(demand, prices)
    if cutoff is None:
        return found
    for proof in (close, _alone):
        if min(found.value, cutoff) <= found.lower_bound:
            return found
        found = proof(demand, priced, found, cutoff)
    if min(found.value, cutoff) <= found.lower_bound:
        return found

    def branch(part: Demand, before: AtPrices, wanted: float) -> tuple[AtPrices, Filled]:
        return rounded(_capped(part), before.prices, wanted)

    return divide(demand, priced, found, cutoff, branch)


def _of(demand: Demand, units: Ints, bound: float) -> Filled:
    value = demand.value(units)
    return Filled(units, value, min(bound, value))


def _alone(demand: Demand, priced: AtPrices, found: Filled, cutoff: float) -> Filled:
    """What the limit with a price proves alone where the other has none, and its plan if that keeps both."""
    axis = int(priced.prices.argmax())
    price, other = float(priced.prices[axis]), float(priced.prices[1 - axis])
    if other > NO_PRICE * price:
        return found
    alone = fill(demand.gains, demand.uses[axis], 1.0, demand.least, demand.most, price, cutoff)
    fits = alone.value < found.value and bool((demand.left(alone.units) >= 0.0).all())
    units = alone.units if fits else found.units
    return _of(demand, units, max(found.lower_bound, alone.lower_bound))


def _capped(demand: Demand) -> Demand:
    """The same without units that no device could have even if all others had the least."""
    room = np.maximum(demand.left(demand.least), 0.0) * (1.0 + LOST_IN_SUMS)
    more = (demand.most - demand.least).astype(np.float64)
    for own, use in zip(room.tolist(), demand.uses, strict=True):
        np.minimum(more, np.floor(np.divide(own, use, out=more.copy(), where=use > 0.0)), out=more)
    return replace(demand, most=demand.least + more.astype(np.int64))


def _reduced(demand: Demand, priced: AtPrices) -> Ints:
    """Units that fit: without those that save most of the overdrawn limits for what they lose."""
    units, left = priced.units.copy(), priced.left
    for _ in range(PASSES):
        if bool((left >= LOST_IN_SUMS).all()):
            return units
        saved = demand.uses[left < LOST_IN_SUMS].sum(axis=0)
        free = np.flatnonzero((units > demand.least) & (saved > 0.0))
        if free.size == 0:
            break
        fewer = units[free] - 1
        order = free[np.argsort(demand.gains[free] / (units[free] * fewer) / saved[free], kind="stable")]
        back = left[:, None] + np.cumsum(demand.uses[:, order], axis=1)
        enough = (back >= LOST_IN_SUMS) | (left >= LOST_IN_SUMS)[:, None]
        count = int(enough.all(axis=0).argmax()) if bool(enough[:, -1].all()) else order.size - 1
        units[order[: count + 1]] -= 1
        left = demand.left(units)
    return demand.least


def _topped_up(demand: Demand, units: Ints, prices: Floats) -> Ints:
    """Spend what is left on the best gain for its price that still fits; each pass takes one unit or more."""
    units = units.copy()
    price = np.maximum(prices @ demand.uses, np.finfo(float).tiny)
    for _ in range(PASSES):
        left = demand.left(units) - LOST_IN_SUMS
        fits = (units < demand.most) & (demand.uses <= left[:, None]).all(axis=0) & (demand.gains > 0.0)
        places = np.flatnonzero(fits)
        if places.size == 0:
            break
        some = units[places].astype(np.float64)
        rate = demand.gains[places] / (some * (some + 1.0)) / price[places]
        order = places[np.argsort(-rate, kind="stable")]
        affordable = (np.cumsum(demand.uses[:, order], axis=1) <= left[:, None]).all(axis=0)
        units[order[: max(int(affordable.sum()), 1)]] += 1
    return units
