"""A device that hangs costs its deadline once or twice, and no round lasts for ever."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Controller, Fleet, InvalidProblemError, RoundPlan
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import simulate
from coopt.adapters.system import SystemModel
from online import Training

HANGS = 1e-6  # samples a second


def plan(devices: int, **options: object) -> RoundPlan:
    given: dict[str, object] = {
        "round": 0,
        "local_steps": 2,
        "batch_sizes": [4] * devices,
        "learning_rate": 0.1,
        "extra_evaluation": False,
        "deadline": 900.0,
        "predicted_cost": 8.0,
        "predicted_seconds": 0.0,
        "rounds_left": 5,
        "predicted_error": 1.0,
        "rest_local_steps": 2,
    }
    return RoundPlan(**(given | options))


def one_after_the_other(plan: RoundPlan, seconds: np.ndarray, absent: list[int]) -> float:
    """When a server that sees one answer after the other goes on, written out."""
    asked = [i for i in plan.participants if i not in absent]
    waited = [i for i in plan.expected if i not in absent] or asked
    if not asked:
        return 0.0
    limit, answered = plan.deadline, set()
    for device in sorted(asked, key=lambda i: seconds[i]):
        if seconds[device] > limit:
            return limit
        answered.add(device)
        missing = [i for i in waited if i not in answered]
        enough = len(answered) >= math.ceil(plan.quorum * len(asked))
        if not missing or enough or len(answered) == plan.quorum_count:
            return float(seconds[device])
        if device in waited:
            share = len(missing) / len(waited)
            limit = min(plan.deadline, plan.slack * max(1.0, 10 * share) * seconds[device])
    raise AssertionError("everybody has answered")


@settings(max_examples=200, deadline=None)
@given(data=st.data(), devices=st.integers(1, 9))
def test_a_round_is_over_when_a_server_that_waits_says_so(data: st.DataObject, devices: int) -> None:
    some = st.sets(st.integers(0, devices - 1)).map(sorted)
    asked = data.draw(some) or [0]
    expected = [i for i in asked if data.draw(st.booleans())]
    made = plan(
        devices,
        participants=asked,
        expected=expected,
        quorum=data.draw(st.sampled_from([1.0, 0.9, 0.5, 0.1])),
        quorum_count=data.draw(st.sampled_from([None, 1, 3, 20])),
        slack=data.draw(st.sampled_from([1.0, 2.0, math.inf])),
        deadline=data.draw(st.sampled_from([math.inf, 30.0])),
    )
    seconds = np.array([data.draw(st.floats(0.1, 100.0)) for _ in range(devices)])
    absent = data.draw(some)
    assert made.closes(seconds, absent) == pytest.approx(one_after_the_other(made, seconds, absent))


def test_what_a_plan_says_of_waiting_survives_json() -> None:
    made = plan(
        4,
        participants=[0, 2, 3],
        expected=[2, 3],
        quorum=0.5,
        quorum_count=2,
        draws=[1, 0, 2, 1],
        starts_in=3.0,
    )
    again = RoundPlan.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made and again.expected.tolist() == [2, 3]
    with pytest.raises(ValueError, match="read-only"):
        made.expected[0] = 0


class Quadratic:
    """Ten devices with F_i(w) = |w - c_i|^2 / 2, as any framework has them."""

    def __init__(self, devices: int = 10) -> None:
        rng = np.random.default_rng(0)
        self.clients = [(rng.normal(size=(80, 3)), np.zeros(80)) for _ in range(devices)]

    @staticmethod
    def gradient(model: np.ndarray, rows: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
        away = model - rows[0]
        return 0.5 * float(np.mean(np.sum(away**2, axis=1))), away.mean(axis=0)


@pytest.mark.parametrize("known", [True, False], ids=["speeds known", "speeds not known"])
def test_a_device_that_hangs_costs_its_deadline_once(known: bool) -> None:
    work, speeds = Quadratic(), np.full(10, 100.0)
    speeds[0] = HANGS
    believed = {"throughput": 100.0, "round_time": 0.5} if known else {}
    fleet = Fleet([80] * 10, 1.0, 1.0, **believed)
    controller = Controller(fleet, Budget(cost=1e9, time=40.0), 0.3, policy="horizon")
    others: list[float] = []

    class Watched(SystemModel):
        def round(self, now: int, *work: object) -> object:
            times = super().round(now, *work)
            if np.ndim(work[0]):  # not the question who is there
                others.append(float(np.max(times.total[1:])))
            return times

    run = simulate(
        controller, work.gradient, np.full(3, 5.0), work.clients, system=Watched(speeds, 0.5), progress=False
    )
    lost = np.diff(run.seconds) - others
    # From then on it is known to be at work still.
    assert len(lost) > 20 and lost[0] > 0.1
    assert (lost[1:] <= 1e-9).all() and lost.sum() < 0.1 * 40.0
    assert 35.0 < run.seconds[-1] <= 40.0


def test_the_first_round_ends_soon_after_the_others_are_back() -> None:
    fleet = Fleet([500] * 10, 1.0, 1.0)
    for budget in (Budget(cost=1e7, time=3600.0), Budget(cost=1e7)):
        plan = Controller(fleet, budget, 0.1).plan()
        assert isinstance(plan, RoundPlan)
        seconds = np.linspace(1.0, 1.4, 10)
        seconds[0] = math.inf
        # 900 s were spent here, or all of the time there is.
        assert plan.closes(seconds) == pytest.approx(2 * 1.4)
        # Most have not answered: they may be ten times as slow.
        seconds[2:] = math.inf
        assert plan.closes(seconds) == pytest.approx(2 * 9 * seconds[1])
        # Nobody has, and nobody waits for ever.
        assert plan.closes(np.full(10, math.inf)) == (900.0 if budget.time < math.inf else 3600.0)


def test_links_of_which_nobody_knows_anything_do_not_end_the_first_round() -> None:
    """It takes .02 s to compute, and all would be late by what the links take."""
    fleet = Fleet([500] * 4, 1.0, 1.0, throughput=100.0)
    controller = Controller(fleet, Budget(cost=1e7, time=400.0), 0.1)
    assert controller.wants() is None  # yet: but it will be measured
    plan = controller.plan()
    assert isinstance(plan, RoundPlan) and plan.predicted_seconds < 0.1
    assert (plan.deadline, plan.slack) == (100.0, 2.0)
    assert plan.closes([1.0, 1.2, 1.1, 1.5]) == 1.5


def test_a_loop_of_any_framework_waits_twice_at_most() -> None:
    """Without a clock of the server, the account itself knows how long it waited."""
    training = Training(6, seed=0)
    controller = Controller(Fleet(training.samples, 1.0, 1.0), Budget(cost=1e6, time=80.0), 0.1)
    alone = np.array([False, True, True, True, True, True])
    vain = 0
    while isinstance(plan := controller.plan(), RoundPlan) and plan.round < 30:
        reports, took = training.run(plan, working=alone)
        before = controller.spent_seconds
        controller.observe(reports)
        vain += controller.spent_seconds - before > took * (1 + 1e-9)
        assert (0 in plan.expected) == (plan.round < 2)
        assert 0 in plan.participants  # it still has work, and comes back by answering
    assert vain == 2
    reports, _ = training.run(plan)
    controller.observe(reports)
    again = controller.plan()
    assert isinstance(again, RoundPlan) and 0 in again.expected


def test_a_quorum_ends_rounds_and_drops_nobody_from_the_fleet() -> None:
    training = Training(6, seed=1)
    training.speed = np.array([100.0, 100.0, 100.0, 100.0, 100.0, 1.0])
    controller = Controller(
        Fleet(training.samples, 1.0, 1.0, throughput=100.0), Budget(cost=1e6, time=500.0), 0.1, quorum=0.8
    )
    for _ in range(12):
        plan = controller.plan()
        assert isinstance(plan, RoundPlan) and plan.quorum == 0.8
        reports, _ = training.run(plan)
        times = np.array([report.seconds_computing + 0.1 for report in reports])
        closed = plan.closes(times)
        assert closed == np.sort(times)[4]
        controller.observe([report for report in reports if times[report.client] <= closed], seconds=closed)
    # The fast ones are always five of six: a quorum of those who came last time would shrink round by round.
    assert len(plan.expected) >= 5


@pytest.mark.parametrize("quorum", [0.0, -1.0, 1.5, math.nan, "half"])
def test_a_quorum_is_a_share(quorum: object) -> None:
    with pytest.raises(InvalidProblemError, match="quorum = "):
        Controller(Fleet([5, 5], 1.0, 0.0), Budget(cost=100), 0.1, quorum=quorum)


def test_a_fixed_plan_may_have_a_deadline() -> None:
    work, speeds = Quadratic(4), np.array([100.0, 100.0, 100.0, HANGS])
    fixed = FixedPlan(Fleet([80] * 4, 1.0, 1.0), 6, 2, 10, 0.3, deadline=5.0)
    run = simulate(
        fixed, work.gradient, np.full(3, 5.0), work.clients, system=SystemModel(speeds), progress=False
    )
    took = np.diff(run.seconds)
    assert took.tolist() == pytest.approx([5.0, *[took[-1]] * 5]) and took[-1] < 0.5
    again = FixedPlan(Fleet([80] * 4, 1.0, 1.0), 6, 2, 10, 0.3, deadline=5.0)
    again.load_state_dict(json.loads(json.dumps(fixed.state_dict())))
    assert again.state_dict() == fixed.state_dict()


def test_waiting_for_devices_that_are_missing_does_not_make_the_others_slow() -> None:
    """The longer a round was said to take, the longer it took, and the next one was said to take longer."""
    training = Training(8, seed=0)
    controller = Controller(
        Fleet(training.samples, 1.0, 1.0), Budget(cost=1e6, time=300.0), 0.1, policy="horizon"
    )
    rng = np.random.default_rng(0)
    while isinstance(plan := controller.plan(), RoundPlan) and plan.round < 40:
        working = rng.random(8) >= 0.3
        reports, took = training.run(plan, working=working)
        # The server goes on when the round should have been over.
        seconds = took if working.all() else max(took, plan.predicted_seconds)
        controller.observe(reports, seconds=min(seconds, plan.deadline))
    known = controller._state.knowledge.measured().throughput
    assert known == pytest.approx(training.speed, rel=0.1)
