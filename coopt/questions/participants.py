"""How many devices a round: the number that is best together with rounds, local steps and batch sizes.

For one number m the exact solver gives the optimum. What drawing devices adds to the error falls with m and
what they are expected to cost grows with m, so for m from `low` to `high` the variance of `high` and the
costs of `low` bound every plan from below: that too is a problem for the exact solver. Ranges whose bound
reaches the best plan found are discarded, the others are halved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coopt.errors import InfeasibleError, InvalidProblemError
from coopt.objectives.protocol import Bound, Objective
from coopt.objectives.registry import resolve_bound
from coopt.plans.allocation import Allocation, Status
from coopt.problem.problem import Problem
from coopt.problem.validation import count, entries, instance, real
from coopt.questions.solve import solve_allocation
from coopt.solvers import best_first
from coopt.solvers.exact import box_search as exact
from coopt.solvers.forecast import search as forecasts
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.roundoff import SAME_VALUE


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def choose_participants(
    problem: Problem,
    candidates: Sequence[int] | None = None,
    *,
    bound: str | Bound = "certified",
    gap_tolerance: float = 1e-12,
    time_limit: float | None = None,
) -> Allocation:
    """Find how many devices should take part in a round, with the best plan for that many.

    Parameters
    ----------
    problem : Problem
        ``Budget.distinct_participants`` says how they are drawn; the number it names plays no part.
    candidates : sequence of int, optional
        Numbers to choose from; default all from 1 to the number of devices.
    bound : str or Bound, default "certified"
        ``"certified"`` or ``"nonconvex"``, with or without numbers, or a :class:`Forecast`.
    gap_tolerance : float, default 1e-12
        Relative gap at which the search may stop.
    time_limit : float, optional
        Seconds after which the best plan so far is returned with its honest gap.

    Returns
    -------
    Allocation
        Its problem names the number in ``budget.participants``; its ``lower_bound`` is for all candidates.

    Raises
    ------
    InvalidProblemError
        If an argument is wrong, or so many devices cannot be drawn in this way.
    InfeasibleError
        If no plan fits for any of the candidates.

    Examples
    --------
    >>> import numpy as np
    >>> from coopt import Budget, Constants, Fleet, Problem, choose_participants
    >>> fleet = Fleet(
    ...     samples=[500] * 20, gradient_noise=4.0, divergence=0.1, sample_cost=0.1, round_cost=30.0,
    ...     weights=np.full(20, 1 / 20),
    ... )
    >>> constants = Constants(
    ...     learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0
    ... )
    >>> budget = Budget(cost=20_000, participants=1, distinct_participants=True, max_local_steps=50)
    >>> plan = choose_participants(Problem(fleet, constants, budget))
    >>> plan.problem.budget.participants, plan.gap <= 1e-12
    (2, True)
    """
    instance("problem", problem, Problem)
    problem.budget.refuse_rent("choose_participants")
    chosen = resolve_bound(bound)
    if chosen.young is None and chosen.forecast is None:
        raise InvalidProblemError(
            f"bound = {chosen.name!r}: must be 'certified' or 'nonconvex', which say what a draw adds, or a "
            "forecast"
        )
    devices = len(problem.fleet)
    numbers = range(1, devices + 1) if candidates is None else entries("candidates", candidates)
    valid = sorted({count("candidates", number) for number in numbers})
    if not valid:
        raise InvalidProblemError("candidates = []: must hold at least one number of devices")
    tolerance = real("gap_tolerance", gap_tolerance, minimum=0.0)
    seconds = math.inf if time_limit is None else real("time_limit", time_limit, minimum=0.0, infinite=True)
    return _ParticipantSearch(problem, chosen, valid, tolerance, time.perf_counter() + seconds).run()


class _ParticipantSearch:
    """The best number of participants so far, and the ranges of numbers that may hold a better one."""

    def __init__(
        self, problem: Problem, bound: Objective, numbers: list[int], tolerance: float, deadline: float
    ) -> None:
        self.problem = problem
        self.bound = bound
        self.numbers = numbers
        self.tolerance = tolerance
        self.deadline = deadline
        self.best: Allocation | None = None
        self.searches = 0
        # The smallest bound of anything that was discarded: the proof rests on it.
        self.lower = math.inf

    def run(self) -> Allocation:
        begun, last = time.perf_counter(), len(self.numbers) - 1
        # A good plan makes the proof short: every other power of two first.
        for place in sorted({0, last, *(4**k for k in range(20) if 4**k < last)}):
            self._solve(place)
        proof = best_first.search([(-math.inf, (0, last))], self._branch, self._threshold, self.deadline)
        self.lower = min(self.lower, proof.lower_bound)
        if self.best is None:
            feasible_ranges(self._at(self.numbers[0]), None, None)
            raise InfeasibleError("no plan fits for any of the candidates", binding="cost")
        return self._whole(self.best, proof.finished, time.perf_counter() - begun)

    def _branch(self, places: tuple[int, int], _bound: float) -> list[tuple[float, tuple[int, int]]]:
        low, high = places
        if low == high:
            self._solve(low)
            return []
        bound, middle = self._range(low, high), low + (high - low) // 2
        return [(bound, (low, middle)), (bound, (middle + 1, high))]

    def _whole(self, best: Allocation, finished: bool, seconds: float) -> Allocation:
        lower = min(self.lower, best.lower_bound)
        gap = (best.predicted_error - lower) / abs(best.predicted_error) if best.predicted_error else 0.0
        status = best.status
        if gap > SAME_VALUE:
            status = Status.GAP_TOLERANCE if finished and gap <= self.tolerance else status
            status = status if finished else Status.TIME_LIMIT
        trace: dict[str, float] = {"searches": self.searches}
        return replace(best, lower_bound=lower, status=status, solve_seconds=seconds, trace=trace)

    def _threshold(self) -> float:
        if self.best is None:
            return math.inf
        return self.best.predicted_error * (1.0 - max(self.tolerance, SAME_VALUE))

    def _at(self, number: int) -> Problem:
        return replace(self.problem, budget=replace(self.problem.budget, participants=number))

    def _left(self) -> float | None:
        return None if self.deadline == math.inf else max(self.deadline - time.perf_counter(), 0.0)

    def _solve(self, place: int) -> None:
        """Solve for one number, and keep the best plan; of equal ones that with the fewest devices."""
        self.searches += 1
        try:
            plan = solve_allocation(
                self._at(self.numbers[place]),
                bound=self.bound,
                gap_tolerance=self.tolerance,
                time_limit=self._left(),
            )
        except InfeasibleError:
            # More devices a round cost more: what is feasible for them is so for fewer.
            return
        self.lower = min(self.lower, plan.lower_bound)
        if self.best is None or plan.predicted_error < self.best.predicted_error:
            self.best = plan

    def _range(self, low: int, high: int) -> float:
        """A lower bound for every number in a range: the smallest number's costs, the largest's variance."""
        self.searches += 1
        cheap, precise = self._at(self.numbers[low]), self._at(self.numbers[high])
        try:
            ranges = feasible_ranges(cheap, None, None)
        except InfeasibleError:
            return math.inf
        forecast, young = self.bound.forecast, self.bound.young
        if forecast is not None:
            found = forecasts.search(precise, forecast, ranges, self.tolerance, self._left(), within=cheap)
            return found.lower_bound
        if young is None:
            return -math.inf
        form = young.monotone_form(precise)
        return exact.search(
            cheap.plain, form, ranges, self.tolerance, self._left(), None, self._threshold()
        ).lower_bound
