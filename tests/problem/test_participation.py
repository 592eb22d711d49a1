"""Some devices a round: what it costs, what it adds to the error, and that plans for it are optimal."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brute_force import optimum
from coopt import (
    Budget,
    Certified,
    Constants,
    Fleet,
    InfeasibleError,
    InvalidProblemError,
    NonConvex,
    Problem,
    choose_participants,
    evaluate,
    solve_allocation,
)
from coopt.objectives.monotone import member_values
from fleets import random_problem
from problems import MOST_ROUNDS, MOST_STEPS, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

KINDS = st.sampled_from([Certified(1.0, 1.0), NonConvex(1.0, 1.0), Certified(0.5, 3.0)])


def drawn(problem: Problem, participants: int, distinct: bool = False) -> Problem:
    fleet = problem.fleet
    if distinct:
        fleet = replace(fleet, weights=np.full(len(fleet), 1 / len(fleet)))
    budget = replace(problem.budget, participants=participants, distinct_participants=distinct)
    return Problem(fleet, problem.constants, budget)


@settings(max_examples=40, deadline=None)
@given(problem=problems(equal_costs=False), participants=st.integers(1, 3), distinct=st.booleans())
def test_cost_is_the_mean_over_all_draws(problem, participants, distinct):
    size = len(problem.fleet)
    participants = min(participants, size)
    problem = drawn(problem, participants, distinct)
    fleet, steps = problem.fleet, 3
    batches = fleet.batch_range()[1]
    spent = [
        (Fraction(a) * s + Fraction(f)) * steps + Fraction(b)
        for a, f, s, b in zip(
            fleet.sample_cost.tolist(),
            fleet.step_cost.tolist(),
            batches.tolist(),
            fleet.round_cost.tolist(),
            strict=True,
        )
    ]
    chances = [Fraction(p) for p in fleet.weights.tolist()]
    mean, largest = Fraction(0), Fraction(0)
    if distinct:
        sets = list(itertools.combinations(range(size), participants))
        draws = [(set(chosen), Fraction(1, len(sets))) for chosen in sets]
    else:
        draws = [
            (set(chosen), math.prod(chances[i] for i in chosen))
            for chosen in itertools.product(range(size), repeat=participants)
        ]
    for devices, chance in draws:
        used = sum(spent[i] for i in devices) + Fraction(problem.budget.round_cost)
        mean, largest = mean + chance * used, max(largest, used)
    assert problem.cost(2, steps, batches) == pytest.approx(2 * float(mean), rel=1e-12)
    assert problem.largest_cost(2, steps, batches) == pytest.approx(2 * float(largest), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(problem=problems(), bound=st.sampled_from([Certified(), NonConvex()]), tau=st.integers(1, 9))
def test_the_more_take_part_the_smaller_the_bound_and_all_is_all(problem, bound, tau):
    batches = problem.fleet.batch_range()[0]
    everyone = replace(
        problem, fleet=replace(problem.fleet, weights=np.full(len(problem.fleet), 1 / len(problem.fleet)))
    )
    size = len(problem.fleet)
    distinct = [bound.value(drawn(problem, m, True), 5, tau, batches) for m in range(1, size + 1)]
    independent = [bound.value(drawn(everyone, m), 5, tau, batches) for m in range(1, size + 1)]
    full = bound.value(everyone, 5, tau, batches)
    for values in (distinct, independent):
        assert all(less >= more * (1 - 1e-12) for less, more in itertools.pairwise(values))
    assert distinct[-1] == full
    assert all(a <= b * (1 + 1e-12) for a, b in zip(distinct, independent, strict=True))
    assert bound.value(drawn(everyone, 2**53), 5, tau, batches) == pytest.approx(full, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), bound=st.sampled_from([Certified(), NonConvex()]), m=st.integers(1, 5))
def test_floors_never_fall_in_local_steps(problem, bound, m):
    form = bound.monotone_form(drawn(problem, m))
    everyone = np.arange(len(form.members))
    floors = [form.floor(tau, everyone) for tau in (1, 2, 3, 4, 7, 20, 21, 400)]
    for less, more in itertools.pairwise(floors):
        assert np.all(more.offsets >= less.offsets * (1 - 1e-13))
        assert np.all(more.shares >= less.shares * (1 - 1e-13))


@settings(max_examples=60, deadline=None)
@given(
    problem=problems(equal_costs=False, most_samples=5),
    bound=KINDS,
    participants=st.integers(1, 4),
    distinct=st.booleans(),
)
def test_plans_equal_enumeration(problem, bound, participants, distinct):
    problem = drawn(problem, min(participants, len(problem.fleet)), distinct)
    fleet = problem.fleet
    m = problem.budget.participants
    likely = np.full(len(fleet), m / len(fleet)) if distinct else 1 - (1 - fleet.weights) ** m
    plain = Problem(
        replace(
            fleet,
            **{name: getattr(fleet, name) * likely for name in ("sample_cost", "step_cost", "round_cost")},
        ),
        problem.constants,
        replace(problem.budget, participants=None, distinct_participants=False),
    )
    form = bound.monotone_form(problem)

    class Fixed:
        def monotone_form(self, _problem):
            return form

    expected = optimum(plain, Fixed(), MOST_ROUNDS, MOST_STEPS)
    try:
        found = solve_allocation(problem, bound=bound)
    except InfeasibleError:
        assert expected is None
        return
    assert expected is not None
    assert found.lower_bound <= expected * (1 + 1e-12)
    assert found.error_bound >= expected * (1 - 1e-12)
    if found.gap <= 1e-11:
        assert found.error_bound == pytest.approx(expected, rel=1e-11)
    found.certify()


def test_one_local_step_splits_nothing():
    """FedSGD with m devices: the variance is that of m draws of one noisy gradient, exactly."""
    problem = drawn(random_problem(4), 3)
    fleet, constants = problem.fleet, problem.constants
    batches = np.full(len(fleet), 8)
    noise = fleet.gradient_noise / 8
    drift = float(fleet.weights @ fleet.divergence**2 + (fleet.weights * (1 - fleet.weights)) @ noise)
    eta = constants.learning_rate
    sigma2 = float(fleet.weights**2 @ noise)
    q = 1 - eta * constants.pl_constant
    floor = eta**2 * constants.smoothness / 2 * (sigma2 + drift / 3) / (1 - q)
    expected = q**50 * constants.initial_gap + (1 - q**50) * floor
    assert Certified(1.0, 1e-9).value(problem, 50, 1, batches) == pytest.approx(expected, rel=1e-8)
    auto = Certified().value(problem, 50, 1, batches)
    assert auto <= expected * 1.002


def test_what_one_round_costs_decides_how_many_take_part():
    """Dear communication makes fewer participants better, cheap communication more."""
    base = random_problem(0)
    base = replace(base, fleet=replace(base.fleet, weights=np.full(len(base.fleet), 1 / len(base.fleet))))
    best = []
    for price in (0.0, 3000.0):
        fleet = replace(
            base.fleet, round_cost=np.full(len(base.fleet), price), sample_cost=np.zeros(len(base.fleet))
        )
        problem = replace(base, fleet=fleet, budget=Budget(cost=6e5, max_rounds=2000, max_local_steps=20))
        values = [solve_allocation(drawn(problem, m, True)).error_bound for m in range(1, len(fleet) + 1)]
        best.append(int(np.argmin(values)) + 1)
    assert best[1] < best[0] == len(base.fleet)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), price=st.sampled_from([0.0, 5.0, 200.0]), distinct=st.booleans())
def test_the_best_number_is_that_of_trying_all(seed, price, distinct):
    problem = drawn(random_problem(seed), 1, distinct)
    problem = replace(
        problem,
        fleet=replace(problem.fleet, round_cost=np.full(len(problem.fleet), price)),
        budget=replace(problem.budget, cost=problem.budget.cost * (1 + price / 10)),
    )
    bound = Certified(1.0, 1.0)
    plans = [
        solve_allocation(replace(problem, budget=replace(problem.budget, participants=m)), bound=bound)
        for m in range(1, len(problem.fleet) + 1)
    ]
    found = choose_participants(problem, bound=bound)
    best = min(plans, key=lambda plan: plan.error_bound)
    assert found.error_bound == pytest.approx(best.error_bound, rel=1e-11)
    assert found.lower_bound <= best.error_bound * (1 + 1e-12)
    assert found.gap <= max(1e-11, *(plan.gap for plan in plans))
    found.certify()
    some = choose_participants(problem, [len(plans), 1], bound=bound)
    assert some.error_bound == pytest.approx(min(plans[0].error_bound, plans[-1].error_bound), rel=1e-11)


def test_choices_that_mean_nothing_are_refused():
    problem = problem_of(participants=1)
    for arguments, message in (
        (([],), "must hold at least one"),
        (([0],), "candidates = 0: must be an integer >= 1"),
    ):
        with pytest.raises(InvalidProblemError, match=message):
            choose_participants(problem, *arguments)
    with pytest.raises(InvalidProblemError, match="must be 'certified' or 'nonconvex'"):
        choose_participants(problem, bound="dynamite")
    with pytest.raises(InfeasibleError, match="no plan fits"):
        choose_participants(replace(problem, budget=replace(problem.budget, cost=0.1)))


def test_a_time_limit_leaves_an_honest_gap():
    problem = drawn(random_problem(0), 1, True)
    stopped = choose_participants(problem, time_limit=0.0)
    best = choose_participants(problem)
    assert stopped.lower_bound <= best.error_bound <= stopped.error_bound


def problem_of(**budget):
    return Problem(
        Fleet([600, 300, 100], 4.0, 0.05),
        Constants(0.05, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0, lipschitz=0.1),
        Budget(**{"cost": 20_000.0, **budget}),
    )


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"participants": 0}, "participants = 0: must be an integer >= 1"),
        ({"participants": 2.5}, "participants = 2.5: must be an integer >= 1"),
        ({"distinct_participants": "yes"}, "distinct_participants = 'yes': must be true or false"),
        (
            {"distinct_participants": True},
            "distinct_participants = True: needs participants, the number of devices a round",
        ),
        (
            {"participants": 4, "distinct_participants": True},
            "participants = 4: must not exceed the 3 devices of the fleet where they are distinct",
        ),
        (
            {"participants": 2, "distinct_participants": True},
            (
                "distinct_participants = True: needs equal weights, and weights[0] = 0.6 of 3 devices; "
                "give weights=1/N, or draw devices independently"
            ),
        ),
    ],
)
def test_impossible_draws_are_refused(budget, message):
    with pytest.raises(InvalidProblemError) as caught:
        problem_of(**budget)
    assert str(caught.value) == message


@pytest.mark.parametrize("bound", ["dynamite", "adacoopt", "tradeoff(gamma=1, ratio=1)"])
def test_bounds_for_all_devices_say_so(bound):
    with pytest.raises(InvalidProblemError, match="every device takes part in every round"):
        evaluate(problem_of(participants=2), 10, 2, [5, 5, 5], bound)


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("solver", ["closed-form", "cvxpy"])
@pytest.mark.parametrize("bound", [Certified(1, 1), NonConvex(1, 1)])
def test_other_solvers_come_near_the_optimum(solver, bound, distinct):
    problem = drawn(problem_of(), 2, distinct)
    optimum = solve_allocation(problem, bound=bound)
    plan = solve_allocation(problem, bound=bound, solver=solver)
    plan.certify()
    assert plan.lower_bound <= optimum.error_bound * (1 + 1e-12)
    assert optimum.error_bound <= plan.error_bound * (1 + 1e-12)
    assert plan.error_bound <= optimum.error_bound * 1.05
    assert plan.trace["relaxation_value"] <= optimum.error_bound


def test_the_published_algorithm_says_so():
    with pytest.raises(InvalidProblemError, match="participants = 2: solver='coopt-fl' is the published"):
        solve_allocation(problem_of(participants=2), solver="coopt-fl")


def test_plans_say_who_takes_part():
    plan = solve_allocation(problem_of(participants=2))
    assert "participants   2 a round of 3, drawn independently" in str(plan)
    assert "expected" in str(plan)
    assert plan == type(plan).from_json(plan.to_json())
    values = member_values(
        plan.bound_object.monotone_form(plan.problem), plan.rounds, plan.local_steps, plan.batch_sizes
    )
    assert values[0] == pytest.approx(plan.error_bound, rel=1e-12)
