"""Optimal batches at one (K, tau) under a limit on cost, and what they prove at every other.

The contract of inner problems is :class:`coopt.solvers.contract.Inner`; what they prove is in
:mod:`coopt.solvers.exact.noise_bounds`. Two limits at once are in :mod:`coopt.solvers.exact.cost_and_energy`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from coopt.errors import SolverError
from coopt.objectives.monotone import Floor, MonotoneForm, inverse_batches
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.exact.noise_bounds import Curve, Cut, Directions
from coopt.solvers.whole_units.batches import (
    Floats,
    Ints,
    Rounded,
    cap_multipliers,
    relax,
    round_batches,
    unit_curve,
)
from coopt.solvers.whole_units.unit_prices import Knapsack, best_price, units_at


@dataclass(frozen=True)
class Spending:
    """A limit on the work of a step: sample @ s <= slope / (K tau) - rise / tau - step, which is `limit`."""

    sample: Floats
    limit: float
    slope: float
    rise: float
    step: float


class InnerProblem(ABC):
    """What all inner problems share; it counts how often one is solved.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    """

    def __init__(self, problem: Problem, form: MonotoneForm) -> None:
        self.problem = problem
        self.form = form
        self.lower, self.upper = problem.fleet.batch_range()
        self.solves = 0
        fleet = problem.fleet
        multiple = fleet.batch_multiple
        self._multiple = None if bool((multiple == 1).all()) else multiple
        self.unit_cost: float | None = None
        # The noise terms are the same at every tau: their sums are taken once.
        basis = form.floor(1, np.zeros(1, dtype=np.intp)).basis
        if len(basis) > 2:
            raise SolverError(
                f"a monotone form with {len(basis)} noise terms: the exact solver takes one or two"
            )
        self._norms = np.array([float(np.sum(term)) for term in basis])

    def directions(self, floor: Floor) -> Directions:
        """The floors of a family, normalised."""
        norms = self._norms
        # Any share of no noise is nothing, an infinite one too.
        amounts = np.multiply(floor.shares, norms, out=np.zeros_like(floor.shares), where=norms > 0.0)
        sizes = amounts.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            angles = amounts[:, -1] / sizes if norms.size == 2 else np.zeros_like(sizes)
        return Directions(floor.offsets, sizes, np.where(sizes > 0.0, angles, 0.0))

    def weights(self, floor: Floor, angle: float) -> Floats:
        """Weights of the normalised inner problem at one :term:`angle`, shape (N,)."""
        norms = [norm or 1.0 for norm in self._norms.tolist()]
        if len(norms) == 1:
            return floor.basis[0] / norms[0]
        first, second = floor.basis
        return (1.0 - angle) / norms[0] * first + angle / norms[1] * second

    @abstractmethod
    def spending(self, weights: Floats, rounds: int, local_steps: int, upper: Floats | Ints) -> Spending:
        """The limit on the work of a step at (K, tau)."""

    def cut(
        self, floor: Floor, rounds: int, local_steps: int, angles: Floats, corner: tuple[int, int]
    ) -> tuple[Cut, list[float]]:
        """A cut from the continuous optima at (K, tau), and their budget multipliers.

        It holds for plans with as many rounds and local steps as `corner` has, or more.
        """
        budget, fleet = self.problem.budget, self.problem.fleet
        timed = budget.time < math.inf
        caps = limits.time_caps(self.problem, rounds, local_steps) if timed else self.upper
        upper = np.maximum(np.minimum(self.upper, caps), self.lower) if timed else self.upper
        most = limits.largest_batches(self.problem, *corner, self.upper)
        rows, multipliers = [], []
        for angle in angles.tolist():
            weights = self.weights(floor, angle)
            spending = self.spending(weights, rounds, local_steps, upper)
            best = relax(weights, spending.sample, spending.limit, self.lower, upper, self.form.population)
            self.solves += 1
            price = best.multiplier
            prices = price * spending.sample
            slope = rise = step = 0.0
            if price > 0.0:
                slope += price * spending.slope
                rise += price * spending.rise
                step += price * spending.step
            if timed:
                held, push = cap_multipliers(weights, spending.sample, best, caps, self.upper)
                prices[held] += push
                speed, still = limits.step_lines(self.problem, rounds, local_steps, held)
                pull = push * speed
                slope += float(np.sum(pull)) * budget.time * (1.0 + limits.TOLERANCE)
                rise += float(np.sum(pull * fleet.round_time[held]))
                step += float(np.sum(pull * still))
            # The multipliers are those of the continuous optimum, but only whole batches have to be beaten.
            batches = self._whole(weights, prices, most)
            noise = weights * inverse_batches(batches, self.form.population)
            constant = float(np.sum(noise + prices * batches)) + step
            rows.append((constant, slope, rise))
            multipliers.append(price)
        constants, slopes, rises = np.array(rows).T
        return Cut(angles, constants, slopes, rises), multipliers

    def _whole(self, weights: Floats, prices: Floats, most: Ints) -> Floats:
        """The whole batches up to `most` that each device takes at these prices a sample."""
        if self._multiple is None:
            return units_at(weights, prices, self.lower, most).astype(np.float64)
        units = units_at(
            weights / self._multiple,
            prices * self._multiple,
            self.lower // self._multiple,
            most // self._multiple,
        )
        return (units * self._multiple).astype(np.float64)

    @abstractmethod
    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Whole batches in one direction at (K, tau), as the contract says."""

    def curve(
        self,
        floor: Floor,
        corner: tuple[int, int],
        units: tuple[int, int],
        angles: Floats,
        multiplier: float,
    ) -> Curve | None:
        """None: units cost differently."""
        del floor, corner, units, angles, multiplier
        return None

    @abstractmethod
    def prices(self, weights: Floats, rounds: int, local_steps: int) -> tuple[float, float]:
        """The prices of cost and of energy that bound whole batches best."""


