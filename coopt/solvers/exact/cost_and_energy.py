"""Two budgets at once: the inner problem under a limit on cost and one on energy.

For any share t between 0 and 1 a plan that meets both limits meets their mixture,

    (1 - t) cost / R + t energy / E <= 1,

which is a limit of the same form as that on cost alone. So whatever bounds plans under the mixture, its cuts
among them, bounds those under both limits. The share at which the continuous optimum of the mixture meets
both is the best one, and is found at each (K, tau) anew. Whole batches within both limits are the business
of :mod:`coopt.solvers.whole_units.two_limits`.
"""

from __future__ import annotations

import math

import numpy as np

from coopt.objectives.monotone import Floor, MonotoneForm, inverse_batches
from coopt.problem import limits
from coopt.problem.budget import Budget
from coopt.problem.problem import Problem
from coopt.solvers.common_measure import common_measure, whole_multiple
from coopt.solvers.exact.inner import InnerProblem, Spending
from coopt.solvers.whole_units.batches import Floats, Ints, Relaxation, Rounded, relax
from coopt.solvers.whole_units.two_limits import FINE, fill_both
from coopt.solvers.whole_units.two_limits_prices import Demand, best_prices

# Steps towards the best share, and how nearly it has to meet both limits; any share is valid, a better one
# bounds tighter.
STEPS, BALANCED = 30, 1e-9
# How far from a guess another share is tried, and how much farther the next one.
STRIDE, WIDER = 0.02, 8.0


class BothLimits:
    """The limits on cost and on energy of one problem, at any (K, tau).

    Parameters
    ----------
    problem : Problem
        With a finite ``budget.energy``.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        fleet = problem.plain.fleet
        self._measures = [
            common_measure(sample * fleet.batch_multiple)
            for sample in (fleet.sample_cost, fleet.sample_energy)
        ]
        # The best share at the (K, tau) before is near the next one.
        self._share = 0.5

    @property
    def shares(self) -> tuple[float, float]:
        """What a unit of cost and a joule count in the last mixture."""
        cost, energy = limit_units(self.problem.plain.budget)
        return (1.0 - self._share) / cost, self._share / energy

    def mixed(self, weights: Floats, place: tuple[int, int], lower: Ints, upper: Floats | Ints) -> Spending:
        """The best mixture of the limits at (K, tau), itself a limit on the work of a step."""
        fleet, budget = self.problem.plain.fleet, self.problem.plain.budget
        self._share, _ = best_share(self.problem, weights, *place, lower, upper, self._share)
        cost, energy = limit_units(budget)
        dear, hungry = (1.0 - self._share) / cost, self._share / energy
        sample, limit = hungry * fleet.sample_energy, hungry * limits.step_energy_budget(self.problem, *place)
        slope, rise = hungry * budget.energy, hungry * fleet.whole_round_energy
        step = hungry * fleet.whole_step_energy
        if dear > 0.0:
            sample = sample + dear * fleet.sample_cost
            limit += dear * limits.step_budget(self.problem, *place)
            slope += dear * budget.cost
            rise += dear * budget.round_cost
            step += dear * fleet.whole_step_cost
        return Spending(sample, limit, slope * (1.0 + limits.TOLERANCE), rise, step)

    def demand(
        self, weights: Floats, place: tuple[int, int], lower: Ints, upper: Ints
    ) -> tuple[Demand, Floats, Floats]:
        """The devices in units of batches and limits, continuous prices, and the limits of a step."""
        fleet, multiple = self.problem.plain.fleet, self.problem.fleet.batch_multiple
        self._share, best = best_share(self.problem, weights, *place, lower, upper, self._share)
        cost = whole_multiple(limits.step_budget(self.problem, *place), self._measures[0])
        energy = whole_multiple(limits.step_energy_budget(self.problem, *place), self._measures[1])
        # What is free fits a limit of nothing.
        allowed = np.array([limit if limit > 0.0 else math.inf for limit in (cost, energy)])
        shares = np.array([1.0 - self._share, self._share]) / limit_units(self.problem.budget)
        prices = best.multiplier * shares * np.where(np.isfinite(allowed), allowed, 0.0)
        least = lower // multiple
        demand = Demand(
            weights / multiple,
            np.array([fleet.sample_cost, fleet.sample_energy]) * multiple / allowed[:, None],
            least,
            np.where(weights > 0.0, upper // multiple, least),
        )
        return demand, prices, allowed


class TwoLimits(InnerProblem):
    """The inner problem under both limits; units of a mixture cost differently, for each share anew.

    Parameters
    ----------
    problem : Problem
        With a finite ``budget.energy``.
    form : MonotoneForm
    """

    def __init__(self, problem: Problem, form: MonotoneForm) -> None:
        super().__init__(problem, form)
        self._both = BothLimits(problem)

    def spending(self, weights: Floats, rounds: int, local_steps: int, upper: Floats | Ints) -> Spending:
        """The best mixture of the limits at (K, tau)."""
        return self._both.mixed(weights, (rounds, local_steps), self.lower, upper)

    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Whole batches within both limits, as the contract says."""
        del multiplier  # that of one mixture
        weights, population = self.weights(floor, angle), self.form.population
        demand, prices, _ = self._demand(weights, rounds, local_steps)
        reference = 0.0 if population is None else float(np.sum(weights / population))
        found = fill_both(demand, prices, None if cutoff is None else cutoff + reference)
        self.solves += 1
        batches = found.units * self.problem.fleet.batch_multiple
        value = float(np.sum(weights * inverse_batches(batches.astype(np.float64), population)))
        return Rounded(batches, value, min(found.lower_bound - reference, value))

    def prices(self, weights: Floats, rounds: int, local_steps: int) -> tuple[float, float]:
        """The multipliers of cost and energy of a step at (K, tau) that are best for whole batches."""
        demand, prices, allowed = self._demand(weights, rounds, local_steps)
        if bool((demand.left(demand.most) >= 0.0).all()):
            return 0.0, 0.0
        cost, energy = (best_prices(demand, prices, FINE).prices / allowed).tolist()
        return cost, energy

    def _demand(self, weights: Floats, rounds: int, local_steps: int) -> tuple[Demand, Floats, Floats]:
        upper = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        return self._both.demand(weights, (rounds, local_steps), self.lower, upper)


