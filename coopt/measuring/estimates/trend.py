"""The current value of a quantity that moves while it is measured with noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from coopt.measuring.estimates.average import Average
from coopt.measuring.estimates.regression import FadingLine
from coopt.problem.saved_state import anything, consistent, listed, table, whole

DECAYS = (0.95, 0.9, 0.8)
LINE_DECAY = 0.7
# Standard errors of a shorter window by which a longer one may differ from it; more for the rough line.
CONTRADICTION, LINE_CONTRADICTION = 2.0, 3.0


class Estimate(NamedTuple):
    """A number and its standard error, infinite where nothing was observed."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Trend:
    """The longest average that the shorter ones, and the recent trend, do not contradict.

    Attributes
    ----------
    count : int
        Observations so far.
    averages : tuple of Average
        From the longest window, precise but late when the quantity moves, to the shortest.
    line : FadingLine
        Straight line through the last few observations over their number: noisy, but not late.

    Notes
    -----
    Lepski's choice of a bandwidth: a window is rejected if it lies more than two standard errors of a shorter
    one away from that one, or three of the line's; if all are rejected the line's value now is taken.

    Examples
    --------
    >>> falling = steady = Trend.empty()
    >>> for k in range(30):
    ...     falling, steady = falling.add(30.0 - k), steady.add(7.0 + (-1) ** k)
    >>> round(falling.now.value, 6), abs(steady.now.value - 7) < 0.1
    (1.0, True)
    """

    count: int
    averages: tuple[Average, ...]
    line: FadingLine

    @classmethod
    def empty(cls) -> Self:
        """Know nothing yet."""
        return cls(0, tuple(Average.empty(decay) for decay in DECAYS), FadingLine(LINE_DECAY))

    def add(self, value: float) -> Self:
        """Trend with one more observation."""
        return replace(
            self,
            count=self.count + 1,
            averages=tuple(average.add(value) for average in self.averages),
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
        best = Estimate(*self.line.at(self.count - 1.0))
        limits = [(best, LINE_CONTRADICTION)] if math.isfinite(best.standard_error) else []
        for average in reversed(self.averages):
            found = Estimate(float(average.mean), float(average.standard_error))
            if any(abs(found.value - short.value) > k * short.standard_error for short, k in limits):
                break
            best = found
            limits.append((found, CONTRADICTION))
        return best

    def state_dict(self) -> dict[str, Any]:
        """Numbers that `restored` turns back into the same trend, bit for bit."""
        return {
            "count": self.count,
            "averages": [average.state_dict() for average in self.averages],
            "line": self.line.state_dict(),
        }

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of a trend with these windows; `place` is for messages."""
        read = table(
            place, state, {"count": whole(), "averages": listed(anything), "line": self.line.restored}
        )
        saved = read["averages"]
        consistent(
            f"{place}.averages", len(saved) == len(self.averages), f"there are {len(self.averages)} windows"
        )
        averages = tuple(
            like.restored(f"{place}.averages[{i}]", each)
            for i, (like, each) in enumerate(zip(self.averages, saved, strict=True))
        )
        known = read["count"] > 0
        consistent(
            f"{place}.count",
            all(bool(average.known) == known for average in averages) and (read["line"].weight > 0) == known,
            "every window and the line have seen what was counted",
        )
        return replace(self, count=read["count"], averages=averages, line=read["line"])
