"""How long the server waits for the devices of a round."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from coopt.problem.fleet import Fleet

# Where nobody can predict yet how long a round takes, and nobody answers: a share of the time that is left,
# and this at most [s].
DEADLINE_SHARE, LONGEST_DEADLINE = 0.25, 3600.0
MOST_UNKNOWN = 0.5  # share of the devices


def deadline_and_slack(
    fleet: Fleet,
    active: npt.NDArray[np.int64],
    seconds: float,
    slack: float,
    left: float,
    heard: npt.NDArray[np.bool_],
) -> tuple[float, float]:
    """Give the deadline of a round, and the slack of :meth:`RoundPlan.closes`.

    Parameters
    ----------
    fleet : Fleet
        What is known of the speeds.
    active : numpy.ndarray of int
        Devices to wait for.
    seconds : float
        How long the round should take.
    slack : float
        How many times as long it may.
    left : float
        Seconds that are left at all.
    heard : numpy.ndarray of bool, shape (N,)
        Devices that have told how long they took.
    """
    usual = slack * seconds
    unknown = np.isinf(fleet.throughput[active]) & (fleet.step_time[active] == 0)
    # A round of small batches lasts as long as the links take, of which nobody has said anything yet.
    unknown |= (fleet.round_time[active] == 0) & ~heard[active]
    if unknown.mean() <= MOST_UNKNOWN:
        return min(usual, left), math.inf
    return min(max(DEADLINE_SHARE * left, usual), LONGEST_DEADLINE, left), slack
