"""A straight line through points that arrive one by one and fade with time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from coopt.problem.saved_state import LARGEST_SAVED, consistent, number, same, table

ROUNDING = 1e-6


@dataclass(frozen=True)
class FadingLine:
    """Exponentially weighted least squares of y on x, updated in O(1).

    Attributes
    ----------
    decay : float
        Weight of the past in [0, 1).
    weight, squares : float
        Sum of the weights and of their squares.
    x, y : float
        Weighted means.
    xx, xy, yy : float
        Weighted sums of products of deviations from the means.

    Examples
    --------
    >>> line = FadingLine(decay=0.9)
    >>> for x in (3.0, 2.0, 1.5):
    ...     line = line.add(x, 2 * x - 1)
    >>> round(line.slope, 9), line.slope_error < 1e-6
    (2.0, True)
    """

    decay: float
    weight: float = 0.0
    squares: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    def add(self, x: float, y: float, weight: float = 1.0) -> Self:
        """Line with one more point, of a weight inversely proportional to the variance of its y."""
        # A point that says little about the slope makes little of the past forgotten.
        news = weight * (x - self.x) ** 2
        usual = (1 - self.decay) * self.xx
        decay = self.decay ** min(news / usual, 1.0) if usual > 0 else 1.0
        past = decay * self.weight
        total = past + weight
        dx, dy, share = x - self.x, y - self.y, past / total * weight
        return type(self)(
            decay=self.decay,
            weight=total,
            squares=decay**2 * self.squares + weight**2,
            x=self.x + dx * weight / total,
            y=self.y + dy * weight / total,
            xx=decay * self.xx + share * dx * dx,
            xy=decay * self.xy + share * dx * dy,
            yy=decay * self.yy + share * dy * dy,
        )

    @property
    def slope(self) -> float:
        """Slope of the line; NaN while there is only one x."""
        return self.xy / self.xx if self.xx > 0 else math.nan

    @property
    def slope_error(self) -> float:
        """Standard error of the slope, from the scatter around the line; infinite for fewer than three."""
        count = self.weight**2 / self.squares if self.squares else 0.0
        if count <= 2 or self.xx <= 0:
            return math.inf
        residual = max(self.yy - self.xy**2 / self.xx, 0.0)
        return math.sqrt(residual / self.weight * count / (count - 2) / (self.xx / self.weight) / count)

    def at(self, x: float) -> tuple[float, float]:
        """Height of the line and its standard error, infinite for fewer than three points."""
        error = self.slope_error
        if not math.isfinite(error):
            return self.y, math.inf
        # The variance of the mean is that of the slope times the mean square deviation of x.
        level = error * math.sqrt(self.xx / self.weight)
        return self.y + self.slope * (x - self.x), math.hypot(level, error * (x - self.x))

    def state_dict(self) -> dict[str, Any]:
        """Numbers that `restored` turns back into the same line, bit for bit."""
        return asdict(self)

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of a line with this decay; `place` is for messages."""
        sums = ("weight", "squares", "xx", "yy")
        read = table(
            place,
            state,
            {
                "decay": same(self.decay),
                **{name: number(minimum=0.0, largest=LARGEST_SAVED**2) for name in sums},
                **{name: number() for name in ("x", "y")},
                "xy": number(largest=LARGEST_SAVED**2),
            },
        )
        line = type(self)(**read)
        consistent(
            f"{place}.squares",
            (line.squares > 0) == (line.weight > 0) and line.squares <= (1 + ROUNDING) * line.weight**2,
            "a sum of squares is at most the square of the sum, and both are 0 without a point",
        )
        # In this order no product overflows.
        product = math.sqrt(line.xx) * math.sqrt(line.yy)
        consistent(f"{place}.xy", abs(line.xy) <= (1 + ROUNDING) * product, "|xy| is at most sqrt(xx yy)")
        known = line.weight > 0 or line.x == line.y == line.xx == line.yy == 0
        consistent(f"{place}.x", known, "all is 0 without a point")
        return line
