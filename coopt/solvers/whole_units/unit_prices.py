"""Whole units at given prices, and the price at which a budget buys what it can.

Minimise sum g_i / t_i over whole t_i with sum c_i t_i <= S. At a price y per unit of the budget device i
takes its best number of units on its own, and the dual value

    L(y) = sum_i min_t (g_i / t + y c_i t) - y S

is a lower bound on the value of every plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.whole_units.tangents import Tangent, peak

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Knapsack:
    """Gains g_i >= 0 and costs c_i >= 0 of units, the budget, and 1 <= least <= most units of each device.

    The units `least` fit the budget, up to the rounding of sums; most = least where more units gain nothing.
    """

    gains: Floats
    costs: Floats
    budget: float
    least: Ints
    most: Ints


@dataclass(frozen=True, eq=False)
class Filled:
    """Units t_i within the budget, their value sum g_i / t_i, and a lower bound on every plan's."""

    units: Ints
    value: float
    lower_bound: float


@dataclass(frozen=True, eq=False)
class BestPrice:
    """The best price, the dual value there, what devices take at it, and what they take within the budget."""

    price: float
    dual: float
    units: Ints
    affordable: Ints


def units_at(gains: Floats, prices: Floats | float, least: Ints, most: Ints) -> Ints:
    """Units that each device takes at these prices a unit: all that gain as much as they cost."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        free = np.floor(0.5 + np.sqrt(0.25 + gains / prices))
    # 0 / 0: neither gain nor price, so the least will do; fmax takes it there.
    taken: Floats = np.minimum(np.fmax(free, least), most)
    return taken.astype(np.int64)


def best_price(knapsack: Knapsack, price: float) -> BestPrice:
    """The price with the largest dual value, looked for from `price` on; not all of `most` may fit."""
    gains, costs, budget = knapsack.gains, knapsack.costs, knapsack.budget

    def draw(level: float) -> Tangent[Ints]:
        taken = units_at(gains, level * costs, knapsack.least, knapsack.most)
        over = float(np.sum(costs * taken)) - budget
        return Tangent(level, float(np.sum(gains / taken)) + level * over, over, taken)

    start = price if price > 0.0 else float(np.max(gains)) / budget**2
    found = peak(draw, start, start / math.sqrt(gains.size), (0.0, math.inf))
    # Where no price is high enough only the smallest numbers of units fit.
    affordable = knapsack.least if found.falling is None else found.falling.data
    return BestPrice(found.best.at, found.best.value, found.best.data, affordable)
