"""What a step takes and costs whatever its batch: the plan that knows it against the plan that does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coopt import (
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InfeasibleError,
    NonConvex,
    Problem,
    evaluate,
    sensitivity,
    solve_allocation,
)

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

STEP_TIME, THROUGHPUT = 0.030, 2000.0
CONSTANTS = Constants(
    learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
)
# Eight devices with 30 ms a step and half a millisecond a sample, and ten minutes.
TIMED = Problem(
    Fleet([500] * 8, 40.0, 0.05, throughput=THROUGHPUT, round_time=0.5, step_time=STEP_TIME),
    CONSTANTS,
    Budget(time=600.0),
)


def best_on_a_grid() -> float:
    """The smallest bound with batches that fill the time, over a grid of K and tau."""
    free = Problem(
        replace(TIMED.fleet, step_time=0.0, throughput=np.inf, round_time=0.0), CONSTANTS, Budget()
    )
    best = np.inf
    for tau in (1, 2, 4, 8, 16):
        for rounds in np.unique(np.round(np.geomspace(5, 1100, 25)).astype(int)).tolist():
            batch = int(THROUGHPUT * ((600.0 / rounds - 0.5) / tau - STEP_TIME))
            if batch >= 1:
                best = min(best, evaluate(free, rounds, tau, min(batch, 500)).error_bound)
    return best


def test_the_plan_is_the_best_there_is():
    plan = solve_allocation(TIMED)
    assert plan.error_bound <= best_on_a_grid() * (1 + 1e-9)
    assert plan.time == pytest.approx(
        plan.rounds * (plan.local_steps * (STEP_TIME + plan.batch_sizes.max() / THROUGHPUT) + 0.5), rel=1e-12
    )
    assert "time" in plan.binding
    plan.certify(deep=True)


@pytest.mark.parametrize(
    ("measured_at", "loss", "idle"), [(1, 18.5, 0.61), (8, 4.38, 0.42), (32, 1.97, 0.26)]
)
def test_a_throughput_measured_at_one_batch_plans_badly(measured_at, loss, idle):
    """What the step time is for: one number for the speed is right for one batch alone."""
    apparent = measured_at / (STEP_TIME + measured_at / THROUGHPUT)
    fleet = replace(TIMED.fleet, step_time=0.0, throughput=apparent)
    blind = solve_allocation(replace(TIMED, fleet=fleet))
    true = evaluate(TIMED, blind.rounds, blind.local_steps, blind.batch_sizes)
    assert true.error_bound / solve_allocation(TIMED).error_bound == pytest.approx(loss, rel=0.01)
    assert 1.0 - true.time / TIMED.budget.time == pytest.approx(idle, abs=0.01)


def test_a_throughput_of_one_batch_is_right_where_steps_take_no_time():
    fleet = replace(TIMED.fleet, step_time=0.0)
    free = solve_allocation(replace(TIMED, fleet=fleet))
    assert free.error_bound < solve_allocation(TIMED).error_bound


@pytest.mark.parametrize("bound", [Certified(1, 1), Dynamite(), NonConvex(1, 1)])
def test_step_costs_shift_the_budget_of_a_step(bound):
    """K (tau (sum a_i s_i + F) + b): the same as dearer rounds where tau is one."""
    fleet = Fleet([60, 40, 90], [4.0, 1.0, 9.0], 0.1, step_cost=[5.0, 0.0, 2.5])
    steps = Problem(fleet, CONSTANTS, Budget(cost=3000.0, max_local_steps=1))
    rounds = Problem(
        replace(fleet, step_cost=0.0), CONSTANTS, Budget(cost=3000.0, round_cost=7.5, max_local_steps=1)
    )
    first, second = solve_allocation(steps, bound=bound), solve_allocation(rounds, bound=bound)
    assert first.error_bound == pytest.approx(second.error_bound, rel=1e-12)
    assert first.cost == pytest.approx(second.cost, rel=1e-12)
    first.certify(deep=True)
    # With several steps a round a round's cost is shared, a step's is not.
    more = {
        name: solve_allocation(replace(each, budget=replace(each.budget, max_local_steps=8)), bound=bound)
        for name, each in (("steps", steps), ("rounds", rounds))
    }
    assert more["rounds"].error_bound <= more["steps"].error_bound * (1 + 1e-12)


def test_messages_count_the_steps():
    with pytest.raises(InfeasibleError) as caught:
        solve_allocation(replace(TIMED, budget=Budget(time=0.53)))
    assert caught.value.binding == "time"
    assert caught.value.smallest_time == pytest.approx(0.5 + STEP_TIME + 1 / THROUGHPUT)
    dear = replace(TIMED, fleet=replace(TIMED.fleet, step_cost=10.0), budget=Budget(cost=80.0, time=600.0))
    with pytest.raises(InfeasibleError) as caught:
        solve_allocation(dear)
    assert caught.value.smallest_cost == 88.0


def test_a_second_more_is_worth_what_the_price_says():
    more = replace(TIMED, fleet=replace(TIMED.fleet, samples=np.full(8, 10**5), max_batch=np.full(8, 10**5)))
    found = sensitivity(more, bound=Dynamite(), quantities=["time"], relative=0.01)
    (change,) = found.changes
    assert change.gain == pytest.approx(change.predicted_gain, rel=0.2)


def test_each_participant_is_charged_for_the_steps_it_takes():
    fleet = Fleet([100] * 10, 4.0, 0.1, sample_cost=0.0, step_cost=1.0, step_energy=2.0, throughput=100.0)
    some = Problem(fleet, CONSTANTS, Budget(cost=1e4, participants=3, distinct_participants=True))
    assert some.cost(10, 5, 8) == pytest.approx(10 * 5 * 3)
    assert some.largest_cost(10, 5, 8) == pytest.approx(10 * 5 * 3)
    assert some.energy(10, 5, 8) == pytest.approx(10 * 5 * 3 * 2)
    assert replace(some, budget=Budget()).cost(10, 5, 8) == pytest.approx(500)
