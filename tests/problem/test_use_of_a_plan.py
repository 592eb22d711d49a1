"""What a plan costs and how long it takes, in exact rationals, and which limits it breaks."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Constants,
    Fleet,
    InvalidProblemError,
    Problem,
)
from problems import problems

INF, NAN = math.inf, math.nan


def problem_of(budget: Budget | None = None, **fleet) -> Problem:
    devices = Fleet([600, 200, 50], gradient_noise=4.0, divergence=0.1, **fleet)
    return Problem(
        devices, Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0), budget or Budget()
    )


@settings(max_examples=100, deadline=None)
@given(problem=problems(equal_costs=False), data=st.data())
def test_cost_time_and_violations_follow_their_definitions(problem, data):
    fleet, budget = problem.fleet, problem.budget
    rounds, steps = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 6))
    batches = data.draw(st.lists(st.integers(1, 8), min_size=len(fleet), max_size=len(fleet)))
    step = sum(Fraction(a) * s for a, s in zip(fleet.sample_cost.tolist(), batches, strict=True))
    step += sum(map(Fraction, fleet.step_cost.tolist()))
    round_ = Fraction(budget.round_cost) + sum(map(Fraction, fleet.round_cost.tolist()))
    cost = rounds * (steps * step + round_)
    seconds = max(
        rounds
        * (steps * ((0 if math.isinf(pi) else s / Fraction(pi)) + Fraction(alpha) * -(-s // m)) + Fraction(u))
        for s, m, pi, alpha, u in zip(
            batches,
            batches if fleet.micro_batch is None else fleet.micro_batch.tolist(),
            fleet.throughput.tolist(),
            fleet.step_time.tolist(),
            fleet.round_time.tolist(),
            strict=True,
        )
    )
    assert problem.cost(rounds, steps, batches) == pytest.approx(float(cost), rel=1e-14)
    assert problem.time(rounds, steps, batches) == pytest.approx(float(seconds), rel=1e-14)
    expected = set()
    if cost > Fraction(budget.cost) * (1 + Fraction(1, 10**9)) if budget.cost < INF else False:
        expected.add("cost")
    if seconds > Fraction(budget.time) * (1 + Fraction(1, 10**9)) if budget.time < INF else False:
        expected.add("time")
    expected |= {"max_rounds"} if rounds > budget.max_rounds else set()
    expected |= {"max_local_steps"} if steps > budget.max_local_steps else set()
    for s, least, most, multiple in zip(
        batches, fleet.min_batch, fleet.max_batch, fleet.batch_multiple, strict=True
    ):
        expected |= {"min_batch"} if s < least else set()
        expected |= {"max_batch"} if s > most else set()
        expected |= {"batch_multiple"} if s % multiple else set()
    found = problem.violations(rounds, steps, batches)
    assert {violation.limit for violation in found} == expected
    assert len(found) == len(expected)


def test_violations_say_how_much_and_where():
    problem = problem_of(
        budget=Budget(cost=100, time=10, max_rounds=2, max_local_steps=2),
        throughput=[10.0, 1.0, 100.0],
        min_batch=[1, 1, 4],
        max_batch=[16, 30, 40],
        batch_multiple=[1, 2, 1],
    )
    found = problem.violations(3, 4, [17, 5, 3])
    assert [str(violation) for violation in found] == [
        "max_rounds: 3 exceeds 2",
        "max_local_steps: 4 exceeds 2",
        "cost: 300 exceeds 100",
        "time: 60 s exceeds 10 s (device 1)",
        "min_batch: 3 is below 4 (device 2)",
        "max_batch: 17 exceeds 16 (device 0)",
        "batch_multiple: 5 is not a multiple of 2 (device 1)",
    ]
    named = replace(problem, fleet=replace(problem.fleet, names=["anna's phone", "board", "watch"]))
    assert [str(violation) for violation in named.violations(3, 4, [17, 5, 3])][3:5] == [
        "time: 60 s exceeds 10 s (device 1, 'board')",
        "min_batch: 3 is below 4 (device 2, 'watch')",
    ]
    assert [str(v) for v in problem.violations(0, -1, 4)][:2] == [
        "rounds: 0 is below 1",
        "local_steps: -1 is below 1",
    ]
    assert problem.violations(1, 1, 4) == ()


@pytest.mark.parametrize("batches", [[1, 2], [1, -2, 3], [1, NAN, 3], "abc"])
def test_batch_sizes_of_a_plan_are_checked(batches):
    for ask in (problem_of().cost, problem_of().time, problem_of().violations):
        with pytest.raises(InvalidProblemError, match=r"^batch_sizes"):
            ask(1, 1, batches)


def test_an_infinitely_fast_device_takes_its_round_time_alone():
    problem = problem_of(throughput=INF, round_time=[0.0, 2.0, 1.0])
    assert problem.time(3, 1000, [600, 200, 50]) == 6.0
