"""Devices that never train: what leaving them out saves, and what it adds to the error.

The loss that counts stays the average over all devices. With the weights p_i of those that train divided by
their sum P, the averaged gradient is biased by at most

    epsilon = min(sum of p_i delta_i over those that train, the same sum over those left out) / P,

since the deviations of all gradients from their average sum to zero. The certified and the non-convex bound
take epsilon as ``Constants.gradient_bias``; the theorem is ``coopt_bounds.cohort``. A forecast knows the
gradients themselves, and needs no such constant.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.protocol import Bound
from coopt.objectives.registry import resolve_bound
from coopt.objectives.young import YoungFamily
from coopt.plans.allocation import Allocation, Status
from coopt.problem.problem import Problem
from coopt.problem.readable import readable
from coopt.problem.validation import count, entries, instance, real
from coopt.questions.nested_cohorts import Kept, NestedCohorts, without
from coopt.questions.solve import solve_allocation
from coopt.solvers.best_first import SearchProof
from coopt.solvers.cohort.branch_and_bound import CohortSearch
from coopt.solvers.exact import box_search as exact
from coopt.solvers.forecast import search as forecasts
from coopt.solvers.ranges import Ranges
from coopt.solvers.roundoff import SAME_VALUE

# Seconds that the search may take where the caller sets no limit.
PROOF_SECONDS = 60.0


@readable
@dataclass(frozen=True)
class Cohort:
    """Which devices train, and the plan for them.

    Attributes
    ----------
    devices : tuple of int
        Those that train, in ascending order; the batch sizes of the plan are theirs.
    allocation : Allocation
        Its problem is that of the cohort. Its lower bound is for the plans of all cohorts that were
        allowed, and ``trace["nodes"]`` says into how many sets they were divided to prove it; for a forecast
        no cohort is excluded.
    searches : int
        Cohorts that were solved or discarded by a search.
    """

    __module__ = "coopt"

    devices: tuple[int, ...]
    allocation: Allocation
    searches: int


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def leave_out(problem: Problem, devices: Iterable[int]) -> Problem:
    """The problem of the other devices, with the bias of their gradient.

    Parameters
    ----------
    problem : Problem
    devices : iterable of int
        Indices of those that never train.

    Returns
    -------
    Problem
        Its fleet holds the rest, with weights that sum to one, and ``constants.gradient_bias`` is what
        leaving out the others adds. The initial gap and the loss stay those of all devices.

    Raises
    ------
    InvalidProblemError
        If an index is out of range, nobody of any weight is left, or the problem has a bias already.

    Examples
    --------
    >>> from coopt import Budget, Constants, Fleet, Problem, leave_out
    >>> problem = Problem(
    ...     Fleet(samples=[900, 90, 10], gradient_noise=4.0, divergence=0.1),
    ...     Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5),
    ...     Budget(cost=1000),
    ... )
    >>> rest = leave_out(problem, [2])
    >>> rest.fleet, round(rest.constants.gradient_bias, 6)
    (Fleet(2 devices, 990 samples), 0.00101)
    """
    instance("problem", problem, Problem)
    fleet = problem.fleet
    gone = np.zeros(len(fleet), dtype=bool)
    for device in entries("devices", devices):
        index = count("devices", device, minimum=0)
        if index >= len(fleet):
            raise InvalidProblemError(f"devices = {index}: must be below {len(fleet)}, the number of devices")
        gone[index] = True
    if problem.constants.gradient_bias:
        raise InvalidProblemError(
            f"gradient_bias = {problem.constants.gradient_bias!r}: leave devices out of a problem without one"
        )
    return without(problem, gone)


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def choose_cohort(
    problem: Problem,
    most: int | None = None,
    *,
    bound: str | Bound = "certified",
    gap_tolerance: float = 1e-9,
    time_limit: float | None = None,
) -> Cohort:
    """Find which devices should train at all, at most so many, with the best plan for them.

    Sets of cohorts are bounded from below and divided until what is left cannot be better. Fleets of up to 30
    devices close in seconds, and most of 50; where the time limit ends the search, ``gap`` says what is left.
    For a forecast, devices are left out and taken back one by one as long as that helps, which proves nothing
    of other cohorts.

    Parameters
    ----------
    problem : Problem
    most : int, optional
        The most devices that may train; default all.
    bound : str or Bound, default "certified"
        ``"certified"`` or ``"nonconvex"``, with or without numbers, or a :class:`Forecast` of all devices.
    gap_tolerance : float, default 1e-9
        Relative gap at which the search may stop.
    time_limit : float, optional
        Seconds after which the best cohort so far is returned with its honest gap; default 60.

    Returns
    -------
    Cohort

    Raises
    ------
    InvalidProblemError
        If an argument is wrong.
    InfeasibleError
        If no plan fits for any cohort.

    Examples
    --------
    A device that holds one sample in a thousand and takes a minute a round is not worth the wait.

    >>> from coopt import Budget, Constants, Fleet, Problem, choose_cohort
    >>> problem = Problem(
    ...     Fleet([600, 400, 1], 4.0, 0.05, throughput=[40, 20, 5], round_time=[1, 1, 60]),
    ...     Constants(0.05, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0),
    ...     Budget(time=600),
    ... )
    >>> cohort = choose_cohort(problem)
    >>> cohort.devices, cohort.allocation.gap <= 1e-9
    ((0, 1), True)
    """
    instance("problem", problem, Problem)
    problem.budget.refuse_rent("choose_cohort")
    chosen = resolve_bound(bound)
    young, forecast = chosen.young, chosen.forecast
    size = len(problem.fleet)
    largest = size if most is None else min(count("most", most), size)
    tolerance = real("gap_tolerance", gap_tolerance, minimum=0.0)
    seconds = (
        PROOF_SECONDS if time_limit is None else real("time_limit", time_limit, minimum=0.0, infinite=True)
    )
    leave_out(problem, [])
    if forecast is not None:
        return _ForForecast(problem, forecast, tolerance).run(largest, seconds)
    if young is not None:
        return _ForBound(problem, young, tolerance).run(largest, seconds)
    raise InvalidProblemError(
        f"bound = {chosen.name!r}: must be 'certified' or 'nonconvex', which hold for biased gradients, or a "
        "forecast"
    )


class _ForBound(NestedCohorts):
    """The best cohort for a bound: of nested ones first, then of all, with a proof."""

    def __init__(self, problem: Problem, bound: YoungFamily, tolerance: float) -> None:
        super().__init__(problem, tolerance)
        self.bound = bound

    def run(self, most: int, seconds: float) -> Cohort:
        """Try nested cohorts in several orders first; then search, and prove."""
        size = len(self.problem.fleet)
        self.nested(most)
        search = CohortSearch(self.problem, self.bound, self.least, most, self.attempt, self.threshold)
        guess = np.ones(size, dtype=bool) if self.best is None else self.best
        return self._result(search.run(guess, self.begun + seconds))

    def solved(self, kept: Kept, rest: Problem, ranges: Ranges, tolerance: float | None) -> float:
        """Solve for a cohort until it is clear that it is no better than the best; return what is proved."""
        form, cutoff = self.bound.monotone_form(rest), self.threshold()
        wanted = self.tolerance if tolerance is None else max(tolerance, self.tolerance)
        found = exact.search(rest.plain, form, ranges, wanted, None, None, cutoff)
        if found.best.value < cutoff:
            self.value, self.best = found.best.value, kept
        return found.lower_bound

    def _result(self, proof: SearchProof) -> Cohort:
        kept = self.found()
        plan = solve_allocation(without(self.problem, ~kept), bound=self.bound, gap_tolerance=self.tolerance)
        lower = min(proof.lower_bound, plan.lower_bound)
        gap = plan.predicted_error - lower
        status = plan.status
        if gap > SAME_VALUE * plan.predicted_error:
            # The search stops at the tolerance, up to rounding.
            close = gap <= 1.01 * self.tolerance * plan.predicted_error
            status = Status.GAP_TOLERANCE if close else Status.INTEGRALITY_GAP
            status = status if proof.finished else Status.TIME_LIMIT
        # The claim is about cohorts now, not about the plans of one problem.
        plan = replace(
            plan,
            lower_bound=lower,
            status=status,
            solve_seconds=time.perf_counter() - self.begun,
            trace={"searches": self.searches, "nodes": proof.parts},
            claim=None,
        )
        return Cohort(tuple(np.flatnonzero(kept).tolist()), plan, self.searches)


class _ForForecast(NestedCohorts):
    """The best cohort for a forecast that was found by leaving out devices and taking them back."""

    def __init__(self, problem: Problem, forecast: Forecast, tolerance: float) -> None:
        super().__init__(problem, tolerance)
        self.forecast = forecast

    def run(self, most: int, seconds: float) -> Cohort:
        """Try nested cohorts, then change the best one by one device as long as that helps."""
        self.nested(most)
        kept, deadline = self.found(), self.begun + seconds
        improving, before = True, self.value
        while improving and time.perf_counter() < deadline:
            for device in range(kept.size):
                changed = self.found().copy()
                changed[device] ^= True
                if self.least <= int(changed.sum()) <= most and time.perf_counter() < deadline:
                    self.attempt(changed)
            improving, before = self.value < before, self.value
        kept = self.found()
        plan = solve_allocation(
            without(self.problem, ~kept), bound=self._of(kept), gap_tolerance=self.tolerance
        )
        plan = replace(
            plan,
            # All that is known of the plans of other cohorts.
            lower_bound=min(self.forecast.model.loss.lowest, plan.predicted_error),
            status=Status.HEURISTIC,
            solve_seconds=time.perf_counter() - self.begun,
            trace={"searches": self.searches, "lower_bound_of_cohort": plan.lower_bound},
            claim=None,
        )
        return Cohort(tuple(np.flatnonzero(kept).tolist()), plan, self.searches)

    def solved(self, kept: Kept, rest: Problem, ranges: Ranges, tolerance: float | None) -> float:
        """Find a plan for a cohort; nothing is proved of it."""
        del tolerance
        best = forecasts.search(rest, self._of(kept), ranges, self.tolerance, 0.0).best
        if best.value < self.threshold():
            self.value, self.best = best.value, kept
        return -math.inf

    def _of(self, kept: Kept) -> Forecast:
        return self.forecast.restricted(np.flatnonzero(kept).tolist())
