"""The learning rate as a decision: the interval bound holds for every rate in it, and the proof closes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    AdaCoOpt,
    Budget,
    Certified,
    Dynamite,
    InvalidProblemError,
    NonConvex,
    Problem,
    SolverError,
    Status,
    solve_allocation,
)
from coopt.monotone import member_values
from coopt.solvers.learning_rate import interval_form, largest_rate
from problems import constants, fleets
from test_pareto import NUMBERS, PROBLEM

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

BOUNDS = st.sampled_from(
    [Certified(1, 1), Certified(0.2, 3.0), Dynamite(), AdaCoOpt(), NonConvex(1, 1), NonConvex(0.2, 0.5)]
)


@settings(max_examples=200, deadline=None)
@given(
    fleet=fleets(most_samples=30),
    known=constants(),
    bound=BOUNDS,
    ends=st.tuples(st.floats(-4, 0), st.floats(-4, 0)).map(sorted),
    share=st.floats(0, 1),
    rounds=st.integers(1, 1000),
    steps=st.integers(1, 30),
    data=st.data(),
)
def test_an_interval_bounds_every_rate_in_it(fleet, known, bound, ends, share, rounds, steps, data):
    problem = Problem(fleet, known, Budget())
    low, high = (10.0**end * largest_rate(problem, bound) for end in ends)
    rate = min(max(low ** (1 - share) * high**share, low), high)
    lower, upper = fleet.batch_range()
    batches = np.array([data.draw(st.integers(int(a), int(b))) for a, b in zip(lower, upper, strict=True)])
    form = interval_form(problem, bound, low, high)
    below = member_values(form, rounds, steps, batches.astype(float)).min()
    there = replace(problem, constants=replace(known, learning_rate=rate))
    # At the largest rate the interval ends one unit in the last place before it.
    slack = 1e-14 * known.initial_gap + 1e-300
    assert below <= bound.value(there, rounds, steps, batches) * (1 + 1e-9) + slack


@pytest.mark.parametrize("bound", [NUMBERS, Dynamite()])
def test_the_best_rate_is_proved_to_one_per_cent(bound):
    problem = replace(PROBLEM, budget=replace(PROBLEM.budget, max_local_steps=8))
    found = solve_allocation(problem, bound=bound, learning_rate="auto")
    found.certify()
    assert found.status is Status.GAP_TOLERANCE
    assert 0.0 <= found.gap <= 0.01 + 1e-9
    assert found.problem.constants.learning_rate == found.learning_rate
    for factor in (0.25, 0.5, 0.8, 1.0):
        rate = factor * largest_rate(problem, bound)
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
    with pytest.raises(InvalidProblemError, match="needs objective='error'"):
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
