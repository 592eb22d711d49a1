"""Some devices a round, devices that come and go, and devices that are there at certain times."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Availability, Budget, ClientReport, Controller, Fleet, InvalidProblemError, RoundPlan
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, simulate
from coopt.adapters.system import RoundTimes, SystemModel
from online import Training


def drawn(devices: int, many: int, **options: object) -> Controller:
    training = Training(devices, seed=0)
    budget = Budget(cost=1e5, round_cost=20, participants=many, **options)
    weights = np.full(devices, 1 / devices) if options.get("distinct_participants") else None
    return Controller(Fleet(training.samples, 1.0, 1.0, weights=weights), budget, 0.1, curvature_floor=0.0)


@pytest.mark.parametrize("distinct", [False, True])
def test_plans_name_who_takes_part_and_accounts_charge_what_ran(distinct: bool) -> None:
    """Of 100 devices 10 a round: 2,867 were predicted and 260 charged, and the others counted as dead."""
    training, controller = Training(100, seed=0), drawn(100, 10, distinct_participants=distinct)
    times = np.zeros(100)
    for _ in range(25):
        plan = controller.plan()
        assert isinstance(plan, RoundPlan) and plan.draws is not None
        assert plan.draws.sum() == 10 and (not distinct or plan.draws.max() == 1)
        np.testing.assert_array_equal(plan.participants, np.flatnonzero(plan.draws))
        np.testing.assert_array_equal(plan.expected, plan.participants)
        working = plan.draws > 0
        times += plan.draws
        before = controller.spent_cost
        reports, seconds = training.run(plan, working=working)
        controller.observe(reports, seconds=seconds)
        assert controller.spent_cost - before == pytest.approx(plan.predicted_cost)
    # Whoever was not drawn has missed nothing: plans reckon with all of them.
    assert controller._state.roster.attendance.reckoned(controller.patience).all()
    assert np.count_nonzero(times) > 80
    assert training.gap() < 0.1 * training.first_gap


@pytest.mark.parametrize("distinct", [False, True])
def test_draws_have_the_stated_frequencies_and_depend_on_the_seed_alone(distinct: bool) -> None:
    weights = [0.4, 0.3, 0.2, 0.1] if not distinct else [0.25] * 4
    fleet = Fleet([10] * 4, 1.0, 1.0, weights=weights)

    def plans(seed: int, rounds: int) -> np.ndarray:
        fixed = FixedPlan(fleet, rounds, 1, 2, 0.1, participants=2, distinct_participants=distinct, seed=seed)
        found = []
        while isinstance(plan := fixed.plan(), RoundPlan):
            found.append(plan.draws)
            fixed.observe([], seconds=1.0)
        # A device that does not answer is charged; 2 samples of each that was drawn.
        assert fixed.spent_cost == 2.0 * sum(np.count_nonzero(draws) for draws in found)
        return np.array(found)

    draws = plans(0, 600)
    # Four standard deviations of a mean of 600 draws.
    np.testing.assert_allclose(draws.mean(axis=0), 2 * np.array(weights), atol=0.12)
    np.testing.assert_array_equal(draws[:20], plans(0, 20))
    assert not np.array_equal(draws[:20], plans(1, 20))


def test_the_average_counts_each_as_often_as_it_was_drawn() -> None:
    """The mean over all draws is the average by p_i, which is what the sampling theorem needs."""
    clients = [(np.full((20, 1), centre), np.zeros(20)) for centre in (-3.0, 1.0, 8.0)]
    fleet = Fleet([20] * 3, 1.0, 1.0, weights=[0.5, 0.3, 0.2])

    def gradient(model: np.ndarray, rows: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
        return float(np.mean((model - rows[0]) ** 2) / 2), (model - rows[0]).mean(axis=0)

    ends = []
    for seed in range(200):
        fixed = FixedPlan(fleet, 1, 1, 1, 1.0, participants=2, seed=seed)
        plan = fixed.plan()
        assert isinstance(plan, RoundPlan) and plan.draws is not None
        run = simulate(
            fixed, gradient, [0.0], clients, system=SystemModel([1.0] * 3), seed=seed, progress=False
        )
        assert run.parameters[0] == pytest.approx(plan.draws @ [-3.0, 1.0, 8.0] / 2)
        ends.append(run.parameters[0])
    mean = float(fleet.weights @ [-3.0, 1.0, 8.0])
    # kappa = 1/m of the spread of the models: section "Some devices a round" of the docs.
    spread = float(fleet.weights @ (np.array([-3.0, 1.0, 8.0]) - mean) ** 2)
    assert np.mean(ends) == pytest.approx(mean, abs=4 * math.sqrt(spread / 2 / 200))
    assert np.var(ends) == pytest.approx(spread / 2, rel=0.35)


@settings(max_examples=15, deadline=None)
@given(many=st.integers(1, 8), distinct=st.booleans(), seed=st.integers(0, 20), cost=st.floats(100, 4000))
def test_a_budget_with_draws_is_never_overrun_and_a_run_resumes(
    many: int, distinct: bool, seed: int, cost: float
) -> None:
    training = Training(8, seed=seed)
    budget = Budget(
        cost=cost, time=20.0, round_cost=5, participants=many, distinct_participants=distinct, max_rounds=30
    )
    fleet = Fleet(training.samples, 1.0, 1.0, weights=[1 / 8] * 8, round_cost=2.0)
    controller = Controller(fleet, budget, 0.1, seed=seed)
    while isinstance(plan := controller.plan(), RoundPlan):
        assert plan.predicted_cost <= cost - controller.spent_cost
        if plan.round % 4 == 0:
            again = Controller(fleet, budget, 0.1, seed=seed)
            again.load_state_dict(json.loads(json.dumps(controller.state_dict())))
            assert again.plan() == plan
            controller = again
        reports, seconds = training.run(plan, working=plan.draws > 0)
        controller.observe(reports, seconds=min(seconds, plan.deadline))
    assert controller.spent_cost <= cost and controller.spent_seconds <= 20.0 * (1 + 1e-9)


def test_devices_that_are_away_are_not_drawn() -> None:
    controller = drawn(6, 3, distinct_participants=True)
    plan = controller.plan(absent=[0, 1, 2])
    assert isinstance(plan, RoundPlan) and plan.participants.tolist() == [3, 4, 5]
    for wrong in ([9], ["phone"]):
        with pytest.raises(InvalidProblemError, match="absent = "):
            drawn(6, 3).plan(absent=wrong)


def test_a_number_that_cannot_be_drawn_is_refused() -> None:
    fleet = Fleet([10, 20], 1.0, 1.0)
    with pytest.raises(InvalidProblemError, match="distinct_participants = True: needs equal weights"):
        Controller(fleet, Budget(cost=100, participants=1, distinct_participants=True), 0.1)
    with pytest.raises(InvalidProblemError, match="participants = 3: must not exceed the 2 devices"):
        FixedPlan(fleet, 3, 1, 1, 0.1, participants=3, distinct_participants=True)


def report(i: int, plan: RoundPlan) -> ClientReport:
    size = int(plan.batch_sizes[i])
    return ClientReport(
        client=i,
        round=plan.round,
        samples=100,
        local_steps=plan.local_steps,
        batch_size=size,
        samples_processed=plan.local_steps * size,
        loss=1.0,
        seconds_computing=plan.local_steps * size / (20.0 + i),
    )


def test_a_sixth_device_joins_and_all_that_is_known_of_the_others_stays() -> None:
    def fresh(devices: int) -> Controller:
        return Controller(Fleet([100] * devices, 1.0, 1.0), Budget(cost=1e5, time=1e4), 0.1)

    controller = fresh(5)
    for _ in range(6):
        plan = controller.plan()
        controller.observe([report(i, plan) for i in range(5)])
    known = controller.estimates.timing.seconds()[1]
    state = json.loads(json.dumps(controller.state_dict()))
    controller.join(Fleet([100], 1.0, 1.0))
    np.testing.assert_array_equal(controller.estimates.timing.seconds()[1][:5], known)
    np.testing.assert_allclose(controller.fleet.weights, 1 / 6)
    plan = controller.plan()
    assert isinstance(plan, RoundPlan) and plan.participants.tolist() == list(range(6))
    assert controller.observe([report(i, plan) for i in range(6)]) == []
    assert controller.estimates.timing.known.all()
    # The state of five goes on in a controller that was made for six.
    six = fresh(6)
    six.load_state_dict(state)
    np.testing.assert_array_equal(six.estimates.timing.seconds()[1][:5], known)
    assert six.round == 6 and isinstance(six.plan(), RoundPlan)
    with pytest.raises(InvalidProblemError, match="is of another run, with 'fleet"):
        fresh(5).load_state_dict(six.state_dict())


def test_a_device_leaves_and_comes_back() -> None:
    controller = Controller(Fleet([100, 300, 100], 1.0, 1.0), Budget(cost=1e5), 0.1)
    plan = controller.plan()
    for change in (lambda: controller.leave(0), lambda: controller.join(0)):
        with pytest.raises(InvalidProblemError, match="while a round is under way"):
            change()
    controller.observe([report(i, plan) for i in range(3)])
    controller.leave(0)
    np.testing.assert_allclose(controller.fleet.weights, [0.0, 0.75, 0.25])
    plan, before = controller.plan(), controller.spent_cost
    assert plan.participants.tolist() == [1, 2]
    controller.observe([report(i, plan) for i in (1, 2)])
    assert controller.spent_cost - before == plan.local_steps * plan.batch_sizes[1:].sum()
    again = Controller(Fleet([100, 300, 100], 1.0, 1.0), Budget(cost=1e5), 0.1)
    again.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    assert again.plan() == controller.plan() and again.fleet == controller.fleet
    controller.observe([])
    controller.join(0)
    np.testing.assert_allclose(controller.fleet.weights, [0.2, 0.6, 0.2])
    assert controller.plan().participants.tolist() == [0, 1, 2]
    controller.observe([])
    controller.leave(0)
    controller.leave(1)
    for wrong, message in ((2, "no device with a weight would be left"), (7, "there is no such device")):
        with pytest.raises(InvalidProblemError, match=message):
            controller.leave(wrong)
    with pytest.raises(InvalidProblemError, match="share = 2"):
        controller.join(Fleet([1], 1.0, 1.0), share=2)


def test_times_of_day_are_those_that_were_given() -> None:
    hour = 3600.0
    night = Availability([22 * hour, 9 * hour], [6 * hour, 17 * hour], period=24 * hour, begins=12 * hour)
    assert night.there(0.0).tolist() == [False, True]
    assert night.there(11 * hour).tolist() == [True, False]
    changes, now = [], 0.0
    for _ in range(5):
        now = night.next_change(now)
        changes.append(round(now / hour, 9))
    assert changes == [5.0, 10.0, 18.0, 21.0, 29.0]
    for until in (0.0, 3.0, 7.0, 25.0, 49.0):
        grid = (np.arange(0, until, 0.01) + 0.005) * hour
        share = np.array([night.there(t) for t in grid]).reshape(-1, 2).sum(axis=0) * 0.01
        np.testing.assert_allclose(night.seconds(until * hour) / hour, share, atol=0.02)
    assert night == night.of(2) and night != Availability()
    for arguments, message in (
        (([1.0, 2.0], [3.0, 1.0]), r"closes\[1\] = 1\.0: must be after"),
        ((5.0, 2.0, 4.0), r"opens\[0\] = 5\.0: must be <= period"),
        ((-1.0,), r"opens = -1\.0"),
    ):
        with pytest.raises(InvalidProblemError, match=message):
            Availability(*arguments)
    with pytest.raises(InvalidProblemError, match="availability names 2 devices, the fleet has 3"):
        Controller(Fleet([5] * 3, 1.0, 1.0), Budget(time=10.0), 0.1, availability=night)
    with pytest.raises(InvalidProblemError, match=r"cost = 10\.0 with availability and no limit on the time"):
        Controller(Fleet([5] * 2, 1.0, 1.0), Budget(cost=10.0), 0.1, availability=night)


def two_halves(late: float, time: float, known: bool) -> tuple[float, list[float], Controller]:
    """Ten devices, of which five with other data come late; the loss that training ends with."""
    rng = np.random.default_rng(0)
    truth, clients = rng.normal(size=8), []
    for i in range(10):
        side = 1.0 if i >= 5 else -1.0
        x = rng.normal(size=(80, 8))
        x[:, 0] += 1.5 * side
        clients.append((x, (x @ truth + 2.0 * side * x[:, 0] + 0.5 * rng.normal(size=80) > 0).astype(int)))
    times = Availability([0.0] * 5 + [late * time] * 5) if known else None
    controller = Controller(
        Fleet([80] * 10, 1.0, 1.0),
        Budget(cost=3e4, time=time),
        0.3,
        availability=times,
        curvature_floor=0.0,
    )

    class ByTheClock(SystemModel):
        def round(self, now: int, *work: object) -> RoundTimes:
            found = super().round(now, *work)
            away = np.arange(10) >= (5 if controller.spent_seconds < late * time else 10)
            return RoundTimes(found.computing, found.communicating, found.absent | away)

    model = Softmax(8, 2)
    run = simulate(
        controller,
        model.gradient,
        model.start(),
        clients,
        system=ByTheClock([100.0] * 10, 1.0),
        progress=False,
    )
    spent_before = float(np.max(run.costs[run.seconds <= late * time]))
    return float(run.losses[-1]), [spent_before, float(run.costs[-1])], controller


@pytest.mark.parametrize("late", [0.5, 0.9])
def test_not_all_is_spent_before_the_others_come(late: float) -> None:
    loss, spent, controller = two_halves(late, 4000.0, known=True)
    # Each half of the fleet has half of the cost, spread over the time that it is there.
    assert spent[0] <= 3e4 * late / 2 and spent[1] > 0.9 * 3e4
    assert controller.spent_cost <= 3e4 and controller.spent_seconds > 4000.0 * late
    # 0.307 where all are there all the time; 1.88 where nobody tells the controller when they come.
    assert loss < 0.33


def test_a_wait_for_devices_is_in_the_plan_and_in_the_account() -> None:
    fleet = Fleet([50] * 2, 1.0, 1.0, throughput=10.0)
    controller = Controller(fleet, Budget(time=100.0), 0.1, availability=Availability(30.0, 60.0))
    plan = controller.plan()
    assert isinstance(plan, RoundPlan) and plan.starts_in == 30.0 and plan.deadline <= 70.0
    controller.wait(10.0)
    assert controller.plan().starts_in == 20.0
    controller.wait(20.0)
    assert controller.plan().starts_in == 0.0
    controller.observe([report(i, plan) for i in range(2)], seconds=31.0)
    # Nobody comes any more.
    assert controller.spent_seconds == 61.0 and controller.plan().reason.name == "TIME"
