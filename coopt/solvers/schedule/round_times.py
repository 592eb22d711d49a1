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
from coopt.problem.limits import TOLERANCE
from coopt.problem.problem import Problem
from coopt.solvers.whole_units.batches import Floats, Ints, relax

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
        real = self._real(settings, seconds)
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

        def gains(seconds: Floats) -> Floats:
            """What a second more of the whole time gains in each phase."""
            return self._gains(weights, settings, costs, spend, least, seconds) / rounds

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
                    found = gains(self._moved(seconds, rounds, p, q, middle))
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

    def _gains(
        self,
        weights: Floats,
        settings: Sequence[Setting],
        costs: Floats,
        spend: float,
        least: Ints,
        seconds: Floats,
    ) -> Floats:
        """By how much the best value falls per second of a round of every phase."""
        real = self._real(settings, seconds)
        caps = np.clip(real, least, self._upper)
        best = relax(weights.ravel(), costs.ravel(), spend, least.ravel(), caps.ravel())
        batches = best.batch_sizes.reshape(caps.shape)
        held = (batches >= caps) & (caps < self._upper)
        price = np.where(held, np.maximum(weights / batches**2 - best.multiplier * costs, 0.0), 0.0)
        faster = np.where(np.isinf(self._fleet.throughput), 0.0, self._fleet.throughput)
        found: Floats = (price * faster / self._steps(settings)).sum(axis=1)
        return found

    def _real(self, settings: Sequence[Setting], seconds: Floats) -> Floats:
        """Batches, not whole, that a round of every phase has time for, shape (P, N)."""
        fleet = self._fleet
        slack = (seconds[:, None] - fleet.round_time) / self._steps(settings) - fleet.step_time
        with np.errstate(invalid="ignore"):
            caps = fleet.throughput * slack
            if fleet.accumulates:
                caps = np.fmin(caps, fleet.part_throughput * (slack + fleet.step_time))
        return np.where(np.isinf(fleet.throughput), np.inf, caps)

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
