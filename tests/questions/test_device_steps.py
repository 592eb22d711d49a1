"""Plans with steps of each device's own: judged, found, kept in files, certified and run."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from coopt import (
    Allocation,
    Budget,
    CertificateError,
    Forecast,
    InfeasibleError,
    InvalidProblemError,
    Problem,
    Status,
    evaluate,
    solve_allocation,
    solve_schedule,
)
from coopt.adapters.fixed_plan import FixedPlan
from quadratics import problem_of, random_model

MODEL = random_model(5, 5, 4, unlike=0.3, noise=4.0)


def slow_one(min_batch: int, **budget: float) -> Problem:
    """A fleet in which one device takes a second for two samples."""
    return problem_of(
        MODEL,
        Budget(**({"time": 900.0} | budget)),
        0.3,
        throughput=[2.0, 400.0, 400.0, 300.0, 200.0],
        round_time=2.0,
        step_time=0.01,
        sample_energy=[1.0, 2.0, 1.0, 1.0, 1.0],
        step_energy=0.5,
        min_batch=min_batch,
    )


def test_a_plan_is_judged_by_what_its_devices_do() -> None:
    problem, steps = slow_one(8), np.array([2, 9, 10, 10, 7])
    batches = np.array([8, 10, 12, 9, 8])
    plan = evaluate(problem, 20, 10, batches, Forecast(MODEL), device_steps=steps)
    fleet = problem.fleet
    own = [
        int(t) * (Fraction(1, 100) + Fraction(int(s)) / Fraction(pi)) + 2
        for t, s, pi in zip(steps, batches, fleet.throughput.tolist(), strict=True)
    ]
    assert plan.time == pytest.approx(float(20 * max(own)), rel=1e-9)
    assert plan.cost == pytest.approx(20 * float(np.sum(steps * batches)))
    assert plan.energy == pytest.approx(20 * float(np.sum(steps * (fleet.sample_energy * batches + 0.5))))
    assert plan.status is Status.EVALUATED
    plan.certify()
    assert "local steps    10, 2 to 9 on 3 devices" in str(plan)
    assert [row["local_steps"] for row in plan.to_rows()] == steps.tolist()
    again = Allocation.from_json(plan.to_json())
    assert again == plan and again.device_steps.tolist() == steps.tolist()
    again.certify(Forecast(MODEL))
    with pytest.raises(CertificateError, match="cost: claimed"):
        replace(again, device_steps=np.array([1, 9, 10, 10, 7])).certify(Forecast(MODEL))
    with pytest.raises(CertificateError, match="device_steps"):
        replace(again, device_steps=np.array([2, 9, 9, 9, 7])).certify(Forecast(MODEL))
    run = FixedPlan.from_allocation(plan)
    first = run.plan()
    assert first.steps.tolist() == steps.tolist()
    assert first.predicted_seconds == pytest.approx(plan.time / 20)
    with pytest.raises(InfeasibleError, match="time"):
        evaluate(problem, 200, 10, batches, Forecast(MODEL), device_steps=steps)


def test_a_slow_device_with_a_large_smallest_batch_no_longer_binds() -> None:
    for min_batch, factor in ((8, 0.95), (16, 0.5)):
        problem = slow_one(min_batch)
        equal = solve_allocation(problem, bound=Forecast(MODEL))
        own = solve_allocation(problem, bound=Forecast(MODEL), device_steps="auto")
        assert own.predicted_error < factor * equal.predicted_error
        assert own.device_steps is not None and own.device_steps[0] < own.local_steps
        assert own.lower_bound <= own.predicted_error
        assert own.status is Status.HEURISTIC
        assert not own.as_run.violations(own.rounds, own.local_steps, own.batch_sizes)
        own.certify()


def test_where_fewer_steps_save_nothing_the_plan_has_equal_ones() -> None:
    problem = slow_one(1, time=math.inf, cost=5000.0)
    own = solve_allocation(problem, bound=Forecast(MODEL), device_steps="auto")
    assert own == solve_allocation(problem, bound=Forecast(MODEL))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_near_the_best_of_every_choice_of_steps(seed: int) -> None:
    """All K, tau_i and batches of two devices."""
    rng = np.random.default_rng(seed)
    model = random_model(seed, 2, 3, unlike=0.5, noise=3.0)
    problem = problem_of(
        model,
        Budget(time=30.0, max_rounds=5, max_local_steps=5),
        0.5,
        throughput=rng.uniform(0.5, 6.0, 2),
        round_time=1.0,
        min_batch=2,
        max_batch=5,
    )
    forecast, best = Forecast(model), math.inf
    for k, *steps in itertools.product(range(1, 6), range(1, 6), range(1, 6)):
        tau, own = max(steps), np.array(steps)
        times = own[:, None] * np.arange(2, 6) / problem.fleet.throughput[:, None] + 1.0
        fitting = (k * times <= 30.0 * (1 + 1e-9)).sum(axis=1)
        if (fitting == 0).any():
            continue
        judge = forecast.with_device_steps(own)
        # Without another limit the largest batches that fit are the best.
        best = min(best, judge.value(problem, k, tau, fitting + 1))
    found = solve_allocation(problem, bound=forecast, device_steps="auto")
    assert best * (1 - 1e-9) <= found.predicted_error <= 1.05 * best


def test_what_is_refused() -> None:
    problem, forecast = slow_one(8), Forecast(MODEL)
    steps = np.array([2, 9, 10, 10, 7])
    with pytest.raises(InvalidProblemError, match="bound 'certified' holds where all devices take tau steps"):
        evaluate(problem, 20, 10, 8, "certified", device_steps=steps)
    with pytest.raises(InvalidProblemError, match="bound 'certified' holds where all devices"):
        solve_allocation(problem, device_steps="auto")
    with pytest.raises(InvalidProblemError, match=r"device_steps\[2\] = 10: the most steps of a device must"):
        evaluate(problem, 20, 11, 8, forecast, device_steps=steps)
    with pytest.raises(InvalidProblemError, match="device_steps = 'some'"):
        solve_allocation(problem, bound=forecast, device_steps="some")
    with pytest.raises(InvalidProblemError, match="rounds = 5: device_steps='auto' finds"):
        solve_allocation(problem, bound=forecast, device_steps="auto", rounds=5)
    with pytest.raises(InvalidProblemError, match="they are those of one plan"):
        solve_allocation(problem, bound=forecast.with_device_steps(steps))
    with pytest.raises(InvalidProblemError, match="device_steps"):
        solve_schedule(problem, forecast.with_device_steps(steps))
