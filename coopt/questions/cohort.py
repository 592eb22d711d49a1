"""Devices that never train: what leaving them out saves, and what it adds to the error.

The loss that counts stays the average over all devices. With the weights p_i of those that train divided by
their sum P, the averaged gradient is biased by at most

    epsilon = min(sum of p_i delta_i over those that train, the same sum over those left out) / P,

since the deviations of all gradients from their average sum to zero. The certified and the non-convex bound
take epsilon as ``Constants.gradient_bias``; the theorem is ``coopt_bounds.cohort``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError, InvalidProblemError
from coopt.objectives.protocol import Bound
from coopt.objectives.registry import resolve_bound
from coopt.objectives.young import YoungFamily
from coopt.plans.allocation import Allocation, Status
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem
from coopt.problem.validation import count, real
from coopt.questions.solve import solve_allocation
from coopt.solvers.cohort.branch_and_bound import CohortSearch, Proof
from coopt.solvers.contract import ROUNDING
from coopt.solvers.exact import box_search as exact
from coopt.solvers.ranges import feasible_ranges

# Seconds that the search may take where the caller sets no limit.
PROOF_SECONDS = 60.0
# Gap to which the first cohorts are solved; the search solves the best of them again.
PROBE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Cohort:
    """Which devices train, and the plan for them.

    Attributes
    ----------
    devices : tuple of int
        Those that train, in ascending order; the batch sizes of the plan are theirs.
    allocation : Allocation
        Its problem is that of the cohort. Its lower bound is for the plans of all cohorts that were
        allowed, and ``trace["nodes"]`` says into how many sets they were divided to prove it.
    searches : int
        Cohorts that were solved or discarded by a search.
    """

    devices: tuple[int, ...]
    allocation: Allocation
    searches: int


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
    fleet = problem.fleet
    gone = np.zeros(len(fleet), dtype=bool)
    for device in devices:
        index = count("devices", device, minimum=0)
        if index >= len(fleet):
            raise InvalidProblemError(f"devices = {index}: must be below {len(fleet)}, the number of devices")
        gone[index] = True
    if problem.constants.gradient_bias:
        raise InvalidProblemError(
            f"gradient_bias = {problem.constants.gradient_bias!r}: leave devices out of a problem without one"
        )
    return _without(problem, gone)


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

    Parameters
    ----------
    problem : Problem
    most : int, optional
        The most devices that may train; default all.
    bound : str or Bound, default "certified"
        ``"certified"`` or ``"nonconvex"``, with or without numbers.
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
    chosen = resolve_bound(bound)
    young = chosen.young
    if young is None:
        raise InvalidProblemError(
            f"bound = {chosen.name!r}: must be 'certified' or 'nonconvex', which hold for biased gradients"
        )
    size = len(problem.fleet)
    largest = size if most is None else min(count("most", most), size)
    tolerance = real("gap_tolerance", gap_tolerance, minimum=0.0)
    seconds = (
        PROOF_SECONDS if time_limit is None else real("time_limit", time_limit, minimum=0.0, infinite=True)
    )
    leave_out(problem, [])
    return _CohortChoice(problem, young, tolerance).run(largest, seconds)


class _CohortChoice:
    """The search for a cohort, and the best one so far."""

    def __init__(self, problem: Problem, bound: YoungFamily, tolerance: float) -> None:
        self.problem = problem
        self.bound = bound
        self.tolerance = tolerance
        self.begun = time.perf_counter()
        self.value = math.inf
        self.best: NDArray[np.bool_] | None = None
        self.searches = 0

    def run(self, most: int, seconds: float) -> Cohort:
        """Try nested cohorts in several orders first; then search, and prove."""
        size, budget = len(self.problem.fleet), self.problem.budget
        # So many distinct devices are drawn each round.
        least = (budget.participants or 1) if budget.distinct_participants else 1
        self.nested(least, most)
        search = CohortSearch(self.problem, self.bound, least, most, self._try, self._threshold)
        guess = np.ones(size, dtype=bool) if self.best is None else self.best
        return self._result(search.run(guess, self.begun + seconds))

    def nested(self, least: int, most: int) -> None:
        """Leave out more and more devices in several orders, as far as `least` and `most` admit."""
        size = len(self.problem.fleet)
        gone = size - most
        for order in self._orders():
            for left_out in sorted({gone, *(gone + 2**k - 1 for k in range(size.bit_length()))}):
                if left_out <= size - least:
                    kept = np.ones(size, dtype=bool)
                    kept[order[:left_out]] = False
                    self._try(kept, PROBE_TOLERANCE)

    def _orders(self) -> Iterator[NDArray[np.intp]]:
        fleet = self.problem.fleet
        lower, _ = fleet.batch_range()
        disturbing = fleet.weights * fleet.divergence
        for burden in (
            lower / fleet.throughput + fleet.step_time + fleet.round_time,
            fleet.sample_cost * lower + fleet.step_cost + fleet.round_cost,
            fleet.sample_energy * lower + fleet.step_energy + fleet.round_energy,
        ):
            if burden.any():
                yield np.argsort(-burden, kind="stable")
                # What it burdens for what leaving it out disturbs.
                yield np.lexsort((-burden, disturbing / np.maximum(burden, 1e-300)))
        yield np.argsort(disturbing, kind="stable")

    def _threshold(self) -> float:
        return self.value * (1.0 - max(self.tolerance, ROUNDING)) if self.value < math.inf else math.inf

    def _try(self, kept: NDArray[np.bool_], tolerance: float | None = None) -> float:
        """Solve for a cohort until it is clear that it is no better than the best; return what is proved."""
        if not float(self.problem.fleet.weights[kept].sum()) > 0.0:
            return math.inf
        self.searches += 1
        rest = _without(self.problem, ~kept)
        try:
            ranges = feasible_ranges(rest, None, None)
        except InfeasibleError:
            return math.inf
        form, cutoff = self.bound.monotone_form(rest), self._threshold()
        wanted = self.tolerance if tolerance is None else max(tolerance, self.tolerance)
        found = exact.search(rest.plain, form, ranges, wanted, None, None, cutoff)
        if found.best.value < cutoff:
            self.value, self.best = found.best.value, kept
        return found.lower_bound

    def _result(self, proof: Proof) -> Cohort:
        if self.best is None:
            feasible_ranges(self.problem, None, None)
            raise InfeasibleError("no plan fits for any cohort", binding="cost")
        plan = solve_allocation(
            _without(self.problem, ~self.best), bound=self.bound, gap_tolerance=self.tolerance
        )
        lower = min(proof.lower_bound, plan.lower_bound)
        gap = plan.predicted_error - lower
        status = plan.status
        if gap > ROUNDING * plan.predicted_error:
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
            trace={"searches": self.searches, "nodes": proof.nodes},
            claim=None,
        )
        return Cohort(tuple(np.flatnonzero(self.best).tolist()), plan, self.searches)


def _without(problem: Problem, gone: NDArray[np.bool_]) -> Problem:
    fleet = problem.fleet
    if not gone.any():
        return problem
    kept = ~gone
    share = float(fleet.weights[kept].sum())
    if not share > 0.0:
        raise InvalidProblemError("devices: nobody of any weight is left to train")
    disturbing = fleet.weights * fleet.divergence
    bias = min(float(disturbing[kept].sum()), float(disturbing[gone].sum())) / share
    columns = {
        field.name: value[kept]
        for field in fields(Fleet)
        if isinstance(value := getattr(fleet, field.name), np.ndarray)
    }
    columns["weights"] = columns["weights"] / columns["weights"].sum()
    names = None if fleet.names is None else [fleet.names[i] for i in np.flatnonzero(kept)]
    rest = Fleet(**columns, replacement=fleet.replacement, names=names)
    return Problem(rest, replace(problem.constants, gradient_bias=bias), problem.budget)
