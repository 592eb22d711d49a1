"""Whole batch sizes next to continuous ones that still meet a user's own constraints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coopt.errors import SolverError
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.proposers.backend import run
from coopt.solvers.proposers.own_constraints import Constraints, meets, own_constraints, scaled
from coopt.solvers.whole_units.batches import Ints

Floats = NDArray[np.float64]

# The choice between two neighbours for every device is a small integer program; this ends it.
SECONDS = 10.0
# Distances to the next whole batch below this are the backend's inaccuracy.
NEAR = 1e-6
# Where neither neighbours of a point meet constraints that curve, these shares of it are tried.
SHRUNK = (0.999, 0.99, 0.95, 0.8, 0.5, 0.0)


def next_to(
    problem: Problem,
    constraints: Constraints,
    batch_sizes: Floats,
    weights: Floats,
    rounds: int,
    local_steps: int,
) -> Ints | None:
    """The best whole batches, each next to the given one, within all limits and constraints.

    With linear constraints an integer program chooses for each device between the two neighbours; where
    constraints curve, batches are rounded down and raised one by one, largest gain first, while all is met.

    Returns
    -------
    ndarray of int64, shape (N,), or None
        None if no such batches were found.
    """
    if problem.fleet.batch_choices is not None:
        raise SolverError(
            "solver 'cvxpy' with constraints rounds to neighbouring batches, and batch_choices may have none "
            "there: use batch_multiple"
        )
    here = _Neighbours.of(problem, constraints, batch_sizes, weights, (rounds, local_steps))
    chosen = here.by_integer_program()
    return chosen if chosen is not None and here.fits(chosen) else here.raised_one_by_one()


@dataclass(frozen=True)
class _Neighbours:
    """The whole batches on both sides of continuous ones: `down`, and `down + step` where the device can.

    Attributes
    ----------
    problem : Problem
    constraints : callable
    place : tuple of int
        Rounds and local steps.
    down, step : ndarray of int64, shape (N,)
    gains : ndarray, shape (N,)
        What the step takes off the noise.
    """

    problem: Problem
    constraints: Constraints
    place: tuple[int, int]
    down: Ints
    step: Ints
    gains: Floats

    @classmethod
    def of(
        cls,
        problem: Problem,
        constraints: Constraints,
        batch_sizes: Floats,
        weights: Floats,
        place: tuple[int, int],
    ) -> Self:
        """Around batches that meet the limits up to the inaccuracy of a backend."""
        multiple = problem.fleet.batch_multiple
        lower, upper = problem.fleet.batch_range()
        caps = limits.largest_batches(problem, *place, upper)
        near = np.floor(batch_sizes * (1.0 + NEAR) / multiple).astype(np.int64) * multiple
        down = np.minimum(np.maximum(near, lower), caps)
        step = np.where(down + multiple <= caps, multiple, 0)
        return cls(problem, constraints, place, down, step, weights / down - weights / (down + step))

    def fits(self, batch_sizes: Ints) -> bool:
        """Whether batches meet all limits and constraints."""
        within = not self.problem.violations(*self.place, batch_sizes)
        return within and meets(self.constraints, batch_sizes)

    def by_integer_program(self) -> Ints | None:
        """The best choice between the two neighbours; None where constraints curve, or it was not found."""
        import cvxpy as cp

        up = cp.Variable(self.down.size, boolean=True)
        batches = self.down + cp.multiply(self.step, up)
        rules = own_constraints(self.constraints, batches)
        fleet = self.problem.fleet
        for sample, limit in (
            (fleet.sample_cost, limits.step_budget(self.problem, *self.place)),
            (fleet.sample_energy, limits.step_energy_budget(self.problem, *self.place)),
        ):
            if limit < np.inf:
                rules.append(sample @ batches <= limit)
        worth = self.gains / (float(self.gains.max()) or 1.0)
        if not all(term.is_affine() for rule in rules for term in rule.args):
            return None
        up.value = np.zeros(self.down.size)
        choice = cp.Problem(cp.Maximize(worth @ up), scaled(rules))
        try:
            # scipy brings HiGHS, and is always there.
            if run(choice, "SCIPY", scipy_options={"time_limit": SECONDS, "mip_rel_gap": 1e-6}) is None:
                return None
        except SolverError:
            # Out of time without a point: the greedy rounding is left.
            return None
        raised: Ints = self.down + self.step * np.round(up.value).astype(np.int64)
        return raised

    def starts(self) -> Iterator[Ints]:
        """Batches to try: the lower neighbours, the upper ones, and ever smaller ones."""
        multiple = self.problem.fleet.batch_multiple
        lower, _ = self.problem.fleet.batch_range()
        yield self.down
        yield self.down + self.step
        for share in SHRUNK:
            yield lower + np.floor(share * (self.down - lower) / multiple).astype(np.int64) * multiple

    def raised_one_by_one(self) -> Ints | None:
        """The first start that fits, its batches raised one by one, largest gain first, while all is met."""
        start = next((batches for batches in self.starts() if self.fits(batches)), None)
        if start is None or (start > self.down).any():
            return start
        batches = start.copy()
        for i in np.argsort(-self.gains, kind="stable").tolist():
            if self.step[i] == 0 or self.gains[i] == 0.0:
                continue
            batches[i] += self.step[i]
            if not self.fits(batches):
                batches[i] -= self.step[i]
        return batches
