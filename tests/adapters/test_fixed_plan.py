"""A fixed plan runs for as long as it says, and charges what a controller would."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from coopt import (
    Budget,
    ClientReport,
    Constants,
    Controller,
    Fleet,
    Forecast,
    Phase,
    Problem,
    RoundPlan,
    Stopped,
    evaluate_schedule,
)
from coopt.adapters.fixed_plan import FixedPlan
from coopt.errors import InvalidProblemError
from coopt.online.round_plan import StopReason
from coopt.policies import FedAvg
from quadratics import random_model

FLEET = Fleet(
    [40, 60, 80], 1.0, 1.0, throughput=[10, 20, 40], round_time=0.5, sample_cost=[1, 2, 3], round_cost=7.0
)


def reports(plan: RoundPlan, clients: list[int]) -> list[ClientReport]:
    return [
        ClientReport(
            client=i,
            round=plan.round,
            samples=int(FLEET.samples[i]),
            local_steps=plan.local_steps,
            batch_size=int(plan.batch_sizes[i]),
            samples_processed=plan.local_steps * int(plan.batch_sizes[i]),
            loss=1.0,
            seconds_computing=0.1 * (1 + i),
        )
        for i in clients
    ]


def test_accounts_are_those_of_a_controller_with_the_same_plan() -> None:
    fixed = FixedPlan(FLEET, 4, 3, 5, 0.1, round_cost=11.0)
    controller = Controller(FLEET, Budget(cost=1e6, round_cost=11.0, max_rounds=4), 0.1, policy=FedAvg(3, 5))
    for clients, absent, seconds in [
        ([0, 1, 2], [], None),
        ([0, 2], [1], None),
        ([1], [], None),
        ([], [], 2.5),
    ]:
        plan, other = fixed.plan(), controller.plan()
        assert isinstance(plan, RoundPlan) and isinstance(other, RoundPlan)
        assert plan.batch_sizes.tolist() == other.batch_sizes.tolist() == [5, 5, 5]
        assert plan.predicted_cost == other.predicted_cost == 15 * 6 + 21 + 11
        fixed.observe(reports(plan, clients), absent=absent, seconds=seconds)
        controller.observe(reports(other, clients), absent=absent, seconds=seconds)
        assert fixed.spent_cost == pytest.approx(controller.spent_cost)
    assert fixed.spent_cost == 4 * (90 + 32) - 30
    assert fixed.plan() == Stopped(StopReason.ROUNDS, 4, fixed.spent_cost, fixed.spent_seconds)
    with pytest.raises(InvalidProblemError, match="after the last of 4 rounds"):
        fixed.observe([])


def test_without_a_clock_a_round_takes_as_long_as_its_slowest_report_or_as_predicted() -> None:
    plan = FixedPlan(FLEET, 2, 3, 5, 0.1)
    first = plan.plan()
    assert isinstance(first, RoundPlan) and first.predicted_seconds == 2.0
    plan.observe(reports(first, [0, 1, 2]))
    assert plan.spent_seconds == pytest.approx(0.3)
    plan.observe(reports(first, [0]))  # about a round that is over: nobody has answered
    assert plan.spent_seconds == pytest.approx(2.3)


def test_the_state_survives_json() -> None:
    plan = FixedPlan(FLEET, 5, 3, [1, 2, 3], 0.1)
    now = plan.plan()
    assert isinstance(now, RoundPlan)
    plan.observe(reports(now, [0, 1, 2]))
    again = FixedPlan(FLEET, 5, 3, [1, 2, 3], 0.1)
    again.load_state_dict(json.loads(json.dumps(plan.state_dict())))
    assert again.plan() == plan.plan()
    assert (again.spent_cost, again.spent_seconds) == (plan.spent_cost, plan.spent_seconds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds = 0"),
        ({"local_steps": 1.5}, "local_steps = 1.5"),
        ({"batch_sizes": [1, 2]}, "batch_sizes has shape"),
        ({"batch_sizes": [1, 0, 2]}, r"batch_sizes\[1\] = 0"),
        ({"learning_rate": 0}, "learning_rate = 0"),
        ({"round_cost": np.nan}, "round_cost = nan"),
    ],
)
def test_bad_plans_are_named(change: dict[str, Any], message: str) -> None:
    given = {"rounds": 3, "local_steps": 2, "batch_sizes": 4, "learning_rate": 0.1}
    with pytest.raises(InvalidProblemError, match=message):
        FixedPlan(FLEET, **(given | change))


def in_phases() -> FixedPlan:
    model = random_model(1, 3, 2)
    fleet = Fleet(model.samples, 1.0, 1.0, throughput=[10, 20, 40], round_time=0.5, step_time=0.1)
    problem = Problem(fleet, Constants(0.1, 1.0, 1.0), Budget(round_cost=11.0))
    phases = [Phase(2, 3, [1, 2, 3], 0.3), Phase(1, 1, 8, 0.1), Phase(2, 4, [4, 4, 4], 0.05)]
    return FixedPlan.from_schedule(evaluate_schedule(problem, Forecast(model), phases))


def test_a_schedule_runs_phase_after_phase() -> None:
    planner, seen, costs, seconds = in_phases(), [], 0.0, 0.0
    while isinstance(plan := planner.plan(), RoundPlan):
        seen.append((plan.local_steps, plan.batch_sizes.tolist(), plan.learning_rate, plan.rest_local_steps))
        costs, seconds = costs + plan.predicted_cost, seconds + plan.predicted_seconds
        planner.observe(reports(plan, [0, 1, 2]), seconds=plan.predicted_seconds)
    assert planner.rounds == planner.round == 5
    assert seen == [
        (3, [1, 2, 3], 0.3, 3),
        (3, [1, 2, 3], 0.3, 1),
        (1, [8, 8, 8], 0.1, 4),
        (4, [4, 4, 4], 0.05, 4),
        (4, [4, 4, 4], 0.05, 4),
    ]
    # What the schedule said it would use is what the account holds.
    assert planner.spent_cost == pytest.approx(costs) == pytest.approx(5 * 11 + 2 * 18 + 24 + 2 * 48)
    assert planner.spent_seconds == pytest.approx(seconds)


def test_the_state_of_a_schedule_is_not_that_of_another() -> None:
    planner = in_phases()
    for _ in range(3):
        planner.observe([], seconds=1.0)
    again = in_phases()
    again.load_state_dict(json.loads(json.dumps(planner.state_dict())))
    assert again.plan() == planner.plan()
    other = FixedPlan(planner.fleet, 5, 3, [1, 2, 3], 0.3)
    with pytest.raises(InvalidProblemError, match="state is of another run"):
        other.load_state_dict(planner.state_dict())


def test_a_rate_for_every_round_is_a_plan_that_is_saved() -> None:
    rates = [0.1, 0.2, 0.2, 0.2, 0.05]
    plan = FixedPlan(FLEET, 5, 2, 4, rates)
    assert [phase.rounds for phase in plan.phases] == [1, 3, 1]
    seen = []
    while isinstance(made := plan.plan(), RoundPlan):
        seen.append(made.learning_rate)
        plan.observe(reports(made, [0, 1, 2]))
        again = FixedPlan(FLEET, 5, 2, 4, rates)
        again.load_state_dict(json.loads(json.dumps(plan.state_dict())))
        plan = again
    assert seen == rates
    with pytest.raises(InvalidProblemError, match="another run"):
        FixedPlan(FLEET, 5, 2, 4, [0.1, 0.2, 0.2, 0.1, 0.05]).load_state_dict(plan.state_dict())


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("0.1", "learning_rate = '0.1': must be a finite number"),
        (None, "learning_rate = None"),
        ([0.1, 0.2], "learning_rate has 2 rates: must have 5, one for each round"),
        ([0.1, 0.2, 0.0, 0.1, 0.1], "learning_rates[2] = 0.0"),
        ([0.1, 0.2, "x", 0.1, 0.1], "learning_rates"),
        ([[0.1] * 5], "learning_rates has shape (1, 5): must have one rate for every round"),
        ([], "learning_rates has shape (0,)"),
    ],
)
def test_rates_that_are_none_are_named(rates: Any, message: str) -> None:
    with pytest.raises(InvalidProblemError) as caught:
        FixedPlan(FLEET, 5, 2, 4, rates)
    assert message in str(caught.value)
