"""How long devices were busy, by the server's own clock: what they say divides that time and adds nothing.

Nobody but the device knows how long it computed, but the server knows when each answer came. So the time of
a device is the server's, and its word counts for one thing only: how much of that time was computing, which
grows with its work, and how much was the link. Who says that nearly all of it was the link asks for large
batches, for which all others wait. That is held in two ways:

- Computing counts as at least half of the share of the time that three tenths of the devices do not
  exceed. If no more than a fifth lie, one of these three tenths is honest.
- Where the work of a device has at least doubled since its shortest answer of late, the time that the answer
  has become longer by was computing, as far as computing that grows with the work can explain it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coopt.measuring.ignored import Ignored
from coopt.measuring.robust import LEAST_TO_JUDGE, far_sizes

if TYPE_CHECKING:
    from coopt.measuring.observations import Observations

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Share of the devices that may have computed for less than the least share of their time that counts.
FEWEST = 0.3
# Part of that share that counts: honest devices have links and speeds of their own.
TRUST = 0.5
# Factor of work from which the time of an answer tells computing from the link.
GROWTH = 2.0
# Factor between the clock and a device's word, beyond that of the others, that is never named.
ORDINARY = 1.5
# And those between what is usual and a device's own share of computing, and its speed: fleets whose speeds
# and links differ by factors of hundreds hardly reach both (benchmarks.online.honest_answers).
LITTLE = 8.0
# By so much the time of an answer may have grown beyond its work, for the work to be the cause.
JITTER = 1.25


@dataclass(frozen=True, eq=False)
class AnswerTimes:
    """When the answers of a round came, and those of earlier rounds.

    Attributes
    ----------
    seconds : numpy.ndarray, shape (N,)
        From the beginning of the round to each device's answer; infinite where none came [s].
    work : numpy.ndarray, shape (N,)
        Samples that each device had to process.
    shortest : numpy.ndarray, shape (N,)
        The shortest answer of each device of late, infinite before the first [s].
    shortest_work : numpy.ndarray, shape (N,)
        Samples that it had to process then.
    """

    seconds: Floats
    work: Floats
    shortest: Floats
    shortest_work: Floats

    def timed(self, seen: Observations) -> Mask:
        """Mark the reports whose arrival was noted, shape (m,)."""
        came = self.seconds[seen.client]
        return np.asarray(seen.current & np.isfinite(came) & (came > 0))

    def growth(self) -> Floats:
        """Work of each device over that of its shortest answer, shape (N,); 1 at least."""
        known = np.isfinite(self.shortest) & (self.shortest_work > 0)
        ratio = np.divide(self.work, self.shortest_work, out=np.ones(len(self.work)), where=known)
        return np.maximum(ratio, 1.0)

    def computing(self) -> Floats:
        """Seconds that must have been computing, since they came with more work, shape (N,) [s]."""
        growth = self.growth()
        told = (growth >= GROWTH) & np.isfinite(self.seconds)
        # Computing is at most proportional to the work, as if there had been no link.
        shortest, growth = self.shortest[told], growth[told]
        beyond = np.maximum(np.minimum(self.seconds[told], growth * shortest) - shortest, 0.0)
        found = np.zeros(len(told))
        found[told] = beyond * growth / (growth - 1)
        return found


def hold_times(seen: Observations, answers: AnswerTimes) -> list[Ignored]:
    """Divide the time that the server saw into computing and communicating; changes both columns.

    Parameters
    ----------
    seen : Observations
        Reports, without what is impossible.
    answers : AnswerTimes
        What the server's clock says.

    Returns
    -------
    list of Ignored
        The devices whose word the clock contradicts, by far more than that of the others.

    Notes
    -----
    Computing is believed to take between half of a share q, which is among the honest ones, and all of the
    time. So no device is believed to be slower than its answer was, and none whose answer is all computing to
    be more than 2 / q times as fast as it is. One that does not say how long it computed counts with the
    usual share of its time.
    """
    client, timed = seen.client, answers.timed(seen)
    took = np.where(timed, answers.seconds[client], 0.0)
    told = np.where(timed, seen["seconds_computing"], np.nan)
    link = np.where(timed, seen["seconds_communicating"], np.nan)
    shares = told[timed] / took[timed]
    shares = shares[np.isfinite(shares)]
    least, usual, grown = 0.0, np.nan, np.zeros(len(client))
    if len(shares) >= LEAST_TO_JUDGE:
        least = TRUST * float(np.sort(shares)[int(FEWEST * len(shares))])
        usual = float(np.median(shares))
        grown = answers.computing()[client]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Many devices do not say how long their link took: they leave no part of the time unexplained.
        short = far_sizes(np.where(link > 0.0, took / (told + link), np.nan), ORDINARY)
        # Between samples and steps a second, of which either may be what stays the same.
        speed = np.sqrt(seen["samples_processed"] * seen["local_steps"]) / told
        little = far_sizes(took / told, LITTLE) & far_sizes(speed, LITTLE)
    computing = np.where(np.isfinite(told) & ~little, told, usual * took)
    computing = np.where(short, took - link, computing)
    computing = np.minimum(np.maximum(computing, np.maximum(least * took, grown)), took)
    seen.column["seconds_computing"][timed] = computing[timed]
    seen.column["seconds_communicating"][timed] = (took - computing)[timed]
    contradictions = {
        "it accounts for far less than the others of the time that the server's clock saw": short,
        "far faster than others, in far less of the time that the server's clock saw": little,
        "the server's clock saw its time grow with its work by far more": _grew(told, answers, client),
    }
    named: dict[int, Ignored] = {}
    for why, rows in contradictions.items():
        for row in np.flatnonzero(rows).tolist():
            who, value, counted = int(client[row]), float(told[row]), float(computing[row])
            named.setdefault(row, Ignored(who, "seconds_computing", why, value, counted))
    return list(named.values())


def _grew(told: Floats, answers: AnswerTimes, client: npt.NDArray[np.int64]) -> Mask:
    """Mark whose answer took far longer than the shortest of late and the computing admitted, shape (m,)."""
    growth, shortest = answers.growth()[client], answers.shortest[client]
    took = answers.seconds[client]
    judged = (growth >= GROWTH) & np.isfinite(told) & np.isfinite(took)
    admitted = np.where(judged, shortest + told * (1 - 1 / growth), 1.0)
    far = far_sizes(np.where(judged, took / admitted, np.nan), ORDINARY)
    return np.asarray(far & (took <= JITTER * growth * shortest))
