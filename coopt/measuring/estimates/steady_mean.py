"""The mean of the seconds that each device takes, which follows changes at once and stragglers never."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.steadiness import Steadiness, put
from coopt.problem.saved_state import consistent, numbers, table

Floats = npt.NDArray[np.float64]

# Smaller seconds are none: of zero there is no logarithm.
SMALLEST = 1e-6


@dataclass(frozen=True, eq=False)
class SteadyMean:
    """A geometric mean of the seconds of each device.

    Attributes
    ----------
    mean : numpy.ndarray, shape (N,)
        0 where nothing was observed [s].
    steady : Steadiness
        How long it has held, and how much the logarithms of seconds vary.

    Examples
    --------
    >>> mean = SteadyMean.empty(1)
    >>> for seconds in (2.0, 2.2, 1.8, 9.0):  # the last one a straggler
    ...     mean = mean.add(np.array([seconds]), np.array([True]))
    >>> mean.mean.round(2)
    array([2.18])
    """

    mean: Floats
    steady: Steadiness

    @classmethod
    def empty(cls, devices: int) -> Self:
        """Nothing was observed of any device."""
        return cls(np.zeros(devices), Steadiness.empty(devices))

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Of which devices anything was observed, shape (N,)."""
        return self.steady.known

    def add(self, values: Floats, observed: npt.NDArray[np.bool_]) -> Self:
        """The same with one more value of the devices that were observed."""
        seen = np.flatnonzero(observed)
        mean, new = self.mean[seen], values[seen]
        before = np.maximum(mean, SMALLEST)
        ratio = np.log(np.maximum(new, SMALLEST) / before)
        steady, weights = self.steady.weigh(seen, ratio)
        moved = np.where(self.known[seen], before * np.exp(weights * ratio), new)
        moved = np.where(moved <= SMALLEST, 0.0, moved)
        return type(self)(put(self.mean, seen, moved), steady)

    def joined(self, other: SteadyMean) -> Self:
        """The means of more devices appended."""
        return type(self)(np.concatenate([self.mean, other.mean]), self.steady.joined(other.steady))

    def state_dict(self) -> dict[str, Any]:
        """Lists that `restored` turns back into the same, bit for bit."""
        return {"mean": self.mean.tolist(), "steady": self.steady.state_dict()}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of so many devices; `place` is for messages."""
        readers = {"mean": numbers(self.mean.shape), "steady": self.steady.restored}
        made = type(self)(**table(place, state, readers))
        consistent(f"{place}.mean", made.known | (made.mean == 0.0), "it is 0 where nothing was observed")
        return made
