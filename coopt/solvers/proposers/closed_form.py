"""Rounds, local steps and batch sizes from formulas, a handful of passes over the fleet.

Drop the limits of each batch and let K and s be real. With T = K tau steps in total the best batches then
leave noise A T / (1 - rho T), where A and rho say what the limit on cost, on energy or on time allows; they
are sums over the fleet. What remains is a function of one number T with one stationary point:

* geometric progress q^T: y = -T ln q solves expm1(y) + y g = g^2 m with g = 1 - rho T; where rounds cost
  nothing (rho = 0) this is y + e^y = kappa, so y = kappa - W(e^kappa) with Lambert's W;
* progress r / T: T = 1 / (rho + sqrt(A / r)), a square-root law.

The derivations, and where each form holds, are in the documentation of the closed forms.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InfeasibleError, SolverError
from coopt.objectives.monotone import MonotoneBound, MonotoneForm
from coopt.objectives.progress import ExponentialProgress
from coopt.objectives.protocol import Bound
from coopt.objectives.users_own import completed
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.best_first import lowest
from coopt.solvers.contract import Found
from coopt.solvers.exact.cost_and_energy import best_share
from coopt.solvers.proposers.one_member import Plan, best_over_members
from coopt.solvers.proposers.progress import best_steps, floor_at, lambert_steps, progress_of, value_after
from coopt.solvers.proposers.work_limits import work_limits
from coopt.solvers.ranges import Ranges, feasible_ranges
from coopt.solvers.whole_batches import rounds_near, whole_batches
from coopt.solvers.whole_units.batches import relax

Floats = NDArray[np.float64]

# Stands for "no limit" where a product with a zero cost must stay zero.
UNLIMITED = 1e300
# The best number of local steps is searched over so many factors of e below the largest.
FACTORS = 40.0


@dataclass(frozen=True)
class ClosedForm:
    """The optimum of a relaxation, from formulas.

    Attributes
    ----------
    rounds, local_steps : float
        K and tau, real numbers.
    batch_sizes : ndarray, shape (N,)
        s_i > 0, real numbers within the limits on cost, energy and time at this K and tau, but not within
        those of each batch.
    value : float
        The bound at the optimum of the relaxation.
    """

    rounds: float
    local_steps: float
    batch_sizes: Floats
    value: float


def co_optimised(problem: Problem, rounds: float, bound: Bound, same_batch: bool = False) -> ClosedForm:
    """Local steps and batch sizes for a given number of rounds, drift between devices left out.

    For given K every limit fixes the product tau s_i alone, so the noise of the best batches is
    proportional to tau, and tau = y / x with x = -K ln q and y + e^y = 1 + x D0 / (noise of one step).
    Where steps take time or cost something whatever their batch, the noise grows faster than tau; the bound
    is still quasiconvex in tau (it is a ratio of a concave and a convex function of 1/tau), and its minimum
    is searched.

    Parameters
    ----------
    problem : Problem
        With a limit on cost, energy or time.
    rounds : float
        K > 0.
    bound : Bound
        A single bound, not a family, with geometric or reciprocal progress.
    same_batch : bool, default False
        Whether every device has the same batch size.

    Returns
    -------
    ClosedForm
        ``value`` leaves out drift.

    Raises
    ------
    InfeasibleError
        If the rounds alone use up a limit.
    SolverError
        If the bound has another progress.

    References
    ----------
    Liu et al., "DYNAMITE", arXiv:2310.14906: co-optimal tau and s for a given K, there by approximation.
    """
    from scipy.optimize import minimize_scalar

    form = _single(bound, problem)
    _, noise = floor_at(form, 1)
    plain = problem.plain
    for limit, used, allowed in (
        *((each.name, rounds * each.round, each.total) for each in work_limits(plain)),
        ("time", rounds * float(plain.fleet.round_time.max()), plain.budget.time),
    ):
        if used >= allowed:
            raise InfeasibleError(
                f"{limit}: {rounds:g} rounds use {used:.6g} of {allowed:.6g} without any step", binding=limit
            )
    progress = progress_of(form, "closed-form")

    def at(steps: float) -> ClosedForm:
        batches = _batches(plain, noise, rounds, steps, same_batch)
        value = value_after(progress, rounds * steps, 0.0, float(np.sum(noise / batches)))
        return ClosedForm(rounds, steps, batches, value)

    longest = _longest(plain, rounds)
    if longest < math.inf:
        # The ends are excluded: all of a limit would go to steps without a sample.
        found = minimize_scalar(
            lambda log: at(math.exp(log)).value,
            bounds=(math.log(longest) - FACTORS, math.log(longest)),
            method="bounded",
            options={"xatol": 1e-10},
        )
        return at(math.exp(float(found.x)))
    step_noise = float(np.sum(noise / at(1.0).batch_sizes))
    if isinstance(progress, ExponentialProgress):
        x = -progress.log_q.item() * rounds
        return at(lambert_steps(x * progress.gap / step_noise) / x)
    return at(math.sqrt(progress.rate.item() / rounds / step_noise))


def _longest(problem: Problem, rounds: float) -> float:
    """The local steps of a round that would use up a limit without a sample; inf where steps are free."""
    fleet, budget = problem.fleet, problem.budget
    found = [math.inf]
    found += [
        (limit.total / rounds - limit.round) / limit.step
        for limit in work_limits(problem)
        if limit.step > 0.0
    ]
    slow = fleet.step_time > 0.0
    if slow.any():
        found.append(float(np.min((budget.time / rounds - fleet.round_time[slow]) / fleet.step_time[slow])))
    return min(found)


def relaxation(
    problem: Problem, bound: Bound, same_batch: bool = False, ranges: Ranges | None = None
) -> ClosedForm:
    """The best real K and s and integer tau, drift included, the limits of each batch left out.

    Parameters
    ----------
    problem : Problem
    bound : Bound
        A single bound, not a family, with geometric or reciprocal progress.
    same_batch : bool, default False
        Whether every device has the same batch size.
    ranges : Ranges, optional
        Ranges of K and tau; by default all that are feasible.

    Returns
    -------
    ClosedForm
        ``value`` is a lower bound on the value of every plan (of every plan with the same batch
        everywhere, if `same_batch`), and is reached where only one of the limits on cost, energy and
        time matters and all devices have the same round_time and step_time.

    Raises
    ------
    SolverError
        If the bound has another progress, or batches are drawn without replacement.
    """
    found = ranges or feasible_ranges(problem, None, None)
    curves = _Curves(problem.plain, _single(bound, problem), found, same_batch)
    value, local_steps, steps = curves.best()
    rounds = steps / local_steps
    weights = floor_at(curves.form, local_steps)[1]
    batches = _batches(problem.plain, weights, rounds, float(local_steps), same_batch)
    return ClosedForm(rounds, float(local_steps), batches, value)


def solve(problem: Problem, bound: MonotoneBound, ranges: Ranges) -> Found:
    """The relaxation's optimum rounded to a plan within all limits, and what it took.

    A few K next to the relaxation's are tried, at its tau and the two neighbours; at each the whole batches
    are the best there are within the limits. For a family of bounds this is repeated with the member that is
    best at the plan until it stays.

    Raises
    ------
    SolverError
        If the bound has another progress, or batches are drawn without replacement.
    """
    plain = problem.plain
    trace: dict[str, float] = {"inner_solves": 0}

    def rounded(member: Bound) -> list[Plan]:
        form = _single(member, problem)
        curves = _Curves(plain, form, ranges, same_batch=False)
        value, local_steps, _ = curves.best()
        trace["relaxation_value"] = value
        plans: list[Plan] = []
        first, last = ranges.local_steps
        for tau in range(max(local_steps - 1, first), min(local_steps + 1, last) + 1):
            here, steps = curves.within(tau, tau)
            if here == math.inf:
                continue
            _, weights = floor_at(form, tau)
            plans += [
                (rounds, tau, whole_batches(plain, weights, rounds, tau).batch_sizes)
                for rounds in rounds_near(plain, ranges, steps / tau, tau)
            ]
        trace["inner_solves"] += len(plans)
        return plans

    return Found(best_over_members(problem, bound, rounded, "closed-form"), trace=trace)


def _single(bound: Bound, problem: Problem) -> MonotoneForm:
    prunable = completed(bound).prunable
    if prunable is None:
        raise SolverError(
            f"solver 'closed-form' needs the monotone form of bound {bound.name!r}: use solver='exact'"
        )
    if not problem.fleet.replacement:
        raise SolverError(
            "solver 'closed-form' has no formula for batches drawn without replacement: use solver='exact'"
        )
    form = prunable.monotone_form(problem)
    if len(form.members) > 1:
        raise SolverError(
            f"bound {bound.name!r} is a family of {len(form.members)}: a closed form holds for one of its "
            "members()"
        )
    return form


def _batches(
    problem: Problem, weights: Floats, rounds: float, local_steps: float, same_batch: bool
) -> Floats:
    """The best real batches within the limits on cost, energy and time at real K and tau."""
    fleet, budget = problem.fleet, problem.budget
    with np.errstate(invalid="ignore"):
        slack = (budget.time / rounds - fleet.round_time) / local_steps - fleet.step_time
        caps = np.fmin(fleet.throughput * slack, UNLIMITED)
        if fleet.accumulates:
            caps = np.fmin(caps, fleet.part_throughput * (slack + fleet.step_time))
    if same_batch:
        sizes = [float(caps.min())]
        for limit in work_limits(problem):
            all_devices = float(np.sum(limit.sample))
            sizes.append(limit.of_a_step(rounds, local_steps) / all_devices if all_devices else UNLIMITED)
        return np.full(len(fleet), min(sizes))
    if budget.energy < math.inf:
        lower = np.zeros(len(fleet))
        return best_share(problem, weights, rounds, local_steps, lower, caps)[1].batch_sizes
    spend = (budget.cost / rounds - budget.round_cost) / local_steps - fleet.whole_step_cost
    return relax(weights, fleet.sample_cost, spend, np.zeros(len(fleet)), caps).batch_sizes


class _Curves:
    """The bound as a function of T alone, for one tau or for a range of them."""

    def __init__(self, problem: Problem, form: MonotoneForm, ranges: Ranges, same_batch: bool) -> None:
        self.problem = problem
        self.form = form
        self.ranges = ranges
        self.same_batch = same_batch
        self.progress = progress_of(form, "closed-form")

    def best(self) -> tuple[float, int, float]:
        """(value, tau, T) of the best integer tau, by bounding whole ranges of tau."""
        first, last = self.ranges.local_steps
        found = lowest(first, last, self.within)
        # Beyond the largest float everywhere: no tau is better than the first.
        local_steps, value, steps = found[0] if found else (first, *self.within(first, first))
        return value, local_steps, steps

    def within(self, low: int, high: int) -> tuple[float, float]:
        """Smallest value for tau in [low, high], and its T; a lower bound unless low = high.

        Offset and weights are smallest at the low end, and what rounds cost in all at the high end.
        """
        fewest, most = self.ranges.rounds[0], self.ranges.most_rounds(low)
        offset, weights = floor_at(self.form, low)
        if most < fewest or not (math.isfinite(offset) and np.isfinite(weights).all()):
            return math.inf, float(fewest * low)
        noise = self._noise(weights, high)
        stationary = [best_steps(self.progress, offset, amount, share) for amount, share in noise]
        stationary += [
            (a - b) / (a * sigma - b * rho)
            for (a, rho), (b, sigma) in itertools.combinations(noise, 2)
            if a * sigma != b * rho
        ]
        ends = float(fewest * low), float(most * high)
        places = {min(max(steps, ends[0]), ends[1]) for steps in stationary or [math.inf]}
        return min(
            (
                value_after(
                    self.progress, steps, offset, max((_at(*each, steps) for each in noise), default=0.0)
                ),
                steps,
            )
            for steps in places
        )

    def _noise(self, weights: Floats, local_steps: int) -> list[tuple[float, float]]:
        """(A, rho) of the noise A T / (1 - rho T) that each limit, on cost, energy and time, leaves alone."""
        fleet, budget = self.problem.fleet, self.problem.budget
        found = []
        for work in work_limits(self.problem):
            limit = work.met_up_to
            if limit == 0.0:
                # What costs nothing meets a limit of nothing.
                continue
            if self.same_batch:
                amount = float(np.sum(weights)) * float(np.sum(work.sample))
            else:
                amount = float(np.sum(np.sqrt(weights * work.sample))) ** 2
            found.append((amount / limit, (work.step + work.round / local_steps) / limit))
        if budget.time < math.inf:
            limit = budget.time * (1.0 + limits.TOLERANCE)
            if self.same_batch:
                amount = float(np.sum(weights)) / float(fleet.throughput.min())
            else:
                amount = float(np.sum(weights / fleet.throughput))
            still = float(np.min(fleet.step_time + fleet.round_time / local_steps))
            found.append((amount / limit, still / limit))
        return found


def _at(amount: float, share: float, steps: float) -> float:
    left = 1.0 - share * steps
    if amount == 0.0:
        return 0.0
    return amount * steps / left if left > 0.0 else math.inf
