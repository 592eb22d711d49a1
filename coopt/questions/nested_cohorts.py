"""Cohorts that leave out more and more devices, and the problem of one cohort."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError, InvalidProblemError
from coopt.problem.problem import Problem
from coopt.problem.some_devices import some_devices
from coopt.solvers.ranges import Ranges, feasible_ranges
from coopt.solvers.roundoff import SAME_VALUE

# Whether each device trains, shape (N,).
Kept = NDArray[np.bool_]
# Gap to which the first cohorts are solved; the best of them is solved again.
PROBE_TOLERANCE = 1e-3


class NestedCohorts(ABC):
    """The best cohort so far, and the first ones to try."""

    def __init__(self, problem: Problem, tolerance: float) -> None:
        self.problem = problem
        self.tolerance = tolerance
        self.begun = time.perf_counter()
        self.value = math.inf
        self.best: Kept | None = None
        self.searches = 0
        budget = problem.budget
        # So many distinct devices are drawn each round.
        self.least = (budget.participants or 1) if budget.distinct_participants else 1

    @abstractmethod
    def solved(self, kept: Kept, rest: Problem, ranges: Ranges, tolerance: float | None) -> float:
        """Solve the problem of a cohort as far as it could be better than the best; what was proved of it."""

    def attempt(self, kept: Kept, tolerance: float | None = None) -> float:
        """The same for a cohort that may weigh nothing, or admit no plan."""
        if not float(self.problem.fleet.weights[kept].sum()) > 0.0:
            return math.inf
        self.searches += 1
        rest = without(self.problem, ~kept)
        try:
            ranges = feasible_ranges(rest, None, None)
        except InfeasibleError:
            return math.inf
        return self.solved(kept, rest, ranges, tolerance)

    def found(self) -> Kept:
        """The best cohort; InfeasibleError where no plan fits for any."""
        if self.best is None:
            try:
                feasible_ranges(self.problem, None, None)
            except InfeasibleError as error:
                message = f"no cohort fits, and of the whole fleet {error}"
                raise InfeasibleError(message, binding=error.binding) from error
            raise InfeasibleError("no plan fits for any cohort", binding="cost")
        return self.best

    def nested(self, most: int) -> None:
        """Leave out more and more devices in several orders, as far as `most` and the draw admit."""
        size = len(self.problem.fleet)
        gone = size - most
        for order in self._orders():
            for left_out in sorted({gone, *(gone + 2**k - 1 for k in range(size.bit_length()))}):
                if left_out <= size - self.least:
                    kept = np.ones(size, dtype=bool)
                    kept[order[:left_out]] = False
                    self.attempt(kept, PROBE_TOLERANCE)

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

    def threshold(self) -> float:
        """Cohorts from here on are of no interest."""
        return self.value * (1.0 - max(self.tolerance, SAME_VALUE)) if self.value < math.inf else math.inf


def without(problem: Problem, gone: NDArray[np.bool_]) -> Problem:
    """The problem of the devices that are not gone; see :func:`coopt.leave_out`."""
    fleet = problem.fleet
    if not gone.any():
        return problem
    kept = ~gone
    share = float(fleet.weights[kept].sum())
    if not share > 0.0:
        raise InvalidProblemError("devices: nobody of any weight is left to train")
    disturbing = fleet.weights * fleet.divergence
    bias = min(float(disturbing[kept].sum()), float(disturbing[gone].sum())) / share
    weights = fleet.weights[kept]
    rest = some_devices(fleet, np.flatnonzero(kept), weights=weights / weights.sum())
    return Problem(rest, replace(problem.constants, gradient_bias=bias), problem.budget)
