"""The convex route: its relaxation agrees with independent ones, and users' constraints are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Allocation,
    Budget,
    Constants,
    Fleet,
    InfeasibleError,
    InvalidProblemError,
    Problem,
    SolverError,
    Status,
    solve_allocation,
)
from coopt.objectives.registry import resolve_bound
from coopt.problem.limits import step_budget, time_caps
from coopt.solvers.proposers import backend as backends
from coopt.solvers.proposers import convex, several_backends
from coopt.solvers.proposers.backend import ACCURACY
from coopt.solvers.proposers.closed_form import relaxation
from coopt.solvers.proposers.own_constraints import meets
from coopt.solvers.proposers.progress import floor_at
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.whole_units.batches import relax
from fleets import BOUNDS, SINGLE_BOUNDS, random_problem

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

small = st.builds(
    random_problem,
    seed=st.integers(0, 10**6),
    time=st.sampled_from((np.inf, 300.0)),
    round_cost=st.sampled_from((0.0, 40.0)),
    equal_costs=st.booleans(),
)


@cache
def planned(seed: int, rule: Callable | None = None, **options: Any) -> Allocation:
    """A plan that several tests compare with; constraints choose the solver by themselves."""
    problem = random_problem(seed, round_cost=40.0)
    solver = "cvxpy" if rule is None else "auto"
    return solve_allocation(problem, bound="dynamite", solver=solver, constraints=rule, **options)


@cache
def best(seed: int, local_steps: int | None = None) -> Allocation:
    """The optimum without constraints, nearly."""
    problem = random_problem(seed, round_cost=40.0)
    return solve_allocation(problem, bound="dynamite", gap_tolerance=1e-4, local_steps=local_steps)


def _without_batch_limits(problem):
    """Batches so free that no limit of theirs binds: what the closed forms assume."""
    fleet = problem.fleet
    return replace(
        problem,
        fleet=replace(fleet, max_batch=np.full(len(fleet), 10**9), sample_cost=fleet.sample_cost * 1e-3),
    )


@pytest.mark.parametrize("name", SINGLE_BOUNDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_relaxation_is_the_closed_form_where_that_holds(name, seed):
    """One limit, no limits of batches that matter: two derivations of the same number."""
    problem = _without_batch_limits(random_problem(seed, round_cost=0.3))
    joint = convex.JointRelaxation(problem, resolve_bound(name), feasible_ranges(problem, None, None))
    _, point = joint.best_first()[0]
    expected = relaxation(problem, resolve_bound(name)).value
    assert expected * (1 - 2 * ACCURACY) <= point.lower_bound <= expected


@settings(max_examples=8, deadline=None)
@given(problem=small, name=st.sampled_from(SINGLE_BOUNDS), tau=st.integers(1, 6))
def test_relaxation_for_a_tau_is_the_best_over_rounds(problem, name, tau):
    """Against water-filling at each of many K: another solver for the inner problem, no convexity used."""
    ranges = feasible_ranges(problem, None, None)
    most = ranges.most_rounds(tau)
    bound = resolve_bound(name)
    joint = convex.JointRelaxation(problem, bound, ranges)
    point = joint.within((tau, tau))
    if most == 0:
        assert point is None
        return
    lower, upper = problem.fleet.batch_range()
    offset, weights = floor_at(bound.monotone_form(problem), tau)
    values = []
    for rounds in np.unique(np.geomspace(1, most, 400)):
        caps = np.maximum(np.minimum(upper, time_caps(problem, rounds, tau)), lower)
        spend = step_budget(problem, rounds, tau)
        batches = relax(weights, problem.fleet.sample_cost, spend, lower, caps).batch_sizes
        noise = float(np.sum(weights / batches))
        start, slope = joint.progress(np.array([float(rounds * tau)]), np.zeros(1, dtype=np.intp))
        values.append(float(start[0, 0] + slope[0, 0] * (offset + noise)))
    assert point.lower_bound <= min(values)
    # The grid is within 1 % or so of the best K, where the value is flat.
    assert point.lower_bound >= min(values) * (1 - 1e-2)


@settings(max_examples=10, deadline=None)
@given(problem=small, name=st.sampled_from(SINGLE_BOUNDS))
def test_plan_is_feasible_certified_and_bounded(problem, name):
    plan = solve_allocation(problem, bound=name, solver="cvxpy")
    plan.certify()
    assert plan.solver == "cvxpy"
    optimum = solve_allocation(problem, bound=name, gap_tolerance=1e-2)
    assert plan.trace["relaxation_value"] <= optimum.error_bound
    assert optimum.lower_bound <= plan.error_bound * (1 + 1e-12)
    assert plan.lower_bound <= optimum.error_bound * (1 + 1e-12)


@pytest.mark.parametrize("name", BOUNDS)
def test_large_batches_round_to_the_optimum(name):
    """With hundreds of samples a batch, rounding costs next to nothing: both routes end at one value."""
    problem = Problem(
        Fleet(samples=[60000, 30000, 10000], gradient_noise=[400.0, 900.0, 300.0], divergence=0.05),
        Constants(
            learning_rate=0.05,
            smoothness=4.0,
            initial_gap=2.0,
            pl_constant=0.5,
            curvature_floor=0.0,
            lipschitz=0.2,
        ),
        Budget(cost=200_000, round_cost=400),
    )
    plan = solve_allocation(problem, bound=name, solver="cvxpy")
    optimum = solve_allocation(problem, bound=name, gap_tolerance=1e-4)
    assert plan.error_bound == pytest.approx(optimum.error_bound, rel=1e-3)


def _group_budget(s):
    return [cp.sum(s[:2]) <= 10]


def _fairness(s):
    return [s >= 0.5 * cp.sum(s) / s.shape[0]]


def _energy(s):
    return [cp.sum_squares(s) <= 300]


def _norm(s):
    return [cp.norm(s) <= 17]


def _linked(s):
    return [s[0] == s[1]]


@pytest.mark.parametrize("rule", [_group_budget, _fairness, _energy])
@pytest.mark.parametrize("seed", [1, 4])
def test_own_constraints_are_kept_and_bounded(rule, seed):
    plan, free = planned(seed, rule), best(seed)
    plan.certify()
    assert plan.solver == "cvxpy"
    assert meets(rule, plan.batch_sizes)
    # The constraints bind, and the lower bound knows it.
    assert not meets(rule, free.batch_sizes)
    assert free.error_bound < plan.lower_bound <= plan.error_bound
    assert plan.gap < 0.05


@pytest.mark.parametrize(
    "rule",
    [
        lambda s: [cp.max(s) <= 12],
        lambda s: [cp.max(s) - 0.5 * cp.min(s) <= 8],
        lambda s: [cp.abs(s - 15) <= 6],
        lambda s: [cp.norm(s - cp.sum(s) / s.shape[0], 1) <= 20],
        lambda s: [cp.norm(s, "inf") <= 12],
        lambda s: [cp.maximum(s[0], 2 * s[1], 9) <= cp.minimum(20, s[1] + s[2])],
        lambda s: [cp.max(cp.square(s)) <= 150],
        lambda s: [cp.sum(cp.power(s, 1.5)) <= 200, cp.sum(cp.log(s)) >= 9],
    ],
)
def test_constraints_with_kinks_are_proved_too(rule):
    """At a kink no one gradient says it all: the multipliers of all pieces do."""
    plan, free = planned(1, rule, local_steps=3), best(1, local_steps=3)
    assert meets(rule, plan.batch_sizes)
    assert free.error_bound * (1 - 1e-3) < plan.lower_bound
    assert plan.gap < 0.05
    assert set(plan.trace) <= {"convex_solves", "relaxation_value", "tries of CLARABEL", "exact_plan"}


def test_cones_are_kept_but_not_in_the_proof():
    def rule(s):
        return [cp.SOC(17.0, s)]

    plan, same = planned(1, rule, local_steps=3), planned(1, _norm, local_steps=3)
    assert float(np.linalg.norm(plan.batch_sizes)) <= 17.0
    assert plan.error_bound == pytest.approx(same.error_bound, rel=1e-2)
    assert plan.lower_bound <= same.lower_bound


@pytest.mark.parametrize("seed", range(4))
def test_last_bits_decide_nothing(seed):
    """Data that agree to the last bits have one plan; backends used to give up on some of them."""
    rng = np.random.default_rng(seed)

    def jittered(values):
        return values * (1.0 + 4e-16 * rng.integers(-4, 5, np.shape(values)))

    problem, plan = random_problem(1, round_cost=40.0), planned(1, _energy)
    fleet = problem.fleet
    near = replace(
        problem,
        fleet=replace(
            fleet,
            gradient_noise=jittered(fleet.gradient_noise),
            divergence=jittered(fleet.divergence),
            throughput=jittered(fleet.throughput),
        ),
    )
    other = solve_allocation(near, bound="dynamite", constraints=_energy)
    assert other.lower_bound == pytest.approx(plan.lower_bound, rel=4 * ACCURACY)
    assert other.error_bound == pytest.approx(plan.error_bound, rel=1e-3)


@pytest.mark.parametrize("rule", [_group_budget, _linked])
def test_constrained_plan_against_enumeration(rule):
    """Two devices, every (K, tau, s) tried."""
    problem = Problem(
        Fleet(samples=[30, 20], gradient_noise=[9.0, 2.0], divergence=0.02),
        Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0),
        Budget(cost=600, round_cost=5, max_rounds=30, max_local_steps=4),
    )
    bound = resolve_bound("dynamite")
    best = np.inf
    for rounds in range(1, 31):
        for tau in range(1, 5):
            offset, weights = bound.coefficients(problem, rounds, tau)
            first, second = np.meshgrid(np.arange(1, 31), np.arange(1, 21), indexing="ij")
            cost = rounds * (tau * (first + second) + 5)
            fits = (cost <= 600) & ((first + second <= 10) if rule is _group_budget else (first == second))
            values = np.where(fits, offset + weights[0] / first + weights[1] / second, np.inf)
            best = min(best, float(values.min()))
    plan = solve_allocation(problem, bound="dynamite", constraints=rule)
    assert plan.lower_bound <= best <= plan.error_bound * (1 + 1e-12)
    assert plan.error_bound <= best * 1.03


def test_slack_constraints_change_nothing():
    problem, plain = random_problem(2, round_cost=40.0), planned(2)
    slack = planned(2, lambda s: [cp.sum(s) <= 10**7])
    assert slack.trace["relaxation_value"] == pytest.approx(plain.trace["relaxation_value"], rel=1e-6)
    exact = solve_allocation(problem, bound="dynamite")
    assert slack.error_bound <= exact.error_bound * (1 + 1e-4)
    assert slack.gap <= 1e-4


def test_impossible_constraints_are_infeasible():
    with pytest.raises(InfeasibleError, match="constraints"):
        solve_allocation(random_problem(2), bound="dynamite", constraints=lambda s: [cp.sum(s) <= 0.5])


def test_constraints_that_no_whole_batch_meets():
    with pytest.raises(SolverError, match="whole"):
        solve_allocation(random_problem(2), bound="dynamite", constraints=lambda s: [s[0] == 7.5])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda s: cp.sum(s) <= 10, "list"),
        (lambda s: [True], r"constraints\[0\] = True"),
        (lambda s: [cp.sum_squares(s) >= 10], "convex"),
        (lambda s: [s <= cp.Variable()], "variables of its own"),
    ],
)
def test_wrong_constraints_are_explained(rule, message):
    with pytest.raises(InvalidProblemError, match=message):
        solve_allocation(random_problem(2), bound="dynamite", constraints=rule)


def test_constraints_need_this_solver():
    with pytest.raises(InvalidProblemError, match="cvxpy"):
        solve_allocation(random_problem(2), solver="exact", constraints=_linked)
    with pytest.raises(InvalidProblemError, match="cvxpy"):
        solve_allocation(random_problem(2), backend="CLARABEL")


def test_missing_backend_is_named():
    with pytest.raises(SolverError, match=r"'NOSUCH'.*CLARABEL"):
        solve_allocation(random_problem(2), solver="cvxpy", backend="NOSUCH")


def test_backend_that_cannot_solve_it_is_named():
    """OSQP takes quadratic programs only."""
    with pytest.raises(SolverError, match="Tried OSQP: cvxpy backend 'OSQP' failed"):
        solve_allocation(random_problem(2), bound="dynamite", solver="cvxpy", backend="OSQP")


def test_another_backend_proves_as_much():
    problem = random_problem(2, round_cost=40.0)
    plan = solve_allocation(problem, bound="dynamite", solver="cvxpy", backend="SCS", local_steps=1)
    free = solve_allocation(problem, bound="dynamite", gap_tolerance=1e-3, local_steps=1)
    assert plan.trace["relaxation_value"] <= free.error_bound
    assert plan.trace["relaxation_value"] >= free.error_bound * (1 - 1e-2)
    assert plan.error_bound <= free.error_bound * 1.05
    assert {key for key in plan.trace if key.startswith("tries")} <= {"tries of SCS", "tries of SCS, looser"}


def _failing(names):
    """A backend's door behind which some do nothing."""

    def run(compiled, backend, **options):
        if (backend, "accept_unknown" in options) in names:
            raise SolverError(f"{backend} is out of order")
        return backends.run(compiled, backend, **options)

    return run


