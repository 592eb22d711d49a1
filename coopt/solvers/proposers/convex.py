"""The joint problem by convex programming (cvxpy): slower than the exact solver, open to users' constraints.

With y1 = 1/(K tau) and y2 = 1/tau every limit, on cost, energy and time, is linear in (s, y1, y2) and the
noise sum w_i/s_i is convex.
For tau in [low, high] the offset and the weights of the low end bound those of the whole range, so one
convex problem bounds every plan of the range from below; ranges are halved until the best is a single tau.

With geometric progress the value is B = (G + E D0)/(1 + E), where E(y1) = 1/(e^(c/y1) - 1), c = -ln q, is
convex. It is at least B_0 + h wherever h, the minimum of G + (D0 - B_0) E(y1) - B_0, is negative, and at
least B_0 otherwise: Dinkelbach's iteration on B_0, with tangents in place of E, which are below it. One
parametrised problem is compiled for all of this.

No backend decides alone. What its multipliers prove is computed by
:mod:`~coopt.solvers.proposers.dual_bound`, and where that is not enough another setting or solver is tried.
Where all fail on a range of tau, what is known of a larger range holds for it too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError, SolverError
from coopt.objectives.monotone import MonotoneBound, MonotoneForm
from coopt.objectives.progress import ExponentialProgress
from coopt.objectives.protocol import Bound
from coopt.objectives.users_own import completed
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.best_first import halves, search
from coopt.solvers.contract import Found
from coopt.solvers.exact.cost_and_energy import best_share
from coopt.solvers.proposers.backend import ACCURACY
from coopt.solvers.proposers.joint_program import TANGENTS, JointProgram
from coopt.solvers.proposers.one_member import Plan, best_over_members
from coopt.solvers.proposers.own_constraints import Constraints
from coopt.solvers.proposers.progress import floor_at, progress_of
from coopt.solvers.proposers.rounding import next_to
from coopt.solvers.proposers.several_backends import Backends, Solved
from coopt.solvers.ranges import Range, Ranges
from coopt.solvers.whole_batches import rounds_near, whole_batches
from coopt.solvers.whole_units.batches import relax

Floats = NDArray[np.float64]

# Beyond this many time constants nothing is left of the initial gap that a tangent could tell from zero.
LONGEST = 40.0
DINKELBACH_STEPS = 20
# A bound this small beside the initial gap is beyond any backend's accuracy; zero bounds it then.
NOTHING_LEFT = 1e-9
# Where no whole batches next to the optimum meet the constraints, so much fewer rounds leave room for larger.
FEWER = (0.99, 0.95, 0.8, 0.5)
# Values of tau that are rounded, best relaxation first.
ROUNDED_STEPS = 3
# Batches this far from their scale, as a factor, become the new scale, at most so often.
OFF_SCALE, RESCALED = 3.0, 3
# Ranges of tau without a point, before there was one, after which the backends are given up.
MOST_FAILED = 5


@dataclass(frozen=True)
class Point:
    """What one range of tau was found to allow.

    Attributes
    ----------
    value : float
        The optimum of the relaxation, up to the backend's accuracy.
    lower_bound : float
        Proved for the value of every plan in the range.
    rounds : float
        K at the optimum.
    batch_sizes : ndarray, shape (N,)
    """

    value: float
    lower_bound: float
    rounds: float
    batch_sizes: Floats


# First and last tau of a range, and what it allows.
Part = tuple[int, int, Point]


def solve(
    problem: Problem,
    bound: MonotoneBound,
    ranges: Ranges,
    constraints: Constraints | None = None,
    backend: str | None = None,
) -> Found:
    """The optimum of the joint relaxation, rounded to a plan within all limits and constraints.

    Parameters
    ----------
    problem : Problem
    bound : MonotoneBound
    ranges : Ranges
    constraints : callable, optional
        Takes the batch sizes as a cvxpy expression of shape (N,) and returns a list of cvxpy constraints.
    backend : str, optional
        Name of an installed cvxpy solver, which is then tried alone; default Clarabel, and where that
        stumbles what else is installed.

    Returns
    -------
    Found
        ``lower_bound`` takes the constraints into account where the bound is no family. The trace counts
        how often each backend was tried.

    Raises
    ------
    InfeasibleError
        If no batch sizes meet the constraints within the limits.
    InvalidProblemError
        If the constraints are not a list of convex cvxpy constraints.
    SolverError
        If a backend that was named is missing or fails, no backend finds a point, or no whole batches near
        the optimum meet the constraints. The message says what was tried.
    """
    tries: Counter[str] = Counter()
    trace: dict[str, float] = {"convex_solves": 0}

    def rounded(member: Bound) -> list[Plan]:
        joint = JointRelaxation(problem, member, ranges, constraints, backend)
        plans: list[Plan] = []
        found = joint.best_first()
        trace.setdefault("relaxation_value", joint.proved)

        def attempt(rounds: int, tau: int, point: Point) -> None:
            batches = joint.whole(rounds, tau, point.batch_sizes)
            if batches is not None:
                plans.append((rounds, tau, batches))

        for tau, point in found:
            for rounds in rounds_near(problem.plain, ranges, point.rounds, tau):
                attempt(rounds, tau, point)
        for share in FEWER:
            if plans:
                break
            for tau, point in found:
                attempt(max(int(share * point.rounds), ranges.rounds[0]), tau, point)
        trace["convex_solves"] += joint.backends.solves
        tries.update(joint.backends.tries)
        if not plans:
            raise SolverError(
                "solver 'cvxpy': continuous batch sizes meet the constraints, but no whole ones next to them "
                "do: loosen the constraints, or let them use inequalities"
            )
        return plans

    best = best_over_members(problem, bound, rounded, "cvxpy")
    single = len(bound.monotone_form(problem).members) == 1
    trace |= {f"tries of {name}": count for name, count in sorted(tries.items())}
    return Found(best, trace["relaxation_value"] if single else -math.inf, trace=trace)


class JointRelaxation:
    """The relaxation for one bound, compiled once for a scale of the batch sizes.

    Parameters
    ----------
    problem : Problem
    bound : Bound
        A single bound with a monotone form and geometric or reciprocal progress.
    ranges : Ranges
    constraints : callable, optional
    backend : str, optional

    Attributes
    ----------
    backends : Backends
        Who solves it, and how often each was tried.
    proved : float
        A lower bound on every plan of the ranges, once :meth:`best_first` has run.

    Raises
    ------
    InvalidProblemError
        If the constraints are not a list of convex cvxpy constraints.
    SolverError
        If the backend is missing, or the bound has no form that this solver knows.
    """

    def __init__(
        self,
        problem: Problem,
        bound: Bound,
        ranges: Ranges,
        constraints: Constraints | None = None,
        backend: str | None = None,
    ) -> None:
        self.backends = Backends(backend)
        prunable = completed(bound).prunable
        if prunable is None:
            raise SolverError(f"solver 'cvxpy' needs the monotone form of bound {bound.name!r}")
        self.problem, self.ranges = problem.plain, ranges
        self.form: MonotoneForm = prunable.monotone_form(problem)
        self.progress = progress_of(self.form, "cvxpy")
        self.proved = -math.inf
        self.constraints = constraints
        self._guess: tuple[float, float] | None = None
        self._compile(self._typical_batches())

    def _compile(self, scale: Floats) -> None:
        self._program = JointProgram(self.problem, scale, self.constraints, joint=True)
        # At one K and tau nothing but batches is left to choose; compiled when first asked for.
        self._inner: JointProgram | None = None

    def _typical_batches(self) -> Floats:
        """The scale of the batch sizes: conic solvers want variables near one."""
        problem, ranges = self.problem, self.ranges
        fleet = problem.fleet
        lower, upper = fleet.batch_range()
        tau = ranges.local_steps[0]
        rounds = math.ceil(math.sqrt(ranges.rounds[0] * max(ranges.most_rounds(tau), 1)))
        caps = np.maximum(np.minimum(upper, limits.time_caps(problem, rounds, tau)), lower)
        noise = fleet.weights**2 * fleet.gradient_noise
        if problem.budget.energy < math.inf:
            return best_share(problem, noise, rounds, tau, lower, caps)[1].batch_sizes
        spend = limits.step_budget(problem, rounds, tau)
        return relax(noise, fleet.sample_cost, spend, lower, caps).batch_sizes

    def best_first(self) -> list[tuple[int, Point]]:
        """The single tau with the best relaxations, best first.

        Raises
        ------
        InfeasibleError
            If no batch sizes meet the constraints.
        SolverError
            If no backend finds any.
        """
        first, last = self.ranges.local_steps
        root = self._root((first, last))
        if root is None:
            limited = {name: getattr(self.problem.budget, name) for name in ("cost", "time", "energy")}
            within = " and ".join(
                f"{name} = {value:.6g}" for name, value in limited.items() if value < math.inf
            )
            raise InfeasibleError(
                "no batch sizes between min_batch and max_batch meet the constraints"
                + (f" within {within}" if within else ""),
                binding="constraints",
            )
        found: list[tuple[int, Point]] = []
        # What is proved of every range that has not been divided.
        proved = {(first, last): root.lower_bound}
        failed = 0

        def branch(part: Part, _value: float) -> Iterator[tuple[float, Part]]:
            nonlocal failed
            low, high, point = part
            if low == high:
                found.append((low, point))
                return
            del proved[low, high]
            for half in halves(low, high):
                try:
                    inside = self.within(half)
                except SolverError:
                    failed += not self.backends.found
                    if failed >= MOST_FAILED:
                        raise
                    inside = point
                proved[half] = point.lower_bound
                # That nothing is there is the backend's word; what is proved holds all the same.
                if inside is not None:
                    proved[half] = max(inside.lower_bound, point.lower_bound)
                    value = max(inside.value, proved[half])
                    yield value, (*half, replace(inside, lower_bound=proved[half], value=value))

        search(
            [(root.value, (first, last, root))],
            branch,
            lambda: math.inf if len(found) < ROUNDED_STEPS else -math.inf,
        )
        self.proved = min(proved.values())
        return found

    def _root(self, local_steps: Range) -> Point | None:
        """The point of all plans, with a scale of the batch sizes that fits it."""
        try:
            root = self.within(local_steps)
        except SolverError:
            if self.backends.only_one or local_steps[0] == local_steps[1]:
                raise
            rounds = math.sqrt(self.ranges.rounds[0] * self.ranges.rounds[1])
            return Point(-math.inf, -math.inf, rounds, self._program.scale)
        for _ in range(RESCALED):
            if root is None:
                break
            ratio = root.batch_sizes / self._program.scale
            if ratio.min() >= 1.0 / OFF_SCALE and ratio.max() <= OFF_SCALE:
                break
            self._compile(root.batch_sizes)
            try:
                again = self.within(local_steps)
            except SolverError:
                break
            if again is None:
                break
            root = replace(again, lower_bound=max(root.lower_bound, again.lower_bound))
        return root

    def within(self, local_steps: Range, rounds: Range | None = None) -> Point | None:
        """Bound the plans with tau in a range from below; None if there are none.

        Raises
        ------
        SolverError
            If no backend finds a point.
        """
        shrunk = self.ranges.shrink(rounds or self.ranges.rounds, local_steps)
        if shrunk is None:
            return None
        rounds, (low, high) = shrunk
        offset, weights = floor_at(self.form, low)
        if self.form.population is not None:
            offset -= float(np.sum(weights / self.form.population))
        if not (math.isfinite(offset) and np.isfinite(weights).all()):
            return None
        self._program.place(rounds, (low, high))
        if isinstance(self.progress, ExponentialProgress):
            return self._dinkelbach(self.progress, offset, weights, rounds, (low, high))
        return self._linear(offset, weights, self.progress.rate.item() * self._program.unit)

    def _linear(self, offset: float, weights: Floats, rate: float) -> Point | None:
        """The optimum where progress is linear in y1: one solve, and one in units of its result."""
        unit = max(float(np.sum(weights / self._program.scale)), rate, 1e-300)
        proved = -math.inf
        nothing, slopes = np.zeros(TANGENTS), np.zeros(TANGENTS)
        point: Point | None = None
        for _ in range(2):
            slopes[0] = rate / unit
            solved = self.backends.solve(self._program, weights / unit, (nothing, slopes))
            if solved is None:
                return None
            proved = max(proved, offset + solved.proved * unit)
            point = self._point(solved, offset + solved.value * unit, proved)
            unit *= solved.value if solved.value > 0.0 else 1.0
        return point

    def _dinkelbach(
        self,
        progress: ExponentialProgress,
        offset: float,
        weights: Floats,
        rounds: Range,
        local_steps: Range,
    ) -> Point | None:
        program, rate, gap = self._program, -progress.log_q.item(), progress.gap
        nothing = np.zeros(TANGENTS), np.zeros(TANGENTS)
        if gap <= max(offset, 0.0):
            # Every step leads up to a floor above the initial gap, which thus bounds the value.
            unit = float(np.sum(weights / program.scale)) or 1.0
            solved = self.backends.solve(program, weights / unit, nothing)
            return None if solved is None else replace(self._point(solved, gap, gap), rounds=float(rounds[0]))
        steps = (local_steps[0] * rounds[0], local_steps[1] * rounds[1])
        longest = min(float(steps[1]), max(LONGEST / rate, float(steps[0])))
        at = np.geomspace(float(steps[0]), longest, TANGENTS)
        # The range before is a good guess, from above or from below, of the value and of the steps.
        value, at[0] = self._guess or (gap, at[0])
        at[0] = min(max(at[0], steps[0]), longest)
        if not NOTHING_LEFT * gap < value < gap:
            value = gap
        proved = 0.0
        point: Point | None = None
        for attempt in range(DINKELBACH_STEPS):
            if value <= NOTHING_LEFT * gap:
                break
            # Values are in units of the current estimate, so that the backend's tolerance is relative.
            intercepts, slopes = _tangents(rate, at)
            factor = max(gap - value, 0.0) / value
            lines = factor * intercepts, factor * slopes * program.unit
            solved = self.backends.solve(program, weights / value, lines)
            if solved is None:
                return None
            proved = max(proved, value + min(offset + value * (solved.proved - 1.0), 0.0))
            below = offset + value * (solved.value - 1.0)
            point = self._point(solved, max(value + min(below, 0.0), proved), proved)
            here = min(max(1.0 / (solved.z1 * program.unit), steps[0]), steps[1])
            noise = float(np.sum(weights / point.batch_sizes))
            left = math.exp(-rate * here)
            reached = left * gap - math.expm1(-rate * here) * (offset + noise)
            self._guess = reached, here
            if (below >= 0.0 and attempt) or reached - point.value <= ACCURACY * reached:
                break
            # A point may be worse than no training at all; its value then says nothing about the others.
            value = min(value, reached) if attempt else min(reached, gap)
            at[(attempt + 1) % TANGENTS] = here
        if point is not None and point.lower_bound >= gap:
            # Whatever the batches, the floor is above the initial gap: the fewest rounds do the least harm.
            return replace(point, rounds=float(rounds[0]))
        return point

    def _point(self, solved: Solved, value: float, proved: float) -> Point:
        return Point(value, proved, self._program.rounds(solved.z1, solved.z2), solved.batch_sizes)

    def whole(self, rounds: int, local_steps: int, near: Floats) -> NDArray[np.int64] | None:
        """Whole batches at (K, tau) within all limits and constraints; None if none were found.

        `near` are continuous ones at a similar place, from which to start where no backend finds better.
        """
        _, weights = floor_at(self.form, local_steps)
        if self.constraints is None:
            return whole_batches(self.problem, weights, rounds, local_steps).batch_sizes
        if self._inner is None:
            self._inner = JointProgram(self.problem, self._program.scale, self.constraints, joint=False)
        self._inner.place((rounds, rounds), (local_steps, local_steps))
        unit = float(np.sum(weights / near)) or 1.0
        try:
            solved = self.backends.solve(self._inner, weights / unit, (np.zeros(0), np.zeros(0)))
        except SolverError:
            solved = None
        batches = near if solved is None else solved.batch_sizes
        return next_to(self.problem, self.constraints, batches, weights, rounds, local_steps)


def _tangents(rate: float, steps: Floats) -> tuple[Floats, Floats]:
    """Intercepts and slopes in y1 of tangents to E(y1) = 1 / expm1(rate / y1) at y1 = 1 / steps."""
    excess = 1.0 / np.expm1(rate * steps)
    slopes = excess * (1.0 + excess) * rate * steps * steps
    return excess - slopes / steps, slopes
