"""Inverting a limit is never off by one: exact fractions and brute force as referees."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coopt import Budget, Constants, Fleet, Problem
from coopt.problem.limits import (
    TOLERANCE,
    device_times,
    largest_batches,
    most_local_steps,
    most_rounds,
    step_budget,
    step_units,
    time_caps,
    within,
)
from coopt.problem.validation import LARGEST_COUNT

CONSTANTS = Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0)
ALLOWED = 1 + Fraction(1, 10**9)


def problem_of(budget: Budget, **fleet) -> Problem:
    return Problem(Fleet(**{"gradient_noise": 1.0, "divergence": 0.0, **fleet}), CONSTANTS, budget)


def decimals(least: int = 1, most: int = 10**4, places: int = 3) -> st.SearchStrategy[Fraction]:
    """Decimal numbers as people write them, exact."""
    return st.builds(lambda n, k: Fraction(n, 10**k), st.integers(least, most), st.integers(0, places))


counts = st.integers(1, 300)
offsets = st.sampled_from([Fraction(0), Fraction(1, 10**5), Fraction(-1, 10**5)])


@settings(max_examples=200, deadline=None)
@given(counts, counts, st.integers(1, 10**4), decimals(), decimals(0), decimals(0, 100), offsets)
@example(3, 1, 1, Fraction(1, 10), Fraction(0), Fraction(0), Fraction(0))
@example(7, 3, 19, Fraction(11, 100), Fraction(7, 10), Fraction(3, 10), Fraction(0))
def test_units_of_a_step_at_a_decimal_boundary(rounds, steps, units, price, round_cost, step_cost, offset):
    """A budget that pays for exactly so many units admits so many, however the decimals round."""
    cost = rounds * (steps * (step_cost + price * units * (1 + offset)) + round_cost)
    problem = problem_of(
        Budget(cost=float(cost), round_cost=float(round_cost)), samples=[10**6], step_cost=float(step_cost)
    )
    room = (cost * ALLOWED / rounds - round_cost) / steps - step_cost
    found = step_units(problem, rounds, steps, float(price))
    assert found == room // price
    assert found >= units or offset < 0
    assert step_budget(problem, rounds, steps) == pytest.approx(float(room), rel=1e-6)


@settings(max_examples=200, deadline=None)
@given(counts, counts, st.integers(1, 10**4), decimals(), decimals(0), decimals(0, 100), offsets)
@example(3, 1, 3, Fraction(1, 10), Fraction(1, 10), Fraction(1, 10), Fraction(0))
def test_batches_at_a_decimal_deadline(rounds, steps, batch, throughput, round_time, step_time, offset):
    time = rounds * (steps * (step_time + batch * (1 + offset) / throughput) + round_time)
    problem = problem_of(
        Budget(time=float(time)),
        samples=[10**6],
        throughput=float(throughput),
        round_time=float(round_time),
        step_time=float(step_time),
    )
    upper = np.array([10**6])
    expected = ((time * ALLOWED / rounds - round_time) / steps - step_time) * throughput // 1
    assert largest_batches(problem, rounds, steps, upper).tolist() == [min(expected, 10**6)]
    assert expected >= batch or offset < 0


@settings(max_examples=100, deadline=None)
@given(counts, counts, st.integers(1, 60), st.integers(1, 20), decimals(), decimals(0, 100), offsets)
@example(3, 7, 12, 4, Fraction(1, 10), Fraction(3, 10), Fraction(0))
def test_batches_in_parts_at_a_decimal_deadline(rounds, steps, batch, part, throughput, step_time, offset):
    """Each part of a batch takes the time of a step: K tau (alpha ceil(s/m) + s/pi), in exact rationals."""

    def takes(size):
        return rounds * steps * (step_time * -(-size // part) + size / throughput)

    time = takes(batch) * (1 + offset)
    problem = problem_of(
        Budget(time=float(time)),
        samples=[80],
        throughput=float(throughput),
        step_time=float(step_time),
        micro_batch=part,
    )
    fitting = [size for size in range(1, 81) if takes(Fraction(size)) <= time * ALLOWED]
    found = largest_batches(problem, rounds, steps, np.array([80])).tolist()
    assert found == [max(fitting, default=0)]


@settings(max_examples=200, deadline=None)
@given(counts, counts, st.integers(1, 100), decimals(), decimals(0), decimals(0, 100), offsets)
def test_rounds_and_steps_at_a_decimal_boundary(rounds, steps, batch, price, overhead, still, offset):
    """The same for the counts, by cost and by time."""
    step = price * batch + still
    cost = rounds * (steps * step + overhead) * (1 + offset)
    fleet = {"samples": [10**6], "sample_cost": float(price), "step_cost": float(still)}
    by_cost = problem_of(Budget(cost=float(cost), round_cost=float(overhead)), **fleet)
    lower = np.array([batch])
    admitted = cost * ALLOWED
    assert most_rounds(by_cost, steps, lower) == admitted // (steps * step + overhead)
    expected = max((admitted / rounds - overhead) // step, 0)
    assert most_local_steps(by_cost, rounds, lower) == expected
    by_time = problem_of(
        Budget(time=float(cost)),
        samples=[10**6],
        throughput=float(1 / price),
        round_time=float(overhead),
        step_time=float(still),
    )
    assert most_rounds(by_time, steps, lower) == admitted // (steps * step + overhead)
    assert most_local_steps(by_time, rounds, lower) == expected


@st.composite
def small_problems(draw) -> Problem:
    n = draw(st.integers(1, 4))

    def each(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    tenths = st.integers(0, 40).map(lambda x: x / 10)
    multiple = draw(st.integers(1, 3))
    fleet = Fleet(
        samples=each(st.integers(multiple, 20)),
        gradient_noise=1.0,
        divergence=0.0,
        throughput=each(st.one_of(st.just(math.inf), st.integers(1, 40).map(lambda x: x / 10))),
        round_time=each(tenths),
        sample_cost=each(tenths),
        step_time=each(tenths),
        step_cost=each(tenths),
        micro_batch=each(st.integers(1, 12)) if draw(st.booleans()) else None,
        batch_multiple=multiple,
    )
    limit = st.one_of(st.just(math.inf), st.integers(0, 2000).map(lambda x: x / 10))
    most = st.one_of(st.none(), st.integers(1, 30))
    return Problem(
        fleet,
        CONSTANTS,
        Budget(
            cost=draw(limit),
            time=draw(limit),
            round_cost=draw(tenths),
            max_rounds=draw(most),
            max_local_steps=draw(most),
        ),
    )


# No limit of the small problems admits more, unless nothing is used up.
BEYOND = 2001 * 10


@settings(max_examples=150, deadline=None)
@given(small_problems(), st.integers(1, 6))
def test_most_rounds_and_steps_are_the_last_that_fit(problem, other):
    """By the one definition of feasibility: the last fits, the next does not, and None fits always."""
    lower, _ = problem.fleet.batch_range()
    relevant = {"cost", "time", "max_rounds"}

    def fits(rounds, steps, limits):
        return not limits & {v.limit for v in problem.violations(rounds, steps, lower)}

    most = most_rounds(problem, other, lower)
    if most is None:
        assert fits(BEYOND, other, relevant)
    else:
        assert most == 0 or fits(most, other, relevant)
        assert not fits(most + 1, other, relevant)
    relevant = {"cost", "time", "max_local_steps"}
    most = most_local_steps(problem, other, lower)
    if most is None:
        assert fits(other, BEYOND, relevant)
    else:
        assert most == 0 or fits(other, most, relevant)
        assert not fits(other, most + 1, relevant)


@settings(max_examples=150, deadline=None)
@given(small_problems(), st.integers(1, 6), st.integers(1, 6))
def test_largest_batches_are_the_last_that_fit(problem, rounds, steps):
    fleet, limit = problem.fleet, problem.budget.time
    _, upper = fleet.batch_range()
    found = largest_batches(problem, rounds, steps, upper)
    for i, most in enumerate(found.tolist()):
        multiple = int(fleet.batch_multiple[i])
        fitting = [
            s
            for s in range(0, int(upper[i]) + 1, multiple)
            if within(float(device_times(problem, rounds, steps, np.full(len(fleet), s))[i]), limit)
        ]
        assert most == fitting[-1] if fitting else most < 0
    caps = time_caps(problem, rounds, steps)
    assert (found <= np.maximum(caps * (1 + 1e-12), 0.0)).all()


@settings(max_examples=200, deadline=None)
@given(small_problems(), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.1, 0.3, 1.0]))
def test_step_units_are_the_last_that_fit(problem, rounds, steps, price):
    budget = problem.budget
    found = step_units(problem, rounds, steps, price)

    def fits(units):
        step = price * units + problem.fleet.whole_step_cost
        return within(rounds * (steps * step + budget.round_cost), budget.cost)

    if budget.cost == math.inf:
        assert found == LARGEST_COUNT
    else:
        assert found == 0 or fits(found)
        assert not fits(found + 1) or found == 0
        if found == 0:
            assert not fits(1)


def test_free_and_infinitely_fast_devices_limit_nothing():
    budget = Budget(cost=10.0, time=10.0)
    problem = problem_of(budget, samples=[50, 50], sample_cost=0.0, throughput=math.inf)
    lower, upper = problem.fleet.batch_range()
    assert most_rounds(problem, 1, lower) is None
    assert most_local_steps(problem, 1, lower) is None
    assert largest_batches(problem, 10**6, 10**6, upper).tolist() == [50, 50]
    assert time_caps(problem, 1, 1).tolist() == [math.inf, math.inf]


def test_an_infinitely_fast_device_still_communicates():
    problem = problem_of(
        Budget(time=10.0), samples=[50, 50], throughput=[math.inf, 5.0], round_time=[2.0, 1.0]
    )
    lower, upper = problem.fleet.batch_range()
    assert most_rounds(problem, 1, lower) == 5
    assert largest_batches(problem, 5, 1, upper).tolist() == [50, 5]
    assert time_caps(problem, 6, 1)[0] == -math.inf
    assert largest_batches(problem, 6, 1, upper)[0] < 0
    # Rounds of exactly the communication time leave the fast device free and the slow one its rest.
    assert most_local_steps(problem, 5, lower) == 5


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.5, 3.0])
def test_a_limit_is_met_within_one_part_in_a_billion(fraction):
    problem = problem_of(Budget(cost=100.0, time=100.0), samples=[100], throughput=1.0)
    for field in ("cost", "time"):
        limit = 100.0 / (1 + fraction * TOLERANCE)
        tight = replace(problem, budget=replace(problem.budget, **{field: limit}))
        assert bool(tight.violations(1, 1, [100])) == (fraction > 1.0)


@settings(max_examples=200, deadline=None)
@given(
    *(st.floats(-300, 300).map(lambda x: 10.0**x) for _ in range(7)),
    st.integers(1, 10**12),
    st.integers(1, 10**12),
)
@example(1e300, 1e300, 1e-300, 1e300, 1e-300, 1e-300, 1e-300, 1, 1)
@example(1e10, 1e10, 1e-300, 1e300, 1e-300, 1e-300, 1e-300, 1, 1)
def test_wild_magnitudes_overflow_nowhere(
    cost, time, price, throughput, round_time, round_cost, overhead, k, tau
):
    problem = problem_of(
        Budget(cost=cost, time=time, round_cost=round_cost),
        samples=[10**6],
        throughput=throughput,
        round_time=round_time,
        sample_cost=price,
        step_time=overhead,
        step_cost=overhead,
    )
    lower, upper = problem.fleet.batch_range()
    plan_fits = not problem.violations(k, tau, lower)
    rounds, steps = most_rounds(problem, tau, lower), most_local_steps(problem, k, lower)
    assert plan_fits == (rounds is None or k <= rounds)
    assert plan_fits == (steps is None or tau <= steps)
    if plan_fits:
        assert 1 <= largest_batches(problem, k, tau, upper)[0] <= 10**6
        assert step_units(problem, k, tau, price) >= 1
