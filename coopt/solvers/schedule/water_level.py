"""Batches that are not whole within one budget, again and again while only their largest sizes change.

A batch is clip(level sqrt(w / a), l, u) with the one level at which the budget is spent. From one question to
the next the level changes little, so that Newton's method on the piecewise linear spending starts at the last
one and is there in two or three steps.
"""

from __future__ import annotations

import math

import numpy as np

from coopt.solvers.whole_units.batches import Floats

# By which share the budget may be missed, and after how many steps the search is left to the bracket alone.
ENOUGH, STEPS = 1e-9, 30


class WaterLevel:
    """Minimise sum(weights / s) within sum(costs s) <= spend, for least batches that fit.

    Parameters
    ----------
    weights, costs : ndarray, shape (N,)
        Nonnegative.
    spend : float
    least : ndarray, shape (N,)
    """

    def __init__(self, weights: Floats, costs: Floats, spend: float, least: Floats) -> None:
        self._costs, self._spend, self._least = costs, spend, least
        # What costs nothing is as large as may be; what weighs nothing stays small.
        with np.errstate(divide="ignore", invalid="ignore"):
            self._roots = np.where(weights > 0.0, np.sqrt(weights / costs), 0.0)
            self._slopes = np.where(costs > 0.0, costs * self._roots, 0.0)
        self._last = 1.0

    def under(self, most: Floats) -> tuple[Floats, float]:
        """The batches below their largest sizes, and by how much the value falls per unit of the budget."""
        wanted = np.where(self._roots > 0.0, most, self._least)
        if float(self._costs @ wanted) <= self._spend:
            return wanted, 0.0
        low, high, level = 0.0, math.inf, self._last
        for step in range(2 * STEPS):
            batches = np.minimum(np.maximum(level * self._roots, self._least), most)
            excess = float(self._costs @ batches) - self._spend
            if abs(excess) <= ENOUGH * self._spend:
                break
            low, high = (low, level) if excess > 0.0 else (level, high)
            slope = float(self._slopes @ ((batches > self._least) & (batches < most)))
            level = level - excess / slope if slope > 0.0 and step < STEPS else math.nan
            if not low < level < high:
                level = 2.0 * low if high == math.inf else (low + high) / 2.0
        self._last = level
        return batches, 1.0 / level**2
