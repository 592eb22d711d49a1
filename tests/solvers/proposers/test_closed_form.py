"""Closed forms: each solves the relaxation it claims to solve, and the rounded plan is an honest one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from coopt import BoundWarning, Dynamite, InfeasibleError, NonConvex, SolverError, Status, solve_allocation
from coopt.objectives.monotone import MonotoneBase
from coopt.objectives.registry import resolve_bound
from coopt.solvers.proposers import closed_form
from coopt.solvers.proposers.closed_form import co_optimised, relaxation
from coopt.solvers.proposers.progress import lambert_steps
from fleets import BOUNDS, SINGLE_BOUNDS, problems, random_problem

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


@given(st.floats(-250, 250))
def test_lambert_steps_are_kappa_minus_w(exponent):
    excess = 10.0**exponent
    with mpmath.workdps(300):
        kappa = 1 + mpmath.mpf(excess)
        # For large kappa e^kappa has no representation; W(e^kappa) = w solves w + ln w = kappa.
        w = mpmath.findroot(lambda w: w + mpmath.log(w) - kappa, kappa - mpmath.log(kappa))
        assert lambert_steps(excess) == pytest.approx(float(kappa - w), rel=1e-13)


def _value_at(problem, bound, rounds, local_steps, inverse_sum):
    """The bound at real K for given sum p_i^2 M_i / s_i, from the formula of the published bound."""
    constants = problem.constants
    eta, c = constants.learning_rate, constants.pl_constant
    q_steps = (1 - eta * c) ** (rounds * local_steps)
    offset, _ = bound.coefficients(problem, 10**6, local_steps)
    noise = eta * constants.smoothness / (2 * c) * inverse_sum
    return q_steps * constants.initial_gap + (1 - q_steps) * (offset + noise)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("round_cost", "overhead"), [(0.0, 0.0), (40.0, 0.0), (0.0, 1.0), (40.0, 1.0)])
def test_best_rounds_are_stationary_for_every_tau(seed, round_cost, overhead):
    """With a cost limit alone the best noise is (sum p_i sqrt(M_i a_i))^2 tau / (R/K - b - tau sum f_i)."""
    problem = random_problem(seed, round_cost=round_cost, equal_costs=False, overhead=overhead)
    bound, fleet = Dynamite(), problem.fleet
    step = float(fleet.step_cost.sum())
    amount = float(np.sum(fleet.weights * np.sqrt(fleet.gradient_noise * fleet.sample_cost))) ** 2
    limit = problem.budget.cost * (1 + 1e-9)
    best = np.inf
    for tau in range(1, 61):
        most = float(limit // (round_cost + tau * (step + float(fleet.sample_cost.sum()))))
        if most < 1.0:
            break

        def value(k, tau=tau):
            return _value_at(problem, bound, k, tau, amount / ((limit / k - round_cost) / tau - step))

        found = minimize_scalar(value, bounds=(1.0, most), options={"xatol": 1e-9 * most})
        # The search never tries its ends.
        best = min(best, found.fun, value(most))
    assert relaxation(problem, bound).value == pytest.approx(best, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(problem=problems, name=st.sampled_from(SINGLE_BOUNDS))
def test_relaxation_is_below_every_plan(problem, name):
    found = relaxation(problem, resolve_bound(name))
    same = relaxation(problem, resolve_bound(name), same_batch=True)
    optimum = solve_allocation(problem, bound=name, gap_tolerance=1e-2)
    assert found.value <= optimum.error_bound * (1 + 1e-12)
    assert found.value <= same.value * (1 + 1e-12)
    assert np.ptp(same.batch_sizes) == 0.0


@settings(max_examples=40, deadline=None)
@given(problem=problems, name=st.sampled_from(SINGLE_BOUNDS), rounds=st.floats(5, 50), same=st.booleans())
def test_co_optimised_steps_and_batches_meet_their_stationarity(problem, name, rounds, same):
    """For given K, tau s_i is fixed by the limits: along that curve no other tau is better."""
    free = replace(problem.fleet, step_time=0.0, step_cost=0.0)
    bound, budget, problem = resolve_bound(name), problem.budget, replace(problem, fleet=free)
    if rounds * budget.round_cost >= budget.cost:
        with pytest.raises(InfeasibleError, match="cost"):
            co_optimised(problem, rounds, bound, same_batch=same)
        return
    plan = co_optimised(problem, rounds, bound, same_batch=same)
    form = bound.monotone_form(problem)
    one = np.zeros(1, dtype=np.intp)
    floor = form.floor(1, one)
    noise = float(floor.shares[0, 0]) * float(np.sum(floor.basis[0] / plan.batch_sizes))

    def along(factor):
        start, slope = form.progress(np.array([rounds * plan.local_steps * factor]), one)
        return float(start[0, 0] + slope[0, 0] * noise * factor)

    assert along(1.0) == pytest.approx(plan.value, rel=1e-9)
    assert along(1.0) <= min(along(0.99), along(1.01))
    assert rounds * (plan.local_steps * float(problem.fleet.sample_cost @ plan.batch_sizes)) <= (
        budget.cost - rounds * budget.round_cost
    ) * (1 + 1e-9)
    assert float(
        np.max(
            rounds
            * (plan.local_steps * plan.batch_sizes / problem.fleet.throughput + problem.fleet.round_time)
        )
    ) <= budget.time * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(problem=problems, name=st.sampled_from(SINGLE_BOUNDS), rounds=st.floats(5, 15), same=st.booleans())
def test_co_optimised_steps_that_cost_something_are_the_best_there_are(problem, name, rounds, same):
    bound, fleet, budget = resolve_bound(name), problem.fleet, problem.budget
    if not fleet.step_cost.any() or rounds * budget.round_cost >= budget.cost:
        return
    plan = co_optimised(problem, rounds, bound, same_batch=same)
    work = fleet.sample_cost @ plan.batch_sizes + fleet.step_cost.sum()
    assert rounds * (plan.local_steps * work + budget.round_cost) <= budget.cost * (1 + 1e-9)
    step = fleet.step_time + plan.batch_sizes / fleet.throughput
    assert float(np.max(rounds * (plan.local_steps * step + fleet.round_time))) <= budget.time * (1 + 1e-9)
    form, one = bound.monotone_form(problem), np.zeros(1, dtype=np.intp)
    weights = closed_form.floor_at(form, 1)[1]
    for factor in (0.2, 0.9, 0.99, 1.01, 1.1):
        steps = plan.local_steps * factor
        spend = (budget.cost / rounds - budget.round_cost) / steps - fleet.step_cost.sum()
        caps = fleet.throughput * ((budget.time / rounds - fleet.round_time) / steps - fleet.step_time)
        if spend <= 0.0 or caps.min() <= 0.0:
            continue
        # Batches in proportion to those of the plan that meet both limits: no better than the best ones.
        scale = min(
            spend / float(fleet.sample_cost @ plan.batch_sizes), float(np.min(caps / plan.batch_sizes))
        )
        noise = float(np.sum(weights / (plan.batch_sizes * scale)))
        start, slope = form.progress(np.array([rounds * steps]), one)
        assert float(start[0, 0] + slope[0, 0] * noise) >= plan.value * (1 - 1e-9)


def test_rounds_that_use_up_the_time_are_infeasible():
    with pytest.raises(InfeasibleError, match="time"):
        co_optimised(random_problem(3, time=300.0), 1e6, Dynamite())


def test_co_optimised_batches_follow_the_noise():
    problem = random_problem(3, equal_costs=False)
    plan = co_optimised(problem, 20.0, Dynamite())
    fleet = problem.fleet
    shape = fleet.weights * np.sqrt(fleet.gradient_noise / fleet.sample_cost)
    np.testing.assert_allclose(plan.batch_sizes / shape, plan.batch_sizes[0] / shape[0], rtol=1e-9)


def test_square_root_law_of_reciprocal_progress():
    """One round costs b: K = R / (b + sqrt(A R / r)) at tau = 1, from the derivative set to zero."""
    problem = random_problem(1, round_cost=40.0, divergent=False)
    bound = NonConvex(gamma=1, z=1)
    plan = relaxation(problem, bound)
    tau = plan.local_steps
    at_tau = {k: bound.coefficients(problem, k, int(tau))[0] for k in (1, 2)}
    rate = 2 * (at_tau[1] - at_tau[2]) * tau
    weights = bound.coefficients(problem, 1, int(tau))[1]
    amount = float(np.sum(np.sqrt(weights))) ** 2
    cost = problem.budget.cost * (1 + 1e-9)
    expected = 1.0 / (40.0 / (cost * tau) + np.sqrt(amount / cost / rate))
    assert plan.rounds * tau == pytest.approx(expected, rel=1e-9)


@settings(max_examples=12, deadline=None)
@given(problem=problems, name=st.sampled_from(BOUNDS))
def test_plan_is_feasible_certified_and_bounded(problem, name):
    plan = solve_allocation(problem, bound=name, solver="closed-form")
    plan.certify()
    assert plan.solver == "closed-form"
    assert plan.status in (Status.HEURISTIC, Status.OPTIMAL)
    optimum = solve_allocation(problem, bound=name, gap_tolerance=1e-2)
    assert optimum.lower_bound <= plan.error_bound * (1 + 1e-12)
    assert plan.lower_bound <= optimum.error_bound * (1 + 1e-12)


def test_fixed_rounds_and_steps_are_kept():
    problem = random_problem(5)
    plan = solve_allocation(problem, solver="closed-form", rounds=30)
    assert plan.rounds == 30
    plan = solve_allocation(problem, solver="closed-form", rounds=30, local_steps=3)
    assert (plan.rounds, plan.local_steps) == (30, 3)


def test_gap_is_zero_where_the_closed_form_is_exact():
    problem = random_problem(4)
    exact = solve_allocation(problem, rounds=30, local_steps=3, bound="dynamite")
    found = solve_allocation(problem, rounds=30, local_steps=3, bound="dynamite", solver="closed-form")
    assert found.error_bound == pytest.approx(exact.error_bound, rel=1e-12)
    assert found.status is Status.OPTIMAL


def test_draws_without_replacement_are_refused():
    problem = random_problem(2)
    without = replace(problem, fleet=replace(problem.fleet, replacement=False))
    with pytest.raises(SolverError, match="without replacement"):
        solve_allocation(without, solver="closed-form")


@dataclass(frozen=True)
class _Logarithmic(MonotoneBase):
    """Progress D0 / (1 + log T): neither geometric nor reciprocal."""

    @property
    def name(self) -> str:
        return "logarithmic"

    def monotone_form(self, problem):
        form = Dynamite().monotone_form(problem)

        def progress(steps: NDArray[np.float64], active: NDArray[np.intp]):
            start = np.tile(2.0 / (1.0 + np.log(steps)), (active.size, 1))
            return start, np.ones_like(start)

        return replace(form, members=(self,), progress=progress)


def test_other_progress_is_refused():
    with pytest.raises(SolverError, match="neither"):
        relaxation(random_problem(2), _Logarithmic())


def test_families_are_refused_where_one_member_is_meant():
    with pytest.raises(SolverError, match="family"):
        closed_form.relaxation(random_problem(2), resolve_bound("certified"))


def test_a_floor_above_the_initial_gap_stops_at_once():
    """Where nothing can be gained the formulas end at the fewest steps."""
    problem = random_problem(2)
    poor = replace(problem, constants=replace(problem.constants, initial_gap=0.0))
    with pytest.warns(BoundWarning):
        plan = solve_allocation(poor, bound="dynamite", solver="closed-form")
    assert (plan.rounds, plan.local_steps) == (1, 1)
