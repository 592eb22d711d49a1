"""Minimise a forecast over rounds, local steps and whole batches, and prove how good the plan is.

At fixed tau the forecast is V(K), the mean without mini-batch noise, plus W(K), the least that batches within
the limits can add. V is computed at every K, or bounded over ranges of K where they are many. W never falls:
with more rounds every weight grows, and the limits leave less for a step. So V(K) + W(K') bounds the forecast
from below for every K' <= K. Over tau, the noise of one step never falls either: weights with the noise of
fewer steps bound those of more.

With momentum, or a learning rate of the server, V may swing, and is computed at every K: what noise adds
still never falls.

A plan is found first, from a coarse grid to a fine one: V + W has one minimum in K wherever it was looked
for, but its minimum over K may have several in tau. The proof then goes through all tau, and finds what was
missed.
"""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.federation import Federation
from coopt.objectives.forecast.forecast import Forecast
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.problem.validation import shown
from coopt.solvers.contract import Found, Incumbent
from coopt.solvers.forecast.one_tau import Slices, Solved
from coopt.solvers.forecast.smallest import Smallest, stable
from coopt.solvers.ranges import Ranges
from coopt.solvers.roundoff import SAME_VALUE
from coopt.solvers.whole_units.batches import Ints

Floats = NDArray[np.float64]

# Ratio of neighbours on the first grid of local steps, and on that of rounds.
COARSE_STEPS, COARSE_ROUNDS = 1.5, 1.4
# So many of the best places of the first grid are looked at more closely.
PLACES = 3
# So far from the best rounds for batches that are not whole those for whole ones are looked for.
NEAR = 4
# Rounds that are evaluated at once where ranges are narrowed.
AT_ONCE = 8
# Up to so many numbers of rounds are looked at one by one; beyond, in ranges of this ratio.
SINGLE_ROUNDS, RANGE_RATIO = 4096, 1.05
# Up to so many rounds are composed to see whether a range of local steps can hold a better plan.
MOST_COMPOSED = 64
# A range of rounds that may hold the best plan is divided into so many.
DIVISION = 16


def search(
    problem: Problem,
    forecast: Forecast,
    ranges: Ranges,
    tolerance: float,
    time_limit: float | None,
    start: tuple[int, int, Ints] | None = None,
    smallest: Smallest | None = None,
    target: float = -math.inf,
    within: Problem | None = None,
) -> Found:
    """Minimise a forecast over the ranges; see :func:`coopt.solvers.exact.box_search.search`.

    Parameters
    ----------
    problem : Problem
    forecast : Forecast
    ranges : Ranges
    tolerance : float
        Relative gap at which the proof may stop.
    time_limit : float or None
        Seconds after which the proof stops where it is; a plan is found in any case.
    start : tuple, optional
        A feasible plan (K, tau, batches).
    smallest : callable, optional
        Batches for so many local steps that no plan goes below; by default those that keep training stable.
        Where no plan within the limits does, the best one of all is found: the forecast warns of it.
    target : float, default -inf
        Whether a plan has at most this forecast is all that is of interest: the first one ends the search.
    within : Problem, optional
        Whose limits hold, in place of the problem's own; of the same fleet.
    """
    if forecast.device_steps is not None:
        raise InvalidProblemError(
            f"device_steps = {shown(forecast.device_steps)} of the forecast: they are those of one plan, for "
            'evaluate; solve_allocation(device_steps="auto") chooses them'
        )
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    own = stable(problem, forecast) if smallest is None else smallest
    federation, plain = forecast.federation(problem), (within or problem).plain
    whole = _ForecastSearch(problem, forecast, ranges, tolerance, Slices(plain, federation, own), target)
    if start is not None and _allowed(own, start):
        whole.judge(*start)
    whole.find()
    if smallest is None and not whole.best.rounds:
        any_batches = Slices(plain, federation, lambda _: ranges.lower)
        whole = _ForecastSearch(problem, forecast, ranges, tolerance, any_batches, target)
        whole.find()
    finished = whole.prove(deadline)
    # A search that ended at its target has not looked for a better plan.
    lower = -math.inf if whole.reached() else min(whole.lower, whole.best.value)
    trace: dict[str, float] = {"inner_solves": whole.slices.solves, "boxes": whole.divided}
    return Found(whole.best, lower, finished, trace)


