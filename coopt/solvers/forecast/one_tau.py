"""All rounds at one number of local steps: which can hold the best plan, and the plans themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.forecast.federation import Federation
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.exact.batch_choices import chosen
from coopt.solvers.exact.cost_and_energy import best_share, limit_units
from coopt.solvers.forecast.priced import lower_bounds
from coopt.solvers.forecast.smallest import Smallest
from coopt.solvers.whole_batches import whole_batches
from coopt.solvers.whole_units.batches import Ints, Rounded

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Solved:
    """The best whole batches at (K, tau), the forecast of that plan, and a bound on all others there."""

    batch_sizes: Ints
    value: float
    lower_bound: float


class Slices:
    """The inner problems of one federation, at any (K, tau).

    Parameters
    ----------
    plain : Problem
        Its limits, as solvers take them: :attr:`Problem.plain`.
    federation : Federation
        Of its fleet.
    smallest : callable
    """

    def __init__(self, plain: Problem, federation: Federation, smallest: Smallest) -> None:
        self.plain = plain
        self.federation = federation
        self.smallest = smallest
        self.solves = 0
        fleet = self.plain.fleet
        self._multiple = fleet.batch_multiple.astype(np.float64)[:, None]
        _, self._largest = fleet.batch_range()
        # Of limits on both cost and energy a mixture is kept, for which any share of energy is valid.
        self._share = 0.0 if self.plain.budget.energy == math.inf else 0.5

    def bounds(self, rounds: Ints, local_steps: int, noise_of: int) -> Floats:
        """Lower bounds on what noise adds at these numbers of rounds, shape (k,).

        They rest on the noise of `noise_of` local steps, which must not be more than `local_steps`.
        """
        weights = self.federation.weights(rounds, local_steps, noise_of)
        batches = self._bounds(weights, rounds, local_steps, self._least(local_steps))
        return batches + self.federation.left(rounds, local_steps, noise_of)

    def tail(self, local_steps: int) -> float:
        """A lower bound on what noise adds at any number of rounds, at so many local steps or more.

        With more of either the weights grow and the limits leave less for a step; after one round the weights
        depend on the noise of that round alone.
        """
        one = np.ones(1, dtype=np.int64)
        weights = self.federation.weights(one, local_steps)
        batches = self._bounds(weights, one, local_steps, self.plain.fleet.batch_range()[0])
        return float((batches + self.federation.left(one, local_steps))[0])

    def _least(self, local_steps: int) -> Ints:
        """Smallest batches where there are any, and those of the fleet elsewhere, which are no plan."""
        least = self.smallest(local_steps)
        return self.plain.fleet.batch_range()[0] if least is None else least

    def _bounds(self, weights: Floats, rounds: Ints, local_steps: int, least: Ints) -> Floats:
        self.solves += rounds.size
        costs, budgets = self._limit(rounds, local_steps)
        most = self._most(rounds, local_steps)
        bounds = lower_bounds(
            weights / self._multiple,
            costs[:, None] * self._multiple,
            budgets,
            least[:, None] / self._multiple,
            most / self._multiple,
        )
        return bounds - self._reference(weights)

    def solve(self, rounds: int, local_steps: int, threshold: float) -> Solved:
        """The best whole batches at (K, tau), or the proof that no forecast there is below the threshold."""
        self.solves += 1
        federation = self.federation
        place = np.array([rounds])
        mean = float(federation.full(place, local_steps)[0])
        weights = federation.weights(place, local_steps)[:, 0]
        offset = mean - float(self._reference(weights[:, None])[0])
        least = self._least(local_steps)
        if not (math.isfinite(offset) and np.isfinite(weights).all()):
            return Solved(least, math.inf, math.inf)
        found = self._whole(weights, rounds, local_steps, least, max(threshold - offset, 0.0))
        if self.plain.budget.energy < math.inf:
            caps = limits.largest_batches(self.plain, rounds, local_steps, self._largest)
            self._share, _ = best_share(self.plain, weights, rounds, local_steps, least, caps, self._share)
        return Solved(found.batch_sizes, offset + found.value, offset + found.lower_bound)

    def _whole(self, weights: Floats, rounds: int, local_steps: int, least: Ints, cutoff: float) -> Rounded:
        table = self.plain.fleet.choice_table
        if table is None:
            return whole_batches(self.plain, weights, rounds, local_steps, least, cutoff=cutoff)
        return chosen(self.plain, np.maximum(table, least[:, None]), weights, rounds, local_steps, None)

    def _reference(self, weights: Floats) -> Floats:
        """What batches of all samples leave out, where they are drawn without replacement."""
        fleet = self.plain.fleet
        if fleet.replacement:
            return np.zeros(weights.shape[1])
        reference: Floats = (weights / fleet.samples[:, None]).sum(axis=0)
        return reference

    def _limit(self, rounds: Ints, local_steps: int) -> tuple[Floats, Floats]:
        """The limit on a step, on cost or a mixture of cost and energy: costs of a sample, and budgets."""
        fleet, budget = self.plain.fleet, self.plain.budget
        counts = rounds.tolist()
        spend = np.array([limits.step_budget(self.plain, k, local_steps) for k in counts])
        if budget.energy == math.inf:
            return fleet.sample_cost, spend
        cost, energy = limit_units(budget)
        share = self._share if budget.cost < math.inf else 1.0
        burn = np.array([limits.step_energy_budget(self.plain, k, local_steps) for k in counts])
        costs, budgets = share / energy * fleet.sample_energy, share / energy * burn
        if share < 1.0:
            costs = costs + (1.0 - share) / cost * fleet.sample_cost
            budgets = budgets + (1.0 - share) / cost * spend
        return costs, budgets

    def _most(self, rounds: Ints, local_steps: int) -> Floats:
        """Largest batches within the time limit, shape (N, k) or (N, 1)."""
        if self.plain.budget.time == math.inf:
            return self._largest.astype(np.float64)[:, None]
        caps = [limits.largest_batches(self.plain, k, local_steps, self._largest) for k in rounds.tolist()]
        return np.array(caps, dtype=np.float64).T
