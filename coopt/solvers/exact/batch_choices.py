"""Batches from lists of allowed sizes: the inner problem where not every whole number will do.

What lists allow is in :mod:`coopt.solvers.exact.listed_sizes`. Where too many combinations of sizes could be
better than the plan at hand, the gap stays, and is stated.
"""

from __future__ import annotations

import math

import numpy as np

from coopt.objectives.monotone import Floor, MonotoneForm
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.exact.cost_and_energy import BothLimits
from coopt.solvers.exact.inner import InnerProblem, Spending
from coopt.solvers.exact.listed_sizes import ListedSizes
from coopt.solvers.whole_units.batches import Floats, Ints, Rounded

# A gap that rounding can explain.
ROUNDING = 1e-13


class BatchChoices(InnerProblem):
    """The inner problem of a fleet with ``batch_choices``, under limits on cost, energy or both.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    """

    def __init__(self, problem: Problem, form: MonotoneForm) -> None:
        super().__init__(problem, form)
        table = problem.fleet.choice_table
        self._table: Ints = np.empty((0, 0), dtype=np.int64) if table is None else table
        self._both = BothLimits(problem) if problem.budget.energy < math.inf else None

    def spending(self, weights: Floats, rounds: int, local_steps: int, upper: Floats | Ints) -> Spending:
        """The limit on cost, or its best mixture with that on energy."""
        if self._both is not None:
            return self._both.mixed(weights, (rounds, local_steps), self.lower, upper)
        fleet, budget = self.problem.fleet, self.problem.budget
        spend = limits.step_budget(self.problem, rounds, local_steps)
        most = budget.cost * (1.0 + limits.TOLERANCE)
        return Spending(fleet.sample_cost, spend, most, budget.round_cost, fleet.whole_step_cost)

    def _whole(self, weights: Floats, prices: Floats, most: Ints) -> Floats:
        """The sizes up to `most` that each device takes at these prices a sample."""
        places, _ = self._sizes(weights, most).taken(prices)
        return self._table[np.arange(len(self._table)), places].astype(np.float64)

    def _sizes(self, weights: Floats, most: Ints) -> ListedSizes:
        return ListedSizes.of(self._table, weights, self.form.population, most)

    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Allowed sizes in one direction at (K, tau); optimal unless too many combinations are open."""
        del multiplier, cutoff  # the price is looked for anew, and the gap closed where it can be
        self.solves += 1
        weights = self.weights(floor, angle)
        return chosen(
            self.problem, self._table, weights, rounds, local_steps, self.form.population, self._both
        )

    def prices(self, weights: Floats, rounds: int, local_steps: int) -> tuple[float, float]:
        """The prices of cost and of energy that bound allowed sizes best."""
        most = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        spending = self.spending(weights, rounds, local_steps, np.maximum(most, self.lower))
        price = self._sizes(weights, most).best_price(spending).price
        if self._both is None:
            return price, 0.0
        cost, energy = self._both.shares
        return price * cost, price * energy


def chosen(
    problem: Problem,
    table: Ints,
    weights: Floats,
    rounds: int,
    local_steps: int,
    population: Ints | None,
    both: BothLimits | None = None,
) -> Rounded:
    """The best allowed sizes at (K, tau) that were found, and a bound on all.

    Parameters
    ----------
    problem : Problem
        Plain.
    table : ndarray of int64, shape (N, C)
        The sizes of each device, ascending.
    weights : ndarray, shape (N,)
        Of the noise w_i / s_i.
    rounds, local_steps : int
    population : ndarray of int64, shape (N,), or None
        Samples held where batches are drawn without replacement.
    both : BothLimits, optional
        The limits on cost and energy, where these have been mixed before.
    """
    fleet, lower = problem.plain.fleet, table[:, 0]
    most = limits.largest_batches(problem, rounds, local_steps, table[:, -1])
    if problem.budget.energy < math.inf:
        both = both or BothLimits(problem)
        spending = both.mixed(weights, (rounds, local_steps), lower, np.maximum(most, lower))
    else:
        spending = Spending(
            fleet.sample_cost, limits.step_budget(problem, rounds, local_steps), 0.0, 0.0, 0.0
        )
    sizes = ListedSizes.of(table, weights, population, most)
    budgets = np.array(
        [
            limits.step_budget(problem, rounds, local_steps),
            limits.step_energy_budget(problem, rounds, local_steps),
        ]
    )
    limited = np.isfinite(budgets)
    uses, budgets = np.array([fleet.sample_cost, fleet.sample_energy])[limited], budgets[limited]
    priced = sizes.best_price(spending)
    places = sizes.filled(uses, budgets, priced)
    rows = np.arange(len(places))
    value = float(np.sum(sizes.noise[rows, places]))
    bound = min(priced.bound, value)
    if value - bound > ROUNDING * abs(value):
        best = sizes.enumerated(uses, budgets, priced, places)
        if best is not None:
            places = best
            value = bound = float(np.sum(sizes.noise[rows, places]))
    return Rounded(table[rows, places], value, bound)