@pytest.mark.parametrize("rule", [None, _energy])
@pytest.mark.parametrize(
    ("broken", "helper"),
    [
        ({("CLARABEL", False)}, "CLARABEL, looser"),
        ({("CLARABEL", False), ("CLARABEL", True)}, "SCS"),
    ],
)
def test_where_a_backend_fails_the_next_one_goes_on(monkeypatch, rule, broken, helper):
    problem, plan = random_problem(1, round_cost=40.0), planned(1, rule, local_steps=1)
    monkeypatch.setattr(several_backends, "run", _failing(broken))
    other = solve_allocation(problem, bound="dynamite", solver="cvxpy", constraints=rule, local_steps=1)
    other.certify()
    assert other.trace[f"tries of {helper}"] > 0
    assert other.trace["tries of CLARABEL"] == other.trace["convex_solves"]
    assert other.lower_bound == pytest.approx(plan.lower_bound, rel=1e-3)
    assert other.error_bound == pytest.approx(plan.error_bound, rel=1e-2)


def test_an_error_says_all_that_was_tried(monkeypatch):
    broken = {(name, late) for name in ("CLARABEL", "SCS") for late in (False, True)}
    monkeypatch.setattr(several_backends, "run", _failing(broken))
    with pytest.raises(SolverError, match=r"Tried CLARABEL: .*CLARABEL, looser: .*SCS is out of order"):
        solve_allocation(random_problem(1), bound="dynamite", solver="cvxpy")


