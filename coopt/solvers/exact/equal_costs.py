"""The inner problem solved by passes over the fleet, for fleets of any size at equal unit costs.

A continuous solve at one (K, tau) gives a :class:`Row`, a lower bound on the inner problem at every other
(K, tau) in one direction; a whole one gives the integer optimum. Both start from where the last solve ended,
and neither keeps more than the batches it returns. Every level of water gives a valid row, the best level
the tightest, so that the search for it may stop early.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import MonotoneForm, floors_at
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers import fleet_passes as passes
from coopt.solvers.fleet_passes import (
    GUESSED_FROM,
    UNBOUNDED,
    DeviceColumns,
    Pace,
    Units,
    at,
    compact,
    starting_level,
    water_level,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The loss of a row is the square of what the budget is missed by.
ENOUGH = 1e-6
# Where a sample is solved first, one pass mostly meets this.
ENOUGH_WITH_PILOT = 1e-2
PRICES = 200
# After so many the bracket of the price is halved.
SECANTS = 8
# Logarithms of prices at which nothing more, and all that is of use, is taken.
DEAREST, CHEAPEST = 700.0, -744.0
NODES = 5
# In place of floors that no float holds.
BEYOND = 1e300
# Directions are extended beyond those between the two noise terms by this at most.
FURTHEST = 100.0
# Widest and narrowest bracket of a price, in logarithms.
WIDE, NARROW = 0.25, 1e-3


@dataclass(frozen=True)
class Row:
    """v(angle) >= constant - slope / (K tau) + rise / tau for every (K, tau)."""

    angle: float
    constant: float
    slope: float
    rise: float


@dataclass(frozen=True)
class IntegerOptimum:
    """Optimal whole batches in one direction at one (K, tau).

    Attributes
    ----------
    batch_sizes : ndarray of int64, shape (N,)
    noise : ndarray, shape (k,)
        The noise terms, each over its sum at s = 1.
    level : float
        v(angle).
    units : int
        How many units may be used.
    price : float
        By so much the level rises for each unit less that may be used, at least.
    """

    batch_sizes: Ints
    noise: Floats
    level: float
    units: int
    price: float


class EqualCostOracle:
    """The inner problem of a problem and a form whose unit costs are equal, or that of every n-th device.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    unit_cost : float
        What one unit of batch costs on every device.
    """

    def __init__(self, problem: Problem, form: MonotoneForm, unit_cost: float) -> None:
        self.problem = problem
        self.form = form
        self.unit_cost = unit_cost
        self.solves = 0
        fleet, basis = problem.fleet, form.floor(1, np.zeros(1, dtype=np.intp)).basis
        lower, upper = fleet.batch_range()
        nobody = np.empty(0, dtype=np.int64)
        self.devices = DeviceColumns(
            first=np.ascontiguousarray(basis[0]),
            second=np.ascontiguousarray(basis[-1]),
            cost=compact(fleet.sample_cost),
            lower=compact(lower).astype(np.float64),
            upper=compact(upper).astype(np.float64),
            multiple=compact(fleet.batch_multiple),
            population=nobody if form.population is None else np.ascontiguousarray(form.population),
            throughput=compact(fleet.throughput),
            round_time=compact(fleet.round_time),
            step_time=compact(fleet.step_time),
            part=passes.parts_of(fleet)[0],
            part_throughput=passes.parts_of(fleet)[1],
        )
        # The devices that are taken, and what the smallest batches use, of all and of these.
        self._every, self.share, self._upper = 1, 1.0, upper
        self._least = self.own = limits.work(problem, lower)
        self.terms = len(basis)
        self.norms = self._sums()
        self.scales = np.where(self.norms > 0.0, self.norms, 1.0)
        self.ends = self._ends()
        # Where the last continuous and the last whole solve ended: a level, and the logarithm of a price.
        self._level: float | None = None
        self._price: float | None = None
        self._pilot: EqualCostOracle | None = None

    def sampled(self, every: int) -> EqualCostOracle:
        """The same for every n-th device, with a budget smaller in proportion: for a guess, not a proof."""
        sample = copy(self)
        sample.devices = self.devices.sampled(every)
        sample._every, sample._upper = every, self._upper[::every]
        sample.share = len(sample.devices) / len(self.devices)
        fleet = self.problem.fleet
        sample.own = float(np.sum(fleet.sample_cost[::every] * fleet.batch_range()[0][::every]))
        sums = sample._sums()
        sample.scales = np.where(sums > 0.0, sums, 1.0)
        return sample

    def _ends(self) -> tuple[float, float]:
        """The directions, at most 0 and at least 1, between which no weight is negative."""
        if self.terms == 1 or not self.norms.all():
            return 0.0, 1.0
        least, most = math.inf, 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            for begin in range(0, len(self.devices), limits.BLOCK):
                block = slice(begin, begin + limits.BLOCK)
                ratio = self.devices.first[block] / self.devices.second[block]
                # No number where neither noise is any.
                least = min(least, float(np.fmin.reduce(ratio, initial=math.inf)))
                most = max(most, float(np.fmax.reduce(ratio, initial=0.0)))
        scale = float(self.norms[1] / self.norms[0])
        # A little inside, so that rounding makes no weight negative.
        least, most = least * scale * (1.0 - 1e-9), most * scale * (1.0 + 1e-9)
        low = -least / (1.0 - least) if least < 1.0 else -math.inf
        return max(low, -FURTHEST), min(most / (most - 1.0), 1.0 + FURTHEST) if 1.0 < most < math.inf else 1.0

    def follow(self, pilot: EqualCostOracle) -> None:
        """Solve each problem for a sample first, and start from where that ended."""
        self._pilot = pilot
        self.adopt(pilot)

    def adopt(self, sample: EqualCostOracle) -> None:
        """Start the next solve from where that for a sample ended, whose weights are larger by its share."""
        if sample._level is not None:
            self._level = sample._level / math.sqrt(sample.share)
        if sample._price is not None:
            self._price = sample._price + math.log(sample.share)

    def _sums(self) -> Floats:
        terms = (self.devices.first, self.devices.second)[: self.terms]
        return np.array([float(np.sum(term)) for term in terms])

    def floors(self, local_steps: list[int], active: NDArray[np.intp]) -> Floats:
        """Offsets, sizes and angles of the members at every tau, shape (n, 3, m)."""
        offsets, shares = floors_at(self.form, local_steps, active)
        with np.errstate(invalid="ignore", over="ignore"):
            # Any share of no noise is nothing, an infinite one too.
            amounts = shares * self.norms
            amounts[..., self.norms == 0.0] = 0.0
            sizes = amounts.sum(axis=2)
            angles = amounts[..., -1] / np.where(sizes > 0.0, sizes, 1.0)
        # An infinite share, which is one of the last term, of no noise is nothing: a large one is as good.
        endless = np.isinf(sizes)
        sizes[endless], angles[endless] = BEYOND, 1.0
        found = np.stack([offsets, sizes, angles if self.terms == 2 else np.zeros_like(sizes)], axis=1)
        # What no float holds is larger than anything of interest.
        beyond = ~np.isfinite(found).all(axis=1)
        for place, value in enumerate((BEYOND, 0.0, 0.0)):
            found[:, place][beyond] = value
        return found

    def row(self, rounds: int, local_steps: int, angle: float) -> Row:
        """A row from the continuous optimum at (K, tau), or from close to it."""
        budget = self.problem.budget
        spend = self._shrunk(limits.step_budget(self.problem, rounds, local_steps))
        shares, pace = self._shares(angle), Pace.at(self.problem, rounds, local_steps)
        self.solves += 1
        if self._pilot is not None:
            self._pilot.row(rounds, local_steps, angle)
            self.adopt(self._pilot)
        enough = ENOUGH if self._pilot is None else ENOUGH_WITH_PILOT
        start = self._level or starting_level(self.devices, spend, shares, pace)
        level, price, sums = water_level(self.devices, shares, spend, pace, start, enough)
        if level < UNBOUNDED:
            self._level = level
        constant = sums.value + sums.held
        slope = rise = 0.0
        if price > 0.0:
            constant += price * (sums.spent - (self._shrunk(0.0) if self._every > 1 else 0.0))
            constant += price * self.share * self.problem.fleet.whole_step_cost
            slope += price * self.share * budget.cost * (1.0 + limits.TOLERANCE)
            rise += price * self.share * budget.round_cost
        if pace is not None:
            slope += sums.pull * budget.time * (1.0 + limits.TOLERANCE)
            rise += sums.drag
        if not math.isfinite(constant + slope + rise):
            return Row(angle, 0.0, 0.0, 0.0)
        return Row(angle, constant, slope, rise)

    def value(self, rounds: int, local_steps: int, noise: Floats) -> tuple[float, int]:
        """The smallest value over the members of a plan with so much of each noise term, and whose it is."""
        everyone = np.arange(len(self.form.members))
        floor = self.form.floor(local_steps, everyone)
        start, slope = self.form.progress(np.array([float(rounds * local_steps)]), everyone)
        with np.errstate(invalid="ignore"):
            amounts = np.where(noise > 0.0, floor.shares * self.norms * noise, 0.0).sum(axis=1)
        values = start[:, 0] + slope[:, 0] * (floor.offsets + amounts)
        best = int(values.argmin())
        return float(values[best]), best

    def unlimited(self, angles: Floats) -> Floats:
        """About v(angle) per unit of budget if only the cost limited batches, from some of the devices."""
        every = -(-len(self.devices) // GUESSED_FROM)
        nodes = np.linspace(0.0, 1.0, NODES) if self.terms == 2 else np.zeros(1)
        cost = self.devices.cost if self.devices.cost.size == 1 else self.devices.cost[::every]
        roots = []
        for angle in nodes.tolist():
            first, second = self._shares(angle)
            weights = self.devices.first[::every] * first + self.devices.second[::every] * second
            roots.append(float(np.sqrt(weights * cost).mean()) * len(self.devices))
        squares = np.array(roots) ** 2
        found: Floats = np.interp(angles, nodes, squares)
        return found

    def integer_optimum(self, rounds: int, local_steps: int, angle: float) -> IntegerOptimum:
        """The integer optimum at (K, tau), where the smallest batches must fit."""
        units = limits.step_units(self.problem, rounds, local_steps, self.unit_cost)
        if self._every > 1:
            units = math.floor(self._shrunk(units * self.unit_cost) / self.unit_cost)
        few, total, places, many, price = self._bracket(rounds, local_steps, angle, units)
        self.solves += 1
        missing = units - total
        taken = many - few[places]
        if 0 < missing < int(taken.sum()):
            device = np.repeat(np.arange(places.size), taken)
            # Position of each further unit among those of its device.
            rank = np.arange(device.size) - np.repeat(np.cumsum(taken) - taken, taken)
            gains = self._gains(angle, places)[device]
            count = (few[places[device]] + rank).astype(np.float64)
            gains /= count * (count + 1.0)
            best = np.argsort(-gains, kind="stable")[:missing]
            taken, price = np.bincount(device[best], minlength=places.size), float(gains[best[-1]])
        elif missing > 0:
            # Everyone has all that is of use, or just what is left.
            price = 0.0
        if missing > 0:
            few[places] += taken
        batches = few if is_one(self.devices.multiple) else few * self.devices.multiple
        noise = np.array(passes.noise(self.devices, batches)[: self.terms]) / self.scales
        return IntegerOptimum(batches, noise, float(_mix(angle, self.terms) @ noise), units, price)

    def _bracket(
        self, rounds: int, local_steps: int, angle: float, units: int
    ) -> tuple[Ints, int, NDArray[np.intp], Ints, float]:
        """Units at a price that is too dear, their sum, who takes how many when cheap, and the dear price."""
        shares, pace = self._shares(angle), Pace.at(self.problem, rounds, local_steps)
        width = min(max(2.5 / math.sqrt(len(self.devices)), NARROW), WIDE)
        if self._pilot is not None:
            self._pilot.integer_optimum(rounds, local_steps, angle)
            self.adopt(self._pilot)
        if self._price is None or self._pilot is None:
            level = self._level or starting_level(self.devices, units * self.unit_cost, shares)
            centre = -2.0 * math.log(level) + math.log(self.unit_cost)
        else:
            centre = self._price
        # Logarithms of prices known to be too low and too high.
        low, high = -math.inf, math.inf
        for attempt in range(PRICES):
            dear, cheap = math.exp(min(centre + width, DEAREST)), math.exp(max(centre - width, CHEAPEST))
            found, total = self._capped(rounds, local_steps, shares, dear, cheap, pace)
            more = total + int((found.many - found.few[found.places]).sum())
            if total <= units and (more >= units or centre - width <= CHEAPEST):
                break
            if total > units:
                low = centre + width
            else:
                high = centre - width
            if more == total < units:
                # Nobody wants more at the lower price: perhaps there is enough for all.
                centre = CHEAPEST
                continue
            # The number of units falls with the logarithm of the price, by about half for each e-fold.
            slope = max((more - total) / (2.0 * width), 0.25 * units, 1.0)
            centre += ((total + more) / 2.0 - units) / slope
            if attempt >= SECANTS or not low < centre < high:
                centre = _middle(low, high, width)
                width *= 2.0
        self._price = centre
        return found.few, total, found.places, found.many, dear

    def _capped(
        self,
        rounds: int,
        local_steps: int,
        shares: tuple[float, float],
        dear: float,
        cheap: float,
        pace: Pace | None,
    ) -> tuple[Units, int]:
        """Units at two prices, within the time limit, and the sum at the higher price."""
        found, limited = passes.units(self.devices, shares, dear, cheap, pace)
        if limited.size == 0:
            return found, found.total
        fleet_places = limited * self._every
        caps = limits.largest_batches(
            self.problem, rounds, local_steps, self._upper[limited], fleet_places
        ) // at(self.devices.multiple, limited)
        before = found.few[limited]
        found.few[limited] = np.minimum(before, caps)
        # Among the devices that take more when cheap, those that the time limit may hold.
        place = np.searchsorted(limited, found.places)
        place[place == limited.size] = 0
        hit = limited[place] == found.places
        many = np.where(hit, np.minimum(found.many, caps[place]), found.many)
        return Units(found.few, found.total, found.places, many), found.total - int(
            (before - found.few[limited]).sum()
        )

    def _gains(self, angle: float, places: NDArray[np.intp]) -> Floats:
        first, second = self._shares(angle)
        gains = self.devices.first[places] * first
        if second != 0.0:
            gains += self.devices.second[places] * second
        result: Floats = gains / at(self.devices.multiple, places)
        return result

    def _shares(self, angle: float) -> tuple[float, float]:
        first, *second = (_mix(angle, self.terms) / self.scales).tolist()
        return first, (second[0] if second else 0.0)

    def _shrunk(self, amount: float) -> float:
        """What the devices that are taken may use of an amount, beyond their share of the least."""
        if self._every == 1 or amount == math.inf:
            return amount
        return self.own + (amount - self._least) * self.share


def _mix(angle: float, terms: int) -> Floats:
    return np.array([1.0 - angle, angle]) if terms == 2 else np.ones(1)


def is_one(multiple: Ints) -> bool:
    """Whether batches come in any number of samples."""
    return multiple.size == 1 and int(multiple[0]) == 1


def _middle(low: float, high: float, width: float) -> float:
    if high == math.inf:
        return low + 4.0 * width
    return high - 4.0 * width if low == -math.inf else 0.5 * (low + high)
