"""A box of plans cut into pieces of one running variable, on each of which the bounds are simple.

The running variable is K where tau is fixed, tau where K is fixed, and the product T = K tau otherwise.
Where one unit costs the same on every device, a step can use only whole units, and pieces end where
their number changes: on such a stair the integer optimum is constant, and only the ends of progress
matter. Elsewhere pieces are single numbers, or a geometric grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.problem.budget import Budget
from coopt.problem.limits import TOLERANCE
from coopt.solvers.roundoff import LOOSENED

Floats = NDArray[np.float64]
Range = tuple[int, int]

# Pieces a box is divided into at most, unless its stairs are the pieces.
MOST_PIECES = 96
MOST_STAIRS = 512


@dataclass(frozen=True)
class Pieces:
    """Pieces of a box, in ascending order, that together hold all its plans.

    Attributes
    ----------
    low, high : ndarray, shape (P,)
        First and last whole value of the running variable.
    first_product, last_product : ndarray, shape (P,)
        Range of K tau.
    least_steps, most_steps : ndarray, shape (P,)
        Range of tau.
    units : ndarray, shape (P,)
        The most units that a step of a plan in the piece can use; inf where units cost differently.
    stairs : bool
        Whether pieces are stairs, on which the best plan has the largest product.
    """

    low: Floats
    high: Floats
    first_product: Floats
    last_product: Floats
    least_steps: Floats
    most_steps: Floats
    units: Floats
    stairs: bool


def divide(
    rounds: Range,
    local_steps: Range,
    budget: Budget,
    unit_cost: float | None,
    most: int,
    step_cost: float = 0.0,
) -> Pieces:
    """Divide the plans with K and tau in these ranges into at most about `most` pieces.

    Parameters
    ----------
    rounds, local_steps : tuple of int
    budget : Budget
    unit_cost : float or None
        What one unit costs where that is the same on every device.
    most : int
    step_cost : float
        What one local step costs before its samples.
    """
    limit, extra = budget.cost * (1.0 + TOLERANCE), budget.round_cost
    (k1, k2), (t1, t2) = rounds, local_steps

    def units_at(low: Floats) -> Floats:
        """Most units of a step from `low` on."""
        if unit_cost is None or limit == math.inf:
            return np.full_like(low, math.inf)
        if t1 == t2:
            spend = (limit / low - extra) / t1
        elif k1 == k2:
            spend = (limit / k1 - extra) / low
        else:
            spend = limit / low - extra / t2
        return np.floor((spend * (1.0 + LOOSENED) - step_cost) / unit_cost + 1e-9)

    def last_with(units: Floats) -> Floats:
        """Last value of the running variable at which a step can use so many units."""
        used = float(unit_cost or 0.0) * units + step_cost
        if t1 == t2:
            quotient = limit / (t1 * used + extra)
        elif k1 == k2:
            quotient = (limit / k1 - extra) / used
        else:
            quotient = np.minimum(limit / (used + extra / t2), (limit - extra * k1) / used)
        return np.floor(quotient * (1.0 + LOOSENED))

    first, last = (k1, k2) if t1 == t2 else (t1, t2) if k1 == k2 else (k1 * t1, k2 * t2)
    ends = units_at(np.array([first, last], dtype=np.float64))
    stairs = bool(np.isfinite(ends).all()) and ends[0] - ends[1] < MOST_STAIRS and ends[1] >= 1.0
    if stairs and last - first >= ends[0] - ends[1]:
        units = np.arange(ends[0], ends[1] - 1.0, -1.0)
        high = np.minimum(last_with(units), last)
        high[-1] = last
        low = np.concatenate([[first], high[:-1] + 1.0])
        filled = low <= high
        low, high, units = low[filled], high[filled], units[filled]
    else:
        stairs = False
        if last - first < most:
            low = np.arange(first, last + 1, dtype=np.float64)
            high = low
        else:
            low = np.unique(np.floor(np.geomspace(float(first), float(last), most)))
            low[0] = first
            high = np.concatenate([low[1:] - 1.0, [float(last)]])
        units = units_at(low)
    scale = t1 if t1 == t2 else k1 if k1 == k2 else 1
    one_round = k1 == k2 and t1 < t2
    return Pieces(
        low=low,
        high=high,
        first_product=low * scale,
        last_product=high * scale,
        least_steps=low if one_round else np.full_like(low, t1),
        most_steps=high if one_round else np.full_like(low, t2),
        units=units,
        stairs=stairs,
    )
