"""The learning rate as a decision: the interval bound holds for every rate in it, and the proof closes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    AdaCoOpt,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InvalidProblemError,
    NonConvex,
    Problem,
    SolverError,
    Status,
    solve_allocation,
)
from coopt.objectives.monotone import member_values
from problems import NUMBERS, constants, fleets
from problems import THREE_DEVICES as PROBLEM

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

BOUNDS = st.sampled_from(
    [Certified(1, 1), Certified(0.2, 3.0), Dynamite(), AdaCoOpt(), NonConvex(1, 1), NonConvex(0.2, 0.5)]
)


@settings(max_examples=120, deadline=None)
@given(
    fleet=fleets(most_samples=30),
    known=constants(),
    bound=BOUNDS,
    ends=st.tuples(st.floats(-4, 0), st.floats(-4, 0)).map(sorted),
    share=st.floats(0, 1),
    rounds=st.integers(1, 1000),
    steps=st.integers(1, 30),
    participants=st.one_of(st.none(), st.integers(1, 3)),
    data=st.data(),
)
def test_an_interval_bounds_every_rate_in_it(
    fleet, known, bound, ends, share, rounds, steps, participants, data
):
    published = isinstance(bound, Dynamite | AdaCoOpt)
    problem = Problem(fleet, known, Budget(participants=None if published else participants))
    low, high = (10.0**end * bound.rates(problem).largest for end in ends)
    rate = min(max(low ** (1 - share) * high**share, low), high)
    lower, upper = fleet.batch_range()
    batches = np.array([data.draw(st.integers(int(a), int(b))) for a, b in zip(lower, upper, strict=True)])
    form = bound.rates(problem).interval(low, high)
    below = member_values(form, rounds, steps, batches.astype(float)).min()
    there = replace(problem, constants=replace(known, learning_rate=rate))
    # At the largest rate the interval ends one unit in the last place before it.
    slack = 1e-14 * known.initial_gap + 1e-300
    assert below <= bound.value(there, rounds, steps, batches) * (1 + 1e-9) + slack


@settings(max_examples=80, deadline=None)
@given(
    contraction=st.sampled_from([1.0, 0.9, 0.5]),
    convexity=st.sampled_from([1.0, 0.5, 0.1]),
    z=st.sampled_from([0.01, 0.1, 1.0]),
    coupling=st.sampled_from([0.01, None]),
    places=st.tuples(*[st.floats(0.3, 1.0)] * 3).map(sorted),
    steps=st.integers(2, 4),
)
def test_an_interval_bounds_the_noise_of_a_draw_that_falls_with_the_rate(
    contraction, convexity, z, coupling, places, steps
):
    """Strongly convex losses forget early noise the faster the larger the rate is."""
    problem = Problem(
        Fleet(samples=[20, 10], gradient_noise=100.0, divergence=0.0),
        Constants(
            learning_rate=0.1,
            smoothness=1.0,
            initial_gap=0.0,
            pl_constant=contraction,
            curvature_floor=contraction * convexity,
            coupling=coupling,
        ),
        Budget(participants=2),
    )
    bound = Certified(1.0, z)
    low, rate, high = (place * bound.rates(problem).largest for place in places)
    form = bound.rates(problem).interval(low, high)
    there = replace(problem, constants=replace(problem.constants, learning_rate=rate))
    below = member_values(form, 5, steps, np.ones(2)).min()
    assert below <= bound.value(there, 5, steps, [1, 1]) * (1 + 1e-9)


@pytest.mark.parametrize("limit", ["energy", "participants"])
def test_the_best_rate_under_other_limits(limit):
    fleet = replace(PROBLEM.fleet, sample_energy=np.linspace(0.5, 2.0, len(PROBLEM.fleet)))
    budget = replace(PROBLEM.budget, cost=2_000, max_local_steps=2)
    free = Problem(fleet, PROBLEM.constants, budget)
    used = solve_allocation(free, bound=NUMBERS).energy
    amount = {"energy": 0.8 * used, "participants": 2}[limit]
    problem = replace(free, budget=replace(budget, **{limit: amount}))
    found = solve_allocation(problem, bound=NUMBERS, learning_rate="auto", time_limit=math.inf)
    found.certify()
    assert found.status is Status.GAP_TOLERANCE
    assert found.gap <= 0.01 + 1e-9
    for factor in (0.25, 0.5, 1.0):
        rate = factor * NUMBERS.rates(problem).largest
        other = solve_allocation(problem, bound=NUMBERS, learning_rate=rate)
        assert found.lower_bound <= other.error_bound
        assert found.error_bound <= other.error_bound * (1 + 1e-3)


@pytest.mark.parametrize("bound", [NUMBERS, Dynamite()])
def test_the_best_rate_is_proved_to_one_per_cent(bound):
    problem = replace(PROBLEM, budget=replace(PROBLEM.budget, max_local_steps=8))
    found = solve_allocation(problem, bound=bound, learning_rate="auto")
    found.certify()
    assert found.status is Status.GAP_TOLERANCE
    assert 0.0 <= found.gap <= 0.01 + 1e-9
    assert found.problem.constants.learning_rate == found.learning_rate
    for factor in (0.25, 0.5, 0.8, 1.0):
        rate = factor * bound.rates(problem).largest
        other = solve_allocation(problem, bound=bound, learning_rate=rate)
        assert found.lower_bound <= other.error_bound
        assert found.error_bound <= other.error_bound * (1 + 1e-3)


def test_no_time_still_gives_a_plan():
    found = solve_allocation(PROBLEM, learning_rate="auto", time_limit=0.0)
    assert found.status is Status.TIME_LIMIT
    assert PROBLEM.violations(found.rounds, found.local_steps, found.batch_sizes) == ()


def test_wrong_arguments_are_named():
    with pytest.raises(InvalidProblemError, match="learning_rate = -1"):
        solve_allocation(PROBLEM, learning_rate=-1.0)
    with pytest.raises(InvalidProblemError, match="is chosen for the smallest error, so not for"):
        solve_allocation(PROBLEM, learning_rate="auto", objective="cost", target_error=1.0)

    class Own:
        name = "own"

        def coefficients(self, problem, rounds, local_steps):
            return 1.0, np.ones(len(problem.fleet))

        def value(self, problem, rounds, local_steps, batch_sizes):
            return 1.0 + float(np.sum(1.0 / np.asarray(batch_sizes)))

        def members(self):
            return (self,)

    with pytest.raises(SolverError, match="does not say how it depends"):
        solve_allocation(PROBLEM, bound=Own(), learning_rate="auto")
