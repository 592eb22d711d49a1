"""The best prices of two budgets at once: the largest dual value of whole units within both.

At prices y >= 0 of two limits device i takes its best number of units on its own. The dual value is concave
in y, and its slope is what the devices overdraw of the limits: it says in which half of the plane better
prices lie. A polygon that holds them all is cut at its centre of gravity, which takes off more than a third
of it each time.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.whole_units.unit_prices import units_at

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# A polygon has so few corners that numbers are faster than arrays.
Corner = tuple[float, float]

# Prices are first looked for this close to the given ones, over the square root of the number of devices, and
# then so many times farther, as long as that finds better ones.
NEAR, FARTHER = 2.0, 8.0
MOST_CUTS = 200
# Where the dual value surely stays below what is wanted, it is found to this part of what it lacks.
COARSE = 0.1


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
        left: Floats = 1.0 - np.sum(self.uses * units, axis=1)
        return left


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


def best_prices(demand: Demand, prices: Floats, accuracy: float, wanted: float = math.inf) -> AtPrices:
    """The prices with the largest dual value, to a relative accuracy, looked for near the given ones.

    A dual value of `wanted` is enough, and one that stays below it need not be so accurate.
    """
    best = at(demand, prices)
    scale = float(prices.sum()) or best.dual or 1.0
    reach = NEAR / math.sqrt(demand.gains.size)
    while True:
        before = best.dual
        best, inside = _best_within(demand, best, reach * scale, accuracy, wanted)
        if inside or best.dual >= wanted or best.dual - before <= accuracy * abs(before):
            return best
        reach *= FARTHER


def _best_within(
    demand: Demand, best: AtPrices, reach: float, accuracy: float, wanted: float
) -> tuple[AtPrices, bool]:
    """The best prices in a square, and whether its sides play no part.

    A polygon holds all prices that may be better; each trial at its centre of gravity cuts off more than a
    third of it, since the dual value is concave.
    """
    (low, bottom), (high, top) = np.maximum(best.prices - reach, 0.0).tolist(), (best.prices + reach).tolist()
    polygon = [(low, bottom), (high, bottom), (high, top), (low, top)]
    trial = best

    def inside() -> bool:
        return not any(x >= high or y >= top or 0.0 < low >= x or 0.0 < bottom >= y for x, y in polygon)

    for _ in range(MOST_CUTS):
        # Along a direction d the dual value rises by at most -left @ d.
        (first, second), (more, less) = trial.prices.tolist(), trial.left.tolist()
        rises = [trial.dual - more * (x - first) - less * (y - second) for x, y in polygon]
        most = max(rises)
        if most - best.dual <= accuracy * abs(best.dual) or best.dual >= wanted:
            break
        if most < wanted < math.inf and most - best.dual <= COARSE * (wanted - best.dual) and inside():
            break
        polygon = _clipped(polygon, [rise - best.dual for rise in rises])
        if len(polygon) < 3:
            break
        trial = at(demand, np.array(_centre(polygon)))
        best = max(best, trial, key=lambda priced: priced.dual)
    return best, inside()


def _clipped(polygon: list[Corner], heights: list[float]) -> list[Corner]:
    """The part of a convex polygon, corners in order, where linear heights at the corners are positive."""
    corners = []
    for i, ((x, y), height) in enumerate(zip(polygon, heights, strict=True)):
        (u, v), other = polygon[i - 1], heights[i - 1]
        if (height > 0.0) != (other > 0.0):
            share = height / (height - other)
            corners.append((x + share * (u - x), y + share * (v - y)))
        if height > 0.0:
            corners.append((x, y))
    return corners


def _centre(polygon: list[Corner]) -> Corner:
    """The centre of gravity of a convex polygon."""
    (a, b), total, along, across = polygon[0], 0.0, 0.0, 0.0
    for (x, y), (u, v) in itertools.pairwise(polygon[1:]):
        area = (x - a) * (v - b) - (y - b) * (u - a)
        total += area
        along += area * (x + u - 2.0 * a)
        across += area * (y + v - 2.0 * b)
    if total <= 0.0:
        return sum(x for x, _ in polygon) / len(polygon), sum(y for _, y in polygon) / len(polygon)
    return a + along / (3.0 * total), b + across / (3.0 * total)