def _allowed(smallest: Smallest, plan: tuple[int, int, Ints]) -> bool:
    """Whether the batches of a plan (K, tau, batches) are not too small."""
    _, local_steps, batches = plan
    least = smallest(local_steps)
    return least is not None and bool((batches >= least).all())


class _ForecastSearch:
    def __init__(
        self,
        problem: Problem,
        forecast: Forecast,
        ranges: Ranges,
        tolerance: float,
        slices: Slices,
        target: float = -math.inf,
    ) -> None:
        self.problem = problem
        self.forecast = forecast
        self.federation: Federation = slices.federation
        self.ranges = ranges
        self.smallest = slices.smallest
        self.tolerance = max(tolerance, SAME_VALUE)
        self.target = target
        self.slices = slices
        self.best = Incumbent(math.inf, 0, 0, ranges.lower, forecast)
        # The smallest bound of anything that was discarded.
        self.lower = math.inf
        self.divided = 0
        self._solved: dict[tuple[int, int], Solved] = {}
        # Of these local steps the noise is the one that weights are bounded with.
        self._noise_of = ranges.local_steps[0]

    def judge(self, rounds: int, local_steps: int, batches: Ints) -> None:
        """Keep a plan if it is the best so far."""
        value = self.forecast.value(self.problem, rounds, local_steps, batches)
        plan = Incumbent(value, rounds, local_steps, batches, self.forecast)
        if not self.best.rounds or plan.rank < self.best.rank:
            self.best = plan

    def threshold(self) -> float:
        """Plans from here on are of no interest."""
        value = self.best.value
        if self.target > -math.inf:
            return math.nextafter(self.target, math.inf)
        return value - self.tolerance * abs(value) if value < math.inf else math.inf

    def reached(self) -> bool:
        """Whether a plan meets the target, where there is one."""
        return self.best.value <= self.target

    def find(self) -> None:
        """A good plan, from a coarse grid of local steps to a fine one."""
        first, last = self.ranges.local_steps
        grid = _spread(first, last, COARSE_STEPS)
        found = {tau: place for tau in grid if (place := self._best_rounds(tau)) is not None}
        for centre in _lowest(found)[:PLACES]:
            self._narrow(found, centre)
        for tau in _lowest(found)[:PLACES]:
            self._solve_near(found[tau][1], tau)
        if not self.best.rounds:
            # Forecasts beyond float64, or smallest batches that fit nowhere: any plan of the ranges will do.
            self._any_plan()

    def prove(self, deadline: float) -> bool:
        """Go through all local steps; False if the deadline comes first."""
        first, last = self.ranges.local_steps
        self._noise_of = first
        grid = [*_spread(first, last, COARSE_STEPS), last + 1]
        for start, end in itertools.pairwise(grid):
            if start > first and self._excluded(start, last):
                break
            if start > first and self._excluded(start, end - 1):
                continue
            for tau in range(start, end):
                if time.perf_counter() > deadline:
                    self.lower = min(self.lower, self.federation.loss.lowest)
                    return False
                self._prove_at(tau)
                if self.reached():
                    return True
        return True

    def _excluded(self, first: int, last: int) -> bool:
        """Whether a range of local steps is seen to hold no better plan.

        None has less noise than one round of the fewest steps within the limits of that.
        """
        if not self.federation.noise_grows:
            return False
        fewest, most = self.ranges.rounds[0], self.ranges.most_rounds(first)
        bound, noise = self.federation.loss.lowest, self.slices.tail(first)
        # To compose a few rounds takes as long as to look at one number of steps.
        if fewest == 1 <= most <= min(MOST_COMPOSED, last - first + 1):
            means = self.federation.least(most, first, last, self.threshold() - noise)
            bound = max(bound, float(means.min()))
        bound += noise
        if bound < self.threshold():
            return False
        self.lower = min(self.lower, bound)
        return True

    def rounds_at(self, local_steps: int) -> tuple[int, int]:
        """The range of rounds that fit at so many local steps; empty where the first exceeds the last."""
        first, last = self.ranges.rounds[0], self.ranges.most_rounds(local_steps)
        smallest = self.smallest(local_steps)
        if smallest is None:
            return first, first - 1
        if smallest is not self.ranges.lower:
            most = limits.most_rounds(self.slices.plain, local_steps, smallest)
            last = last if most is None else min(last, most)
        return first, last

    def _any_plan(self) -> None:
        for tau in range(self.ranges.local_steps[0], self.ranges.local_steps[1] + 1):
            smallest = self.smallest(tau)
            first, last = self.rounds_at(tau)
            if smallest is not None and first <= last:
                self.judge(first, tau, smallest)
                return

    def _solve(self, rounds: int, local_steps: int) -> Solved:
        """Whole batches at (K, tau), once."""
        if (rounds, local_steps) not in self._solved:
            found = self.slices.solve(rounds, local_steps, self.threshold())
            self._solved[rounds, local_steps] = found
            if found.value <= self.best.value:
                self.judge(rounds, local_steps, found.batch_sizes)
        return self._solved[rounds, local_steps]

    def _solve_near(self, rounds: int, local_steps: int) -> None:
        """Whole batches at the most promising rounds near a place: they leave some of the limits unspent."""
        first, last = self.rounds_at(local_steps)
        near = np.arange(max(rounds - NEAR, first), min(rounds + NEAR, last) + 1)
        order = np.argsort(self._values(near, local_steps), kind="stable")
        for k in near[order[:PLACES]].tolist():
            self._solve(k, local_steps)

    def _values(self, rounds: Ints, local_steps: int) -> Floats:
        """Forecasts of the best plans, from below but nearly."""
        mean = self.federation.mean(rounds, local_steps)
        values: Floats = mean + self.slices.bounds(rounds, local_steps, local_steps)
        return np.where(np.isnan(values), math.inf, values)

    def _best_rounds(self, local_steps: int) -> tuple[float, int] | None:
        """Where the forecast is smallest at so many local steps, if it has one minimum; None if none fit."""
        first, last = self.rounds_at(local_steps)
        if first > last:
            return None
        places = np.array(_spread(first, last, COARSE_ROUNDS))
        while True:
            values = self._values(places, local_steps)
            best = int(values.argmin())
            low, high = int(places[max(best - 1, 0)]), int(places[min(best + 1, places.size - 1)])
            if (high - low <= 2 and places.size > 1) or low == high:
                return float(values[best]), int(places[best])
            places = np.unique(np.linspace(low, high, AT_ONCE + 1).astype(np.int64))
            if places.size == high - low + 1:
                values = self._values(places, local_steps)
                return float(values.min()), int(places[values.argmin()])

    def _narrow(self, found: dict[int, tuple[float, int]], centre: int) -> None:
        """Look at local steps on both sides of a place of the grid, closer and closer to the best."""
        for _ in range(64):
            known = sorted(found)
            place = known.index(centre)
            sides = [known[max(place - 1, 0)], known[min(place + 1, len(known) - 1)]]
            fresh = {(centre + side) // 2 for side in sides} - found.keys()
            if not fresh:
                return
            for tau in fresh:
                at = self._best_rounds(tau)
                if at is not None:
                    found[tau] = at
            near = [tau for tau in found if sides[0] <= tau <= sides[1]]
            centre = min(near, key=lambda tau: found[tau][0])

    def _prove_at(self, local_steps: int) -> None:
        """Discard all rounds at so many local steps, or solve them."""
        first, last = self.rounds_at(local_steps)
        if first > last:
            return
        if not self.federation.noise_grows:
            self._noise_of = local_steps
        pieces = _RoundRanges.of(first, last, self.federation, local_steps)
        while pieces.first.size:
            bounds = pieces.bounds()
            alive = bounds < self.threshold()
            if not alive.all():
                self.lower = min(self.lower, float(np.min(bounds[~alive])))
                pieces = pieces.take(alive)
                continue
            fresh = np.flatnonzero(pieces.noise_of < self._noise_of)
            if fresh.size:
                chosen = fresh[np.unique(np.linspace(0, fresh.size - 1, AT_ONCE).astype(np.intp))]
                noise = self.slices.bounds(pieces.first[chosen], local_steps, self._noise_of)
                pieces = pieces.raised(chosen, noise, self._noise_of)
                continue
            wide = pieces.first < pieces.last
            if wide.any():
                self.divided += int(wide.sum())
                pieces = pieces.divided(self.federation, local_steps)
            elif self._noise_of < local_steps:
                self._noise_of = local_steps
            else:
                weakest = int(bounds.argmin())
                solved = self._solve(int(pieces.first[weakest]), local_steps)
                self.lower = min(self.lower, max(solved.lower_bound, float(bounds[weakest])))
                pieces = pieces.take(np.arange(pieces.first.size) != weakest)


class _RoundRanges:
    """Ranges of rounds, ascending, at one number of local steps, and what bounds them from below."""

    def __init__(self, first: Ints, last: Ints, mean: Floats, noise: Floats, noise_of: Ints) -> None:
        self.first = first
        self.last = last
        self.mean = mean
        # What batches add at `first`, at least, and the local steps whose noise that rests on.
        self.noise = noise
        self.noise_of = noise_of

    @classmethod
    def of(cls, first: int, last: int, federation: Federation, local_steps: int) -> _RoundRanges:
        """The rounds from `first` to `last`, one by one or in ranges."""
        if last - first < SINGLE_ROUNDS:
            starts = np.arange(first, last + 1)
        else:
            starts = np.array(_spread(first, last, RANGE_RATIO))
        ends = np.append(starts[1:] - 1, last)
        return cls._fresh(starts, ends, np.zeros(starts.size), federation, local_steps)

    @classmethod
    def _fresh(
        cls, first: Ints, last: Ints, noise: Floats, federation: Federation, local_steps: int
    ) -> _RoundRanges:
        single = first == last
        rounds = federation.rounds(local_steps)
        mean = np.empty(first.size)
        if single.any():
            mean[single] = rounds.mean(first[single])
        if not single.all():
            mean[~single] = rounds.least(first[~single], last[~single])
        # What is no number bounds nothing away; what is infinite is of no interest.
        mean[np.isnan(mean)] = math.inf
        return cls(first, last, mean, noise, np.zeros(first.size, dtype=np.int64))

    def bounds(self) -> Floats:
        """A lower bound on every range."""
        return self.mean + np.maximum.accumulate(self.noise)

    def take(self, places: NDArray[np.bool_]) -> _RoundRanges:
        """Some of the ranges; what those before them add, they add as well."""
        noise = np.maximum.accumulate(self.noise)
        return _RoundRanges(
            self.first[places], self.last[places], self.mean[places], noise[places], self.noise_of[places]
        )

    def raised(self, places: NDArray[np.intp], noise: Floats, noise_of: int) -> _RoundRanges:
        """The same with what batches add at the start of some ranges."""
        raised, rests = self.noise.copy(), self.noise_of.copy()
        raised[places] = np.maximum(raised[places], noise)
        rests[places] = noise_of
        return _RoundRanges(self.first, self.last, self.mean, raised, rests)

    def divided(self, federation: Federation, local_steps: int) -> _RoundRanges:
        """The same ranges, each in several parts."""
        firsts, lasts, noises = [], [], []
        noise = np.maximum.accumulate(self.noise).tolist()
        for low, high, level in zip(self.first.tolist(), self.last.tolist(), noise, strict=True):
            starts = np.unique(np.linspace(low, high + 1, DIVISION + 1).astype(np.int64))
            firsts.append(starts[:-1])
            lasts.append(starts[1:] - 1)
            noises.append(np.full(starts.size - 1, level))
        return self._fresh(
            np.concatenate(firsts), np.concatenate(lasts), np.concatenate(noises), federation, local_steps
        )


def _spread(first: int, last: int, ratio: float) -> list[int]:
    """Whole numbers from `first` to `last`, each at most `ratio` times the one before, or one more."""
    found = [first]
    while found[-1] < last:
        found.append(min(max(int(found[-1] * ratio), found[-1] + 1), last))
    return found


def _lowest(found: dict[int, tuple[float, int]]) -> list[int]:
    """Places that are no worse than both neighbours, the best first."""
    known = sorted(found)
    values = [math.inf, *(found[tau][0] for tau in known), math.inf]
    minima = [
        tau
        for tau, left, own, right in zip(known, values, values[1:], values[2:], strict=False)
        if own <= left and own <= right
    ]
    return sorted(minima, key=lambda tau: found[tau])
