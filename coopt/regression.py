"""A straight line through points that arrive one by one and fade with time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self


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

    def add(self, x: float, y: float) -> Self:
        """Line with one more point."""
        past = self.decay * self.weight
        weight = past + 1
        dx, dy, share = x - self.x, y - self.y, past / weight
        return type(self)(
            decay=self.decay,
            weight=weight,
            squares=self.decay**2 * self.squares + 1,
            x=self.x + dx / weight,
            y=self.y + dy / weight,
            xx=self.decay * self.xx + share * dx * dx,
            xy=self.decay * self.xy + share * dx * dy,
            yy=self.decay * self.yy + share * dy * dy,
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

    def state_dict(self) -> dict[str, Any]:
        """Numbers that ``FadingLine(**state)`` turns back into the same line, bit for bit."""
        return asdict(self)
