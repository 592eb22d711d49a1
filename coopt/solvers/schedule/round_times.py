"""How long a round of each phase may take, so that all rounds together meet the limit on time.

With T_p for a round of phase p the limits are sum_p K_p T_p <= theta and, for every device,
s_ip <= pi_i ((T_p - u_i) / tau_p - alpha_i), less where batches are taken in parts. The best value that
batches reach is jointly convex in the T_p: time is moved between two phases at a time, until what a second
more would gain is the same in all of them. With two phases that is one line search.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coopt.objectives.forecast.phases import Setting
from coopt.problem import limits
from coopt.problem.fleet import Fleet
from coopt.problem.limits import TOLERANCE
from coopt.problem.problem import Problem
from coopt.solvers.schedule.water_level import WaterLevel
from coopt.solvers.whole_units.batches import Floats, Ints

# Half of the tolerance with which limits are met: the rest is for the rounding of sums.
SPENT = 1.0 + TOLERANCE / 2.0
# Steps of the line search between two phases, and how often all pairs are gone through.
STEPS, SWEEPS = 12, 2
# No share of the time moved that is smaller than this matters.
STILL = 3e-3


class RoundTimes:
    """The times of rounds in phases, for one problem.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        fleet = problem.fleet
        self.limit = problem.budget.time * SPENT
        self._fleet, self._problem = fleet, problem
        _, self._upper = fleet.batch_range()
        self._multiple = fleet.batch_multiple

    def of_rounds(self, settings: Sequence[Setting], batches: Floats | Ints) -> Floats:
        """Seconds of a round of every phase, shape (P,); batches of shape (P, N)."""
        steps = self._steps(settings) * limits.step_times(self._problem, batches)
        seconds: Floats = (steps + self._fleet.round_time).max(axis=1)
        return seconds

    def used(self, settings: Sequence[Setting], batches: Floats | Ints) -> float:
        """Seconds of all rounds together."""
        return float(self._rounds(settings) @ self.of_rounds(settings, batches))

    def largest(self, settings: Sequence[Setting], seconds: Floats, least: Ints) -> Ints:
        """Whole batches that a round of every phase has time for; never below `least`, known to fit."""
        real = _real(self._fleet, seconds, self._steps(settings))
        if self._fleet.accumulates:
            slack = (seconds[:, None] - self._fleet.round_time) / self._steps(settings)
            real = limits.part_caps(self._fleet, slack)
        real = np.minimum(real, self._upper) / self._multiple
        units = np.floor(real * (1.0 + 1e-12))
        return np.maximum((units * self._multiple).astype(np.int64), least)

    def split(
        self, weights: Floats, settings: Sequence[Setting], costs: Floats, spend: float, least: Ints
    ) -> Floats:
        """Seconds of a round of every phase at which batches that are not whole do best, shape (P,).

        `weights` and `costs` of a sample have shape (P, N); the batches `least` fit the limits.
        """
        rounds, seconds = self._rounds(settings), self.of_rounds(settings, least)
        spare = self.limit - float(rounds @ seconds)
        # At first every phase gets the same share of what is spare.
        seconds = seconds + max(spare, 0.0) / rounds / rounds.size
        fewest = self.of_rounds(settings, least)

        gains = _Gains(self._fleet, self._upper, weights, self._steps(settings), costs, spend, least)

        pairs = [(p, q) for p in range(rounds.size) for q in range(p)]
        for _ in range(SWEEPS if len(pairs) > 1 else 1):
            largest = 0.0
            for p, q in pairs:
                low = -rounds[p] * (seconds[p] - fewest[p])
                high = rounds[q] * (seconds[q] - fewest[q])
                start = (low, high)
                for _ in range(STEPS):
                    if high - low <= STILL * (start[1] - start[0]):
                        break
                    middle = (low + high) / 2.0
                    found = gains.at(self._moved(seconds, rounds, p, q, middle)) / rounds
                    low, high = (middle, high) if found[p] > found[q] else (low, middle)
                middle = (low + high) / 2.0
                seconds = self._moved(seconds, rounds, p, q, middle)
                largest = max(largest, abs(middle))
            if largest <= STILL * self.limit:
                break
        return seconds

    def moved(
        self, seconds: Floats, settings: Sequence[Setting], least: Ints, phase: int, amount: float
    ) -> Floats:
        """So many seconds more for a phase, from the others in proportion to what they have to spare."""
        rounds = self._rounds(settings)
        spare = rounds * (seconds - self.of_rounds(settings, least))
        spare[phase] = 0.0
        total = float(spare.sum())
        if total <= 0.0:
            return seconds
        amount = min(amount, total)
        found = seconds - amount * spare / total / rounds
        found[phase] += amount / rounds[phase]
        return found

    @staticmethod
    def _moved(seconds: Floats, rounds: Floats, p: int, q: int, amount: float) -> Floats:
        found = seconds.copy()
        found[p] += amount / rounds[p]
        found[q] -= amount / rounds[q]
        return found

    @staticmethod
    def _rounds(settings: Sequence[Setting]) -> Floats:
        return np.array([float(each.rounds) for each in settings])

    @staticmethod
    def _steps(settings: Sequence[Setting]) -> Floats:
        return np.array([[float(each.local_steps)] for each in settings])


class _Gains:
    """By how much the best value falls per second of a round, for rounds, steps and rates that stay."""

    def __init__(
        self,
        fleet: Fleet,
        upper: Ints,
        weights: Floats,
        steps: Floats,
        costs: Floats,
        spend: float,
        least: Ints,
    ) -> None:
        self._fleet, self._steps, self._weights, self._costs = fleet, steps, weights, costs
        self._least, self._upper = least.astype(np.float64), upper.astype(np.float64)
        self._level = WaterLevel(weights.ravel(), costs.ravel(), spend, self._least.ravel())
        self._faster = np.where(np.isinf(fleet.throughput), 0.0, fleet.throughput) / steps

    def at(self, seconds: Floats) -> Floats:
        """What a second more of a round of every phase gains, shape (P,)."""
        caps = np.maximum(np.minimum(_real(self._fleet, seconds, self._steps), self._upper), self._least)
        batches, multiplier = self._level.under(caps.ravel())
        batches = batches.reshape(caps.shape)
        price = np.maximum(self._weights / batches**2 - multiplier * self._costs, 0.0)
        price *= (batches >= caps) & (caps < self._upper)
        found: Floats = (price * self._faster).sum(axis=1)
        return found


def _real(fleet: Fleet, seconds: Floats, steps: Floats) -> Floats:
    """Batches, not whole, that a round of every phase has time for, shape (P, N)."""
    slack = (seconds[:, None] - fleet.round_time) / steps - fleet.step_time
    unlimited = np.isinf(fleet.throughput)
    with np.errstate(invalid="ignore"):
        caps = fleet.throughput * slack
        if fleet.accumulates:
            caps = np.fmin(caps, fleet.part_throughput * (slack + fleet.step_time))
    return np.where(unlimited, np.inf, caps)
