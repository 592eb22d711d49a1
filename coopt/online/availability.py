"""When devices are there: at night, while they charge, in the hours of a site."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem.readable import readable
from coopt.problem.validation import float_array, numeric_array, real, same_value

Floats = npt.NDArray[np.float64]


@readable
@dataclass(frozen=True, init=False, eq=False)
class Availability:
    """The times at which each device is there.

    Parameters
    ----------
    opens, closes : array_like, shape (N,) or scalar
        From when until when, after the beginning of each period; a device that closes before it opens is
        there over the end of the period [s].
    period : float, default inf
        After so long it begins again, such as 86,400 for a day; infinite: the times are there once [s].
    begins : float, default 0
        When training begins, after the beginning of a period [s].

    Raises
    ------
    InvalidProblemError
        If a value is out of range.

    Examples
    --------
    Phones that are there from ten in the evening to six in the morning; training begins at noon.

    >>> from coopt import Availability
    >>> hour = 3600.0
    >>> phones = Availability(22 * hour, 6 * hour, period=24 * hour, begins=12 * hour)
    >>> phones.there(0.0), phones.there(12 * hour), phones.next_change(0.0) / hour
    (array([False]), array([ True]), 10.0)
    >>> phones.seconds(24 * hour) / hour
    array([8.])
    """

    __module__ = "coopt"

    opens: Floats
    closes: Floats
    period: float
    begins: float

    def __init__(
        self,
        opens: npt.ArrayLike = 0.0,
        closes: npt.ArrayLike = math.inf,
        period: float = math.inf,
        *,
        begins: float = 0.0,
    ) -> None:
        size = max(numeric_array("opens", opens).size, numeric_array("closes", closes).size)
        length = real("period", period, minimum=0.0, strict=True, infinite=True)
        first = float_array("opens", opens, size, minimum=0.0)
        last = float_array("closes", closes, size, minimum=0.0, infinite=True)
        if math.isinf(length) and np.any(last <= first):
            device = int(np.argmax(last <= first))
            raise InvalidProblemError(
                f"closes[{device}] = {float(last[device])!r}: must be after opens[{device}] = "
                f"{float(first[device])!r}; give a period if the device is there over its end"
            )
        last = np.minimum(last, length)
        for name, value in (("opens", first), ("closes", last)):
            if math.isfinite(length) and np.any(value > length):
                device = int(np.argmax(value > length))
                raise InvalidProblemError(
                    f"{name}[{device}] = {float(value[device])!r}: must be <= period = {length!r}"
                )
            object.__setattr__(self, name, value)
        object.__setattr__(self, "period", length)
        object.__setattr__(self, "begins", real("begins", begins, minimum=0.0))

    def __eq__(self, other: object) -> bool:
        """Tell whether all times agree."""
        return same_value(self, other)

    def of(self, devices: int) -> Availability:
        """The same for so many devices; raises InvalidProblemError if it names another number."""
        if len(self.opens) not in (1, devices):
            raise InvalidProblemError(
                f"availability names {len(self.opens)} devices, the fleet has {devices}: give as many"
            )
        opens, closes = (np.broadcast_to(value, devices) for value in (self.opens, self.closes))
        return Availability(opens, closes, self.period, begins=self.begins)

    def first(self, devices: int) -> Availability:
        """The same of the first devices."""
        if len(self.opens) == 1:
            return self
        return Availability(self.opens[:devices], self.closes[:devices], self.period, begins=self.begins)

    def joined_by(self, newcomers: int) -> Availability:
        """The same with so many devices more, which are always there unless it is the same for all."""
        if len(self.opens) == 1:
            return self
        opens = np.append(self.opens, np.zeros(newcomers))
        closes = np.append(self.closes, np.full(newcomers, self.period))
        return Availability(opens, closes, self.period, begins=self.begins)

    def there(self, seconds: float) -> npt.NDArray[np.bool_]:
        """Which devices are there so long after the beginning of training, shape (N,)."""
        now = self.begins + seconds
        now = now % self.period if math.isfinite(self.period) else now
        inside = (self.opens <= now) & (now < self.closes)
        over = (self.opens <= now) | (now < self.closes)
        there: npt.NDArray[np.bool_] = np.where(self.closes > self.opens, inside, over)
        return there

    def next_change(self, seconds: float) -> float:
        """When a device next comes or goes, after the beginning of training; infinite for never [s]."""
        now = self.begins + seconds
        edges = np.unique(np.concatenate([self.opens, self.closes]))
        if math.isinf(self.period):
            later = edges[edges > now]
            return float(later[0]) - self.begins if later.size else math.inf
        turn = now // self.period
        candidates = np.concatenate([(turn + k) * self.period + edges for k in (0, 1)])
        return float(candidates[candidates > now].min()) - self.begins

    def seconds(self, until: float) -> Floats:
        """How long each device is there from the beginning of training until then, shape (N,) [s]."""
        return self._since_zero(self.begins + until) - self._since_zero(self.begins)

    def _since_zero(self, time: float) -> Floats:
        if math.isinf(self.period):
            once: Floats = np.clip(time, self.opens, self.closes) - self.opens
            return once
        turns, rest = divmod(time, self.period)
        low, high = np.minimum(self.opens, self.closes), np.maximum(self.opens, self.closes)
        within = turns * (high - low) + np.clip(rest, low, high) - low
        there: Floats = np.where(self.closes > self.opens, within, time - within)
        return there
