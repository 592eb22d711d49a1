"""What the server's clock says about speeds that devices claim.

A device that claims to be fast is given large batches, and all others wait for it. Nobody but the device
knows how long it computed, but the server knows how long the round took. Where that is longer than what any
device says, some device is slower than it claims, and which one cannot be known. Then no device is believed
to be faster than one that would explain the round with the most work that any device had: the batches of
those that claim more become more equal, until the rounds take as long as planned.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.problem.saved_state import Reader, consistent, listed, number, optional, table

Floats = npt.NDArray[np.float64]

# How much longer than the slowest device says a round may take before claims are doubted.
DOUBT = 1.25
# By so much links may have become slower from one round to the next.
FORGET = 1.02


@dataclass(frozen=True)
class WallClock:
    """What a round takes besides what devices say, and the fastest speed that is believed.

    Attributes
    ----------
    overhead : float
        Least seconds that a round took beyond what the slowest device said; None before the first [s].
    shortest : tuple of float
        Seconds of the shortest answer of each device of late, infinite before the first: its link is faster
        than that. Where the server did not note when answers came, those of the round [s].
    work : tuple of float
        Samples that it had to process then.
    least : float
        Seconds a sample below which no claim is believed [s].

    Examples
    --------
    >>> clock = WallClock()
    >>> clock = clock.add(2.0, told=np.array([1.9, 1.5]), work=np.array([80.0, 60.0]))
    >>> clock.least  # the slowest device explains the round
    0.0
    >>> clock = clock.add(9.1, told=np.array([1.9, 0.1]), work=np.array([80.0, 900.0]))
    >>> round(clock.least, 3)
    0.01
    """

    overhead: float | None = None
    least: float = 0.0
    shortest: tuple[float, ...] = ()
    work: tuple[float, ...] = ()

    def add(self, seconds: float, told: Floats, work: Floats, answered: Floats | None = None) -> Self:
        """Take in a round.

        Parameters
        ----------
        seconds : float
            How long it took by the server's clock.
        told : numpy.ndarray, shape (m,)
            Seconds that devices say they were busy with it; NaN where they do not, or are not believed. Who
            does not say may be what the round waited for: then nobody's speed is doubted.
        work : numpy.ndarray, shape (N,)
            Samples that devices had to process; 0 for those that did not take part.
        answered : numpy.ndarray, shape (N,), optional
            When the answer of each device came, infinite where none did; default: with the round's end [s].
        """
        everybody = bool(np.isfinite(told).all())
        told = told[np.isfinite(told)]
        most = float(np.max(work, initial=0.0))
        if not (len(told) and most > 0.0 and seconds > 0.0):
            return self
        slowest = float(told.max())
        beyond = max(seconds - slowest, 0.0)
        overhead = beyond if self.overhead is None else min(self.overhead, beyond)
        possible = max(seconds - overhead, 0.0) / most
        before = self.links(len(work))
        links = np.where(work > 0.0, FORGET * before, before)
        took = np.full(len(work), seconds)
        if answered is not None:
            took = np.where(np.isfinite(answered), answered, took)
        shorter = (work > 0.0) & (took <= links)
        doubtful = everybody and seconds > DOUBT * (slowest + overhead)
        # Whoever had the most work did it in the time that the round took.
        return replace(
            self,
            overhead=overhead,
            least=possible if doubtful else min(self.least, possible),
            shortest=tuple(np.where(shorter, took, links).tolist()),
            work=tuple(np.where(shorter, work, self.works(len(work))).tolist()),
        )

    def late(self, missing: npt.NDArray[np.bool_]) -> Self:
        """Forget how fast the links of devices were that the server waited for in vain, shape (N,)."""
        shortest = np.where(missing, math.inf, self.links(len(missing)))
        return replace(self, shortest=tuple(shortest.tolist()), work=tuple(self.works(len(missing)).tolist()))

    def links(self, devices: int) -> Floats:
        """Seconds below which the time of every device's link lies, shape (N,) [s]."""
        found = np.full(devices, math.inf)
        found[: len(self.shortest)] = self.shortest
        return found

    def works(self, devices: int) -> Floats:
        """Samples of the shortest answer of every device, 0 before the first, shape (N,)."""
        found = np.zeros(devices)
        found[: len(self.work)] = self.work
        return found

    def state_dict(self) -> dict[str, Any]:
        """Numbers that `restored` turns back into the same."""
        known = [seconds if math.isfinite(seconds) else None for seconds in self.shortest]
        return asdict(self) | {"shortest": known, "work": list(self.work)}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote; `place` is for messages."""
        seconds = number(minimum=0.0)
        readers: dict[str, Reader[Any]] = {
            "overhead": optional(seconds),
            "least": seconds,
            "shortest": listed(optional(seconds)),
            "work": listed(seconds),
        }
        read = table(place, state, readers)
        same = len(read["work"]) == len(read["shortest"])
        consistent(f"{place}.work", same, "there is one for each shortest answer")
        known = tuple(math.inf if each is None else each for each in read["shortest"])
        return replace(self, **(read | {"shortest": known, "work": tuple(read["work"])}))