def test_where_all_fail_for_a_while_plans_are_found_and_bounded(monkeypatch):
    """Ranges of tau without a point inherit what is known of those that hold them."""
    problem = random_problem(4, round_cost=40.0)
    calls = iter(range(10**6))

    def run(compiled, backend, **options):
        if next(calls) % 3 != 2:
            raise SolverError("out of order")
        return backends.run(compiled, "CLARABEL", **backends.settings("CLARABEL")[0].options)

    monkeypatch.setattr(several_backends, "run", run)
    plan = solve_allocation(problem, bound="dynamite", constraints=_energy)
    plan.certify()
    assert meets(_energy, plan.batch_sizes)
    assert plan.lower_bound <= plan.error_bound


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_false_claim_proves_nothing(monkeypatch, factor):
    """Values that a backend gets wrong, by whatever factor, leave the lower bound below the optimum."""
    problem, optimum = random_problem(4, round_cost=40.0), best(4, local_steps=2)
    monkeypatch.setattr(
        several_backends, "run", lambda *args, **options: factor * backends.run(*args, **options)
    )
    plan = solve_allocation(problem, bound="dynamite", solver="cvxpy", local_steps=2)
    assert plan.trace["relaxation_value"] <= optimum.error_bound


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_change_nothing(unit):
    """Of money, of seconds, and of the numbers in a constraint."""
    problem = random_problem(1, time=3000.0, round_cost=40.0)
    fleet, budget = problem.fleet, problem.budget
    other = replace(
        problem,
        fleet=replace(
            fleet,
            sample_cost=fleet.sample_cost * unit,
            throughput=fleet.throughput * unit,
            round_time=fleet.round_time / unit,
        ),
        budget=replace(
            budget, cost=budget.cost * unit, round_cost=budget.round_cost * unit, time=budget.time / unit
        ),
    )
    plan = solve_allocation(problem, bound="adacoopt", constraints=_energy)
    same = solve_allocation(
        other, bound="adacoopt", constraints=lambda s: [unit * cp.sum_squares(s) <= 300 * unit]
    )
    assert same.lower_bound == pytest.approx(plan.lower_bound, rel=4 * ACCURACY)
    assert same.error_bound == pytest.approx(plan.error_bound, rel=1e-3)


