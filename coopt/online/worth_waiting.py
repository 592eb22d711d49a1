"""Which devices are so slow that the others had better not wait for them.

A round lasts at least as long as its slowest device needs for one step with its smallest batch. Without that
device there are more rounds in the same time, but training heads for the minimum of the others. Both are in
the error that a policy expects: the time as a limit on the rounds, the missing data as an error of the
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from coopt.policies.situation import ExpectingPolicy, Situation
from coopt.problem import limits
from coopt.problem.problem import Problem

Mask = npt.NDArray[np.bool_]

# Everybody waits for a device that takes less than so many times as long as the usual one.
MUCH_SLOWER = 2.0
MOST_LEFT_OUT = 0.1  # weight of those that nobody waits for


def worth_waiting(
    everybody: Situation, only: Callable[[Mask], Situation], policy: ExpectingPolicy
) -> tuple[Mask, Situation]:
    """Tell for which devices to wait, shape (n,), and the situation with these.

    Parameters
    ----------
    everybody : Situation
        With all n devices that can be reckoned with.
    only : callable
        The same with some of them, those in a mask of shape (n,).
    policy : ExpectingPolicy
        It tells the error that is expected at the end.
    """
    fleet = everybody.problem.fleet
    chosen, situation = np.ones(len(fleet), dtype=bool), everybody
    # What is expected of those chosen so far: found out only as well as the next question needs it.
    judged, best, exact = everybody, math.inf, False
    for kept in _without_the_slowest(everybody.problem):
        weight = float(fleet.weights[kept].sum())
        # The mean gradient of those that are kept lies on the line from that of the others through the mean.
        away = (1.0 - weight) / weight * fleet.root_divergence
        error = everybody.gradient_error + away
        at_least = policy.expects_at_least(replace(everybody, gradient_error=error))
        if best > at_least and not exact:
            best, exact = policy.expects(judged, at_least), True
        if best <= at_least:
            # Of fewer devices even more is missed.
            break
        some = only(kept)
        other = replace(some, gradient_error=error)
        value = policy.expects(other, math.nextafter(best, -math.inf))
        if value < best:
            chosen, situation = kept, some
            judged, best, exact = other, value, False
    return chosen, situation


def _without_the_slowest(problem: Problem) -> Iterator[Mask]:
    """All but the slowest, fewer and fewer, as long as they hold most of the data."""
    fleet = problem.fleet
    if math.isinf(problem.budget.time):
        return
    least = limits.device_times(problem, 1, 1, fleet.batch_range()[0])
    usual = MUCH_SLOWER * float(np.median(least))
    slowest = float(least.max())
    while slowest > usual:
        # Whoever is about as slow as the slowest holds up the others as much.
        kept = least <= max(slowest / MUCH_SLOWER, usual)
        if float(fleet.weights[kept].sum()) < 1.0 - MOST_LEFT_OUT:
            return
        yield kept
        slowest = float(least[kept].max())
