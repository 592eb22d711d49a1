"""The learning rate as a decision, together with rounds, local steps and batch sizes.

For one learning rate the exact solver gives the optimum. For an interval of rates a bound that knows how it
depends on the rate gives a monotone form that is below it for every rate of the interval
(:mod:`coopt.objectives.rates`), and the exact solver minimises that. Intervals whose minimum reaches the best
plan found are discarded, the others are halved.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np

from coopt.errors import SolverError
from coopt.objectives.protocol import Objective
from coopt.objectives.rates import Rates
from coopt.problem.problem import Problem
from coopt.solvers import best_first
from coopt.solvers.contract import Found
from coopt.solvers.exact import box_search as exact
from coopt.solvers.ranges import Ranges

# The gap between intervals and the best plan closes like the width of the intervals: this is what a search
# of some seconds can prove.
FINEST_TOLERANCE = 1e-2
# How long to work on the proof unless the user says.
PROOF_SECONDS = 30.0
# Rates tried first, from the largest down, in this ratio; and the width at which refining stops.
SCAN_RATIO, SCAN_RATES, REFINED = 3.0, 10, 1e-3
# Intervals are halved down to this relative width.
NARROWEST = 1e-9
# Gap to which the optimum at one rate is solved while rates are compared.
PROBE_TOLERANCE = 1e-6
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def search(
    problem: Problem, bound: Objective, ranges: Ranges, gap_tolerance: float, time_limit: float | None
) -> Found:
    """Minimise a bound over the learning rate as well; the rate of `problem` plays no part.

    Parameters
    ----------
    problem : Problem
    bound : Objective
        One that knows how it depends on the learning rate, as all of coopt's own but the trade-off bound do.
    ranges : Ranges
    gap_tolerance : float
        At least :data:`FINEST_TOLERANCE` is used.
    time_limit : float or None
        Seconds.

    Returns
    -------
    Found
        The optimum at the best rate, which its plan names, with a lower bound over all rates and plans.

    Raises
    ------
    SolverError
        If it is not known how the bound depends on the rate.
    """
    rates = bound.rates(problem)
    if rates is None:
        raise SolverError(
            f"bound {bound.name!r} does not say how it depends on the learning rate: "
            "learning_rate='auto' takes coopt's own bounds; give a number"
        )
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    return _RateSearch(rates, ranges, max(gap_tolerance, FINEST_TOLERANCE), deadline).run()


class _RateSearch:
    def __init__(self, rates: Rates, ranges: Ranges, tolerance: float, deadline: float) -> None:
        self.rates = rates
        self.ranges = ranges
        self.tolerance = tolerance
        self.deadline = deadline
        self.largest = rates.largest
        self.solves = 0
        self.values: dict[float, float] = {}
        self.best, self.found = self.largest, self._solve(self.largest, PROBE_TOLERANCE)

    def run(self) -> Found:
        self._refine()
        lower, finished = self._prove()
        found = self._solve(self.best, 1e-12)
        return replace(
            found,
            best=replace(found.best, learning_rate=self.best),
            lower_bound=min(lower, found.best.value),
            finished=finished,
            trace={"solves": self.solves, "inner_solves": found.trace["inner_solves"]},
        )

    def _solve(self, rate: float, tolerance: float) -> Found:
        self.solves += 1
        start = None
        if self.values:
            plan = self.found.best
            start = plan.rounds, plan.local_steps, plan.batch_sizes
        problem = self.rates.at(rate)
        form = self.rates.bound.monotone_form(problem)
        found = exact.search(problem.plain, form, self.ranges, tolerance, self._left(), start)
        self.values[rate] = found.best.value
        return found

    def _left(self) -> float:
        # The first solves of a search are finished whatever the limit: a plan is better than none.
        return math.inf if not math.isfinite(self.deadline) else max(self.deadline - time.perf_counter(), 0.0)

    def _value(self, rate: float) -> float:
        """The optimum at a rate; the best rate so far is kept."""
        if rate not in self.values:
            found = self._solve(rate, PROBE_TOLERANCE)
            if found.best.value < self.found.best.value:
                self.best, self.found = rate, found
        return self.values[rate]

    def _refine(self) -> None:
        """Scan rates, then golden section around the best: a good plan makes the proof short."""
        for k in range(SCAN_RATES):
            self._value(self.largest * SCAN_RATIO**-k)
        low, high = self.best / SCAN_RATIO, min(self.best * SCAN_RATIO, self.largest)
        while high > low * (1.0 + REFINED) and time.perf_counter() < self.deadline:
            span = math.log(high / low)
            left, right = high * math.exp(-GOLDEN * span), low * math.exp(GOLDEN * span)
            low, high = (low, right) if self._value(left) <= self._value(right) else (left, high)

    def _prove(self) -> tuple[float, bool]:
        """A lower bound over all rates, and whether it is as close as asked for."""
        smallest, tail = self.largest, -math.inf
        while tail < self._cutoff() and smallest > self.largest * 1e-60:
            smallest /= SCAN_RATIO
            tail = self._slow_progress(smallest)
        ends = np.geomspace(smallest, self.largest, 1 + round(math.log2(self.largest / smallest)))
        intervals = itertools.pairwise(ends.tolist())
        proof = best_first.search(
            [(-math.inf, interval) for interval in intervals], self._branch, self._cutoff, self.deadline
        )
        return min(tail, proof.lower_bound), proof.finished

    def _branch(
        self, interval: tuple[float, float], bound: float
    ) -> list[tuple[float, tuple[float, float] | None]]:
        low, high = interval
        raised = max(bound, self._interval(low, high))
        if raised >= self._cutoff() or high <= low * (1.0 + NARROWEST):
            return [(raised, None)]
        middle = math.sqrt(low * high)
        self._value(middle)
        return [(raised, (low, middle)), (raised, (middle, high))]

    def _cutoff(self) -> float:
        return self.found.best.value * (1.0 - self.tolerance)

    def _slow_progress(self, rate: float) -> float:
        """A lower bound for all rates up to this one: without any floor, and with all the steps there are."""
        form = self.rates.form(rate)
        steps = np.array([float(self.ranges.rounds[1]) * self.ranges.local_steps[1]])
        start, _ = form.progress(steps, np.arange(len(form.members)))
        return float(start.min())

    def _interval(self, low: float, high: float) -> float:
        """A lower bound for all rates of an interval."""
        self.solves += 1
        form = self.rates.interval(low, high)
        return exact.search(
            self.rates.problem.plain, form, self.ranges, PROBE_TOLERANCE, self._left(), None, self._cutoff()
        ).lower_bound
