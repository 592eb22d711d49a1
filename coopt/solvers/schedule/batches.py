"""Batches of all devices in all phases, for given rounds, local steps and learning rates.

The forecast is an offset plus a sum of weights over batches, and a batch of device i in phase p costs
K_p tau_p a_i a sample: one separable problem under one limit on cost, whatever the number of phases, so no
split of the cost between phases has to be searched. A limit on time is a limit on the sum of K_p T_p, where
T_p is what a round of phase p may take; given these it is a largest batch for every device and phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.phases import Phases, Setting
from coopt.problem.problem import Problem
from coopt.solvers.forecast.rates import at, floors
from coopt.solvers.forecast.smallest import Smallest, stable
from coopt.solvers.schedule.round_times import SPENT, RoundTimes
from coopt.solvers.whole_units.batches import Floats, Ints, relax, round_batches
from coopt.solvers.whole_units.two_limits import ROUGH, fill_both
from coopt.solvers.whole_units.two_limits_prices import Demand, best_prices

Settings = tuple[Setting, ...]
Floor = Callable[[Problem, Forecast], Smallest]

# How the time that rounds may take is moved between phases, in shares of it, before batches become whole.
SHIFTS = (0.0, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Filled:
    """Whole batches, shape (P, N), and the forecast of the plan."""

    batch_sizes: Ints
    value: float


@dataclass(frozen=True)
class _Room:
    """What the limits leave for batches: costs and energies of a sample, shape (P, N), and their totals."""

    costs: Floats
    spend: float
    energies: Floats
    burn: float
    least: Ints
    seconds: float


class Batches:
    """The inner problem of a schedule.

    Parameters
    ----------
    problem : Problem
    forecast : Forecast
    floor : callable, optional
        The smallest batches of a problem and a forecast at one learning rate; by default those of the fleet.
    """

    def __init__(self, problem: Problem, forecast: Forecast, floor: Floor | None = None) -> None:
        self.problem, self.plain = problem, problem.plain
        self.phases = Phases(forecast, problem)
        self.forecast = forecast
        self.evaluated = 0
        self._floor = floor
        self._smallest: dict[float, Smallest] = {}
        self._lower, self._upper = problem.fleet.batch_range()
        self._times = RoundTimes(problem)

    @classmethod
    def trusted(cls, problem: Problem, forecast: Forecast, *, free: bool) -> Self:
        """With the smallest batches of plans: what keeps training stable, and what free rates ask for."""
        return cls(problem, forecast, floors if free else stable)

    def least(self, setting: Setting) -> Ints | None:
        """The smallest batches of a phase; None where there are none."""
        rate = setting.learning_rate
        if self._floor is None:
            return self._lower
        if rate not in self._smallest:
            own = self.forecast.with_learning_rate(rate)
            self._smallest[rate] = self._floor(at(self.problem, rate), own)
        return self._smallest[rate](setting.local_steps)

    def stable(self, settings: Settings) -> bool:
        """Whether some batches keep all phases stable."""
        return all(self.least(each) is not None for each in settings)

    def fits(self, settings: Settings) -> bool:
        """Whether the smallest batches of all phases are within all limits."""
        return self._room(settings) is not None

    def relaxed(self, settings: Settings) -> float:
        """The forecast of the best plan with these settings, nearly; inf where none fits.

        Largest batches are whole, as the time limit leaves them; other batches are real numbers.
        """
        room = self._room(settings)
        if room is None:
            return math.inf
        self.evaluated += 1
        offset, weights = self.phases.coefficients(settings)
        if not math.isfinite(offset):
            return math.inf
        caps = self._caps(weights, settings, room)
        if self.plain.budget.energy < math.inf:
            return offset + best_prices(self._demand(weights, room, caps), np.zeros(2), ROUGH).dual
        value = relax(weights.ravel(), room.costs.ravel(), room.spend, room.least.ravel(), caps.ravel()).value
        return offset + value

    def whole(self, settings: Settings, cutoff: float | None = None) -> Filled | None:
        """Whole batches; the best ones for these settings where that is below the cutoff.

        Under a time limit the best ones among a few ways to share the time. None where none fit.
        """
        room = self._room(settings)
        if room is None:
            return None
        offset, weights = self.phases.coefficients(settings)
        ways = [self._caps(weights, settings, room)]
        if room.seconds < math.inf and len(settings) > 1:
            split = self._split(weights, settings, room)
            for shift in SHIFTS[1:]:
                for p in range(len(settings)):
                    moved = self._times.moved(split, settings, room.least, p, shift * room.seconds)
                    ways.append(self._whole_caps(settings, moved, room))
        unique = {caps.tobytes(): caps for caps in ways}.values()
        spare = None if cutoff is None else max(cutoff - offset, 0.0)
        filled = [self._fill(weights, room, caps, spare) for caps in unique]
        values = [offset + float(np.sum(weights / batches)) for batches in filled]
        best = int(np.argmin(values))
        return Filled(filled[best], values[best])

    def _fill(self, weights: Floats, room: _Room, caps: Ints, cutoff: float | None) -> Ints:
        multiple = np.broadcast_to(self.plain.fleet.batch_multiple, caps.shape)
        if self.plain.budget.energy < math.inf:
            demand = self._demand(weights, room, caps)
            units = fill_both(demand, best_prices(demand, np.zeros(2), ROUGH).prices, cutoff).units
            return units.reshape(caps.shape) * multiple
        parts = [weights, room.costs, room.least, caps, multiple]
        flat, costs, least, most, steps = (np.ascontiguousarray(part).ravel() for part in parts)
        price = relax(flat, costs, room.spend, least, most).multiplier
        unit = costs * steps
        affordable: int | None = None
        if unit[0] > 0.0 and bool((unit == unit[0]).all()):
            affordable = math.floor(min(room.spend / float(unit[0]), float(np.sum(most))))
        found = round_batches(flat, costs, room.spend, least, most, price, affordable, steps, cutoff=cutoff)
        return found.batch_sizes.reshape(caps.shape)

    def _demand(self, weights: Floats, room: _Room, caps: Ints) -> Demand:
        """The devices of all phases in units of batches, and of the limits on cost and energy."""
        multiple = np.broadcast_to(self.plain.fleet.batch_multiple, caps.shape)
        spend = room.spend if 0.0 < room.spend < math.inf else math.inf
        uses = np.array([room.costs * multiple / spend, room.energies * multiple / room.burn])
        return Demand(
            (weights / multiple).ravel(),
            uses.reshape(2, -1),
            (room.least // multiple).ravel(),
            (caps // multiple).ravel(),
        )

    def _caps(self, weights: Floats, settings: Settings, room: _Room) -> Ints:
        """Largest batches, with the time shared between phases as suits batches that are not whole."""
        if room.seconds == math.inf:
            return np.broadcast_to(self._upper, weights.shape)
        return self._whole_caps(settings, self._split(weights, settings, room), room)

    def _split(self, weights: Floats, settings: Settings, room: _Room) -> Floats:
        return self._times.split(weights, settings, room.costs, room.spend, room.least)

    def _whole_caps(self, settings: Settings, seconds: Floats, room: _Room) -> Ints:
        """Whole largest batches; what rounding leaves of the time goes to one phase after the other."""
        caps = self._times.largest(settings, seconds, room.least)
        for p in range(len(settings)):
            spare = room.seconds - self._times.used(settings, caps)
            seconds = self._times.of_rounds(settings, caps)
            seconds[p] += max(spare, 0.0) / settings[p].rounds
            caps = self._times.largest(settings, seconds, room.least)
        return caps

    def _room(self, settings: Settings) -> _Room | None:
        """What is left for batches; None where the smallest ones do not fit."""
        budget, fleet = self.plain.budget, self.plain.fleet
        rounds = sum(each.rounds for each in settings)
        if rounds > (budget.max_rounds or rounds):
            return None
        if any(each.local_steps > (budget.max_local_steps or math.inf) for each in settings):
            return None
        smallest = [found for each in settings if (found := self.least(each)) is not None]
        if len(smallest) < len(settings):
            return None
        least = np.array(smallest)
        steps = np.array([float(each.rounds * each.local_steps) for each in settings])
        fixed = steps.sum() * fleet.whole_step_cost + rounds * budget.round_cost
        spend = budget.cost * SPENT - fixed
        costs = steps[:, None] * fleet.sample_cost
        if float(np.sum(costs * least)) > spend:
            return None
        energies = steps[:, None] * fleet.sample_energy
        burn = budget.energy * SPENT
        burn -= steps.sum() * fleet.whole_step_energy + rounds * fleet.whole_round_energy
        if budget.energy < math.inf and not float(np.sum(energies * least)) <= burn:
            return None
        seconds = self._times.limit
        if seconds < math.inf and self._times.used(settings, least) > seconds:
            return None
        return _Room(costs, spend, energies, max(burn, math.ulp(0.0)), least, seconds)
