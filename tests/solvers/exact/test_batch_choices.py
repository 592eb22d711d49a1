"""Batches from lists of allowed sizes: against enumeration, and against rounding by hand."""

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
    Certified,
    Constants,
    Controller,
    Fleet,
    InfeasibleError,
    InvalidProblemError,
    Problem,
    RoundPlan,
    Status,
    solve_allocation,
)
from fleets import random_problem
from online import Training
from problems import MOST_ROUNDS, MOST_STEPS, numeric_bounds, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

POWERS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


@st.composite
def choosing(draw, equal_costs=True) -> Problem:
    problem = draw(problems(equal_costs, most_samples=7))
    fleet = problem.fleet
    choices = [
        sorted({1, *draw(st.lists(st.integers(1, int(most)), min_size=1, max_size=4))})
        for most in fleet.max_batch
    ]
    fleet = replace(fleet, batch_multiple=np.ones(len(fleet)), batch_choices=choices)
    return replace(problem, fleet=fleet)


def check(problem, bound):
    expected = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    try:
        found = solve_allocation(problem, bound=bound)
    except InfeasibleError:
        assert expected is None
        return
    assert expected is not None
    assert found.error_bound == pytest.approx(expected, rel=1e-11)
    assert found.lower_bound <= expected * (1 + 1e-12)
    assert problem.violations(found.rounds, found.local_steps, found.batch_sizes) == ()
    found.certify(deep=True)


@settings(max_examples=25, deadline=None)
@given(problem=choosing(), bound=numeric_bounds)
def test_equals_enumeration_when_costs_are_equal(problem, bound):
    check(problem, bound)


@settings(max_examples=35, deadline=None)
@given(problem=choosing(equal_costs=False), bound=numeric_bounds)
def test_equals_enumeration_when_costs_differ(problem, bound):
    check(problem, bound)


@settings(max_examples=20, deadline=None)
@given(problem=choosing(equal_costs=False), bound=numeric_bounds, share=st.floats(0.1, 1.0))
def test_equals_enumeration_under_two_limits(problem, bound, share):
    energy = np.linspace(1.0, 2.0, len(problem.fleet))
    fleet = replace(problem.fleet, sample_energy=energy)
    lower, upper = fleet.batch_range()
    free = replace(problem, fleet=fleet)
    least, most = free.energy(1, 1, lower), free.energy(4, 3, upper)
    check(replace(free, budget=replace(free.budget, energy=least ** (1 - share) * most**share)), bound)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("equal", [True, False])
def test_powers_of_two_beat_rounding_down_by_hand(seed, equal):
    problem = random_problem(seed, equal_costs=equal, overhead=1.0, time=300.0)
    listed = replace(problem, fleet=replace(problem.fleet, batch_choices=POWERS))
    plan, free = (solve_allocation(each, bound=Certified(1, 1)) for each in (listed, problem))
    assert set(plan.batch_sizes.tolist()) <= set(POWERS)
    down = 2 ** np.floor(np.log2(free.batch_sizes)).astype(int)
    by_hand = Certified(1, 1).value(problem, free.rounds, free.local_steps, down)
    assert free.error_bound <= plan.error_bound <= by_hand
    assert plan.status is Status.OPTIMAL
    assert "cost" in plan.binding or "time" in plan.binding
    plan.certify(deep=True)


def test_time_alone_is_exact_for_any_fleet():
    rng = np.random.default_rng(0)
    fleet = Fleet(
        rng.integers(100, 2000, 100), 4.0, 0.1, throughput=rng.uniform(50, 500, 100), batch_choices=POWERS[:7]
    )
    problem = Problem(fleet, Constants(0.1, 1.0, 2.0, pl_constant=0.1), Budget(time=60.0))
    plan = solve_allocation(problem, bound=Certified(1, 1))
    assert plan.status is Status.OPTIMAL


def test_sizes_are_checked_and_named():
    build = {"samples": [60, 40], "gradient_noise": 1.0, "divergence": 0.1}
    assert Fleet(**build, batch_choices=[16, 8, 8]).batch_choices == ((8, 16), (8, 16))
    assert Fleet(**build, batch_choices=[[8], [4, 2]]).batch_choices == ((8,), (2, 4))
    for choices, message in (
        ([64], "batch_choices[0]: none lies between min_batch[0] = 1 and max_batch[0] = 60"),
        ([[8], [64]], "batch_choices[1]: none lies between"),
        ([[8]], "must be sizes, or 2 lists"),
        ([0, 8], "batch_choices[0] = 0: must be an integer >= 1"),
        ("8", "batch_choices = '8'"),
    ):
        with pytest.raises(InvalidProblemError) as caught:
            Fleet(**build, batch_choices=choices)
        assert message in str(caught.value)
    with pytest.raises(InvalidProblemError, match="either multiples or batch_choices"):
        Fleet(**build, batch_choices=[8], batch_multiple=8)
    problem = Problem(Fleet(**build, batch_choices=[8, 16]), Constants(0.1, 1.0, 2.0), Budget(cost=math.inf))
    assert [str(each) for each in problem.violations(1, 1, [8, 12])] == [
        "batch_choices: 12 is not allowed; the nearest that is: 8 (device 1)"
    ]


def test_files_keep_the_sizes(tmp_path):
    fleet = Fleet([60, 40], 1.0, 0.1, batch_choices=[[8, 16], [4]])
    problem = Problem(fleet, Constants(0.1, 1.0, 2.0), Budget(cost=100.0))
    problem.to_toml(tmp_path / "job.toml")
    assert Problem.from_toml(tmp_path / "job.toml") == problem
    with pytest.raises(InvalidProblemError, match="batch_choices is not a column"):
        fleet.to_csv(tmp_path / "fleet.csv")


def test_a_controller_plans_allowed_sizes_only():
    run = Training(4, seed=1)
    fleet = Fleet(run.samples, 1.0, 1.0, batch_choices=[2, 8, 32])
    controller = Controller(fleet, Budget(cost=6000, time=60, round_cost=20), 0.1)
    seen = set()
    while isinstance(plan := controller.plan(), RoundPlan):
        seen |= set(plan.batch_sizes.tolist())
        reports, seconds = run.run(plan)
        controller.observe(reports, seconds=seconds)
    assert seen <= {2, 8, 32} and len(seen) > 1
    assert controller.spent_cost <= 6000
