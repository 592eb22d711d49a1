"""How much longer a round takes than its slowest device does on average, since somebody is always late.

Where some devices are drawn for a round, the slowest of all is often not among them, and it takes less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from coopt.problem.problem import Problem

Floats = npt.NDArray[np.float64]

# Points of the integral, the standard deviations that it spans, and devices so fast that they decide nothing.
POINTS, REACH, FAST = 200, 4.0, 0.2
# Times that do not vary are taken for ones that vary by so little.
LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Draws:
    """How devices are drawn for a round.

    Attributes
    ----------
    many : int
        How many.
    weights : numpy.ndarray, shape (N,), or None
        With what probabilities, each on its own, where one that is drawn twice counts as two; None: so many
        different ones, all alike.
    """

    many: int
    weights: Floats | None

    @classmethod
    def of(cls, problem: Problem) -> Self | None:
        """Those of a problem; None where all devices take part."""
        many, fleet = problem.budget.participants, problem.fleet
        if many is None:
            return None
        return cls(many, None if problem.budget.distinct_participants else fleet.weights)

    def all_done(self, done: Floats) -> Floats:
        """How likely all that are drawn are done, where device i is with probability `done[:, i]`."""
        if self.weights is not None:
            whole: Floats = (done @ self.weights) ** self.many
            return whole
        # One device after the other is taken or not; column j holds the rounds with j taken so far.
        devices = done.shape[1]
        taken = np.zeros((done.shape[0], self.many + 1))
        taken[:, 0] = 1.0
        missing = self.many - np.arange(self.many + 1)
        for i in range(devices):
            likely = np.clip(missing / (devices - i), 0.0, 1.0)
            come = taken[:, :-1] * (likely[:-1] * done[:, i : i + 1])
            taken *= 1.0 - likely
            taken[:, 1:] += come
        return taken[:, -1]


def expected_delay(seconds: Floats, spread: float, draws: Draws | None = None) -> float:
    """Expected maximum over devices of times that vary, over the maximum of their medians.

    Parameters
    ----------
    seconds : numpy.ndarray, shape (N,)
        What each device usually takes: the median.
    spread : float
        Standard deviation of the logarithm of its times, which are lognormal and independent.
    draws : Draws, optional
        Which devices a round has; default all. With draws it may be below one.

    Examples
    --------
    >>> round(expected_delay(np.array([5.0, 1.0]), 0.2), 2)
    1.02
    >>> round(expected_delay(np.full(40, 5.0), 0.2), 2)
    1.55
    >>> round(expected_delay(np.array([5.0, 1.0]), 0.0, Draws(1, None)), 2)
    0.6
    """
    from scipy.special import ndtr

    slowest = float(seconds.max(initial=0.0))
    if not 0.0 < slowest < np.inf or (draws is None and not spread > 0.0):
        return 1.0
    spread = max(spread, LEAST_SPREAD)
    usual = (np.sort(seconds[seconds > FAST * slowest]) if draws is None else seconds) / slowest
    top = np.exp(REACH * spread + spread**2)
    grid = (np.arange(POINTS) + 0.5) * (top / POINTS)
    # The share of rounds in which every device is done by then.
    with np.errstate(divide="ignore"):
        scores = (np.log(grid)[:, None] - np.log(usual)) / spread
    each = ndtr(scores)
    if draws is not None:
        return float(top - np.sum(draws.all_done(each)) * (top / POINTS))
    done = np.exp(np.sum(np.log(np.maximum(each, 1e-300)), axis=1))
    return max(float(top - np.sum(done) * (top / POINTS)), 1.0)
