"""Whole units within a budget where all costs are nearly whole multiples of one cost.

A price cannot see that units are whole: where costs are nearly equal the budget holds so many units, and the
part of one that is left over buys nothing, although the dual value counts it. So write c_i = u m_i + e_i with
whole m_i and one cost u, and look at the plans with n = sum m_i t_i for one n at a time. For them the budget
is sum e_i t_i <= S - u n, and the dual value has two multipliers,

    L(y, z; n) = sum_i min_t (g_i / t + (y e_i + z m_i) t) - y (S - u n) - z n.

What it leaves open is no more than what exchanges of units of nearly the same cost are worth. Since
L(y, z; n') = L(y, z; n) + (y u - z) (n' - n), few n need a look: the same multipliers bound all larger n at
least as well where z <= y u, and all smaller n where z >= y u.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from coopt.problem.exact_sum import exact_sum
from coopt.solvers.whole_units.near_prices import StartingPoint, improve
from coopt.solvers.whole_units.tangents import Tangent, peak
from coopt.solvers.whole_units.unit_prices import BestPrice, Filled, Floats, Ints, Knapsack, units_at

# The common cost is looked for among the median cost and its parts down to this one.
MOST_PARTS = 8
# Costs are near its multiples if they differ on average by less than this part of it.
NEAR = 0.1
# Binary digits of the common cost.
DIGITS = 24
# No cost is more than this many times the median.
WIDEST = 100.0
# Counts that are looked at, to either side of the one at the best price.
MOST_COUNTS = 8
# Prices are so high at most that the rounding of what units are charged stays below 1e-13 of the value.
STEEPEST = 1e3


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Costs as multiples m_i of one cost, whole numbers, and what each exceeds that by."""

    unit: float
    counts: Floats
    excess: Floats


def fill_by_count(knapsack: Knapsack, priced: BestPrice, found: Filled, cutoff: float) -> Filled:
    """The plan found or a better one, and a lower bound, from one count of units at a time.

    The lower bound stays where costs are not near multiples of one cost, or too many counts matter.
    """
    lattice = _lattice(knapsack.costs)
    if lattice is None:
        return found
    fewest, all_of = float(lattice.counts @ knapsack.least), float(lattice.counts @ knapsack.most)
    # As many as fit with the excess that the best price leads to.
    room = knapsack.budget - float(np.sum(lattice.excess * priced.units))
    natural = min(max(float(math.floor(room / lattice.unit)), fewest), all_of)
    proved = math.inf
    for step in (1, -1):
        count = natural if step > 0 else natural - 1
        for _ in range(MOST_COUNTS):
            if not fewest <= count <= all_of:
                break
            dual = _dual(knapsack, lattice, count, priced, min(found.value, cutoff))
            found, bound = improve(_point(knapsack, lattice, count, dual), found, cutoff)
            proved = min(proved, bound)
            outward = step * (lattice.unit * dual.price - dual.charge) >= 0.0
            if outward and dual.value >= min(found.value, cutoff):
                # The same multipliers bound all further counts at least as well.
                break
            count += step
        else:
            return found
    proved = min(proved, found.value, cutoff)
    return replace(found, lower_bound=max(proved, found.lower_bound))


def _lattice(costs: Floats) -> _Lattice | None:
    """The largest cost that all costs are near whole multiples of; None if there is none."""
    positive = costs[costs > 0.0]
    median = float(np.quantile(positive, 0.5, method="lower"))
    if float(np.max(positive)) > WIDEST * median:
        return None

    def distance(unit: float) -> float:
        multiples = costs / unit
        return float(np.mean(np.abs(multiples - np.rint(multiples))))

    parts = (median / part for part in range(1, MOST_PARTS + 1))
    unit = next((part for part in parts if distance(part) <= NEAR), None)
    if unit is None:
        return None
    if bool((costs == np.rint(costs)).all()):
        # Whole costs have whole differences, which add up exactly.
        unit = max(float(np.rint(unit)), 1.0)
    # With few digits its multiples are exact, and so is what costs and budget exceed them by.
    mantissa, exponent = math.frexp(unit)
    unit = math.ldexp(round(math.ldexp(mantissa, DIGITS)), exponent - DIGITS)
    counts = np.rint(costs / unit)
    excess = costs - unit * counts
    # Without differences the budget counts units itself.
    return _Lattice(unit, counts, excess) if excess.any() else None


@dataclass(frozen=True, eq=False)
class _Dual:
    """Multipliers of the budget and of the count, what devices take at them, and the dual value."""

    price: float
    charge: float
    units: Ints
    value: float


def _dual(knapsack: Knapsack, lattice: _Lattice, count: float, priced: BestPrice, enough: float) -> _Dual:
    """The largest dual value for one count of units, or one that is enough."""
    gains, least, most = knapsack.gains, knapsack.least, knapsack.most
    room = knapsack.budget - lattice.unit * count
    price, charge = priced.price, lattice.unit * priced.price
    spacing = charge / math.sqrt(gains.size)

    def at_charge(price: float, charge: float) -> Tangent[tuple[float, Ints]]:
        charges = np.maximum(price * lattice.excess + charge * lattice.counts, 0.0)
        units = units_at(gains, charges, least, most)
        over_count = float(lattice.counts @ units) - count
        over_room = float(np.sum(lattice.excess * units)) - room
        value = float(np.sum(gains / units)) + price * over_room + charge * over_count
        return Tangent(charge, value, over_count, (over_room, units))

    def at_price(price: float) -> Tangent[_Dual]:
        nonlocal charge
        found = peak(lambda charge: at_charge(price, charge), charge, spacing)
        best, low, high = found.best, found.rising, found.falling
        charge = best.at
        slope = best.data[0]
        if low is not None and high is not None and low.slope > high.slope:
            # What both sides take, mixed so that the count is right, is the slope along the peaks.
            share = low.slope / (low.slope - high.slope)
            slope = (1.0 - share) * low.data[0] + share * high.data[0]
        return Tangent(price, best.value, slope, _Dual(price, best.at, best.data[1], best.value))

    steepest = max(STEEPEST * enough / float(np.sum(np.abs(lattice.excess) * priced.units)), price)
    return peak(at_price, price, price, (0.0, steepest), enough).best.data


def _point(knapsack: Knapsack, lattice: _Lattice, count: float, dual: _Dual) -> StartingPoint:
    """Where plans with this count are looked for."""
    room = knapsack.budget - lattice.unit * count
    left = room - exact_sum(lattice.excess * dual.units)
    return StartingPoint(
        gains=knapsack.gains,
        charges=dual.price * lattice.excess + dual.charge * lattice.counts,
        uses=np.array([lattice.excess, lattice.counts]),
        least=knapsack.least,
        most=knapsack.most,
        units=dual.units,
        price=dual.price,
        missing=np.array([left, count - float(lattice.counts @ dual.units)]),
        dual=dual.value,
    )
