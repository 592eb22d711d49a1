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
from coopt.measuring.robust import LEAST_TO_JUDGE, USUAL, deviation

if TYPE_CHECKING:
    from coopt.measuring.observations import Observations

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Share of the devices that may have computed for less than the least share of their time that counts.
FEWEST = 0.3
# Part of that share that counts: honest devices have links and speeds of their own.
TRUST = 0.5
# Factor of work from which the time of an answer tells computing from the link.
GROWTH = 2.0
# Factor between the clock and a device's word that is never named.
ORDINARY = 1.5
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


def hold_times(seen: Observations, answers: AnswerTimes, told: Floats) -> list[Ignored]:
    """Divide the time that the server saw into computing and communicating; changes both columns.

    Parameters
    ----------
    seen : Observations
        Reports, without what is impossible.
    answers : AnswerTimes
        What the server's clock says.
    told : numpy.ndarray, shape (m,)
        Seconds that devices say they computed, outliers included: they are held, and not left out.

    Returns
    -------
    list of Ignored
        The devices whose answers grew with their work by far more than they say that they computed.

    Notes
    -----
    Computing is believed to take between half of a share q, which is among the honest ones, and all of the
    time. So no device is believed to be slower than its answer was, and none whose answer is all computing to
    be more than 2 / q times as fast as it is. One that does not say how long it computed counts with the
    usual share of its time.
    """
    client = seen.client
    came = answers.seconds[client]
    timed = seen.current & np.isfinite(came) & (came > 0)
    took = np.where(timed, came, 0.0)
    shares = told[timed] / took[timed]
    shares = shares[np.isfinite(shares)]
    least, usual, grown, named = 0.0, np.nan, np.zeros(len(client)), np.zeros(len(client), dtype=bool)
    if len(shares) >= LEAST_TO_JUDGE:
        least = TRUST * float(np.sort(shares)[int(FEWEST * len(shares))])
        usual = float(np.median(shares))
        grown = answers.computing()[client]
        named = timed & _contradicted(told, answers, client)
    computing = np.where(np.isfinite(told), told, usual * took)
    computing = np.minimum(np.maximum(computing, np.maximum(least * took, grown)), took)
    seen.column["seconds_computing"][timed] = computing[timed]
    seen.column["seconds_communicating"][timed] = (took - computing)[timed]
    why = "the server's clock saw its time grow with its work by far more"
    return [
        Ignored(int(client[row]), "seconds_computing", why, float(told[row]), float(computing[row]))
        for row in np.flatnonzero(named)
    ]


def _contradicted(told: Floats, answers: AnswerTimes, client: Ints) -> npt.NDArray[np.bool_]:
    """Mark whose answer took far longer than the shortest of late and the computing admitted, shape (m,)."""
    growth, shortest = answers.growth()[client], answers.shortest[client]
    judged = (growth >= GROWTH) & np.isfinite(told) & np.isfinite(answers.seconds[client])
    if judged.sum() < LEAST_TO_JUDGE:
        return np.zeros(len(client), dtype=bool)
    took = answers.seconds[client][judged]
    admitted = shortest[judged] + told[judged] * (1 - 1 / growth[judged])
    beyond = np.log(took / admitted)
    far = beyond > max(float(np.median(beyond)) + USUAL * deviation(beyond), np.log(ORDINARY))
    found = np.zeros(len(client), dtype=bool)
    found[judged] = far & (took <= JITTER * growth[judged] * shortest[judged])
    return found