def limit_units(budget: Budget) -> tuple[float, float]:
    """What cost and energy are measured in: their limits, or one where a limit is none or zero."""
    cost = budget.cost if 0.0 < budget.cost < math.inf else 1.0
    energy = budget.energy if 0.0 < budget.energy < math.inf else 1.0
    return cost, energy


def best_share(
    problem: Problem,
    weights: Floats,
    rounds: float,
    local_steps: float,
    lower: Floats | Ints,
    upper: Floats | Ints,
    guess: float = 0.5,
) -> tuple[float, Relaxation]:
    """The share of energy in the best mixture at (K, tau), and the continuous optimum of that mixture.

    It is looked for around the guess.
    """
    fleet = problem.plain.fleet
    cost, energy = limit_units(problem.budget)
    costs, energies = fleet.sample_cost / cost, fleet.sample_energy / energy
    step_cost = limits.step_budget(problem, rounds, local_steps) / cost
    step_energy = limits.step_energy_budget(problem, rounds, local_steps) / energy

    def optimum(share: float) -> tuple[Relaxation, float, float]:
        mixed, spend = energies, step_energy
        if share < 1.0:
            mixed = (1.0 - share) * costs + share * energies
            spend = (1.0 - share) * step_cost + share * step_energy
        best = relax(weights, mixed, spend, lower, upper)
        batches = best.batch_sizes
        over_cost = float(np.sum(costs * batches)) - step_cost if step_cost < math.inf else -math.inf
        return best, over_cost, float(np.sum(energies * batches)) - step_energy

    share = guess if step_cost < math.inf else 1.0
    low, high, left, right, stride = 0.0, 1.0, math.nan, math.nan, STRIDE
    for _ in range(STEPS):
        best, over_cost, over_energy = optimum(share)
        balance = over_energy - over_cost
        slack = (share == 0.0 and over_energy <= 0.0) or (share == 1.0 and over_cost <= 0.0)
        if slack or abs(balance) <= BALANCED * abs(step_energy):
            break
        # Regula falsi; the end that stays counts half (Illinois), which keeps both ends moving.
        if balance > 0.0:
            low, left, right = share, balance, right / 2.0
        else:
            high, right, left = share, balance, left / 2.0
        if math.isnan(left + right):
            # No share on the other side yet.
            share = min(max(share + math.copysign(stride, balance), 0.0), 1.0)
            stride *= WIDER
            continue
        share = (low * right - high * left) / (right - left)
        if not low < share < high:
            share = (low + high) / 2.0
    return share, best
