"""The inner problem tied to a problem: optimal batches at one (K, tau), and what they prove elsewhere.

Floors of a family differ in two numbers, the shares of the two noise terms. Let v(t) be the smallest
noise with the shares (1 - t, t), each term normalised. v is a minimum of functions linear in t, hence
concave, so values at a few directions t give by interpolation a lower bound for every member; towards
directions outside the computed range v falls to zero at worst.

With y1 = 1/(K tau) and y2 = 1/tau every limit is linear, so the multipliers of one continuous solve bound
v from below for every other (K, tau): v(t) >= c0 - c1 y1 + c2 y2. That is a :class:`Cut`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.errors import SolverError
from coopt.objectives.monotone import Floor, MonotoneForm, inverse_batches
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.whole_units.batches import (
    Floats,
    Ints,
    Rounded,
    cap_multipliers,
    relax,
    round_batches,
    unit_curve,
)
from coopt.solvers.whole_units.unit_prices import units_at


@dataclass(frozen=True)
class Directions:
    """The floors of some members as offset + size * v(direction), arrays of shape (m,)."""

    offsets: Floats
    sizes: Floats
    angles: Floats

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | tuple[slice, None]) -> Directions:
        """The same for some of the members."""
        return Directions(self.offsets[index], self.sizes[index], self.angles[index])


@dataclass(frozen=True)
class Values:
    """Lower bounds v >= levels at some directions, arrays of shape (d,), directions ascending."""

    angles: Floats
    levels: Floats

    def at(self, angles: Floats) -> Floats:
        """Lower bounds on v at other directions."""
        bounds: Floats = _hats(angles, self.angles) @ self.levels
        return bounds


@dataclass(frozen=True)
class Cut:
    """v >= constant - slope / (K tau) + rise / tau at some directions, arrays of shape (d,)."""

    angles: Floats
    constant: Floats
    slope: Floats
    rise: Floats

    def at(self, angles: Floats, inverse_product: Floats, inverse_steps: Floats) -> Floats:
        """Lower bounds on v at other directions, for given 1/(K tau) and 1/tau."""
        hats = _hats(angles, self.angles)
        bounds: Floats = (
            hats @ self.constant - hats @ self.slope * inverse_product + hats @ self.rise * inverse_steps
        )
        return bounds


@dataclass(frozen=True)
class Curve:
    """v >= levels[:, n - first] for every plan with at most n units a step; levels of shape (d, width)."""

    angles: Floats
    first: int
    levels: Floats

    def at(self, angles: Floats, units: Floats) -> Floats:
        """Lower bounds on v at other directions; `units` are the most that a plan can use."""
        place = np.clip(units - self.first, 0, self.levels.shape[1] - 1).astype(np.intp)
        bounds: Floats = np.sum(_hats(angles, self.angles) * self.levels[:, place].T, axis=-1)
        return bounds


@dataclass(frozen=True)
class Spending:
    """A limit on the work of a step: sample @ s <= slope / (K tau) - rise / tau - step, which is `limit`."""

    sample: Floats
    limit: float
    slope: float
    rise: float
    step: float


def _hats(where: Floats, angles: Floats) -> Floats:
    """Weights of shape (*where.shape, d) that combine the directions `angles` into those asked for.

    Between two directions v is at least its chord; beyond the last it is at least a chord to zero.
    """
    last = angles.size - 1
    hats = np.zeros((*where.shape, angles.size))
    right = np.clip(np.searchsorted(angles, where), 1, max(last, 1))
    if last > 0:
        low, high = angles[right - 1], angles[right]
        share = np.clip((where - low) / (high - low), 0.0, 1.0)
        np.put_along_axis(hats, (right - 1)[..., None], (1.0 - share)[..., None], axis=-1)
        np.put_along_axis(hats, right[..., None], share[..., None], axis=-1)
    else:
        hats[...] = 1.0
    below, above = where < angles[0], where > angles[last]
    if below.any():
        hats[below] *= (where[below] / angles[0])[:, None]
    if above.any():
        hats[above] *= ((1.0 - where[above]) / (1.0 - angles[last]))[:, None]
    return hats


class Inner:
    """Solves the inner problem of one problem and one bound, and counts how often.

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
        # Where it is not None the integer optimum is found at once.
        self.unit_cost = fleet.unit_cost
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
        """Weights of the normalised inner problem in one direction, shape (N,)."""
        norms = [norm or 1.0 for norm in self._norms.tolist()]
        if len(norms) == 1:
            return floor.basis[0] / norms[0]
        first, second = floor.basis
        return (1.0 - angle) / norms[0] * first + angle / norms[1] * second

    def spending(self, weights: Floats, rounds: int, local_steps: int, upper: Floats | Ints) -> Spending:
        """The limit on the work of a step at (K, tau): that on cost."""
        del weights, upper  # for a choice among several limits
        budget = self.problem.budget
        spend = limits.step_budget(self.problem, rounds, local_steps)
        fleet, most = self.problem.fleet, budget.cost * (1.0 + limits.TOLERANCE)
        return Spending(fleet.sample_cost, spend, most, budget.round_cost, fleet.whole_step_cost)

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
                pull = push * fleet.throughput[held]
                slope += float(np.sum(pull)) * budget.time * (1.0 + limits.TOLERANCE)
                rise += float(np.sum(pull * fleet.round_time[held]))
                step += float(np.sum(pull * fleet.step_time[held]))
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

    def exact(
        self,
        floor: Floor,
        rounds: int,
        local_steps: int,
        angle: float,
        multiplier: float | None = None,
        cutoff: float | None = None,
    ) -> Rounded:
        """Integer optimum in one direction at (K, tau).

        Where unit costs differ, if it is below `cutoff`; a point and a bound if that is None.
        """
        fleet = self.problem.fleet
        upper = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        weights = self.weights(floor, angle)
        spend = limits.step_budget(self.problem, rounds, local_steps)
        if multiplier is None:
            multiplier = relax(weights, fleet.sample_cost, spend, self.lower, upper).multiplier
        units = None
        if self.unit_cost is not None:
            units = limits.step_units(self.problem, rounds, local_steps, self.unit_cost)
        self.solves += 1
        return round_batches(
            weights,
            fleet.sample_cost,
            spend,
            self.lower,
            upper,
            multiplier,
            units,
            self._multiple,
            self.form.population,
            cutoff,
        )

    def curve(
        self,
        floor: Floor,
        corner: tuple[int, int],
        units: tuple[int, int],
        angles: Floats,
        multiplier: float,
    ) -> Curve:
        """Integer optima for a range of units, with the caps of the corner (K, tau), at equal unit costs."""
        upper = limits.largest_batches(self.problem, *corner, self.upper)
        least = self.lower if self._multiple is None else self.lower // self._multiple
        first = max(units[0], int(least.sum()))
        last = max(units[1], first)
        self.solves += 2 * angles.size
        price = multiplier * (self.unit_cost or 0.0)
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
