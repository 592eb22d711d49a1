"""The joint problem by convex programming (cvxpy): slower than the exact solver, open to users' constraints.

With y1 = 1/(K tau) and y2 = 1/tau every limit, on cost, energy and time, is linear in (s, y1, y2) and the
noise sum w_i/s_i is convex.
For tau in [low, high] the offset and the weights of the low end bound those of the whole range, so one
convex problem bounds every plan of the range from below; ranges are halved until the best is a single tau.

With geometric progress the value is B = (G + E D0)/(1 + E), where E(y1) = 1/(e^(c/y1) - 1), c = -ln q, is
convex. It is at least B_0 + h wherever h, the minimum of G + (D0 - B_0) E(y1) - B_0, is negative, and at
least B_0 otherwise: Dinkelbach's iteration on B_0, with tangents in place of E, which are below it. One
parametrised problem is compiled for all of this.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError, SolverError
from coopt.objectives.monotone import Bound, MonotoneBound, MonotoneForm
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.contract import Incumbent
from coopt.solvers.exact.cost_and_energy import best_share
from coopt.solvers.proposers.backend import Constraints, installed, own_constraints, run
from coopt.solvers.proposers.one_member import best_over_members
from coopt.solvers.proposers.progress import Geometric, floor_at, progress_of
from coopt.solvers.proposers.proposal import Proposal
from coopt.solvers.proposers.rounding import next_to
from coopt.solvers.ranges import Range, Ranges
from coopt.solvers.whole_batches import rounds_near, whole_batches
from coopt.solvers.whole_units.batches import relax

Floats = NDArray[np.float64]

DEFAULT_BACKEND = "CLARABEL"
# What the default backend is asked for. Constraints that curve keep it from its own 1e-8.
TOLERANCE = 3e-7
DEFAULT_OPTIONS = {"tol_gap_abs": TOLERANCE, "tol_gap_rel": TOLERANCE, "tol_feas": TOLERANCE}
# The relative accuracy to which its values are then trusted.
ACCURACY = 2e-6
TANGENTS = 24
# Beyond this many time constants nothing is left of the initial gap that a tangent could tell from zero.
LONGEST = 40.0
DINKELBACH_STEPS = 20
# A bound this small beside the initial gap is beyond the backend's accuracy; zero bounds it then.
NOTHING_LEFT = 1e-9
# Values of tau that are rounded, best relaxation first.
ROUNDED_STEPS = 3


@dataclass(frozen=True)
class Point:
    """What one range of tau was found to allow.

    Attributes
    ----------
    lower_bound : float
        On the value of every plan in the range; the optimum up to the backend's accuracy if tau is fixed.
    rounds : float
        K at the optimum.
    batch_sizes : ndarray, shape (N,)
    """

    lower_bound: float
    rounds: float
    batch_sizes: Floats


def solve(
    problem: Problem,
    bound: MonotoneBound,
    ranges: Ranges,
    constraints: Constraints | None = None,
    backend: str | None = None,
) -> Proposal:
    """The optimum of the joint relaxation, rounded to a plan within all limits and constraints.

    Parameters
    ----------
    problem : Problem
    bound : MonotoneBound
    ranges : Ranges
    constraints : callable, optional
        Takes the batch sizes as a cvxpy expression of shape (N,) and returns a list of cvxpy constraints.
    backend : str, optional
        Name of an installed cvxpy solver; default Clarabel.

    Returns
    -------
    Proposal
        ``lower_bound`` takes the constraints into account where the bound is no family, the backend is the
        default one and met its tolerance in every solve (``trace["accurate"]``).

    Raises
    ------
    InfeasibleError
        If no batch sizes meet the constraints within the limits.
    InvalidProblemError
        If the constraints are not a list of convex cvxpy constraints.
    SolverError
        If the backend is missing or fails, or no whole batches near the optimum meet the constraints.
    """
    trace: dict[str, float] = {"convex_solves": 0}

    def rounded(member: Bound) -> list[Incumbent]:
        joint = JointRelaxation(problem, member, ranges, constraints, backend)
        plans: list[Incumbent] = []
        for tau, point in joint.best_first():
            if not plans:
                trace["relaxation_value"] = point.lower_bound
            for rounds in rounds_near(problem.plain, ranges, point.rounds, tau):
                batches = joint.whole(rounds, tau)
                if batches is not None:
                    value = member.value(problem, rounds, tau, batches)
                    plans.append(Incumbent(value, rounds, tau, batches, member))
        trace["convex_solves"] += joint.solves
        trace["accurate"] = joint.accurate
        if not plans:
            raise SolverError(
                "solver 'cvxpy': continuous batch sizes meet the constraints, but no whole ones next to them "
                "do: loosen the constraints, or let them use inequalities"
            )
        return plans

    best = best_over_members(problem, bound, rounded, "cvxpy")
    single = len(bound.monotone_form(problem).members) == 1
    proved = -math.inf
    if single and trace["accurate"]:
        proved = trace["relaxation_value"]
    return Proposal(best, proved, trace)


@dataclass(frozen=True)
class _WorkLimit:
    """K (tau sample @ s + round) <= total."""

    sample: Floats
    round: float
    total: float


def _work_limits(problem: Problem) -> list[_WorkLimit]:
    """The limits on cost and on energy, where there are any."""
    fleet, budget = problem.fleet, problem.budget
    found = [
        _WorkLimit(fleet.sample_cost, budget.round_cost, budget.cost * (1.0 + limits.TOLERANCE)),
        _WorkLimit(
            fleet.sample_energy,
            float(np.sum(fleet.round_energy)),
            budget.energy * (1.0 + limits.TOLERANCE),
        ),
    ]
    return [limit for limit in found if limit.total < math.inf]


class JointRelaxation:
    """The relaxation for one bound, compiled once.

    Parameters
    ----------
    problem : Problem
    bound : Bound
        A single bound with a monotone form and geometric or reciprocal progress.
    ranges : Ranges
    constraints : callable, optional
    backend : str, optional

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
        self.backend = installed(backend or DEFAULT_BACKEND)
        if not isinstance(bound, MonotoneBound):
            raise SolverError(f"solver 'cvxpy' needs the monotone form of bound {bound.name!r}")
        self.problem, self.ranges = problem.plain, ranges
        self.form: MonotoneForm = bound.monotone_form(problem)
        self.progress = progress_of(self.form, "cvxpy")
        self.solves = 0
        # Whether every solve so far met the backend's own tolerance.
        self.accurate = backend in (None, DEFAULT_BACKEND)
        self.constraints = constraints
        self._ratio = 1.0
        self._compile(constraints)

    def _compile(self, constraints: Constraints | None) -> None:
        import cvxpy as cp

        fleet, budget = self.problem.fleet, self.problem.budget
        size = len(fleet)
        lower, upper = fleet.batch_range()
        self._scale = self._typical_batches()
        self._x = cp.Variable(size)
        self._z1, self._z2, self._excess = cp.Variable(), cp.Variable(), cp.Variable()
        batches = cp.multiply(self._scale, self._x)
        self._weights = cp.Parameter(size, nonneg=True)
        self._ends = cp.Parameter(2)
        self._rounds = cp.Parameter(2, nonneg=True)
        self._intercepts, self._slopes = cp.Parameter(TANGENTS), cp.Parameter(TANGENTS)
        z1, z2 = self._z1, self._z2
        rules = [
            self._x >= lower / self._scale,
            self._x <= upper / self._scale,
            z2 >= self._ends[0],
            z2 <= self._ends[1],
            z1 >= self._rounds[0] * z2,
            z1 <= self._rounds[1] * z2,
            self._excess >= 0.0,
            self._excess >= self._intercepts + self._slopes * z1,
        ]
        self._allowed = []
        for limit in _work_limits(self.problem):
            work = limit.sample * self._scale
            total = float(work.sum()) or 1.0
            allowed = cp.Parameter(2, nonneg=True)
            rules.append((work / total) @ self._x + allowed[1] * z2 <= allowed[0] * z1)
            self._allowed.append((limit, total, allowed))
        self._step_time, self._round_time = cp.Parameter(size, nonneg=True), cp.Parameter(size, nonneg=True)
        if budget.time < math.inf:
            rules.append(cp.multiply(self._step_time, self._x) + self._round_time * z2 <= z1)
        own = own_constraints(constraints, batches)
        noise = cp.sum(cp.multiply(self._weights, cp.inv_pos(self._x)))
        self._compiled = cp.Problem(cp.Minimize(noise + self._excess), [*rules, *own])

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
        """
        first, last = self.ranges.local_steps
        root = self.within((first, last))
        if root is None:
            raise InfeasibleError(
                "no batch sizes meet the constraints within the limits of cost, time and batches",
                binding="constraints",
            )
        found: list[tuple[int, Point]] = []
        queue = [(root.lower_bound, first, last, root)]
        while queue and len(found) < ROUNDED_STEPS:
            _, low, high, point = heapq.heappop(queue)
            if low == high:
                found.append((low, point))
                continue
            middle = min(math.isqrt(low * high), high - 1)
            for part in ((low, middle), (middle + 1, high)):
                inside = self.within(part)
                if inside is not None:
                    heapq.heappush(queue, (inside.lower_bound, *part, inside))
        return found

    def within(self, local_steps: Range, rounds: Range | None = None) -> Point | None:
        """Bound the plans with tau in a range from below; None if there are none.

        The bound is the optimum of the relaxation, up to the backend's accuracy, if the range is one tau.
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
        unit1, unit2 = 1.0 / (low * math.sqrt(rounds[0] * rounds[1])), 1.0 / low
        self._set_limits(unit1, unit2, low / high, rounds)
        if isinstance(self.progress, Geometric):
            return self._dinkelbach(self.progress, offset, weights, unit1, rounds, (low, high))
        return self._linear(offset, weights, self.progress.rate * unit1)

    def _linear(self, offset: float, weights: Floats, rate: float) -> Point | None:
        """The optimum where progress is linear in y1: one solve, and one in units of its result."""
        unit = max(float(np.sum(weights / self._scale)), rate, 1e-300)
        slopes = np.zeros(TANGENTS)
        value = 1.0
        for _ in range(2):
            unit *= value or 1.0
            slopes[0] = rate / unit
            least = self._solve(weights / self._scale / unit, np.zeros(TANGENTS), slopes)
            if least is None:
                return None
            value = max(least, 0.0)
        return self._point(offset + (value - ACCURACY) * unit)

    def _set_limits(self, unit1: float, unit2: float, shortest: float, rounds: Range) -> None:
        fleet, budget = self.problem.fleet, self.problem.budget
        self._ends.value = np.array([shortest, 1.0])
        self._ratio = unit2 / unit1
        self._rounds.value = self._ratio / np.array([rounds[1], rounds[0]], dtype=np.float64)
        for limit, total, allowed in self._allowed:
            allowed.value = np.array([limit.total * unit1, limit.round * unit2]) / total
        if budget.time < math.inf:
            seconds = budget.time * (1.0 + limits.TOLERANCE) * unit1
            self._step_time.value = self._scale / fleet.throughput / seconds
            self._round_time.value = fleet.round_time * unit2 / seconds

    def _dinkelbach(
        self,
        progress: Geometric,
        offset: float,
        weights: Floats,
        unit1: float,
        rounds: Range,
        local_steps: Range,
    ) -> Point | None:
        rate, gap = progress.rate, progress.gap
        if gap <= max(offset, 0.0):
            # Every step leads up to a floor above the initial gap, which thus bounds the value.
            unit = float(np.sum(weights / self._scale)) or 1.0
            least = self._solve(weights / self._scale / unit, np.zeros(TANGENTS), np.zeros(TANGENTS))
            return None if least is None else replace(self._point(gap), rounds=float(rounds[0]))
        steps = (local_steps[0] * rounds[0], local_steps[1] * rounds[1])
        longest = min(float(steps[1]), max(LONGEST / rate, float(steps[0])))
        at = np.geomspace(float(steps[0]), longest, TANGENTS)
        value, proved = gap, 0.0
        point: Point | None = None
        for attempt in range(DINKELBACH_STEPS):
            if value <= NOTHING_LEFT * gap:
                break
            # Values are in units of the current estimate, so that the backend's tolerance is relative.
            intercepts, slopes = _tangents(rate, at)
            factor = max(gap - value, 0.0) / value
            least = self._solve(weights / self._scale / value, factor * intercepts, factor * slopes * unit1)
            if least is None:
                return None
            below = offset + value * (least - 1.0)
            proved = max(proved, value + min(below, 0.0) - ACCURACY * value)
            point = self._point(proved)
            here = min(max(1.0 / (float(self._z1.value) * unit1), steps[0]), steps[1])
            noise = float(np.sum(weights / point.batch_sizes))
            left = math.exp(-rate * here)
            reached = left * gap - math.expm1(-rate * here) * (offset + noise)
            if below >= 0.0 or reached - proved <= 1.1 * ACCURACY * reached:
                break
            value = min(value, reached)
            at[attempt % TANGENTS] = here
        return point

    def _solve(self, weights: Floats, intercepts: Floats, slopes: Floats) -> float | None:
        """Optimal value; None if infeasible."""
        self._weights.value, self._intercepts.value, self._slopes.value = weights, intercepts, slopes
        import cvxpy as cp

        self.solves += 1
        options = DEFAULT_OPTIONS if self.backend == DEFAULT_BACKEND else {}
        value = run(self._compiled, self.backend, **options)
        self.accurate &= self._compiled.status != cp.OPTIMAL_INACCURATE
        return value

    def _point(self, value: float) -> Point:
        rounds = float(self._z2.value) / float(self._z1.value) * self._ratio
        return Point(value, rounds, self._scale * self._x.value)

    def whole(self, rounds: int, local_steps: int) -> NDArray[np.int64] | None:
        """Whole batches at (K, tau) within all limits and constraints; None if none were found."""
        _, weights = floor_at(self.form, local_steps)
        if self.constraints is None:
            return whole_batches(self.problem, weights, rounds, local_steps).batch_sizes
        inside = self.within((local_steps, local_steps), (rounds, rounds))
        if inside is None:
            return None
        return next_to(self.problem, self.constraints, inside.batch_sizes, weights, rounds, local_steps)


def _tangents(rate: float, steps: Floats) -> tuple[Floats, Floats]:
    """Intercepts and slopes in y1 of tangents to E(y1) = 1 / expm1(rate / y1) at y1 = 1 / steps."""
    excess = 1.0 / np.expm1(rate * steps)
    slopes = excess * (1.0 + excess) * rate * steps * steps
    return excess - slopes / steps, slopes
