"""Cheapest and fastest plans against enumeration, and as inverses of the smallest error."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Constants,
    Fleet,
    InfeasibleError,
    InvalidProblemError,
    Problem,
    Status,
    solve_allocation,
)
from problems import MOST_ROUNDS, MOST_STEPS, NUMBERS, numeric_bounds, problems
from problems import THREE_DEVICES as PROBLEM

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def least_use(problem, bound, objective, target):
    """Smallest cost or time of any plan whose bound is at most the target; inf if there is none."""
    measure = problem.cost if objective == "cost" else problem.time
    lower, upper = problem.fleet.batch_range()
    multiple = problem.fleet.batch_multiple
    axes = [range(int(lo), int(hi) + 1, int(m)) for lo, hi, m in zip(lower, upper, multiple, strict=True)]
    best = math.inf
    for rounds, steps in itertools.product(range(1, MOST_ROUNDS + 1), range(1, MOST_STEPS + 1)):
        for batches in itertools.product(*axes):
            if problem.violations(rounds, steps, batches):
                continue
            used = measure(rounds, steps, batches)
            if used < best and bound.value(problem, rounds, steps, batches) <= target:
                best = used
    return best


@settings(max_examples=25, deadline=None)
@given(
    problem=problems(most_devices=2, most_samples=3),
    bound=numeric_bounds,
    objective=st.sampled_from(["cost", "time"]),
    slack=st.floats(1.0, 3.0),
)
def test_equals_enumeration(problem, bound, objective, slack):
    try:
        smallest = solve_allocation(problem, bound=bound)
    except InfeasibleError:
        assume(False)
    target = smallest.error_bound * slack
    expected = least_use(problem, bound, objective, target * (1 + 1e-12))
    found = solve_allocation(problem, bound=bound, objective=objective, target_error=target)
    found.certify()
    assert found.error_bound <= target * (1 + 1e-11)
    assert found.objective_value == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert found.lower_bound <= expected * (1 + 1e-9)


@pytest.mark.parametrize("objective", ["cost", "time"])
def test_is_the_inverse_of_the_smallest_error(objective):
    found = solve_allocation(PROBLEM, bound=NUMBERS, objective=objective, target_error=0.3)
    assert found.status is Status.OPTIMAL
    assert found.gap <= 1e-8
    limit = {objective: found.objective_value}
    same = solve_allocation(replace(PROBLEM, budget=replace(PROBLEM.budget, **limit)), bound=NUMBERS)
    assert same.error_bound <= 0.3 * (1 + 1e-12)
    less = {objective: found.objective_value * (1 - 1e-6)}
    worse = solve_allocation(replace(PROBLEM, budget=replace(PROBLEM.budget, **less)), bound=NUMBERS)
    assert worse.error_bound > 0.3


def test_needs_no_limits():
    unlimited = replace(PROBLEM, budget=Budget(round_cost=100))
    found = solve_allocation(unlimited, bound=NUMBERS, objective="cost", target_error=0.3)
    assert found.error_bound <= 0.3 * (1 + 1e-12)
    assert found.cost <= solve_allocation(PROBLEM, bound=NUMBERS, objective="cost", target_error=0.3).cost * (
        1 + 1e-8
    )


def test_an_unreachable_target_says_what_can_be_reached():
    best = solve_allocation(PROBLEM, bound=NUMBERS)
    with pytest.raises(InfeasibleError, match="smallest error is") as caught:
        solve_allocation(PROBLEM, bound=NUMBERS, objective="cost", target_error=best.error_bound * 0.9)
    assert caught.value.binding == "target_error"
    assert caught.value.smallest_error == pytest.approx(best.error_bound, rel=1e-12)


@pytest.mark.parametrize(
    ("objective", "budget", "held"),
    [
        ("cost", Budget(cost=1e9, time=600), "where time = 600 s binds: raise the target, or what binds"),
        ("cost", Budget(time=600), "where time = 600 s binds"),
        (
            "cost",
            Budget(max_rounds=50, max_local_steps=1),
            "where max_rounds = 50, max_local_steps = 1 and max_batch bind",
        ),
        ("cost", Budget(energy=1e5), "where energy = 100000 J binds"),
        ("time", Budget(cost=1e4, time=1e9), "where cost = 10000 binds"),
    ],
)
def test_an_unreachable_target_names_limits_that_are_set_and_bind(objective, budget, held):
    fleet = Fleet(
        [500, 900, 300],
        4.0,
        0.1,
        throughput=[50.0, 80.0, 20.0],
        round_time=2.0,
        sample_energy=1.0,
        round_energy=1.0,
    )
    known = Constants(
        learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
    )
    with pytest.raises(InfeasibleError) as caught:
        solve_allocation(Problem(fleet, known, budget), objective=objective, target_error=1e-4)
    assert held in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "cost"}, "target_error is missing"),
        ({"target_error": 0.1}, "needs the objective"),
        ({"objective": "time", "target_error": -1.0}, "target_error = -1.0"),
        ({"objective": "time", "target_error": 1.0, "solver": "coopt-fl"}, "solver = 'coopt-fl'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InvalidProblemError, match=message):
        solve_allocation(PROBLEM, **arguments)
