"""Two budgets at once: the inner problem under a limit on cost and one on energy.

For any share t between 0 and 1 a plan that meets both limits meets their mixture,

    (1 - t) cost / R + t energy / E <= 1,

which is a limit of the same form as that on cost alone. So whatever bounds plans under the mixture, its cuts,
its dual values and its integer optima, bounds those under both limits. The share at which the continuous
optimum of the mixture meets both is the best one, and is found at each (K, tau) anew. Whole
batches that meet the mixture but break one of the two limits are cut and filled up again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coopt import limits
from coopt.monotone import Floor, MonotoneForm, inverse_batches
from coopt.problem import Budget, Problem
from coopt.solvers.batch import Floats, Ints, Rounded, relax
from coopt.solvers.inner import Cut, Inner

# Steps towards the best share, and how nearly it has to meet both limits; any share is valid, a better one
# bounds tighter.
STEPS, BALANCED = 30, 1e-9
# Shares that are tried for whole batches at one (K, tau).
MOST_SHARES = 12
# Devices that are tried one by one once a whole prefix no longer fits, times the devices that each try sums.
MOST_TRIED = 200_000
# A mixture of two limits that are met is met but for the rounding of its sums.
ROUNDING_UP = 1.0 + 1e-13


class TwoLimits(Inner):
    """The inner problem under both limits, as :class:`Inner` is under one.

    Parameters
    ----------
    problem : Problem
        With a finite ``budget.energy``.
    form : MonotoneForm
    """

    def __init__(self, problem: Problem, form: MonotoneForm) -> None:
        super().__init__(problem, form)
        # Units of the mixture cost differently, and differently for each share.
        self.unit_cost = None
        self._last: tuple[float, Inner] | None = None

    def cut(
        self, floor: Floor, rounds: int, local_steps: int, angles: Floats, corner: tuple[int, int]
    ) -> tuple[Cut, list[float]]:
        """A cut from the best mixtures at (K, tau), and their budget multipliers."""
        upper = self.upper
        if self.problem.budget.time < math.inf:
            caps = limits.time_caps(self.problem, rounds, local_steps)
            upper = np.maximum(np.minimum(self.upper, caps), self.lower)
        cuts, multipliers = [], []
        for angle in angles.tolist():
            share, _ = self._share(self.weights(floor, angle), rounds, local_steps, upper)
            cut, multiplier = self._mixed(share).cut(floor, rounds, local_steps, np.array([angle]), corner)
            self.solves += 1
            cuts.append(cut)
            multipliers += multiplier
        constant, slope, rise = (
            np.concatenate([getattr(cut, name) for cut in cuts]) for name in ("constant", "slope", "rise")
        )
        return Cut(angles, constant, slope, rise), multipliers

    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Whole batches within both limits, and the bound that the best mixture proves."""
        del multiplier  # that of another mixture
        upper = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        weights = self.weights(floor, angle)
        share, batches = self._share(weights, rounds, local_steps, upper)
        low, high, proved = 0.0, 1.0, -math.inf
        best = self._rounded(weights, batches, rounds, local_steps, upper, share)
        # The share that is best for whole batches is another one: it is only looked for where it matters.
        for _ in range(1 if cutoff is None else MOST_SHARES):
            found = self._mixed(share).exact(floor, rounds, local_steps, angle, None, cutoff)
            self.solves += 1
            proved = max(proved, found.lower_bound)
            whole = self._filled(
                weights,
                self._reduced(weights, found.batch_sizes, rounds, local_steps),
                rounds,
                local_steps,
                upper,
                share,
            )
            best = min(best, whole, key=lambda plan: self._noise(weights, plan))
            if whole is found.batch_sizes or (cutoff is not None and proved >= cutoff):
                break
            hungry = limits.energy(self.problem, rounds, local_steps, found.batch_sizes)
            if limits.within(hungry, self.problem.budget.energy):
                high = share
            else:
                low = share
            share = (low + high) / 2.0
        value = self._noise(weights, best)
        return Rounded(best, value, min(proved, value))

    def _noise(self, weights: Floats, batches: Ints) -> float:
        return float(np.sum(weights * inverse_batches(batches.astype(np.float64), self.form.population)))

    def _share(
        self, weights: Floats, rounds: int, local_steps: int, upper: Floats | Ints
    ) -> tuple[float, Floats]:
        return best_share(self.problem, weights, rounds, local_steps, self.lower, upper, self.form.population)

    def _mixed(self, share: float) -> Inner:
        """The inner problem under the mixture of the limits alone."""
        if self._last is None or self._last[0] != share:
            self._last = share, Inner(self._mixture(share), self.form)
        return self._last[1]

    def _mixture(self, share: float) -> Problem:
        fleet, budget = self.problem.fleet, self.problem.budget
        cost, energy = limit_units(self.problem.budget)
        mixed, limit = fleet.sample_energy * (share / energy), share * (budget.energy / energy)
        rest = math.fsum(fleet.round_energy.tolist()) * (share / energy)
        if share < 1.0:
            mixed = mixed + fleet.sample_cost * ((1.0 - share) / cost)
            limit += (1.0 - share) * (budget.cost / cost)
            rest += (1.0 - share) * (budget.round_cost / cost)
        none = np.zeros(len(fleet))
        return Problem(
            replace(fleet, sample_cost=mixed, sample_energy=none, round_energy=none),
            self.problem.constants,
            Budget(cost=limit * ROUNDING_UP, time=budget.time, round_cost=rest),
        )

    def _fits(self, rounds: int, local_steps: int, batches: Ints) -> bool:
        budget = self.problem.budget
        return limits.within(
            limits.cost(self.problem, rounds, local_steps, batches), budget.cost
        ) and limits.within(limits.energy(self.problem, rounds, local_steps, batches), budget.energy)

    def _rounded(
        self, weights: Floats, batches: Floats, rounds: int, local_steps: int, upper: Ints, share: float
    ) -> Ints:
        """Whole batches near continuous ones: what fits of these, filled up."""
        multiple = self.problem.fleet.batch_multiple

        def scaled(factor: float) -> Ints:
            units = np.floor(batches * factor / multiple * (1.0 + 1e-12)).astype(np.int64)
            clipped: Ints = np.clip(units * multiple, self.lower, np.maximum(upper, self.lower))
            return clipped

        whole = scaled(_largest(lambda factor: self._fits(rounds, local_steps, scaled(factor))))
        return self._filled(weights, whole, rounds, local_steps, upper, share)

    def _reduced(self, weights: Floats, batches: Ints, rounds: int, local_steps: int) -> Ints:
        """Batches within the mixture, less the units that save most of the limit they break."""
        fleet, multiple = self.problem.fleet, self.problem.fleet.batch_multiple
        while not self._fits(rounds, local_steps, batches):
            burnt = limits.energy(self.problem, rounds, local_steps, batches)
            hungry = not limits.within(burnt, self.problem.budget.energy)
            saved = multiple * (fleet.sample_energy if hungry else fleet.sample_cost)
            free = np.flatnonzero((batches - multiple >= self.lower) & (saved > 0.0))
            if free.size == 0:
                return self.lower.copy()
            fewer = batches[free] - multiple[free]
            loss = weights[free] * multiple[free] / (batches[free] * fewer.astype(np.float64))
            order = free[np.argsort(loss / saved[free], kind="stable")]

            def less(count: int, start: Ints = batches, order: NDArray[np.intp] = order) -> Ints:
                trial = start.copy()
                trial[order[:count]] -= multiple[order[:count]]
                return trial

            count = _first(order.size, lambda n: self._fits(rounds, local_steps, less(n)))
            batches = less(count)
        return batches

    def _filled(
        self, weights: Floats, whole: Ints, rounds: int, local_steps: int, upper: Ints, share: float
    ) -> Ints:
        """Batches that fit, with one unit more where it pays most; the same ones where none fits."""
        fleet = self.problem.fleet
        multiple = fleet.batch_multiple
        cost, energy = limit_units(self.problem.budget)
        price = multiple * ((1.0 - share) * fleet.sample_cost / cost + share * fleet.sample_energy / energy)
        inverse = inverse_batches(whole.astype(np.float64), None)
        gains = weights * (inverse - inverse_batches((whole + multiple).astype(np.float64), None))
        with np.errstate(divide="ignore", invalid="ignore"):
            worth = np.where(gains > 0.0, gains / price, 0.0)
        order = np.argsort(-worth, kind="stable")
        order = order[(worth[order] > 0.0) & (whole[order] + multiple[order] <= upper[order])]

        def raised(count: int) -> Ints:
            trial = whole.copy()
            trial[order[:count]] += multiple[order[:count]]
            return trial

        taken = _first(order.size, lambda n: not self._fits(rounds, local_steps, raised(n))) - 1
        filled = raised(max(taken, 0))
        more = taken > 0
        for i in order[max(taken, 0) :][: MOST_TRIED // len(fleet) + 1].tolist():
            filled[i] += multiple[i]
            if self._fits(rounds, local_steps, filled):
                more = True
            else:
                filled[i] -= multiple[i]
        return filled if more else whole


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """The smallest count up to `most` at which something holds that then goes on to hold; else most + 1."""
    low, high = -1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def limit_units(budget: Budget) -> tuple[float, float]:
    """What cost and energy are measured in: their limits, or one where a limit is none or zero."""
    cost = budget.cost if 0.0 < budget.cost < math.inf else 1.0
    energy = budget.energy if 0.0 < budget.energy < math.inf else 1.0
    return cost, energy


def best_share(
    problem: Problem,
    weights: Floats,
    rounds: int,
    local_steps: int,
    lower: Ints,
    upper: Floats | Ints,
    population: Ints | None = None,
) -> tuple[float, Floats]:
    """The share of energy in the best mixture at (K, tau), and the continuous optimum of that mixture."""
    fleet, budget = problem.fleet, problem.budget
    cost, energy = limit_units(budget)
    costs, energies = fleet.sample_cost / cost, fleet.sample_energy / energy
    step_cost = limits.step_budget(problem, rounds, local_steps) / cost
    step_energy = limits.step_energy(problem, rounds, local_steps) / energy

    def optimum(share: float) -> tuple[Floats, float, float]:
        mixed, spend = energies, step_energy
        if share < 1.0:
            mixed = (1.0 - share) * costs + share * energies
            spend = (1.0 - share) * step_cost + share * step_energy
        best = relax(weights, mixed, spend, lower, upper, population).batch_sizes
        over_cost = float(np.sum(costs * best)) - step_cost if step_cost < math.inf else -math.inf
        return best, over_cost, float(np.sum(energies * best)) - step_energy

    left = right = 0.0
    if step_cost < math.inf:
        batches, over_cost, over_energy = optimum(0.0)
        if over_energy <= 0.0:
            return 0.0, batches
        left = over_energy - over_cost
    batches, over_cost, over_energy = optimum(1.0)
    if over_cost <= 0.0:
        return 1.0, batches
    right = over_energy - over_cost
    low, high, share = 0.0, 1.0, 0.5
    for _ in range(STEPS):
        # Regula falsi; the end that stays counts half (Illinois), which keeps both ends moving.
        guess = (low * right - high * left) / (right - left) if right < left else 0.5
        share = guess if low < guess < high else (low + high) / 2.0
        batches, over_cost, over_energy = optimum(share)
        balance = over_energy - over_cost
        if abs(balance) <= BALANCED * abs(step_energy):
            break
        if balance > 0.0:
            low, left, right = share, balance, right / 2.0
        else:
            high, right, left = share, balance, left / 2.0
    return share, batches


def _largest(fits: Callable[[float], bool]) -> float:
    """The largest factor up to one that fits, to a part in a thousand million; zero always does."""
    if fits(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
