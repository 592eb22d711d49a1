"""The learning rate as a decision, together with rounds, local steps and batch sizes.

For one learning rate the exact solver gives the optimum. Over an interval [low, high] of rates the pieces of
each bound are monotone, each in its own direction, and together they bound every plan from below:

* the noise term of the floor never falls with the rate: take it at `low`;
* the drift term is a factor that never rises, from Young's inequality, times an average that never falls:
  take the factor at `high` and the average at `low` (the published bounds have no such factor);
* what drawing participants adds never falls either, but for a sum that multiplies its noise and falls where
  losses are strongly convex: take that one at `high`;
* progress at a given floor is monotone: take the better end.

That is again a bound in monotone form, which the exact solver minimises; intervals whose minimum reaches the
best plan found are discarded, the others are halved. The documentation proves the three statements.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import SolverError
from coopt.objectives.bound import AdaCoOpt, Certified, Dynamite, YoungFamily
from coopt.objectives.monotone import Bound, Floor, MonotoneForm
from coopt.problem.problem import Problem
from coopt.solvers.contract import Search
from coopt.solvers.exact import box_search as exact
from coopt.solvers.ranges import Ranges

Floats = NDArray[np.float64]

# The gap between intervals and the best plan closes like the width of the intervals: this is what a search
# of some seconds can prove.
FINEST_TOLERANCE = 1e-2
# How long to work on the proof unless the user says.
PROOF_SECONDS = 30.0
# Rates tried first, from the largest down, in this ratio; and the width at which refining stops.
SCAN_RATIO, SCAN_RATES, REFINED = 3.0, 10, 1e-3
# Gap to which the optimum at one rate is solved while rates are compared.
PROBE_TOLERANCE = 1e-6
# Just below the limit Young's parameters still matter, so that the ends of an interval have the same members.
BELOW_LIMIT = 1.0 - 1e-15
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class RateSearch:
    """The best rate and the plan for it, with a lower bound over all rates.

    Attributes
    ----------
    learning_rate : float
    found : Search
        The optimum at that rate; its lower bound is for that rate alone.
    lower_bound : float
        Over all rates and plans.
    finished : bool
    solves : int
        Minimisations over (K, tau, s), at a rate or over an interval.
    """

    learning_rate: float
    found: Search
    lower_bound: float
    finished: bool
    solves: int


def search(
    problem: Problem, bound: Bound, ranges: Ranges, gap_tolerance: float, time_limit: float | None
) -> RateSearch:
    """Minimise a bound over the learning rate as well; the rate of `problem` plays no part.

    Parameters
    ----------
    problem : Problem
    bound : Certified, NonConvex, Dynamite or AdaCoOpt
    ranges : Ranges
    gap_tolerance : float
        At least :data:`FINEST_TOLERANCE` is used.
    time_limit : float or None
        Seconds.

    Raises
    ------
    SolverError
        If the bound is none of coopt's own: how it depends on the rate is not known.
    """
    if not isinstance(bound, YoungFamily | Dynamite | AdaCoOpt):
        raise SolverError(
            f"bound {bound.name!r} does not say how it depends on the learning rate: "
            "learning_rate='auto' takes coopt's own bounds; give a number"
        )
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    return _RateSearch(problem, bound, ranges, max(gap_tolerance, FINEST_TOLERANCE), deadline).run()


def largest_rate(problem: Problem, bound: Bound) -> float:
    """The largest learning rate at which a bound holds."""
    constants = problem.constants
    beta = constants.smoothness
    if not isinstance(bound, YoungFamily):
        return 1.0 / beta
    mean = beta if constants.mean_smoothness is None else constants.mean_smoothness
    floor = -beta if constants.curvature_floor is None else constants.curvature_floor
    return 1.0 / mean if beta + floor <= 0.0 else min(1.0 / mean, 2.0 / (beta + floor))


class _RateSearch:
    def __init__(
        self,
        problem: Problem,
        bound: YoungFamily | Dynamite | AdaCoOpt,
        ranges: Ranges,
        tolerance: float,
        deadline: float,
    ) -> None:
        self.problem = problem
        self.bound = bound
        self.ranges = ranges
        self.tolerance = tolerance
        self.deadline = deadline
        self.largest = largest_rate(problem, bound)
        self.solves = 0
        self.values: dict[float, float] = {}
        self.best, self.found = self.largest, self._solve(self.largest, PROBE_TOLERANCE)

    def run(self) -> RateSearch:
        self._refine()
        lower, finished = self._prove()
        found = self._solve(self.best, 1e-12)
        return RateSearch(self.best, found, min(lower, found.best.value), finished, self.solves)

    def _at(self, rate: float) -> Problem:
        return replace(self.problem, constants=replace(self.problem.constants, learning_rate=rate))

    def _solve(self, rate: float, tolerance: float) -> Search:
        self.solves += 1
        problem = self._at(rate)
        start = None
        if self.values:
            plan = self.found.best
            start = plan.rounds, plan.local_steps, plan.batch_sizes
        found = exact.search(
            problem.plain, self.bound.monotone_form(problem), self.ranges, tolerance, self._left(), start
        )
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
        lower = tail
        queue = [
            (-math.inf, low, high) for low, high in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]
        heapq.heapify(queue)
        while queue and queue[0][0] < self._cutoff():
            if time.perf_counter() > self.deadline:
                return min(lower, queue[0][0]), False
            bound, low, high = heapq.heappop(queue)
            raised = max(bound, self._interval(low, high))
            if raised >= self._cutoff() or high <= low * (1.0 + 1e-9):
                lower = min(lower, raised)
                continue
            middle = math.sqrt(low * high)
            self._value(middle)
            heapq.heappush(queue, (raised, low, middle))
            heapq.heappush(queue, (raised, middle, high))
        return min([lower, *(bound for bound, _, _ in queue)]), True

    def _cutoff(self) -> float:
        return self.found.best.value * (1.0 - self.tolerance)

    def _slow_progress(self, rate: float) -> float:
        """A lower bound for all rates up to this one: without any floor, and with all the steps there are."""
        form = self.bound.monotone_form(self._at(rate))
        steps = np.array([float(self.ranges.rounds[1]) * self.ranges.local_steps[1]])
        start, _ = form.progress(steps, np.arange(len(form.members)))
        return float(start.min())

    def _interval(self, low: float, high: float) -> float:
        """A lower bound for all rates of an interval."""
        self.solves += 1
        form = interval_form(self.problem, self.bound, low, high)
        return exact.search(
            self.problem.plain, form, self.ranges, PROBE_TOLERANCE, self._left(), None, self._cutoff()
        ).lower_bound


def interval_form(
    problem: Problem, bound: YoungFamily | Dynamite | AdaCoOpt, low: float, high: float
) -> MonotoneForm:
    """A bound in monotone form that is below the given one for every rate from `low` to `high`."""
    high = min(high, largest_rate(problem, bound) * BELOW_LIMIT)
    low = min(low, high)
    forms = [
        bound.monotone_form(replace(problem, constants=replace(problem.constants, learning_rate=rate)))
        for rate in (low, high)
    ]
    factors = _young_factors(problem, forms[0], high) / _young_factors(problem, forms[0], low)
    convexity = problem.constants.curvature_floor or 0.0
    drawn = None
    if problem.budget.participants is not None and isinstance(bound, Certified) and convexity > 0.0:
        drawn = low * convexity * (2.0 - low * convexity), high * convexity * (2.0 - high * convexity)
    return _IntervalForm(forms[0], forms[1], factors, drawn)


def _young_factors(problem: Problem, form: MonotoneForm, rate: float) -> Floats:
    """What Young's inequality multiplies the drift with at a rate, but for constants; one for each member."""
    constants = problem.constants
    mean = constants.smoothness if constants.mean_smoothness is None else constants.mean_smoothness
    slack = max(1.0 - rate * mean, 0.0)
    gammas = np.array(
        [member.gamma if isinstance(member, YoungFamily) else 1.0 for member in form.members], dtype=float
    )
    # gamma = 0 makes any drift infinite: what multiplies it is of no account.
    young: Floats = 1.0 - slack + slack / np.where(gammas > 0.0, gammas, 1.0)
    return young / (1.0 + slack * (1.0 - gammas))


