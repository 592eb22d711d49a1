"""Both planners keep the contract that adapters rely on, and one account."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coopt import Budget, ClientReport, Controller, Fleet, InvalidProblemError, RoundPlan, Stopped
from coopt.adapters.fixed_plan import FixedPlan
from coopt.online.round_plan import StopReason

FLEET = Fleet([60, 40, 20], 1.0, 1.0, throughput=[30.0, 10.0, 20.0], round_time=0.5, sample_cost=2.0)


def fixed() -> FixedPlan:
    return FixedPlan(FLEET, rounds=5, local_steps=3, batch_sizes=[4, 2, 2], learning_rate=0.1)


def controller() -> Controller:
    return Controller(FLEET, Budget(cost=5_000, time=100.0), 0.1)


planners = pytest.mark.parametrize("make", [fixed, controller])


def reports(plan: RoundPlan) -> list[ClientReport]:
    return [
        ClientReport(
            client=i,
            round=plan.round,
            samples=int(FLEET.samples[i]),
            local_steps=plan.local_steps,
            batch_size=int(size),
            samples_processed=plan.local_steps * int(size),
            loss=1.0,
            seconds_computing=0.2,
        )
        for i, size in enumerate(plan.batch_sizes)
    ]


@planners
def test_a_round_is_planned_until_it_is_observed(make):
    planner = make()
    plan = planner.plan()
    assert planner.plan() == plan and (planner.round, plan.round) == (0, 0)
    planner.observe(reports(plan), seconds=1.5)
    assert planner.round == 1 == planner.plan().round
    assert planner.spent_seconds == 1.5
    assert planner.spent_cost == 2.0 * plan.local_steps * plan.batch_sizes.sum()


@planners
def test_time_between_rounds_is_charged(make):
    planner = make()
    left = planner.time_left
    planner.wait(2.25)
    assert planner.spent_seconds == 2.25
    assert planner.time_left == left - 2.25
    for wrong in (-1.0, math.nan, math.inf, "long"):
        with pytest.raises(InvalidProblemError, match="seconds"):
            planner.wait(wrong)
    assert planner.spent_seconds == 2.25


def test_a_fixed_plan_runs_its_rounds_whatever_they_take():
    planner = fixed()
    planner.wait(1e9)
    assert planner.time_left == math.inf and isinstance(planner.plan(), RoundPlan)


def test_a_plan_is_given_up_when_its_time_has_passed():
    planner = controller()
    assert isinstance(planner.plan(), RoundPlan)
    planner.wait(100.0)
    stopped = planner.plan()
    assert isinstance(stopped, Stopped) and stopped.reason is StopReason.TIME


@planners
@pytest.mark.parametrize("absent", [[7], [-1], [3], ["phone"], [0.5]])
def test_absent_devices_exist(make, absent):
    planner = make()
    planner.plan()
    with pytest.raises(InvalidProblemError, match="absent = "):
        planner.observe([], seconds=1.0, absent=absent)
    assert (planner.round, planner.spent_cost, planner.spent_seconds) == (0, 0.0, 0.0)


@planners
def test_absent_devices_are_not_charged(make):
    planner = make()
    plan = planner.plan()
    planner.observe(reports(plan)[:2], seconds=1.0, absent=[2])
    assert planner.spent_cost == 2.0 * plan.local_steps * plan.batch_sizes[:2].sum()


@planners
def test_the_account_is_saved(make):
    planner, again = make(), make()
    planner.observe(reports(planner.plan()), seconds=1.0)
    planner.wait(0.5)
    again.load_state_dict(planner.state_dict())
    assert (again.round, again.spent_cost, again.spent_seconds) == (
        planner.round,
        planner.spent_cost,
        planner.spent_seconds,
    )
    assert again.plan() == planner.plan()


def test_models_count_by_the_samples_that_are_held():
    for planner in (fixed(), controller()):
        np.testing.assert_allclose(planner.samples, [60.0, 40.0, 20.0])
    streaming = Controller(FLEET, Budget(cost=5_000, time=100.0), 0.1, streaming=True)
    plan = streaming.plan()
    more = [ClientReport(**{**r.__dict__, "samples": 90}) for r in reports(plan)]
    streaming.observe(more, seconds=1.0)
    np.testing.assert_allclose(streaming.samples, 90.0)
