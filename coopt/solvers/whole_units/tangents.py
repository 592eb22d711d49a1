"""Where a concave piecewise linear function of one multiplier is largest, from its tangents."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from coopt.solvers.roundoff import LAST_DIGITS

Data = TypeVar("Data")

# Tangents drawn at most, once the peak lies between two of them.
MOST_TANGENTS = 200
# By how much each further step towards the peak is longer.
GROWTH = 8.0


@dataclass(frozen=True)
class Tangent(Generic[Data]):
    """Argument, value and slope, and what they were computed from."""

    at: float
    value: float
    slope: float
    data: Data


@dataclass(frozen=True)
class Peak(Generic[Data]):
    """The tangents next to the largest value; None on a side where the interval ends."""

    rising: Tangent[Data] | None
    falling: Tangent[Data] | None

    @property
    def best(self) -> Tangent[Data]:
        """The one with the larger value."""
        sides = [side for side in (self.falling, self.rising) if side is not None]
        return max(sides, key=lambda side: side.value)


def peak(
    draw: Callable[[float], Tangent[Data]],
    start: float,
    step: float,
    interval: tuple[float, float] = (-math.inf, math.inf),
    enough: float = math.inf,
) -> Peak[Data]:
    """The largest value in the interval, or one that is `enough`.

    Longer and longer steps from `start` find a tangent that rises and one that does not. Between them the
    function is at most where they cross, and is that much there exactly when the crossing is the peak. Where
    the function bends evenly crossings halve what is left; every other time the place where the slope,
    interpolated, is zero is tried instead.
    """
    rising, falling = _bracket(draw, start, step, interval, enough)
    if rising is None or falling is None:
        return Peak(rising, falling)
    for trial in range(MOST_TANGENTS):
        best = max(rising.value, falling.value)
        if falling.slope == 0.0 or best >= enough:
            break
        width, bend = falling.at - rising.at, rising.slope - falling.slope
        crossing = (falling.value - rising.value - falling.slope * width) / bend
        place = rising.at + crossing
        reached = rising.value + rising.slope * crossing - best <= LAST_DIGITS * abs(best)
        if reached or not rising.at < place < falling.at:
            break
        if trial % 2:
            place = rising.at + width * rising.slope / bend
        drawn = draw(place)
        rising, falling = (drawn, falling) if drawn.slope > 0.0 else (rising, drawn)
    return Peak(rising, falling)


def _bracket(
    draw: Callable[[float], Tangent[Data]],
    start: float,
    step: float,
    interval: tuple[float, float],
    enough: float,
) -> tuple[Tangent[Data] | None, Tangent[Data] | None]:
    """Two tangents with the peak between them, or one that is the peak or enough."""
    low, high = interval
    rising, falling = None, None
    drawn = draw(start)
    while True:
        if drawn.slope > 0.0:
            rising = drawn
        else:
            falling = drawn
        ended = drawn.value >= enough or drawn.slope == 0.0
        if ended or (rising is not None and falling is not None):
            return rising, falling
        place = max(drawn.at - step, low) if rising is None else min(drawn.at + step, high)
        if place == drawn.at or not math.isfinite(place):
            return rising, falling
        drawn, step = draw(place), step * GROWTH