class UnequalCosts(InnerProblem):
    """A limit on cost, where a unit of batch costs more on some devices than on others: a knapsack."""

    def spending(self, weights: Floats, rounds: int, local_steps: int, upper: Floats | Ints) -> Spending:
        """The limit on cost, whatever the weights."""
        budget = self.problem.budget
        spend = limits.step_budget(self.problem, rounds, local_steps)
        fleet, most = self.problem.fleet, budget.cost * (1.0 + limits.TOLERANCE)
        return Spending(fleet.sample_cost, spend, most, budget.round_cost, fleet.whole_step_cost)

    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Whole batches in one direction at (K, tau), as the contract says."""
        fleet = self.problem.fleet
        upper = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        weights = self.weights(floor, angle)
        spend = limits.step_budget(self.problem, rounds, local_steps)
        if multiplier is None:
            multiplier = relax(weights, fleet.sample_cost, spend, self.lower, upper).multiplier
        self.solves += 1
        return round_batches(
            weights,
            fleet.sample_cost,
            spend,
            self.lower,
            upper,
            multiplier,
            self._most_units(rounds, local_steps),
            self._multiple,
            self.form.population,
            cutoff,
        )

    def prices(self, weights: Floats, rounds: int, local_steps: int) -> tuple[float, float]:
        """The price of cost that bounds whole batches best; that of energy is zero."""
        fleet, multiple = self.problem.fleet, self.problem.fleet.batch_multiple
        most = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        if float(np.sum(fleet.sample_cost * most)) <= limits.step_budget(self.problem, rounds, local_steps):
            return 0.0, 0.0
        spend = self._spent(rounds, local_steps)
        start = relax(weights, fleet.sample_cost, spend, self.lower, most).multiplier
        if start == 0.0:
            return 0.0, 0.0
        knapsack = Knapsack(
            weights / multiple, fleet.sample_cost * multiple, spend, self.lower // multiple, most // multiple
        )
        return best_price(knapsack, start).price, 0.0

    def _most_units(self, rounds: int, local_steps: int) -> int | None:
        """How many units fit; None where that depends on which."""
        del rounds, local_steps
        return None

    def _spent(self, rounds: int, local_steps: int) -> float:
        """What whole batches can spend of the limit on cost."""
        return limits.step_budget(self.problem, rounds, local_steps)


class EqualCosts(UnequalCosts):
    """A limit on cost, where a unit of batch costs the same everywhere: the integer optimum is found at once.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    unit_cost : float
    """

    def __init__(self, problem: Problem, form: MonotoneForm, unit_cost: float) -> None:
        super().__init__(problem, form)
        self.unit_cost = self._each = unit_cost

    def _most_units(self, rounds: int, local_steps: int) -> int:
        return limits.step_units(self.problem, rounds, local_steps, self._each)

    def _spent(self, rounds: int, local_steps: int) -> float:
        # Only whole units are spent.
        return self._each * self._most_units(rounds, local_steps) * (1.0 + limits.TOLERANCE)

    def curve(
        self,
        floor: Floor,
        corner: tuple[int, int],
        units: tuple[int, int],
        angles: Floats,
        multiplier: float,
    ) -> Curve:
        """Integer optima for a range of units, with the caps of the corner (K, tau)."""
        upper = limits.largest_batches(self.problem, *corner, self.upper)
        least = self.lower if self._multiple is None else self.lower // self._multiple
        first = max(units[0], int(least.sum()))
        last = max(units[1], first)
        self.solves += 2 * angles.size
        price = multiplier * self._each
        rows = [
            unit_curve(
                self.weights(floor, angle),
                self.lower,
                upper,
                first,
                last,
                price,
                self._multiple,
                self.form.population,
            )
            for angle in angles.tolist()
        ]
        return Curve(angles, first, np.array(rows))
