"""The current value of a quantity that moves while it is measured with noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from coopt.average import Average
from coopt.regression import FadingLine

LONG_DECAY, SHORT_DECAY = 0.9, 0.7
CONTRADICTION = 3.0  # standard errors


class Estimate(NamedTuple):
    """A number and its standard error, infinite where nothing was observed."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Trend:
    """A long average, unless the recent trend contradicts it.

    Attributes
    ----------
    count : int
        Observations so far.
    average : Average
        Long average: precise, but late when the quantity moves.
    line : FadingLine
        Straight line through the recent observations over their number: noisy, but not late.

    Notes
    -----
    The line's value now is taken if the average lies more than three of its standard errors away, in the
    manner of Lepski's choice of a bandwidth.

    Examples
    --------
    >>> falling = steady = Trend.empty()
    >>> for k in range(30):
    ...     falling, steady = falling.add(30.0 - k), steady.add(7.0 + (-1) ** k)
    >>> round(falling.now.value, 6), abs(steady.now.value - 7) < 0.1
    (1.0, True)
    """

    count: int
    average: Average
    line: FadingLine

    @classmethod
    def empty(cls) -> Self:
        """Know nothing yet."""
        return cls(0, Average.empty(LONG_DECAY), FadingLine(SHORT_DECAY))

    def add(self, value: float) -> Self:
        """Trend with one more observation."""
        return replace(
            self,
            count=self.count + 1,
            average=self.average.add(value),
            line=self.line.add(float(self.count), value),
        )

    @property
    def known(self) -> bool:
        """Whether anything was observed."""
        return self.count > 0

    @property
    def now(self) -> Estimate:
        """Current value with its standard error."""
        if not self.count:
            return Estimate(math.nan, math.inf)
        average = Estimate(float(self.average.mean), float(self.average.standard_error))
        value, error = self.line.at(self.count - 1.0)
        if math.isfinite(error) and abs(average.value - value) > CONTRADICTION * error:
            return Estimate(value, error)
        return average

    def state_dict(self) -> dict[str, Any]:
        """Numbers that `from_state` turns back into the same trend, bit for bit."""
        return {"count": self.count, "average": self.average.state_dict(), "line": self.line.state_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild what `state_dict` wrote."""
        return cls(int(state["count"]), Average.from_state(state["average"]), FadingLine(**state["line"]))
