"""A limit on energy beside that on cost: against enumeration, and against problems with one limit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brute_force import optimum
from coopt import (
    Budget,
    CertificateError,
    Constants,
    Controller,
    Dynamite,
    Fleet,
    InfeasibleError,
    InvalidProblemError,
    Problem,
    Status,
    evaluate,
    solve_allocation,
)
from coopt.plans.describe import shadow_prices
from coopt.problem.limits import step_budget, step_energy_budget, time_caps
from coopt.solvers.exact.cost_and_energy import best_share, limit_units
from coopt.solvers.whole_units.batches import relax
from fleets import random_problem
from problems import MOST_ROUNDS, MOST_STEPS, numeric_bounds, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def hungry(problem: Problem, seed: int, tightness: float, idle: float = 0.0) -> Problem:
    """The problem with random energies and a limit at which some of its plans fit."""
    rng = np.random.default_rng(seed)
    size = len(problem.fleet)
    fleet = replace(
        problem.fleet,
        sample_energy=10.0 ** rng.uniform(-1.0, 1.0, size),
        round_energy=np.full(size, idle),
        step_energy=np.full(size, 0.3 * idle),
    )
    free = Problem(fleet, problem.constants, problem.budget)
    lower, upper = fleet.batch_range()
    least, most = free.energy(1, 1, lower), free.energy(20, 4, upper)
    limit = float(least ** (1 - tightness) * most**tightness)
    return replace(free, budget=replace(problem.budget, energy=limit))


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(equal_costs=False, most_samples=6),
    bound=numeric_bounds,
    seed=st.integers(0, 10**6),
    tightness=st.floats(0.0, 1.0),
    idle=st.sampled_from([0.0, 0.5]),
)
def test_equals_enumeration(problem, bound, seed, tightness, idle):
    problem = hungry(problem, seed, tightness, idle)
    expected = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    try:
        found = solve_allocation(problem, bound=bound)
    except InfeasibleError:
        assert expected is None
        return
    assert expected is not None
    assert found.error_bound == pytest.approx(expected, rel=1e-12)
    assert found.gap <= 2e-12
    assert not problem.violations(found.rounds, found.local_steps, found.batch_sizes)
    found.certify()


@pytest.mark.parametrize("devices", [10, 20, 100])
@pytest.mark.parametrize("equal_costs", [True, False])
def test_gaps_close_where_both_limits_bind(devices, equal_costs):
    rng = np.random.default_rng(devices)
    fleet = Fleet(
        samples=rng.integers(50, 2000, devices),
        gradient_noise=rng.lognormal(1.0, 1.0, devices),
        divergence=rng.uniform(0.01, 0.2, devices),
        throughput=rng.lognormal(4.0, 1.0, devices),
        round_time=rng.uniform(0.1, 2.0, devices),
        sample_cost=1.0 if equal_costs else rng.uniform(0.5, 1.5, devices),
        sample_energy=rng.lognormal(0.0, 0.7, devices),
        round_energy=rng.uniform(10.0, 50.0, devices),
    )
    constants = Constants(learning_rate=0.05, smoothness=4, initial_gap=2, pl_constant=0.5, curvature_floor=0)
    budget = Budget(cost=4000 * devices, time=2000, round_cost=200 * devices)
    free = solve_allocation(Problem(fleet, constants, budget), bound="dynamite")
    problem = Problem(fleet, constants, replace(budget, energy=0.97 * free.energy))
    plan = solve_allocation(problem, bound="dynamite")
    assert min(plan.shadow_prices["cost"], plan.shadow_prices["energy"]) > 0.0
    assert plan.gap <= 1e-12
    assert plan.status is Status.OPTIMAL
    plan.certify(deep=True)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6), bound=st.sampled_from(["certified", "dynamite"]))
def test_energy_in_proportion_to_cost_is_a_limit_on_cost(seed, bound):
    plain = random_problem(seed, time=3000.0)
    fleet = replace(plain.fleet, sample_energy=2.5 * plain.fleet.sample_cost)
    expected = solve_allocation(plain, bound=bound)
    for cost in (plain.budget.cost, math.inf):
        problem = Problem(
            fleet, plain.constants, replace(plain.budget, cost=cost, energy=2.5 * plain.budget.cost)
        )
        found = solve_allocation(problem, bound=bound)
        assert found.error_bound == pytest.approx(expected.error_bound, rel=1e-11)
        assert found.gap <= 1e-11
    loose = Problem(fleet, plain.constants, replace(plain.budget, energy=1e9 * plain.budget.cost))
    found = solve_allocation(loose, bound=bound)
    assert found.error_bound == pytest.approx(expected.error_bound, rel=1e-11)
    assert "energy" not in found.binding


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), tightness=st.floats(0.4, 0.8))
def test_more_energy_never_hurts(seed, tightness):
    problem = hungry(random_problem(seed), seed, tightness)
    before = solve_allocation(problem, bound="dynamite")
    budget = replace(problem.budget, energy=1.5 * problem.budget.energy)
    after = solve_allocation(replace(problem, budget=budget), bound="dynamite")
    assert after.lower_bound <= before.error_bound


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), tightness=st.floats(0.3, 0.8), time=st.sampled_from([math.inf, 300.0]))
def test_prices_are_those_of_both_limits(seed, tightness, time):
    """The derivative of the continuous optimum in each limit, by differences."""
    problem = hungry(random_problem(seed, time=time), seed, tightness)
    plan = solve_allocation(problem, bound="dynamite")
    rounds, steps = plan.rounds, plan.local_steps
    bound = plan.bound_object
    _, weights = bound.coefficients(problem, rounds, steps)
    lower, upper = problem.fleet.batch_range()
    ends = np.maximum(np.minimum(upper, time_caps(problem, rounds, steps)), lower)

    def value(**budget: float) -> float:
        changed = replace(problem, budget=replace(problem.budget, **budget))
        share, _ = best_share(changed, weights, rounds, steps, lower, ends)
        cost, energy = limit_units(changed.budget)
        sample = (1 - share) / cost * problem.fleet.sample_cost + share / energy * problem.fleet.sample_energy
        limit = (1 - share) / cost * step_budget(changed, rounds, steps)
        limit += share / energy * step_energy_budget(changed, rounds, steps)
        return relax(weights, sample, limit, lower, ends).value

    prices = shadow_prices(problem, bound, rounds, steps)
    for name in ("cost", "energy"):
        limit = getattr(problem.budget, name)
        step = 1e-4 * limit
        slopes = sorted((value(**{name: limit + sign * step}) - value()) / (-sign * step) for sign in (1, -1))
        slack = 1e-3 * slopes[1] + 1e-9 * value() / step
        assert slopes[0] - slack <= prices[name] <= slopes[1] + slack


def problem_of(**budget) -> Problem:
    problem = hungry(random_problem(5), 5, 0.5)
    return replace(problem, budget=replace(problem.budget, **budget))


def test_plans_and_messages_name_energy():
    problem = problem_of()
    plan = solve_allocation(problem)
    assert f"energy         {plan.energy:.6g} J of {problem.budget.energy:.6g} J" in str(plan)
    assert plan.energy == problem.energy(plan.rounds, plan.local_steps, plan.batch_sizes)
    assert plan == type(plan).from_json(plan.to_json())
    starved = problem_of(energy=1e-3)
    with pytest.raises(InfeasibleError, match=r"energy: .* exceeds 0.001 J.*feasible energy") as caught:
        solve_allocation(starved)
    assert caught.value.binding == "energy"
    with pytest.raises(InfeasibleError, match="energy"):
        evaluate(problem, 10**6, 1, problem.fleet.batch_range()[0])
    tight = replace(plan, problem=problem_of(energy=plan.energy * 0.9))
    with pytest.raises(CertificateError, match="energy"):
        tight.certify()


def test_the_cheapest_plan_keeps_the_energy_limit():
    problem = problem_of()
    target = 1.5 * solve_allocation(problem).error_bound
    plan = solve_allocation(problem, objective="cost", target_error=target)
    assert plan.energy <= problem.budget.energy * (1 + 1e-9) and plan.error_bound <= target * (1 + 1e-9)
    free = solve_allocation(problem_of(energy=math.inf), objective="cost", target_error=target)
    assert free.lower_bound <= plan.cost * (1 + 1e-9)


def test_what_keeps_no_account_of_energy_says_so():
    problem = problem_of()
    with pytest.raises(InvalidProblemError, match=r"energy = .*published algorithm"):
        solve_allocation(problem, solver="coopt-fl")
    with pytest.raises(InvalidProblemError, match="controller keeps no account of energy"):
        Controller(problem.fleet, Budget(cost=100.0, energy=10.0), 0.1)


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bound=st.sampled_from(["dynamite", "certified(gamma=1, z=1)", "nonconvex(gamma=1, z=1)"]),
    tightness=st.floats(0.4, 0.8),
    time=st.sampled_from([math.inf, 300.0]),
    solver=st.sampled_from(["cvxpy", "closed-form"]),
)
def test_other_solvers_keep_both_limits(seed, bound, tightness, time, solver):
    problem = hungry(random_problem(seed, time=time, equal_costs=False), seed, tightness, idle=0.3)
    optimum = solve_allocation(problem, bound=bound)
    plan = solve_allocation(problem, bound=bound, solver=solver)
    plan.certify()
    assert plan.trace["relaxation_value"] <= optimum.error_bound
    assert optimum.error_bound <= plan.error_bound * (1 + 1e-12)
    assert plan.lower_bound <= optimum.error_bound * (1 + 1e-12)


@pytest.mark.parametrize("solver", ["cvxpy", "closed-form"])
def test_large_batches_round_to_the_optimum(solver):
    """With hundreds of samples a batch, rounding costs next to nothing."""
    fleet = Fleet(
        samples=[60000, 30000, 10000],
        gradient_noise=[400.0, 900.0, 300.0],
        divergence=0.05,
        sample_energy=[0.5, 2.0, 1.0],
        round_energy=20.0,
    )
    constants = Constants(
        learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0
    )
    # The closed form takes each limit alone: here that on energy is the one that matters.
    budget = Budget(cost=200_000 if solver == "cvxpy" else 10**7, energy=190_000, round_cost=400)
    problem = Problem(fleet, constants, budget)
    plan = solve_allocation(problem, bound="dynamite", solver=solver)
    optimum = solve_allocation(problem, bound="dynamite")
    assert plan.error_bound <= optimum.error_bound * (1 + 1e-3)
    assert plan.trace["relaxation_value"] >= optimum.error_bound * (1 - 1e-3)


def test_constraints_of_ones_own_keep_the_energy_limit():
    problem = problem_of()
    plan = solve_allocation(problem, bound="dynamite", constraints=lambda s: [s[0] == s[1]])
    assert plan.batch_sizes[0] == plan.batch_sizes[1]
    assert not problem.violations(plan.rounds, plan.local_steps, plan.batch_sizes)
    assert plan.error_bound >= solve_allocation(problem, bound="dynamite").error_bound


def test_bounds_without_a_form_keep_the_energy_limit():
    """Every (K, tau) one by one, against the search that prunes."""
    problem = problem_of(max_rounds=12, max_local_steps=4)

    class Plain:
        name = "plain"
        within = Dynamite()

        def coefficients(self, problem, rounds, local_steps):
            return self.within.coefficients(problem, rounds, local_steps)

        def value(self, problem, rounds, local_steps, batch_sizes):
            return self.within.value(problem, rounds, local_steps, batch_sizes)

        def members(self):
            return (self,)

    plan = solve_allocation(problem, bound=Plain())
    optimum = solve_allocation(problem, bound="dynamite")
    assert plan.lower_bound <= optimum.error_bound * (1 + 1e-12) <= plan.error_bound * (1 + 2e-12)
    assert not problem.violations(plan.rounds, plan.local_steps, plan.batch_sizes)
    tighter = solve_allocation(problem, bound="tradeoff(gamma=1, ratio=1)")
    assert tighter.lower_bound <= tighter.error_bound
    tighter.certify()
