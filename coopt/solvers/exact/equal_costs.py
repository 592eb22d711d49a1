"""Inner problems where a unit of batch costs the same everywhere, by passes over fleets of any size.

A row takes a level of water: every level gives a valid one, the best level the tightest, so that the search
for it may stop early. Whole batches are the best units of all devices: two prices of a unit, one a little too
dear and one a little too cheap, settle how many units most devices take, and what is left is a choice among
the few units that are worth a price in between. Each solve starts from where the last one ended, and keeps no
more than the batches it returns.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import MonotoneForm
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers import fleet_passes as passes
from coopt.solvers.exact.oracle import Oracle, Row, WholeBatches, mix
from coopt.solvers.fleet_passes import UNBOUNDED, Pace, Units, at, starting_level, water_level
from coopt.solvers.roundoff import LOOSENED, LOOSENED_LIMIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The loss of a row is the square of what the budget is missed by.
ENOUGH = 1e-6
# Where a sample is solved first, one pass mostly meets this.
ENOUGH_WITH_PILOT = 1e-2
# Brackets of the price tried at most; after so many the bracket is halved.
PRICES, SECANTS = 200, 8
# Logarithms of prices at which nothing more, and all that is of use, is taken.
DEAREST, CHEAPEST = 700.0, -744.0
# Widest and narrowest bracket of a price, in logarithms.
WIDE, NARROW = 0.25, 1e-3


class EqualCostOracle(Oracle):
    """The inner problem of a fleet whose unit costs are equal, or that of every n-th of its devices.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    unit_cost : float
        What one unit of batch costs on every device.
    """

    def __init__(self, problem: Problem, form: MonotoneForm, unit_cost: float) -> None:
        super().__init__(problem, form)
        self.unit_cost = unit_cost
        lower, upper = problem.fleet.batch_range()
        # The devices that are taken, and what the smallest batches use, of all and of these.
        self._every, self.share, self._upper = 1, 1.0, upper
        self._least = self.own = limits.work(problem, lower)
        # Where the last continuous and the last whole solve ended: a level, and the logarithm of a price.
        self._level: float | None = None
        self._price: float | None = None
        self._pilot: Self | None = None

    def sampled(self, every: int) -> Self:
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

    def follow(self, pilot: Self) -> None:
        """Solve each problem for a sample first, and start from where that ended."""
        self._pilot = pilot
        self.adopt(pilot)

    def adopt(self, sample: Self) -> None:
        """Start the next solve from where that for a sample ended, whose weights are larger by its share."""
        if sample._level is not None:
            self._level = sample._level / math.sqrt(sample.share)
        if sample._price is not None:
            self._price = sample._price + math.log(sample.share)

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
        return Row.of(angle, constant, slope, rise)

    def most_units(self, rounds: Floats, local_steps: Floats) -> Floats:
        """The most units that a step may use at several (K, tau).

        Of a sample, none is said to use fewer than it may at first.
        """
        budget = self.problem.plain.budget
        if self.share < 1.0 or budget.cost == math.inf:
            return np.full(rounds.size, math.inf)
        spend = (budget.cost * LOOSENED_LIMIT / rounds - budget.round_cost) / local_steps
        work = spend - self.problem.plain.fleet.whole_step_cost
        units: Floats = np.floor(work * (1.0 + LOOSENED) / self.unit_cost)
        return units

    def whole(self, rounds: int, local_steps: int, angle: float, cutoff: float | None = None) -> WholeBatches:
        """The integer optimum at (K, tau), where the smallest batches must fit."""
        del cutoff  # the optimum is found at once
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
        return WholeBatches(batches, noise, float(mix(angle, self.terms) @ noise), True, units, price)

    def _bracket(
        self, rounds: int, local_steps: int, angle: float, units: int
    ) -> tuple[Ints, int, NDArray[np.intp], Ints, float]:
        """Units at a price that is too dear, their sum, who takes how many when cheap, and the dear price."""
        shares, pace = self._shares(angle), Pace.at(self.problem, rounds, local_steps)
        width = min(max(2.5 / math.sqrt(len(self.devices)), NARROW), WIDE)
        if self._pilot is not None:
            self._pilot.whole(rounds, local_steps, angle)
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

    def _shrunk(self, amount: float) -> float:
        """What the devices that are taken may use of an amount, beyond their share of the least."""
        if self._every == 1 or amount == math.inf:
            return amount
        return self.own + (amount - self._least) * self.share


def is_one(multiple: Ints) -> bool:
    """Whether batches come in any number of samples."""
    return multiple.size == 1 and int(multiple[0]) == 1


def _middle(low: float, high: float, width: float) -> float:
    if high == math.inf:
        return low + 4.0 * width
    return high - 4.0 * width if low == -math.inf else 0.5 * (low + high)
