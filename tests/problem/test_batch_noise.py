"""Noise of every batch as a whole: the tangent of its variance, and plans that are proved with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt import (
    Budget,
    Certified,
    Constants,
    Controller,
    Dynamite,
    Fleet,
    Forecast,
    InfeasibleError,
    InvalidProblemError,
    LocalModel,
    NonConvex,
    Problem,
    evaluate,
    solve_allocation,
    solve_schedule,
)
from coopt.adapters.fixed_plan import FixedPlan

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

CONSTANTS = Constants(
    learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
)


def planned(problem, noise, bound="certified", most=20):
    """The best plan found, its bound with the noise, and a lower bound for all plans with it."""
    fleet, plan = problem.fleet, solve_allocation(problem, bound=bound)
    best, value, lower = plan, np.inf, -np.inf
    for _ in range(most):
        near = fleet.with_batch_noise(noise, plan.batch_sizes)
        plan = solve_allocation(replace(problem, fleet=near), bound=bound)
        lower = max(lower, plan.lower_bound)
        true = truth(problem, noise, plan, bound)
        best, value = (plan, true) if true < value else (best, value)
        if value - lower <= 1e-4 * value:
            break
    return best, value, lower


def truth(problem, noise, plan, bound="certified"):
    noisy = replace(problem.fleet, step_noise=noise / plan.batch_sizes**2.0)
    given = replace(problem, fleet=noisy)
    return evaluate(given, plan.rounds, plan.local_steps, plan.batch_sizes, bound).predicted_error


@given(
    noise=st.floats(0, 50),
    extra=st.floats(0, 1e4),
    held=st.integers(2, 400),
    near=st.integers(1, 400),
    multiple=st.integers(1, 9),
    replacement=st.booleans(),
)
def test_the_noise_is_a_tangent_of_the_true_one(noise, extra, held, near, multiple, replacement):
    fleet = Fleet([max(held, multiple)], noise, 0.0, batch_multiple=multiple, replacement=replacement)
    low, high = (int(each[0]) for each in fleet.batch_range())
    place = min(max(near // multiple * multiple, low), high)
    found = fleet.with_batch_noise(extra, place)
    sizes = np.arange(low, int(found.batch_range()[1][0]) + 1, multiple)
    reference = 0.0 if replacement else 1.0 / fleet.samples[0]
    true = noise * (1.0 / sizes - reference) + extra / sizes**2.0
    line = found.gradient_noise[0] * (1.0 / sizes - 1.0 / found.samples[0])
    assert (line <= true + 1e-9 * (noise + extra)).all()
    # No larger batch is left out unless the line is at zero there.
    assert sizes[-1] == high or sizes[-1] == found.samples[0]
    assert place in sizes
    if multiple == 1 and replacement:
        off = (true - line)[place - low]
        assert off <= extra / (4.0 * place**4.0) + 1e-6 * true[place - low] + 1e-12


@pytest.mark.parametrize("bound", [Certified(0.5, 1.0), NonConvex(1.0, 1.0), Dynamite()])
def test_the_loop_closes_the_gap_and_nothing_is_better(bound):
    """On two unlike devices, among plans with any batches."""
    fleet = Fleet(
        [60, 30],
        [4.0, 1.0],
        0.1,
        throughput=[40.0, 25.0],
        round_time=1.0,
        sample_cost=[1.0, 2.0],
        max_batch=24,
    )
    problem = Problem(fleet, CONSTANTS, Budget(cost=1500, time=60, max_local_steps=3))
    extra = np.array([100.0, 40.0])
    _, value, lower = planned(problem, extra, bound)
    assert value - lower <= 1e-2 * value
    values = []
    for sizes in np.array(np.meshgrid(np.arange(1, 25), np.arange(1, 25))).reshape(2, -1).T:
        noisy = replace(problem, fleet=replace(fleet, step_noise=extra / sizes**2.0))
        for steps in (1, 2, 3):
            most = min(
                1500 / (steps * sizes @ fleet.sample_cost), *60 / (steps * sizes / fleet.throughput + 1)
            )
            # More rounds never hurt at given batches.
            values.append(bound.value(noisy, int(most), steps, sizes))
    assert lower * (1 - 1e-12) <= min(values) <= value * (1 + 1e-12)


def test_noise_of_a_private_step_is_planned_with_and_proved():
    """What a plan without it promises is .0006; it comes to .0010."""
    fleet = Fleet([2000] * 10, 4.0, 0.1, throughput=200.0, round_time=1.0)
    problem = Problem(fleet, CONSTANTS, Budget(cost=4e6, time=3600))
    extra = 1.0**2 * 1.0**2 * 1000
    blind = solve_allocation(problem)
    assert blind.error_bound == pytest.approx(0.00063, abs=1e-5)
    assert truth(problem, extra, blind) == pytest.approx(0.0010, abs=5e-5)
    best, value, lower = planned(problem, extra)
    assert value < truth(problem, extra, blind)
    assert value - lower <= 1e-4 * value
    best.certify(deep=True)
    for size in (300, 330, 360, 390, 420, 450):
        for steps in (1, 2):
            rounds = int(min(4e6 / (10 * size * steps), 3600 / (steps * size / 200 + 1)))
            sizes = np.full(10, size)
            noisy = replace(problem, fleet=replace(fleet, step_noise=extra / sizes**2.0))
            assert evaluate(noisy, rounds, steps, sizes).error_bound >= lower


def test_wrong_arguments_are_named():
    fleet = Fleet([20, 30], 4.0, 0.1)
    with pytest.raises(InvalidProblemError, match=r"noise\[1\] = -1.0"):
        fleet.with_batch_noise([1.0, -1.0], 4)
    with pytest.raises(InvalidProblemError, match=r"batch_sizes\[0\] = 0.0"):
        fleet.with_batch_noise(1.0, [0, 4])
    with pytest.raises(InfeasibleError):
        solve_allocation(Problem(fleet.with_batch_noise(1.0, 4), CONSTANTS, Budget(cost=1)))


def test_whoever_knows_the_noise_otherwise_refuses_and_says_what_to_give():
    """The samples are made up: a forecast would see less noise than without any of batches."""
    fleet = Fleet([40, 40], 4.0, 0.1)
    near = fleet.with_batch_noise(100.0, 8)
    model = LocalModel(
        [0.5, 0.5], [[1.0], [0.5]], [[[1.0]], [[0.5]]], [[[4.0]], [[4.0]]], [40, 40], parameters=1
    )
    forecast, problem = Forecast(model), Problem(near, CONSTANTS, Budget(cost=4000))
    message = "fleet comes from with_batch_noise, .* step_noise = R / s"
    for ask in (
        lambda: forecast.value(problem, 4, 2, [8, 8]),
        lambda: solve_allocation(problem, bound=forecast),
        lambda: solve_schedule(replace(problem, fleet=replace(near, divergence=0.2)), forecast),
    ):
        with pytest.raises(InvalidProblemError, match=message):
            ask()
    with pytest.raises(InvalidProblemError, match="a controller needs the fleet that it was made of"):
        Controller(near, Budget(cost=4000), 0.1)
    with pytest.raises(InvalidProblemError, match="would have it twice"):
        near.with_batch_noise(100.0, 8)
    # What it says to give: the noise at the plan's own batches.
    sizes = np.array([8, 8])
    for _ in range(30):
        noisy = replace(problem, fleet=replace(fleet, step_noise=100.0 / sizes**2.0))
        plan = solve_allocation(noisy, bound=forecast)
        if (plan.batch_sizes == sizes).all():
            break
        sizes = plan.batch_sizes
    assert (plan.batch_sizes == sizes).all()
    assert plan.predicted_error > forecast.value(
        replace(problem, fleet=fleet), plan.rounds, plan.local_steps, sizes
    )


def test_a_plan_by_a_tangent_is_kept_and_run():
    near = Fleet([40, 40], 4.0, 0.1).with_batch_noise(100.0, 8)
    plan = solve_allocation(Problem(near, CONSTANTS, Budget(cost=4000)))
    assert type(plan).from_json(plan.to_json()) == plan
    assert FixedPlan.from_allocation(plan).plan().batch_sizes.tolist() == plan.batch_sizes.tolist()