def test_draws_without_replacement():
    problem = random_problem(4, round_cost=40.0)
    without = replace(problem, fleet=replace(problem.fleet, replacement=False))
    plan = solve_allocation(without, bound="dynamite", solver="cvxpy")
    plan.certify()
    optimum = solve_allocation(without, bound="dynamite", gap_tolerance=1e-4)
    assert plan.trace["relaxation_value"] <= optimum.error_bound
    assert plan.error_bound <= optimum.error_bound * 1.01


@pytest.mark.parametrize(("initial_gap", "replacement"), [(0.0, True), (0.0, False), (1e-4, True)])
def test_nothing_to_gain(initial_gap, replacement):
    """The initial gap is below the floor of every plan: one step, bounded by what there is to lose."""
    problem = random_problem(2)
    poor = replace(
        problem,
        fleet=replace(problem.fleet, replacement=replacement),
        constants=replace(problem.constants, initial_gap=initial_gap),
    )
    plan = solve_allocation(poor, bound="dynamite", solver="cvxpy")
    exact = solve_allocation(poor, bound="dynamite", gap_tolerance=1e-3)
    assert (plan.rounds, plan.local_steps) == (1, 1)
    assert plan.error_bound == pytest.approx(exact.error_bound, rel=1e-6)


def test_no_noise_at_all():
    """The bound falls far below the backend's accuracy; zero still bounds it."""
    problem = random_problem(2, divergent=False)
    quiet = replace(problem, fleet=replace(problem.fleet, gradient_noise=np.zeros(len(problem.fleet))))
    plan = solve_allocation(quiet, bound="dynamite", solver="cvxpy")
    exact = solve_allocation(quiet, bound="dynamite")
    assert plan.trace["relaxation_value"] <= exact.error_bound
    plan.certify()


def test_plans_survive_a_file():
    plan = solve_allocation(random_problem(2), bound="dynamite", solver="cvxpy")
    assert Allocation.from_json(plan.to_json()) == plan
    assert plan.status in (Status.HEURISTIC, Status.OPTIMAL)


@pytest.mark.filterwarnings("ignore::coopt.BoundWarning")
def test_a_floor_above_the_initial_gap_is_no_proof_that_training_must_be_long():
    """With batches of at most two samples the floor is above the gap: the first round is the best."""
    problem = Problem(
        Fleet([3], gradient_noise=80.0, divergence=0.0, batch_multiple=2),
        Constants(
            learning_rate=0.5, smoothness=0.2, initial_gap=30.0, pl_constant=0.002, mean_smoothness=0.1
        ),
        Budget(cost=336.0, round_cost=0.5, max_rounds=23, max_local_steps=4),
    )
    found = solve_allocation(problem, bound="dynamite", solver="cvxpy")
    best = solve_allocation(problem, bound="dynamite")
    assert best.rounds == 1 and best.error_bound > problem.constants.initial_gap
    assert found.lower_bound <= best.error_bound
    assert (found.rounds, found.error_bound) == (1, best.error_bound)
