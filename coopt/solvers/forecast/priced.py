"""Lower bounds on sum w_i / s_i over whole batches, for many rounds at once.

At a price y per unit of the budget device i takes its best number of units on its own, and

    L(y) = sum_i min_t (g_i / t + y c_i t) - y S

bounds the value of every plan within the budget from below, whatever y is. The price at which the continuous
optimum spends the budget is found for all columns together, by a few steps of Newton's method.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS = 12
# How nearly the continuous optimum has to spend the budget: a price next to the best one bounds as well.
CLOSE = 1e-2


def lower_bounds(gains: Floats, costs: Floats, budgets: Floats, least: Floats, most: Floats) -> Floats:
    """A lower bound for every column.

    Parameters
    ----------
    gains : ndarray, shape (N, k)
        g_i >= 0 of a unit.
    costs : ndarray, shape (N, 1)
        c_i >= 0 of a unit.
    budgets : ndarray, shape (k,)
        S; inf where nothing limits the units.
    least, most : ndarray, shapes (N, 1) and (N, k) or (N, 1)
        1 <= least <= t <= most. The units `least` fit each budget, up to the rounding of sums.

    Returns
    -------
    ndarray, shape (k,)
    """
    tight = np.flatnonzero(np.broadcast_to((costs * most).sum(axis=0), budgets.shape) > budgets)
    bounds: Floats = (gains / most).sum(axis=0)
    if tight.size == 0:
        return bounds
    most = np.broadcast_to(most, gains.shape)[:, tight]
    gains, budgets = gains[:, tight], budgets[tight]
    levels = _levels(gains, costs, budgets, least, most)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        prices = levels**-2.0
        free = np.floor(0.5 + np.sqrt(0.25 + gains / (prices * costs)))
        units = np.clip(np.nan_to_num(free, nan=0.0, posinf=np.inf), least, most)
        spent = (costs * units).sum(axis=0)
        priced = (gains / units).sum(axis=0) + prices * (spent - budgets)
    # Prices beyond float64 prove nothing.
    bounds[tight] = np.fmax(bounds[tight], priced)
    return bounds


def _levels(gains: Floats, costs: Floats, budgets: Floats, least: Floats, most: Floats) -> Floats:
    """Levels y^(-1/2) at which t_i = clip(level sqrt(g_i / c_i), least, most) spends the budget, nearly."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.nan_to_num(np.sqrt(gains / costs), nan=0.0, posinf=np.inf)
    rates = np.sqrt(gains * costs)
    total = rates.sum(axis=0)
    levels = budgets / np.where(total > 0.0, total, 1.0)
    low, high = np.zeros_like(levels), np.full_like(levels, np.inf)
    for _ in range(STEPS):
        with np.errstate(invalid="ignore"):
            wanted = np.nan_to_num(levels * shares, nan=0.0, posinf=np.inf)
        units = np.clip(wanted, least, most)
        over = (costs * units).sum(axis=0) - budgets
        if bool((np.abs(over) <= CLOSE * budgets).all()):
            break
        np.copyto(low, levels, where=over < 0.0)
        np.copyto(high, levels, where=over > 0.0)
        slope = np.where((wanted > least) & (wanted < most), rates, 0.0).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = levels - over / slope
        outside = ~((newton > low) & (newton < high))
        with np.errstate(invalid="ignore"):
            middle = np.where(high < np.inf, np.sqrt(np.maximum(low, high * 1e-6) * high), 2.0 * low)
        levels = np.where(outside, middle, newton)
    return levels
