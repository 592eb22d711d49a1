"""The controller: budgets never overrun, faults survived, runs resumed bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.errors import InvalidProblemError
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.online.controller import Controller
from coopt.online.round_plan import RoundPlan, Stopped, StopReason
from coopt.policies import AdaCoOpt, DynamicBatch, DynamicTau, FedAvg, Horizon, Marginal
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from online import Training

POLICIES = {
    "horizon": Horizon(),
    "marginal": Marginal(20),
    "uniform": Marginal(20, split="uniform"),
    "no-straggler": Marginal(20, split="speed"),
    "adacoopt": AdaCoOpt(20),
    "dynamic-tau": DynamicTau(8),
    "dynamic-batch": DynamicBatch(3, 4),
    "fedavg": FedAvg(4, 8),
}


def make(training: Training, policy: object = "horizon", **options: object) -> Controller:
    fleet = Fleet(training.samples, gradient_noise=1.0, divergence=1.0)
    budget = options.pop("budget", Budget(cost=6000, time=60, round_cost=20))
    return Controller(fleet, budget, 0.1, policy=policy, **options)


def drive(controller: Controller, training: Training, most: int = 400) -> Stopped:
    """Run to the end; check every plan on the way."""
    for _ in range(most):
        plan = controller.plan()
        if isinstance(plan, Stopped):
            return plan
        check(plan, controller)
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=seconds)
    raise AssertionError("the controller never stops")


def check(plan: RoundPlan, controller: Controller) -> None:
    lower, upper = controller.fleet.batch_range()
    assert np.all(plan.batch_sizes >= lower) and np.all(plan.batch_sizes <= upper)
    assert np.all(plan.batch_sizes % controller.fleet.batch_multiple == 0)
    assert plan.local_steps >= 1
    assert plan.predicted_cost <= controller.budget.cost - controller.spent_cost
    assert plan.predicted_seconds <= controller.budget.time - controller.spent_seconds
    assert plan.deadline <= controller.budget.time - controller.spent_seconds
    assert controller.plan() is plan


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_spends_what_it_may_and_no_more(name: str) -> None:
    training = Training(6, seed=0)
    controller = make(training, POLICIES[name])
    stopped = drive(controller, training)
    assert stopped.reason in (StopReason.COST, StopReason.TIME, StopReason.GAIN)
    assert controller.spent_cost <= 6000 and controller.spent_seconds <= 60 * (1 + 1e-9)
    if stopped.reason is not StopReason.GAIN:  # spent to within one smallest round
        smallest = float(np.sum(controller.fleet.min_batch)) + 20
        slowest = float(np.max(1 / training.speed) + 0.1)
        assert controller.spent_cost > 6000 - 3 * smallest or controller.spent_seconds > 60 - 3 * slowest
    assert max(controller.spent_cost / 6000, controller.spent_seconds / 60) > 0.8
    assert training.gap() < 0.2 * training.first_gap


@settings(max_examples=30, deadline=None)
@given(
    cost=st.floats(0, 3000),
    time=st.floats(0, 30),
    round_cost=st.floats(0, 300),
    rounds=st.none() | st.integers(1, 12),
    steps=st.none() | st.integers(1, 6),
    name=st.sampled_from(sorted(POLICIES)),
    multiple=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_no_budget_is_ever_overrun(
    cost: float,
    time: float,
    round_cost: float,
    rounds: int | None,
    steps: int | None,
    name: str,
    multiple: int,
    seed: int,
) -> None:
    training = Training(3, seed=seed)
    budget = Budget(
        cost=cost, time=time, round_cost=round_cost, max_rounds=rounds or 40, max_local_steps=steps
    )
    fleet = Fleet(training.samples, 1.0, 1.0, batch_multiple=multiple, max_batch=40)
    controller = Controller(fleet, budget, 0.1, policy=POLICIES[name])
    spent = 0.0
    while isinstance(plan := controller.plan(), RoundPlan):
        check(plan, controller)
        assert plan.local_steps <= (steps or plan.local_steps)
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=min(seconds, plan.deadline))
        spent += sum(report.samples_processed for report in reports) + round_cost
    assert controller.spent_cost == pytest.approx(spent) and spent <= cost
    assert controller.spent_seconds <= time + 1e-9
    assert controller.round <= budget.max_rounds


def test_speeds_are_learned_and_the_time_limit_kept_without_a_server_clock() -> None:
    training = Training(4, seed=1)
    controller = make(training, budget=Budget(time=20))
    worst = 0.0
    while isinstance(plan := controller.plan(), RoundPlan):
        reports, seconds = training.run(plan)
        if plan.round > 0:
            worst = max(worst, abs(seconds - plan.predicted_seconds) / seconds)
        controller.observe(reports)
    assert plan.reason in (StopReason.TIME, StopReason.GAIN)
    assert worst < 1e-9 and controller.spent_seconds == pytest.approx(training.seconds)
    assert 16 < controller.spent_seconds <= 20


def test_overshoot_after_a_jump_in_speed_is_at_most_one_prediction_error() -> None:
    training = Training(4, seed=2)
    controller = make(training, budget=Budget(time=20))
    error = 0.0
    while isinstance(plan := controller.plan(), RoundPlan):
        if plan.round == 6:
            training.speed = training.speed / 5
        reports, seconds = training.run(plan)
        error = max(error, seconds - plan.predicted_seconds)
        controller.observe(reports, seconds=seconds)
    assert controller.spent_seconds <= 20 + error


def test_local_steps_change_by_at_most_the_stated_factor() -> None:
    training = Training(5, seed=3)
    controller = make(training, Horizon(max_change=1.5))
    steps = []
    while isinstance(plan := controller.plan(), RoundPlan):
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=seconds)
        if plan.round >= controller.warm_up_rounds:
            steps.append(plan.local_steps)
    fitted = steps[:-2]  # the last rounds are cut to what is left
    for before, after in itertools.pairwise(fitted):
        assert math.ceil(before / 1.5) <= after <= max(before + 1, int(before * 1.5))


@pytest.mark.parametrize("name", POLICIES)
def test_resumed_run_makes_bit_identical_plans(name: str) -> None:
    first, training = make(Training(4, seed=4), POLICIES[name]), Training(4, seed=4)
    for round_ in range(12):
        plan = first.plan()
        if isinstance(plan, Stopped):
            break
        for when in ("planned", "observed"):
            if when == "observed":
                reports, seconds = training.run(plan)
                first.observe(reports, seconds=seconds)
            again = make(Training(4, seed=4), POLICIES[name])
            again.load_state_dict(json.loads(json.dumps(first.state_dict())))
            assert again.plan() == first.plan()
            assert json.dumps(again.state_dict()) == json.dumps(first.state_dict())
            if round_ % 3 == 0:
                first = again


SERVER = """
import sys, os, json
sys.path.insert(0, {tests!r})
from online import Training
from coopt.online.controller import Controller
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from coopt.online.round_plan import RoundPlan
training = Training(4, seed=5)
controller = Controller(Fleet(training.samples, 1.0, 1.0), Budget(cost=4000, round_cost=20), 0.1)
state, log = sys.argv[1], sys.argv[2]
if os.path.exists(state):
    controller.load(state)
