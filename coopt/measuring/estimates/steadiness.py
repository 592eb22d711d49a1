"""How much a new reading of a device counts, where devices are steady for long and then change at once.

While a device stays as it is, the mean of all readings is the best estimate, and each new one counts less.
When it changes, old readings mislead, and only new ones should count. So readings count alike until they lean
to one side: the average of how far the last few lay from what was expected, in standard deviations, is small
as long as nothing changes, whatever the noise (a control chart of moving averages; Roberts, Technometrics
1(3), 1959). A single reading is held to a few standard deviations, and so decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.problem.saved_state import numbers, table, wholes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Devices also drift, by about so much from one reading to the next. As in a Kalman filter, a reading counts
# at least as much as this is of its spread: within these limits, so that 2 to 20 readings are averaged.
DRIFT, LEAST_WEIGHT, LARGEST_LEAST = 0.01, 0.05, 0.5
# Weight of a reading in the average that shows a change, and how far off that average is one: chance alone
# takes it there once in a thousand readings, two that are far off on the same side do so at once.
LEANING, CHANGED = 0.3, 1.5
# Standard deviations to which a single reading is held.
FAR = 3.0
# What the reading that shows a change counts, and how many readings the level then stands for.
AT_ONCE, AFTER = 0.8, 2.0
# The standard deviation that is reckoned with at first, as if one reading had shown it, and the least.
USUAL_SPREAD, LEAST_SPREAD = 0.15, 0.02
# A reading counts at least this much in the spread, and at most so many spreads: beyond, it is a change or a
# straggler, and says nothing of what is usual.
SPREAD_WEIGHT, USUAL = 0.1, 2.0
LARGEST_SPREAD = 1000.0  # of logarithms of floating-point numbers, and more


@dataclass(frozen=True, eq=False)
class Steadiness:
    """Of each device, how long it has been as it is, and how much its readings vary.

    Attributes
    ----------
    count : numpy.ndarray of int64, shape (N,)
        Readings taken in.
    since : numpy.ndarray, shape (N,)
        Readings that its level stands for.
    lean : numpy.ndarray, shape (N,)
        How far the last readings lay from the level, on average, in standard deviations.
    spread : numpy.ndarray, shape (N,)
        Standard deviation of a reading.

    Examples
    --------
    A straggler is not followed, a change is:

    >>> steady, level, levels = Steadiness.empty(1), 0.0, []
    >>> for reading in (5.0, 5.1, 4.9, 9.0, 5.0, 9.0, 9.1):
    ...     steady, weight = steady.weigh(np.array([0]), np.array([reading - level]))
    ...     level += float(weight[0]) * (reading - level)
    ...     levels.append(round(level, 1))
    >>> levels
    [5.0, 5.0, 5.0, 5.1, 5.1, 5.1, 8.3]
    """

    count: Ints
    since: Floats
    lean: Floats
    spread: Floats

    @classmethod
    def empty(cls, devices: int) -> Self:
        """Nothing was read of any device."""
        zero = np.zeros(devices)
        return cls(np.zeros(devices, dtype=np.int64), zero, zero, np.full(devices, USUAL_SPREAD))

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Of which devices anything was read, shape (N,)."""
        return np.asarray(self.count > 0)

    def weigh(self, devices: Ints, far: Floats) -> tuple[Self, Floats]:
        """Take in a reading of some devices.

        Parameters
        ----------
        devices : numpy.ndarray of int, shape (m,)
        far : numpy.ndarray, shape (m,)
            How far the reading lies from the level; no matter for the first one.

        Returns
        -------
        steady : Steadiness
        weights : numpy.ndarray, shape (m,)
            By what share of that distance the level moves.
        """
        count, since, spread = self.count[devices], self.since[devices], self.spread[devices]
        # The level is an average of readings, and so uncertain itself: this part is the reading's own.
        own = np.where(count > 0, far * np.sqrt(since / (since + 1.0)), 0.0)
        lean = (1.0 - LEANING) * self.lean[devices] + LEANING * np.clip(own / spread, -FAR, FAR)
        changed = np.abs(lean) > CHANGED
        least = np.clip(DRIFT / spread, LEAST_WEIGHT, LARGEST_LEAST)
        with np.errstate(divide="ignore"):
            held = np.where(count > 0, np.minimum(FAR * spread / np.abs(far), 1.0), 1.0)
        weights = np.where(changed, AT_ONCE, held * np.maximum(1.0 / (since + 1.0), least))
        usual = np.minimum(own**2, (USUAL * spread) ** 2)
        share = np.maximum(1.0 / (count + 1.0), SPREAD_WEIGHT)
        wider = np.maximum(np.sqrt(spread**2 + share * (usual - spread**2)), LEAST_SPREAD)
        values = {
            "count": count + 1,
            "since": np.where(changed, AFTER, np.minimum(since + 1.0, 1.0 / least)),
            "lean": lean,
            "spread": np.where(count > 0, wider, spread),
        }
        return type(self)(
            **{name: put(getattr(self, name), devices, new) for name, new in values.items()}
        ), weights

    def joined(self, other: Steadiness) -> Self:
        """More devices appended."""
        pairs = ((getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return type(self)(*(np.concatenate(pair) for pair in pairs))

    def state_dict(self) -> dict[str, Any]:
        """Lists that `restored` turns back into the same, bit for bit."""
        return {each.name: getattr(self, each.name).tolist() for each in fields(self)}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of so many devices; `place` is for messages."""
        shape = self.count.shape
        return type(self)(
            **table(
                place,
                state,
                {
                    "count": wholes(shape),
                    "since": numbers(shape, minimum=0.0, largest=1.0 / LEAST_WEIGHT),
                    "lean": numbers(shape, largest=FAR),
                    "spread": numbers(shape, minimum=LEAST_SPREAD, largest=LARGEST_SPREAD),
                },
            )
        )


def put(array: npt.NDArray[Any], places: Ints, values: npt.NDArray[Any]) -> Any:
    """A copy of an array with some of its values changed."""
    changed = array.copy()
    changed[places] = values
    return changed