@dataclass(frozen=True)
class _IntervalForm:
    """A lower bound on a family for every rate between those of two forms, as a monotone form.

    Every member stands twice, with the progress of either end. `drawn` is 1 - r^2 at either end where what
    the noise of a draw of participants is multiplied with may fall with the rate.
    """

    low: MonotoneForm
    high: MonotoneForm
    factors: Floats
    drawn: tuple[float, float] | None

    @property
    def members(self) -> tuple[Bound, ...]:
        return (*self.low.members, *self.low.members)

    @property
    def population(self) -> NDArray[np.int64] | None:
        return self.low.population

    def floor(self, local_steps: int, active: NDArray[np.intp]) -> Floor:
        index = active % len(self.low.members)
        floor = self.low.floor(local_steps, index)
        shares = floor.shares.copy()
        shares[:, 1:] *= self.factors[index, None]
        if self.drawn is not None and local_steps > 1:
            low, high = (
                _powers(form, shortfall, local_steps, index)
                for form, shortfall in zip((self.low, self.high), self.drawn, strict=True)
            )
            fall = np.divide(high, low, out=np.ones_like(low), where=low > 0.0)
            shares[:, 1:] *= np.minimum(fall, 1.0)[:, None]
        return Floor(floor.offsets * self.factors[index], shares, floor.basis)

    def progress(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        index, end = np.divmod(active, len(self.low.members))[::-1]
        ends = [form.progress(steps, index) for form in (self.low, self.high)]
        upper = (end == 1)[:, None]
        return np.where(upper, ends[1][0], ends[0][0]), np.where(upper, ends[1][1], ends[0][1])


def _powers(form: MonotoneForm, shortfall: float, local_steps: int, members: NDArray[np.intp]) -> Floats:
    """Sum of y^j over 0 < j < tau with y = max(r^2, q), for each member; `shortfall` is 1 - r^2."""
    _, length = form.progress(np.ones(1), members)
    short = np.minimum(shortfall, length[:, 0])
    with np.errstate(divide="ignore"):
        powers: Floats = (1.0 - short) * -np.expm1((local_steps - 1) * np.log1p(-short)) / short
    return powers
