"""solve_schedule and evaluate_schedule: one phase is the allocation, and what is wrong is named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coopt import (
    Budget,
    Forecast,
    InfeasibleError,
    InvalidProblemError,
    Phase,
    Status,
    evaluate,
    evaluate_schedule,
    solve_allocation,
    solve_schedule,
)
from quadratics import problem_of, random_model

MODEL = random_model(9, 3, 4)
FORECAST = Forecast(MODEL)


@pytest.mark.parametrize("rate", [None, 0.3, "auto"])
def test_one_phase_is_the_allocation(rate: float | str | None) -> None:
    problem = problem_of(MODEL, Budget(cost=2000.0, max_local_steps=20))
    found = solve_schedule(problem, FORECAST, phases=1, learning_rate=rate)
    wanted = solve_allocation(problem, bound=FORECAST, learning_rate=rate, gap_tolerance=1e-3)
    (phase,) = found.phases
    assert (phase.rounds, phase.local_steps) == (wanted.rounds, wanted.local_steps)
    np.testing.assert_array_equal(phase.batch_sizes, wanted.batch_sizes)
    assert phase.learning_rate == wanted.learning_rate
    assert found.predicted_error == wanted.predicted_error
    assert (found.cost, found.time) == (wanted.cost, wanted.time)
    if rate == "auto":
        assert found.lower_bound == -math.inf and found.status is Status.HEURISTIC
    else:
        assert found.lower_bound == wanted.lower_bound and found.status is wanted.status
    found.certify()


def test_two_phases_start_with_small_batches_and_end_with_large_ones() -> None:
    problem = problem_of(random_model(1, 6, 8, noise=10.0), Budget(cost=20_000.0, round_cost=20.0), 0.3)
    forecast = Forecast(random_model(1, 6, 8, noise=10.0))
    one = solve_schedule(problem, forecast, phases=1)
    two = solve_schedule(problem, forecast, phases=2)
    assert two.predicted_error < 0.7 * one.predicted_error
    early, late = two.phases
    assert early.batch_sizes.mean() < 0.3 * late.batch_sizes.mean()
    assert early.local_steps >= late.local_steps
    assert two.lower_bound == -math.inf and two.status is Status.HEURISTIC


def test_a_measurement_or_a_rate_of_the_forecast_will_do() -> None:
    problem = problem_of(MODEL, Budget(cost=500.0, max_local_steps=5))
    own = solve_schedule(problem, FORECAST.with_learning_rate(0.2), phases=2)
    assert own == solve_schedule(problem, FORECAST, phases=2, learning_rate=0.2)
    assert {phase.learning_rate for phase in own.phases} == {0.2}


def test_a_plan_of_one_phase_is_judged_as_an_allocation_is() -> None:
    problem = problem_of(MODEL, Budget(cost=2000.0), replacement=False)
    rate = problem.constants.learning_rate
    judged = evaluate_schedule(problem, FORECAST, [Phase(10, 4, [3, 4, 5], rate)])
    assert judged.predicted_error == pytest.approx(
        evaluate(problem, 10, 4, [3, 4, 5], FORECAST).predicted_error, rel=1e-10
    )
    # One batch for all devices; a decaying rate as rounds of their own.
    cosine = [Phase(1, 4, 6, 0.7 * math.cos(math.pi / 2 * k / 20)) for k in range(20)]
    assert evaluate_schedule(problem, FORECAST, cosine).phases[3].batch_sizes.tolist() == [6, 6, 6]


def test_broken_limits_are_named() -> None:
    fleet = {"throughput": 10.0, "sample_energy": 1.0, "max_batch": 8}
    problem = problem_of(
        MODEL, Budget(cost=100.0, time=3.0, energy=90.0, max_rounds=9, max_local_steps=3), **fleet
    )
    with pytest.raises(
        InfeasibleError, match=r"cost: 120 exceeds 100; time: .*; energy: .*; max_rounds: 10"
    ) as raised:
        evaluate_schedule(problem, FORECAST, [Phase(5, 2, 2, 0.1), Phase(5, 2, 2, 0.1)])
    assert raised.value.binding == "cost"
    with pytest.raises(InfeasibleError, match=r"max_batch: 9 exceeds 8 \(device 1\) in phase 2"):
        evaluate_schedule(problem, FORECAST, [Phase(1, 1, 1, 0.1), Phase(1, 1, [1, 9, 1], 0.1)])
    with pytest.raises(InfeasibleError, match="max_local_steps: 4 exceeds 3 in phase 1"):
        evaluate_schedule(problem, FORECAST, [Phase(1, 4, 1, 0.1)])
    with pytest.raises(InfeasibleError, match="no plan fits"):
        solve_schedule(problem_of(MODEL, Budget(cost=2.0)), FORECAST)


def test_wrong_arguments_are_named() -> None:
    problem = problem_of(MODEL, Budget(cost=100.0))
    with pytest.raises(InvalidProblemError, match="phases = 0"):
        solve_schedule(problem, FORECAST, phases=0)
    with pytest.raises(InvalidProblemError, match="learning_rate = 'best'"):
        solve_schedule(problem, FORECAST, learning_rate="best")
    with pytest.raises(InvalidProblemError, match="training is unstable"):
        solve_schedule(problem, FORECAST, learning_rate=50.0)
    with pytest.raises(InvalidProblemError, match="phases is empty"):
        evaluate_schedule(problem, FORECAST, [])
    with pytest.raises(InvalidProblemError, match=r"phases\[0\] = 3: must be a coopt.Phase"):
        evaluate_schedule(problem, FORECAST, [3])
    with pytest.raises(InvalidProblemError, match="batch_sizes has"):
        evaluate_schedule(problem, FORECAST, [Phase(1, 1, [1, 2], 0.1)])
    with pytest.raises(InvalidProblemError, match="unbounded"):
        solve_schedule(problem_of(MODEL, Budget()), FORECAST)


@pytest.mark.parametrize(
    ("limits", "fleet"),
    [
        ({"participants": 2}, {}),
        ({"participants": 2, "distinct_participants": True}, {"weights": np.full(3, 1 / 3)}),
        (
            {"energy": 250.0, "time": 60.0},
            {
                "sample_energy": [0.5, 1.0, 2.0],
                "throughput": 50.0,
                "step_time": 0.01,
                "batch_multiple": 2,
                "min_batch": 2,
            },
        ),
    ],
    ids=["draws", "distinct", "energy"],
)
def test_all_limits_hold_for_the_sum_of_phases(limits: dict[str, float], fleet: dict[str, object]) -> None:
    model = random_model(3, 3, 3, noise=10.0)
    problem = problem_of(model, Budget(cost=300.0, max_local_steps=4, **limits), 0.3, **fleet)
    one, two = (solve_schedule(problem, Forecast(model), phases=phases) for phases in (1, 2))
    assert two.predicted_error < one.predicted_error
    for plan in (one, two):
        assert plan.certify().relative_difference < 1e-9


@pytest.mark.parametrize("rate", [None, 0.2, "auto"])
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_a_warm_start_leads_to_a_plan_nearly_as_good(rate: float | str | None, factor: float) -> None:
    before = problem_of(MODEL, Budget(cost=3000.0, max_local_steps=20))
    problem = problem_of(MODEL, Budget(cost=3000.0 * factor, max_local_steps=20))
    for phases in (1, 2, 3):
        start = solve_schedule(before, FORECAST, phases=phases, learning_rate=rate)
        anew = solve_schedule(problem, FORECAST, phases=phases, learning_rate=rate)
        found = solve_schedule(problem, FORECAST, phases=phases, learning_rate=rate, warm_start=start)
        assert found.trace["warm_start_used"] == 1
        assert found.predicted_error < 1.1 * anew.predicted_error
        assert found.certify().relative_difference < 1e-9
        assert found.status is Status.HEURISTIC
        if rate == 0.2:
            assert {phase.learning_rate for phase in found.phases} == {0.2}


def test_an_allocation_may_be_the_warm_start_and_one_that_does_not_help_is_ignored() -> None:
    problem = problem_of(MODEL, Budget(cost=3000.0, max_local_steps=20))
    one = solve_allocation(problem, bound=FORECAST)
    two = solve_schedule(problem, FORECAST, warm_start=one)
    assert two.trace["warm_start_used"] == 1 and two.predicted_error < one.predicted_error
    # Fewer phases are wanted than it has; and so little may be spent that only shorter rounds fit.
    alone = solve_schedule(problem, FORECAST, phases=1, warm_start=two)
    assert alone.trace["warm_start_used"] == 0
    assert alone == solve_schedule(problem, FORECAST, phases=1)
    long = evaluate_schedule(problem, FORECAST, [Phase(20, 20, 1, 0.1)])
    short = problem_of(MODEL, Budget(cost=3000.0, max_local_steps=2))
    assert solve_schedule(short, FORECAST, warm_start=long) == solve_schedule(short, FORECAST)
    with pytest.raises(InvalidProblemError, match="warm_start = 3: must be an Allocation or a Schedule"):
        solve_schedule(problem, FORECAST, warm_start=3)
    with pytest.raises(InfeasibleError, match="cost"):
        solve_schedule(problem_of(MODEL, Budget(cost=1.0)), FORECAST, warm_start=two)


def test_the_search_tells_how_far_it_is_and_can_be_ended_on_the_way() -> None:
    problem = problem_of(MODEL, Budget(cost=3000.0, max_local_steps=20))
    told: list[int] = []
    found = solve_schedule(problem, FORECAST, progress=told.append)
    assert told == sorted(told) and told[-1] == found.trace["settings"]

    def stop(looked_at: int) -> None:
        if looked_at > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_schedule(problem, FORECAST, progress=stop)
    with pytest.raises(InvalidProblemError, match="progress = True: must be a function"):
        solve_schedule(problem, FORECAST, progress=True)
