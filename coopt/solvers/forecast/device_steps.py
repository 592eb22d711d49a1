"""Plans in which slow devices take fewer local steps, where their smallest batches take long.

Under a time limit theta a round of K may take theta / K. A device takes tau steps if there is time for them
with batches of at least b, else as many as there is time for: with its smallest batch, or with a larger one
where fewer steps on more samples are worth more. So K, tau and b decide the steps of all devices, and what is
left is a problem in batches alone, as with equal steps. The search starts from a grid of these, and from one
step everywhere, and goes downhill in the steps of all devices and of single ones, at last in the rounds too.

Nothing is monotone in K here: fewer rounds leave time for more steps, which changes what a change counts. So
no other plan is excluded, and the lower bound is that of the loss alone. Against every choice of steps on
small fleets the plans were the best ones or within a few per cent of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coopt.objectives.forecast.forecast import Forecast
from coopt.problem import limits
from coopt.problem.device_steps import at_device_steps
from coopt.problem.problem import Problem
from coopt.solvers.contract import Found, Incumbent
from coopt.solvers.forecast.one_tau import Slices
from coopt.solvers.forecast.smallest import stable
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.whole_units.batches import Ints

# Ratio of neighbours on the grid of rounds, and on that of local steps and of batches.
GRID_ROUNDS, GRID_STEPS, GRID_BATCHES = 1.5, 3.0, 4.0
# So many plans are followed downhill to other rounds as well; factors of changes, one after the other, and
# how many changes are tried at most.
PLACES, FACTORS, MOST_CHANGES = 3, (2.0, 1.3, 1.0), 400
# So many plans get whole batches.
WHOLE = 4

Place = tuple[int, int, int]


class _Uneven:
    """The inner problems of plans with steps of each device's own."""

    def __init__(self, problem: Problem, forecast: Forecast, deadline: float) -> None:
        self.problem, self.forecast, self.deadline = problem, forecast, deadline
        fleet, budget = problem.fleet, problem.budget
        self.least, self._most_batch = fleet.batch_range()
        self.rounds = feasible_ranges(replace(problem, budget=replace(budget, max_local_steps=1)), None, None)
        fastest = float(limits.step_times(problem, self.least).min())
        room = budget.time - float(fleet.round_time.min())
        steps = room / fastest if fastest > 0.0 else math.inf
        self.most_steps = int(min(steps, budget.max_local_steps or math.inf, 2**31))
        self._values: dict[tuple[int, tuple[int, ...]], float] = {}
        self._steps: dict[Place, Ints | None] = {}

    def steps(self, place: Place) -> Ints | None:
        """How many steps each device takes; None where some have no time for one."""
        if place not in self._steps:
            rounds, local_steps, batch = place
            fleet, multiple = self.problem.fleet, self.problem.fleet.batch_multiple
            wanted = np.maximum(self.least, -(-batch // multiple) * multiple)
            caps = limits.largest_batches(self.problem, rounds, 1, self._most_batch)
            wanted = np.maximum(np.minimum(wanted, caps), self.least)
            slack = self.problem.budget.time * (1.0 + limits.TOLERANCE / 2.0) / rounds - fleet.round_time
            with np.errstate(divide="ignore"):
                most = np.floor(slack / limits.step_times(self.problem, wanted))
            fits = bool((most >= 1.0).all())
            self._steps[place] = np.minimum(most, local_steps).astype(np.int64) if fits else None
        return self._steps[place]

    def slices(self, rounds: int, steps: Ints) -> Slices | None:
        """The inner problem; None where the smallest batches are beyond a limit."""
        tau = int(steps.max())
        run = at_device_steps(self.problem, tau, steps)
        if not self._fits(run, rounds, tau, self.least):
            return None
        own = self.forecast.with_device_steps(steps)
        least = stable(run, own)(tau)
        if least is None or not ((least == self.least).all() or self._fits(run, rounds, tau, least)):
            return None
        return Slices(run.plain, own.federation(run), lambda _: least)

    @staticmethod
    def _fits(run: Problem, rounds: int, local_steps: int, batches: Ints) -> bool:
        return not limits.violations(run, rounds, local_steps, batches.astype(np.float64))

    def value(self, rounds: int, steps: Ints | None) -> float:
        """The forecast of the best batches, from below but nearly; inf where none fit."""
        if steps is None:
            return math.inf
        key = rounds, tuple(steps.tolist())
        if key not in self._values:
            slices = None if time.perf_counter() > self.deadline else self.slices(rounds, steps)
            value = math.inf
            if slices is not None:
                tau, place = int(steps.max()), np.array([rounds])
                noise = slices.bounds(place, tau, tau)
                value = float((slices.federation.mean(place, tau) + noise)[0])
            self._values[key] = value if math.isfinite(value) else math.inf
        return self._values[key]

    def at(self, place: Place) -> float:
        """The same where a place decides the steps."""
        return self.value(place[0], self.steps(place))

    def best_plans(self) -> list[tuple[int, Ints]]:
        """The most promising rounds and steps, after going downhill from a grid; the best first."""
        first, last = self.rounds.rounds[0], self.rounds.most_rounds(1)
        found: dict[tuple[int, tuple[int, ...]], float] = {}

        def follow(rounds: int, steps: Ints, within: tuple[int, int], factors: tuple[float, ...]) -> None:
            rounds, steps = self._downhill(rounds, steps, within, factors)
            found[rounds, tuple(steps.tolist())] = self.value(rounds, steps)

        for k in _spread(first, last, GRID_ROUNDS):
            grid = [
                place
                for tau in _spread(1, self.most_steps, GRID_STEPS)
                for batch in _spread(1, int(self._most_batch.max()), GRID_BATCHES)
                if self._longer(*(place := (k, tau, batch)))
            ]
            # From the best place, and from one step everywhere, with the rounds as they are.
            for place in [(k, 1, 1), *([min(grid, key=self.at)] if grid else [])]:
                steps = self.steps(place)
                if steps is not None and self.at(place) < math.inf:
                    follow(k, steps, (k, k), FACTORS[:1])
        best = sorted(found, key=lambda plan: found[plan])[:PLACES]
        for rounds, own in best:
            follow(rounds, np.array(own), (first, last), FACTORS)
        return [(rounds, np.array(own)) for rounds, own in sorted(found, key=lambda plan: found[plan])]

    def _longer(self, rounds: int, local_steps: int, batch: int) -> bool:
        """Whether some device takes more steps than at the place before on the grid."""
        steps = self.steps((rounds, local_steps, batch))
        return steps is not None and int(steps.max()) > local_steps / GRID_STEPS

    def _downhill(
        self, rounds: int, steps: Ints, limits: tuple[int, int], factors: tuple[float, ...]
    ) -> tuple[int, Ints]:
        """Rounds and steps after changes that help: of rounds, of all steps, of both, of one device."""
        value, tried = self.value(rounds, steps), 0
        for factor in factors:
            better = True
            while better and tried < MOST_CHANGES:
                better = False
                for k, own in self._near(rounds, steps, factor, limits):
                    at, tried = self.value(k, own), tried + 1
                    if at < value:
                        rounds, steps, value, better = k, own, at, True
                        break
        return rounds, steps

    def _near(
        self, rounds: int, steps: Ints, factor: float, limits: tuple[int, int]
    ) -> Iterator[tuple[int, Ints]]:
        more, fewer = min(_more(rounds, factor), limits[1]), max(_fewer(rounds, factor), limits[0])
        longer = np.array([min(_more(each, factor), self.most_steps) for each in steps.tolist()])
        shorter = np.array([_fewer(each, factor) for each in steps.tolist()])
        yield from ((more, steps), (fewer, steps), (rounds, longer), (rounds, shorter))
        yield from ((more, shorter), (fewer, longer))
        for i in range(steps.size):
            for changed in (longer, shorter):
                other = steps.copy()
                other[i] = changed[i]
                yield rounds, other


def search(problem: Problem, forecast: Forecast, equal: Incumbent, time_limit: float | None) -> Found:
    """The best plan found with steps of each device's own, or the one with equal steps if that is better.

    Parameters
    ----------
    problem : Problem
        With a time limit, and without a price of seconds.
    forecast : Forecast
    equal : Incumbent
        The best plan with equal steps. One fits wherever any plan does: one step on every device.
    time_limit : float or None
        Seconds after which the search stops where it is.
    """
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    uneven = _Uneven(problem, forecast, deadline)
    best = equal
    solved = 0
    for rounds, steps in uneven.best_plans()[:WHOLE]:
        slices, tau = uneven.slices(rounds, steps), int(steps.max())
        if slices is None:
            continue
        solved += 1
        found = slices.solve(rounds, tau, best.value)
        own = None if bool((steps == tau).all()) else steps
        judge = forecast.with_device_steps(own)
        value = judge.value(problem, rounds, tau, found.batch_sizes)
        if value < best.value:
            best = Incumbent(value, rounds, tau, found.batch_sizes, judge, device_steps=own)
    lower = min(forecast.model.loss.lowest, best.value)
    finished = time.perf_counter() <= deadline
    return Found(best, lower, finished, {"inner_solves": len(uneven._values) + solved})


def _spread(first: int, last: int, ratio: float) -> list[int]:
    """Whole numbers from `first` to `last`, each about `ratio` times the one before."""
    found = [first]
    while found[-1] < last:
        found.append(min(_more(found[-1], ratio), last))
    return found


def _more(number: int, factor: float) -> int:
    return max(round(number * factor), number + 1)


def _fewer(number: int, factor: float) -> int:
    return max(min(round(number / factor), number - 1), 1)