while isinstance(plan := controller.plan(), RoundPlan):
    training.rewind(plan.round)
    reports, seconds = training.run(plan)
    controller.observe(reports, seconds=seconds)
    controller.save(state)
    with open(log, "a") as file:
        file.write(json.dumps(plan.to_dict()) + "\\n")
    if plan.round == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
"""


def test_killed_server_goes_on_where_it_was(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER.format(tests=str(Path(__file__).parents[1])))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(name: str, kill: int) -> int:
        command = [
            sys.executable,
            str(script),
            str(tmp_path / f"{name}.json"),
            str(tmp_path / f"{name}.log"),
            str(kill),
        ]
        return subprocess.run(command, env=environment, check=False).returncode

    assert run("whole", -1) == 0
    assert run("killed", 5) == -signal.SIGKILL
    assert run("killed", -1) == 0
    assert (tmp_path / "whole.log").read_text() == (tmp_path / "killed.log").read_text()
    assert len(list(tmp_path.glob(".*"))) == 0


def test_faults_of_all_kinds_leave_plans_feasible_and_budgets_kept() -> None:
    training = Training(10, seed=6)
    controller = make(training, budget=Budget(cost=20_000, time=200, round_cost=20))
    rng = np.random.default_rng(6)
    late: list[ClientReport] = []
    blamed = set()
    while isinstance(plan := controller.plan(), RoundPlan):
        check(plan, controller)
        reports, seconds = training.run(plan, working=rng.random(10) > 0.3)
        arrived = list(late)
        late = []
        for report in reports:
            if report.client < 2:
                x = [math.nan, math.inf, 0.0, 1e30, -5.0][plan.round % 5]
                report = dataclasses.replace(
                    report, loss=x, samples=x, samples_processed=x, seconds_computing=x
                )
            if rng.random() < 0.1:
                late.append(report)
            else:
                arrived.append(report)
        blamed |= {entry.client for entry in controller.observe(arrived, seconds=min(seconds, plan.deadline))}
    assert {0, 1} <= blamed
    assert controller.spent_cost <= 20_000 and controller.spent_seconds <= 200
    # Whoever did not answer was charged as planned, so what was really spent is less.
    assert training.cost <= controller.spent_cost
    assert training.gap() < 0.1 * training.first_gap


number = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 1e-30, 1e30, 1e59, -1.0])


@settings(max_examples=25, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(POLICIES)), devices=st.integers(1, 4))
def test_nothing_that_clients_send_breaks_the_plans(data: st.DataObject, name: str, devices: int) -> None:
    training = Training(devices, seed=18)
    controller = make(training, POLICIES[name], streaming=data.draw(st.booleans()))
    for _ in range(8):
        plan = controller.plan()
        if isinstance(plan, Stopped):
            return
        check(plan, controller)
        reports, _ = training.run(plan)
        broken = []
        for report in reports:
            fields = (
                "loss",
                "samples",
                "samples_processed",
                "seconds_computing",
                "seconds_communicating",
                "cost",
            )
            chosen = data.draw(st.sets(st.sampled_from((*fields, "halves", "pair", "gradient", "round"))))
            changes: dict[str, object] = {field: data.draw(number) for field in chosen & set(fields)}
            if "halves" in chosen:
                changes["halves"] = HalfBatches(*(data.draw(number) for _ in range(4)))
            if "pair" in chosen:
                changes["pair"] = SameBatchPair(*(data.draw(number) for _ in range(5)))
            if "gradient" in chosen:
                changes["gradient"] = data.draw(st.lists(number, max_size=4).map(np.array))
            if "round" in chosen:
                changes["round"] = data.draw(st.integers(-1, 20))
            broken.append(dataclasses.replace(report, **changes))
        controller.observe(broken, seconds=data.draw(st.none() | st.floats(0, 5)))


def test_silent_device_is_no_longer_waited_for_and_comes_back() -> None:
    training = Training(4, seed=7)
    controller = make(training, budget=Budget(cost=50_000, time=200, round_cost=20), patience=2)
    alone = np.array([True, True, True, False])
    batches = []
    for round_ in range(12):
        plan = controller.plan()
        assert isinstance(plan, RoundPlan)
        working = np.ones(4, dtype=bool) if round_ in (0, 9) else alone
        reports, took = training.run(plan, working=working)
        controller.observe(reports, seconds=took, absent=np.flatnonzero(~working))
        batches.append(int(plan.batch_sizes[3]))
    assert all(size > 1 for size in batches[:3])
    assert batches[3:10] == [1] * 7  # the smallest, in case it does answer
    assert all(size > 1 for size in batches[10:])


def test_absent_devices_cost_nothing_and_silent_ones_what_was_planned() -> None:
    training = Training(3, seed=8)
    controller = make(training)
    plan = controller.plan()
    assert isinstance(plan, RoundPlan)
    reports, _ = training.run(plan)
    controller.observe(reports[:1], absent=[1])
    per_device = plan.local_steps * plan.batch_sizes + 2 * np.maximum(1, plan.batch_sizes // 4)
    assert controller.spent_cost == pytest.approx(20 + per_device[0] + per_device[2])
    # Nobody knows the speeds yet: the wait for the third is reckoned from the first one's answer.
    took = reports[0].seconds_computing + reports[0].seconds_communicating
    assert controller.spent_seconds == pytest.approx(2 * 5 * took) and 10 * took < plan.deadline


def test_incredible_accounts_are_charged_as_planned_and_told_costs_as_told() -> None:
    training = Training(3, seed=9)
    controller = make(training)
    plan = controller.plan()
    assert isinstance(plan, RoundPlan)
    reports, _ = training.run(plan)
    reports[0] = dataclasses.replace(reports[0], samples_processed=reports[0].samples_processed * 50)
    reports[1] = dataclasses.replace(reports[1], cost=7.5)
    planned = plan.local_steps * plan.batch_sizes + 2 * np.maximum(1, plan.batch_sizes // 4)
    controller.observe(reports, seconds=1.0)
    assert controller.spent_cost == pytest.approx(20 + planned[0] + 7.5 + planned[2])


@pytest.mark.parametrize("devices", [1, 2])
def test_tiny_fleets_and_single_steps(devices: int) -> None:
    training = Training(devices, seed=10)
    controller = make(training, budget=Budget(cost=1500, max_local_steps=1))
    drive(controller, training)
    assert training.gap() < 0.3 * training.first_gap


def test_identical_clients_without_any_noise() -> None:
    training = Training(4, seed=11, noise=0.0, spread=0.0)
    drive(make(training), training)
    assert training.gap() < 1e-3 * training.first_gap


def test_fleet_that_never_reports_still_gets_plans_and_stops() -> None:
    training = Training(3, seed=12)
    controller = make(training, budget=Budget(cost=2000, round_cost=20))
    while isinstance(plan := controller.plan(), RoundPlan):
        controller.observe([])
    assert plan.reason in (StopReason.COST, StopReason.GAIN) and 1000 < controller.spent_cost <= 2000


def test_stops_when_training_no_longer_pays_and_after_the_last_round() -> None:
    training = Training(10, seed=13)
    controller = make(training, budget=Budget(cost=1e6), min_gain=0.9)
    stopped = drive(controller, training, most=2000)
    assert stopped.reason is StopReason.GAIN and controller.spent_cost < 8e5
    training = Training(4, seed=13)
    controller = make(training, budget=Budget(cost=1e5, max_rounds=7))
    assert drive(controller, training).reason is StopReason.ROUNDS
    assert controller.round == 7


def test_streaming_follows_the_samples_and_a_biased_buffer_shortens_training() -> None:
    training = Training(3, seed=14)
    fleet = Fleet([10, 10, 10], 1.0, 1.0, max_batch=500)
    controller = Controller(fleet, Budget(cost=1e5, round_cost=50), 0.1, streaming=True)
    for round_ in range(8):
        plan = controller.plan()
        assert isinstance(plan, RoundPlan)
        assert np.all(plan.batch_sizes <= np.maximum(controller.estimates.samples, 1))
        training.samples = np.array([10, 10, 10 * (round_ + 1)])
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=seconds)
    np.testing.assert_array_equal(controller.estimates.samples, [10, 10, 80])
    unbiased = make_copy(controller)
    controller.gradient_error = 2.0
    with_bias, without = controller.plan(), unbiased.plan()
    assert isinstance(with_bias, RoundPlan) and isinstance(without, RoundPlan)
    assert with_bias.predicted_error > without.predicted_error


def make_copy(controller: Controller) -> Controller:
    copy = Controller(controller.fleet, controller.budget, 0.1, streaming=True)
    copy.load_state_dict(controller.state_dict())
    return copy


def test_sampler_advice_follows_order_and_noise() -> None:
    training = Training(3, seed=15)
    controller = make(training)
    for _ in range(4):
        plan = controller.plan()
        assert isinstance(plan, RoundPlan)
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=seconds)
    stream = {"capacity": 50, "arrivals": 500, "arrivals_per_round": 40.0}
    assert controller.recommend_sampler(**stream, gradient_diameter=10.0).sampler == "reservoir"
    assert controller.recommend_sampler(**stream, gradient_diameter=0.0).sampler == "fifo"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"policy": "best"}, "policy = 'best'"),
        ({"policy": "marginal"}, "max_rounds"),
        ({"caution": -1.0}, "caution"),
        ({"warm_up_rounds": 0}, "warm_up_rounds"),
        ({"deadline_slack": 0.5}, "deadline_slack"),
        ({"lowest_loss": math.nan}, "lowest_loss"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], message: str) -> None:
    arguments = {"learning_rate": 0.1, **options}
    with pytest.raises(InvalidProblemError, match=message):
        Controller(Fleet([5], 1.0, 0.0), Budget(cost=100), **arguments)


def test_wrong_use_is_named(tmp_path: Path) -> None:
    controller = make(Training(3, seed=16))
    with pytest.raises(InvalidProblemError, match="without a plan"):
        controller.observe([])
    controller.plan()
    with pytest.raises(InvalidProblemError, match="seconds"):
        controller.observe([], seconds=-1.0)
    with pytest.raises(InvalidProblemError, match="gradient_error"):
        controller.observe([], gradient_error=math.nan)
    with pytest.raises(InvalidProblemError, match="another run, with 'policy' = 'Horizon'"):
        make(Training(3, seed=16), FedAvg(1, 1)).load_state_dict(controller.state_dict())
    broken = tmp_path / "state.npz"
    broken.write_text("{")
    with pytest.raises(InvalidProblemError, match=r"state\.npz"):
        controller.load(broken)


def test_plans_compare_by_value_and_round_trip() -> None:
    plan = make(Training(3, seed=17)).plan()
    assert isinstance(plan, RoundPlan)
    again = RoundPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and hash(again) == hash(plan) and plan != 3
    assert dataclasses.replace(plan, local_steps=99) != plan
    with pytest.raises(ValueError, match="read-only"):
        plan.batch_sizes[0] = 1


def test_a_rate_that_was_set_is_checked_and_survives_a_resume() -> None:
    training, controller = Training(3, seed=18), make(Training(3, seed=18))
    planned = controller.plan()
    assert isinstance(planned, RoundPlan)
    before = planned.learning_rate
    controller.learning_rate = before / 5
    # The round that is planned keeps its rate; the next one has the new one.
    assert controller.plan() == planned
    reports, seconds = training.run(planned)
    controller.observe(reports, seconds=seconds)
    again = make(Training(3, seed=18))
    again.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    resumed = again.plan()
    assert isinstance(resumed, RoundPlan)
    assert resumed == controller.plan()
    assert resumed.learning_rate == again.learning_rate == before / 5
    for wrong in ("0.1", 0.0, -1.0, math.nan, None):
        with pytest.raises(InvalidProblemError, match="learning_rate"):
            controller.learning_rate = wrong
    assert controller.learning_rate == before / 5
