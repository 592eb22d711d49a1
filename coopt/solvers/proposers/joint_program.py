"""The convex program of the joint problem as cvxpy has it, with numbers of order one, and what it proves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.proposers.dual_bound import Box, Priced, proved
from coopt.solvers.proposers.kinks import taken_apart
from coopt.solvers.proposers.own_constraints import Constraints, Linearised, own_constraints, scaled
from coopt.solvers.proposers.work_limits import work_limits
from coopt.solvers.ranges import Range

Floats = NDArray[np.float64]

TANGENTS = 24
# Ranges of (z1, z2) are this much wider for the backend than for the proof: it needs an interior.
WIDER = 1e-5


class JointProgram:
    """Minimise the noise sum w_i/x_i and the excess e(z1) over batches scale x, z1 ~ y1 and z2 ~ y2.

    Parameters
    ----------
    problem : Problem
        Plain: all devices take part, and the budget has all that a round costs.
    scale : ndarray, shape (N,)
        Batch sizes that stand for one.
    constraints : callable or None
        The user's own.
    joint : bool
        Whether K and tau are chosen as well; otherwise z1 = z2 = 1, and there is no excess.

    Attributes
    ----------
    compiled : cvxpy.Problem
    scale : ndarray, shape (N,)
    unit : float
        What z1 = 1 stands for.
    """

    def __init__(
        self, problem: Problem, scale: Floats, constraints: Constraints | None, *, joint: bool
    ) -> None:
        import cvxpy as cp

        self.problem, self.scale, self._joint = problem, scale, joint
        self.unit = self._ratio = 1.0
        fleet = problem.fleet
        size = len(fleet)
        lower, upper = fleet.batch_range()
        self._lower, self._upper = lower / scale, upper / scale
        self._x = cp.Variable(size)
        self._weights = cp.Parameter(size, nonneg=True)
        self._ends, self._slopes = cp.Parameter(2, nonneg=True), cp.Parameter(2, nonneg=True)
        self._lines = cp.Parameter(TANGENTS), cp.Parameter(TANGENTS)
        rules = [self._x >= self._lower, self._x <= self._upper]
        value = cp.sum(cp.multiply(self._weights, cp.inv_pos(self._x)))
        z1: cp.Expression = cp.Constant(1.0)
        z2: cp.Expression = z1
        if joint:
            z1, z2 = cp.Variable(), cp.Variable()
            excess = cp.Variable()
            rules += [
                z2 >= self._ends[0],
                z2 <= self._ends[1],
                z1 >= self._slopes[0] * z2,
                z1 <= self._slopes[1] * z2,
                excess >= 0.0,
                excess >= self._lines[0] + self._lines[1] * z1,
            ]
            value += excess
        self._z1, self._z2 = z1, z2
        self._limits = []
        for limit in work_limits(problem):
            work = limit.sample * scale
            total = float(work.sum()) or 1.0
            allowed = cp.Parameter(3, nonneg=True)
            rule = (work / total) @ self._x + allowed[1] * z2 + allowed[2] <= allowed[0] * z1
            self._limits.append((limit, total, work / total, allowed, rule))
        self._sample_time, self._step_time, self._round_time = (
            cp.Parameter(size, nonneg=True) for _ in range(3)
        )
        self._timed = None
        if problem.budget.time < math.inf:
            computing = cp.multiply(self._sample_time, self._x) + self._step_time
            self._timed = computing + self._round_time * z2 <= z1
            rules.append(self._timed)
        # Batches taken in parts take no less time than full parts would, see limits.step_lines.
        self._parted = None
        self._part_time = cp.Parameter(size, nonneg=True)
        if self._timed is not None and fleet.accumulates:
            self._parted = cp.multiply(self._part_time, self._x) + self._round_time * z2 <= z1
            rules.append(self._parted)
        own = own_constraints(constraints, cp.multiply(scale, self._x))
        self._x.value = np.ones(size)
        own, kinks = taken_apart(scaled(own))
        self._own = Linearised(own, kinks, self._x)
        rules += [rule for kink in kinks for rule in kink.rules]
        rules += [rule for *_, rule in self._limits]
        self.compiled = cp.Problem(cp.Minimize(value), [*rules, *own])

    def place(self, rounds: Range, local_steps: Range) -> None:
        """Say in which ranges K and tau are."""
        fleet, budget = self.problem.fleet, self.problem.budget
        low, high = local_steps
        self.unit, rest = 1.0 / (low * math.sqrt(rounds[0] * rounds[1])), 1.0 / low
        self._ratio = rest / self.unit
        ends = np.array([low / high, 1.0])
        slopes = self._ratio / np.array([rounds[1], rounds[0]], dtype=np.float64)
        self._box = Box(self._lower, self._upper, ends, slopes)
        wider = np.array([1.0 - WIDER, 1.0 + WIDER])
        self._ends.value, self._slopes.value = ends * wider, slopes * wider
        for limit, total, _, allowed, _ in self._limits:
            allowed.value = np.array([limit.met_up_to * self.unit, limit.round * rest, limit.step]) / total
        if self._timed is not None:
            seconds = budget.time * (1.0 + limits.TOLERANCE) * self.unit
            self._sample_time.value = self.scale / fleet.throughput / seconds
            self._step_time.value = fleet.step_time / seconds
            self._part_time.value = self.scale / fleet.part_throughput / seconds
            self._round_time.value = fleet.round_time * rest / seconds

    def ask(self, weights: Floats, lines: tuple[Floats, Floats]) -> None:
        """Say what to minimise: weights of 1/s_i, and the lines whose largest, or zero, is the excess."""
        self._noise, self._rises = weights / self.scale, lines
        self._weights.value = self._noise
        if self._joint:
            for parameter, values in zip(self._lines, lines, strict=True):
                parameter.value = values

    @property
    def batch_sizes(self) -> Floats:
        """Where the last solve ended, within the limits of each batch."""
        batches: Floats = np.clip(self._x.value, self._lower, self._upper) * self.scale
        return batches

    @property
    def place_found(self) -> tuple[float, float]:
        """z1 and z2 where the last solve ended."""
        (low, high), slopes = self._box.ends, self._box.slopes
        z2 = min(max(float(self._z2.value), low), high)
        return min(max(float(self._z1.value), slopes[0] * z2), slopes[1] * z2), z2

    def rounds(self, z1: float, z2: float) -> float:
        """K at a place."""
        return z2 / z1 * self._ratio

    def proved(self, claimed: float) -> float:
        """A lower bound on the optimum from the multipliers of the last solve; -inf without any."""
        slopes, steps, rest, constant = np.zeros(self.scale.size), 0.0, 0.0, 0.0
        for _, _, work, allowed, rule in self._limits:
            price = _positive(rule.dual_value)
            slopes += price * work
            steps -= float(price * allowed.value[0])
            rest += float(price * allowed.value[1])
            constant += float(price * allowed.value[2])
        if self._timed is not None:
            price = _positive(self._timed.dual_value)
            slopes += price * self._sample_time.value
            steps -= float(np.sum(price))
            rest += float(np.sum(price * self._round_time.value))
            constant += float(np.sum(price * self._step_time.value))
        if self._parted is not None:
            price = _positive(self._parted.dual_value)
            slopes += price * self._part_time.value
            steps -= float(np.sum(price))
            rest += float(np.sum(price * self._round_time.value))
        own, ours = self._own.priced(), Priced(slopes, steps, rest, constant, constant)
        return proved(self._noise, self._rises, self._box, ours, own, claimed)


def _positive(price: Floats | float | None) -> Floats:
    return np.zeros(1) if price is None else np.maximum(np.nan_to_num(price), 0.0)
