"""How long a device takes for a step whatever its batch, and for each sample, told apart.

A round of n gradients over m samples takes n alpha + m / pi = (n r + m) / pi seconds, where r = alpha pi says
how many samples the fixed part of a step is worth. One batch size tells nothing of r, several do: with the
right r the seconds per n r + m are the same in every round. So for each r of a grid these are followed in
logarithms, in which times spread evenly, and the r under which they were predicted best is believed. A device
that becomes slower as a whole surprises all r alike, and a straggler counts no more than a bounded loss:
neither bends the answer. With few rounds, or one batch size, many r do equally well, and the standard error
says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.steadiness import Steadiness, put
from coopt.problem.saved_state import consistent, numbers, table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# What the fixed part of a step may be worth: nothing, or from a quarter of a sample to 65,536.
WORTH = np.concatenate([[0.0], 2.0 ** np.arange(-2.0, 16.25, 0.5)])
# So much of what was learned of r is forgotten by a report that says much about it.
FORGET = 0.05
# Degrees of freedom of Student's law, by which a residual is no worse than its logarithm.
FREEDOM = 3.0
# A belief about r from before training is held to be right within this factor of e.
BELIEF = 1.0
# Without a belief, how much better two numbers have to predict than one, in units of the loss.
SIMPLER = 1.5
LARGEST_LOGARITHM = 1000.0  # of a floating-point number, and more


@dataclass(frozen=True, eq=False)
class StepTiming:
    """What is known of the times of each device.

    Attributes
    ----------
    steady : Steadiness
        Rounds taken in, and how much the logarithms of seconds vary.
    level : numpy.ndarray, shape (N, G)
        Logarithm of the seconds per sample, for each worth of a step in ``WORTH``.
    loss : numpy.ndarray, shape (N, G)
        How badly each of them predicted, minus the logarithm of what was believed beforehand.
    batch : numpy.ndarray, shape (N,)
        Samples per gradient of the last round.

    Examples
    --------
    >>> timing = StepTiming.empty([0.0])
    >>> for batch in (8, 32, 16, 8, 24, 12):
    ...     timing = timing.add([5 * (0.03 + batch / 2000)], [5], [5 * batch])
    >>> alpha, per_sample = timing.seconds()
    >>> bool(abs(alpha[0] - 0.03) < 0.001), bool(abs(1 / per_sample[0] - 2000) < 100)
    (True, True)
    """

    steady: Steadiness
    level: Floats
    loss: Floats
    batch: Floats

    @classmethod
    def empty(cls, worth: npt.ArrayLike) -> Self:
        """Know nothing but how many samples a step is believed to be worth, shape (N,); 0: no idea."""
        believed = np.asarray(worth, dtype=np.float64)
        size = believed.size
        loss = np.zeros((size, WORTH.size))
        some = (believed > 0) & np.isfinite(believed)
        with np.errstate(divide="ignore"):
            far = (np.log(WORTH) - np.log(np.where(some, believed, 1.0))[:, None]) / BELIEF
        loss[some] = (0.5 * far**2)[some]
        # Without any idea, one number for the speed is the simplest that there is.
        loss[~some, 1:] = SIMPLER
        return cls(
            steady=Steadiness.empty(size),
            level=np.zeros((size, WORTH.size)),
            loss=loss,
            batch=np.ones(size),
        )

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Of which devices any time is known."""
        return self.steady.known

    @property
    def spread(self) -> Floats:
        """Standard deviation of the logarithm of each device's seconds, shape (N,)."""
        return self.steady.spread

    def add(self, seconds: npt.ArrayLike, gradients: npt.ArrayLike, samples: npt.ArrayLike) -> Self:
        """Take in a round of every device; see `add_of`."""
        return self.add_of(np.arange(self.batch.size), seconds, gradients, samples)

    def add_of(
        self,
        devices: Ints,
        seconds: npt.ArrayLike,
        gradients: npt.ArrayLike,
        samples: npt.ArrayLike,
    ) -> Self:
        """Take in a round of some devices.

        Parameters
        ----------
        devices : numpy.ndarray of int, shape (m,)
        seconds, gradients, samples : array_like, shape (m,)
            Seconds of computing, gradients evaluated and samples in them. NaN, or no time at all, says
            nothing of a device.
        """
        took, count, work = (np.asarray(each, dtype=np.float64) for each in (seconds, gradients, samples))
        usable = np.isfinite(took + count + work) & (took > 0) & (count > 0) & (work > 0)
        seen, took, count, work = devices[usable], took[usable], count[usable], work[usable]
        each = np.log(took)[:, None] - np.log(count[:, None] * WORTH + work[:, None])
        first = ~self.known[seen]
        level, spread = self.level[seen], self.spread[seen]
        residual = np.where(first[:, None], 0.0, each - level)
        surprise = (FREEDOM + 1) / 2 * np.log1p((residual / spread[:, None]) ** 2 / FREEDOM)
        surprise -= surprise.min(axis=1, keepdims=True)
        loss = self.loss[seen]
        kept = 1 - FORGET * np.minimum(surprise.max(axis=1, keepdims=True), 1.0)
        loss = kept * loss + surprise
        best = np.take_along_axis(residual, loss.argmin(axis=1)[:, None], axis=1)[:, 0]
        steady, weights = self.steady.weigh(seen, best)
        return replace(
            self,
            steady=steady,
            level=put(self.level, seen, level + weights[:, None] * (each - level)),
            loss=put(self.loss, seen, loss),
            batch=put(self.batch, seen, work / count),
        )

    def joined(self, other: StepTiming) -> Self:
        """The times of more devices appended."""
        arrays = (np.concatenate([getattr(self, each), getattr(other, each)]) for each in _ARRAYS)
        return type(self)(self.steady.joined(other.steady), *arrays)

    def seconds(self) -> tuple[Floats, Floats]:
        """Seconds alpha of a step whatever its batch, and 1 / pi of each sample, shape (N,)."""
        rows = np.arange(self.batch.size)
        place, shift = self._best()
        # Between two neighbours in the grid everything is smooth in the logarithm of r.
        other = np.clip(place + np.where(shift < 0, -1, 1), 0, WORTH.size - 1)
        level = self.level[rows, place]
        level = level + np.abs(shift) * (self.level[rows, other] - level)
        with np.errstate(divide="ignore"):
            worth = np.exp(np.log(WORTH[place]) + np.where(shift == 0, 0.0, shift * (np.log(2.0) / 2)))
        per_sample = np.where(self.known, np.exp(level), 0.0)
        return worth * per_sample, per_sample

    def fixed_share(self) -> tuple[Floats, Floats]:
        """The fixed part of a step of the last batch, between 0 and 1, and its standard error, shape (N,).

        The error is infinite for a device whose times are not known.
        """
        share = WORTH / (WORTH + self.batch[:, None])
        likely = np.exp(-(self.loss - self.loss.min(axis=1, keepdims=True)))
        likely /= likely.sum(axis=1, keepdims=True)
        mean = np.sum(likely * share, axis=1)
        variance = np.sum(likely * (share - mean[:, None]) ** 2, axis=1)
        return mean, np.where(self.known, np.sqrt(variance), np.inf)

    def _best(self) -> tuple[Ints, Floats]:
        """The best r in the grid, and how far between its neighbours the minimum of a parabola lies."""
        rows, place = np.arange(self.batch.size), self.loss.argmin(axis=1)
        inside = (place > 1) & (place < WORTH.size - 1)
        at = np.clip(place, 1, WORTH.size - 2)
        below, here, above = (self.loss[rows, at + k] for k in (-1, 0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            bend = below - 2 * here + above
            shift = np.where(inside & (bend > 0), (below - above) / (2 * bend), 0.0)
        return place, np.clip(shift, -0.5, 0.5)

    def state_dict(self) -> dict[str, Any]:
        """Lists that `restored` turns back into the same, bit for bit."""
        arrays = {each: getattr(self, each).tolist() for each in _ARRAYS}
        return {"steady": self.steady.state_dict(), **arrays}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of so many devices; `place` is for messages."""
        devices, grid = self.batch.shape, self.loss.shape
        read = table(
            place,
            state,
            {
                "steady": self.steady.restored,
                "level": numbers(grid, largest=LARGEST_LOGARITHM),
                "loss": numbers(grid, minimum=0.0, largest=LARGEST_LOGARITHM**2),
                "batch": numbers(devices, minimum=0.0),
            },
        )
        consistent(f"{place}.batch", read["batch"] > 0, "a gradient is of some samples")
        return replace(self, **read)


_ARRAYS = ("level", "loss", "batch")
