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

from coopt import limits
from coopt.monotone import Floor, MonotoneForm, inverse_batches
from coopt.problem import Problem
from coopt.solvers.batch import Floats, Rounded, relax, round_batches


@dataclass(frozen=True)
class Directions:
    """The floors of some members as offset + size * v(direction), arrays of shape (m,)."""

    offsets: Floats
    sizes: Floats
    angles: Floats

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Directions:
        """The same for some of the members."""
        return Directions(self.offsets[index], self.sizes[index], self.angles[index])


@dataclass(frozen=True)
class Values:
    """Lower bounds v >= levels at some directions, both ascending arrays of shape (d,)."""

    angles: Floats
    levels: Floats

    def at(self, angles: Floats) -> Floats:
        """Lower bounds on v at other directions, by concavity and homogeneity."""
        return _interpolate(angles, self.angles, self.levels)


@dataclass(frozen=True)
class Cut:
    """v >= constant - slope / (K tau) + rise / tau at some directions, arrays of shape (d,)."""

    angles: Floats
    constant: Floats
    slope: Floats
    rise: Floats

    def at(self, angles: Floats) -> tuple[Floats, Floats, Floats]:
        """Coefficients of valid cuts at other directions."""
        return (
            _interpolate(angles, self.angles, self.constant),
            _interpolate(angles, self.angles, self.slope),
            _interpolate(angles, self.angles, self.rise),
        )


def _interpolate(where: Floats, angles: Floats, levels: Floats) -> Floats:
    knots = np.concatenate([[0.0], angles, [1.0]])
    heights = np.concatenate([levels[:1] if angles[0] == 0.0 else [0.0], levels, [0.0]])
    if angles[-1] == 1.0:
        heights[-1] = levels[-1]
    levels_there: Floats = np.interp(where, knots, heights)
    return levels_there


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
        unit_costs = fleet.sample_cost * multiple
        common = float(unit_costs[0])
        self._unit_cost = common if common > 0.0 and bool((unit_costs == common).all()) else None

    def directions(self, floor: Floor) -> Directions:
        """The floors of a family, normalised."""
        norms = np.array([float(np.sum(basis)) or 1.0 for basis in floor.basis])
        amounts = floor.shares * norms
        sizes = amounts.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            angles = amounts[:, -1] / sizes if len(norms) == 2 else np.zeros_like(sizes)
        return Directions(floor.offsets, sizes, np.where(sizes > 0.0, angles, 0.0))

    def weights(self, floor: Floor, angle: float) -> Floats:
        """Weights of the normalised inner problem in one direction, shape (N,)."""
        first = floor.basis[0]
        norm = float(np.sum(first)) or 1.0
        if len(floor.basis) == 1:
            return first / norm
        second = floor.basis[1]
        return (1.0 - angle) / norm * first + angle / (float(np.sum(second)) or 1.0) * second

    def cut(self, floor: Floor, rounds: int, local_steps: int, angles: Floats) -> tuple[Cut, list[float]]:
        """A cut from the continuous optima at (K, tau), and their budget multipliers."""
        budget, fleet = self.problem.budget, self.problem.fleet
        spend = limits.step_budget(self.problem, rounds, local_steps)
        timed = budget.time < math.inf
        caps = limits.time_caps(self.problem, rounds, local_steps) if timed else self.upper
        upper = np.maximum(np.minimum(self.upper, caps), self.lower) if timed else self.upper
        rows, multipliers = [], []
        for angle in angles.tolist():
            weights = self.weights(floor, angle)
            best = relax(weights, fleet.sample_cost, spend, self.lower, upper, self.form.population)
            self.solves += 1
            batches, price = best.batch_sizes, best.multiplier
            slope = rise = 0.0
            constant = float(np.sum(weights * inverse_batches(batches, self.form.population)))
            if price > 0.0:
                constant += price * float(np.sum(fleet.sample_cost * batches))
                slope += price * budget.cost * (1.0 + limits.TOLERANCE)
                rise += price * budget.round_cost
            if timed:
                held = np.flatnonzero((batches >= caps) & (caps < self.upper))
                push = weights[held] / batches[held] ** 2 - price * fleet.sample_cost[held]
                push = np.maximum(push, 0.0)
                constant += float(np.sum(push * batches[held]))
                pull = push * fleet.throughput[held]
                slope += float(np.sum(pull)) * budget.time * (1.0 + limits.TOLERANCE)
                rise += float(np.sum(pull * fleet.round_time[held]))
            rows.append((constant, slope, rise))
            multipliers.append(price)
        constants, slopes, rises = np.array(rows).T
        return Cut(angles, constants, slopes, rises), multipliers

    def exact(
        self, floor: Floor, rounds: int, local_steps: int, angle: float, multiplier: float | None = None
    ) -> Rounded:
        """Integer optimum in one direction at (K, tau), or a point and a bound if unit costs differ."""
        fleet = self.problem.fleet
        upper = limits.largest_batches(self.problem, rounds, local_steps, self.upper)
        weights = self.weights(floor, angle)
        spend = limits.step_budget(self.problem, rounds, local_steps)
        if multiplier is None:
            multiplier = relax(weights, fleet.sample_cost, spend, self.lower, upper).multiplier
        units = None
        if self._unit_cost is not None:
            units = limits.step_units(self.problem, rounds, local_steps, self._unit_cost)
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
        )
