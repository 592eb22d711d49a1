"""The best prices of two budgets at once: the largest dual value of whole units within both.

At prices y >= 0 of two limits device i takes its best number of units on its own. The dual value is concave
in y, and its slope is what the devices overdraw of the limits: it says in which half of the plane better
prices lie. A polygon that holds them all is cut at its centre of gravity, which takes off more than a third
of it each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.whole_units.unit_prices import units_at

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Prices are first looked for this close to the given ones, over the square root of the number of devices, and
# then so many times farther, as long as that finds better ones.
NEAR, FARTHER = 2.0, 8.0
MOST_CUTS = 200


@dataclass(frozen=True)
class Demand:
    """What devices gain and use: gains g_i and units least <= t <= most, shape (N,), uses of shape (2, N)."""

    gains: Floats
    uses: Floats
    least: Ints
    most: Ints

    def value(self, units: Ints) -> float:
        """The value sum g_i / t_i of a plan."""
        return float(np.sum(self.gains / units))

    def left(self, units: Ints) -> Floats:
        """What is left of both limits, shape (2,)."""
        return 1.0 - np.array([float(np.sum(use * units)) for use in self.uses])


@dataclass(frozen=True)
class AtPrices:
    """Prices, shape (2,), what devices take at them, what that leaves of the limits, and the dual value."""

    prices: Floats
    units: Ints
    left: Floats
    dual: float


def at(demand: Demand, prices: Floats) -> AtPrices:
    """What devices take at these prices."""
    units = units_at(demand.gains, prices @ demand.uses, demand.least, demand.most)
    left = demand.left(units)
    return AtPrices(prices, units, left, demand.value(units) - float(prices @ left))


def best_prices(demand: Demand, prices: Floats, accuracy: float) -> AtPrices:
    """The prices with the largest dual value, to a relative accuracy, looked for near the given ones."""
    best = at(demand, prices)
    scale = float(prices.sum()) or best.dual or 1.0
    reach = NEAR / math.sqrt(demand.gains.size)
    while True:
        before = best.dual
        best, inside = _best_within(demand, best, reach * scale, accuracy)
        if inside or best.dual - before <= accuracy * abs(before):
            return best
        reach *= FARTHER


def _best_within(demand: Demand, best: AtPrices, reach: float, accuracy: float) -> tuple[AtPrices, bool]:
    """The best prices in a square, and whether its sides play no part.

    A polygon holds all prices that may be better; each trial at its centre of gravity cuts off more than a
    third of it, since the dual value is concave.
    """
    low, high = np.maximum(best.prices - reach, 0.0), best.prices + reach
    polygon = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    trial = best
    for _ in range(MOST_CUTS):
        # Along a direction d the dual value rises by at most -left @ d.
        rises = trial.dual - (polygon - trial.prices) @ trial.left
        if float(rises.max()) - best.dual <= accuracy * abs(best.dual):
            break
        polygon = _clipped(polygon, rises - best.dual)
        if len(polygon) < 3:
            break
        trial = at(demand, _centre(polygon))
        best = max(best, trial, key=lambda priced: priced.dual)
    sides = (polygon >= high) | ((polygon <= low) & (low > 0.0))
    return best, not sides.any()


def _clipped(polygon: Floats, heights: Floats) -> Floats:
    """The part of a convex polygon, corners of shape (n, 2) in order, where linear heights are positive."""
    corners = []
    for here, there, height, other in zip(
        polygon, np.roll(polygon, -1, axis=0), heights, np.roll(heights, -1), strict=True
    ):
        if height > 0.0:
            corners.append(here)
        if (height > 0.0) != (other > 0.0):
            corners.append(here + height / (height - other) * (there - here))
    return np.array(corners).reshape(-1, 2)


def _centre(polygon: Floats) -> Floats:
    """The centre of gravity of a convex polygon."""
    apex = polygon[0]
    one, other = polygon[1:-1] - apex, polygon[2:] - apex
    areas = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    total = float(areas.sum())
    if total <= 0.0:
        mean: Floats = polygon.mean(axis=0)
        return mean
    centre: Floats = apex + areas @ (one + other) / (3.0 * total)
    return centre
