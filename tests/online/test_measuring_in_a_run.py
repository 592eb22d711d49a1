"""Measuring within a run: who asks, what it may take, what is charged, and that a run goes on bit for bit."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.errors import InvalidProblemError
from coopt.measuring.continuation import ENOUGH
from coopt.measuring.estimates.trend import Estimate
from coopt.measuring.exchange import ClientMeasure, Message, measure_clients
from coopt.measuring.from_gradients import measure
from coopt.measuring.measurement import Measurement
from coopt.online.controller import Controller
from coopt.online.measure_request import MeasureRequest, request
from coopt.online.measured import Measured
from coopt.online.round_plan import RoundPlan, Stopped
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet

DEVICES = 6
BUDGET = Budget(cost=48_000, time=60, round_cost=60)
SPEEDS = np.array([60.0, 100.0, 150.0, 200.0, 300.0, 400.0])


def controller(**options: object) -> Controller:
    federation = digits(devices=DEVICES)
    fleet = Fleet(federation.samples, gradient_noise=1.0, divergence=1.0)
    return Controller(fleet, options.pop("budget", BUDGET), 0.3, **options)


class Rounds:
    """A planner that notes the plans that it passes on."""

    def __init__(self, planner: Controller) -> None:
        self.planner, self.plans = planner, []
        self.charges: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.planner, name)

    def plan(self, **options: object) -> RoundPlan | Stopped:
        found = self.planner.plan(**options)
        if isinstance(found, RoundPlan):
            self.plans.append(found)
        return found

    def measured(self, *given: object, **more: object) -> None:
        before = self.planner.spent_cost, self.planner.spent_seconds
        self.planner.measured(*given, **more)
        now = self.planner.spent_cost, self.planner.spent_seconds
        self.charges.append((now[0] - before[0], now[1] - before[1]))


def train(planner: Controller) -> tuple[Rounds, float]:
    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    rounds = Rounds(planner)
    system = SystemModel(SPEEDS, 0.1, compute_jitter=0.2, link_jitter=0.2)
    run = simulate(rounds, model.gradient, model.start(), federation.clients, system=system, progress=False)
    return rounds, float(run.losses[-1])


@pytest.fixture(scope="module")
def trained() -> tuple[Rounds, float]:
    return train(controller())


def test_a_run_measures_once_within_a_tenth_and_then_follows_its_plan(trained: tuple[Rounds, float]) -> None:
    rounds, _ = trained
    rules = [plan.policy for plan in rounds.plans]
    assert rules[:3] == ["warm-up"] * 3 and set(rules[3:]) == {"schedule"}
    [(cost, seconds)] = rounds.charges
    assert 0 < cost <= 0.1 * BUDGET.cost and 0 < seconds <= 0.13 * BUDGET.time
    assert rounds.planner.measurement is not None
    assert rounds.spent_cost <= BUDGET.cost and rounds.spent_seconds <= BUDGET.time * 1.02
    # Once measured, nobody evaluates more gradients to learn of curvature.
    assert not any(plan.extra_evaluation for plan in rounds.plans[3:])
    assert max(rounds.spent_cost / BUDGET.cost, rounds.spent_seconds / BUDGET.time) > 0.93
    assert {plan.learning_rate for plan in rounds.plans} == {0.3}


def test_it_trains_better_than_by_the_reports_alone(trained: tuple[Rounds, float]) -> None:
    _, loss = trained
    alone, other = train(controller(policy="horizon"))
    assert {plan.policy for plan in alone.plans} == {"warm-up", "horizon"} and not alone.charges
    assert loss < other


def test_where_rounds_are_few_one_is_enough_to_warm_up_before_a_measurement() -> None:
    """Three of five rounds would be lost; without a measurement estimates need them all the same."""
    few = Budget(cost=20_000, max_rounds=5)
    rounds, loss = train(controller(budget=few))
    assert [plan.policy for plan in rounds.plans] == ["warm-up"] + ["schedule"] * 4
    assert rounds.spent_cost > 0.9 * few.cost
    alone, other = train(controller(budget=few, policy="horizon"))
    assert [plan.policy for plan in alone.plans][:3] == ["warm-up"] * 3 and loss < other


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_few_directions_are_continued_where_a_controller_plans() -> None:
    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    found = measure(model.gradient, model.start(), federation.clients, directions=4, rows=4, progress=False)
    held = Measured()
    held.take(found, None, at=3, steps=1, loss=Estimate(2.3, 0.1))
    restored = held.restored("measured", held.state_dict())
    for each in (held, restored):
        assert each.forecast is not None and each.forecast.model.gradients.shape[1] == ENOUGH
    # Plans that are made once take what was measured.
    assert found.forecast().model.gradients.shape[1] == 4


@pytest.mark.parametrize("asks", [False, True])
def test_a_network_that_asks_for_batches_of_two_gets_them(asks: bool) -> None:
    """Its samples do not yet show how it curves: see `Measurement.smallest_batch`."""

    class Network(Rounds):
        def measured(self, measurement: Measurement, **more: object) -> None:
            assert measurement.sample_curvatures is not None
            steep = 0.5 if asks else 2.0
            found = dataclasses.replace(
                measurement,
                curvature_kind="gauss-newton",
                sample_curvature=steep * float(measurement.spectrum[0]),
                # Batches of one stay stable even where these grow.
                sample_curvatures=measurement.sample_curvatures / 4.0,
            )
            assert found.smallest_batch == (2 if asks else 1)
            super().measured(found, **more)

    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    rounds = Network(controller(budget=Budget(cost=20_000, max_rounds=20)))
    system = SystemModel(SPEEDS, 0.1)
    simulate(rounds, model.gradient, model.start(), federation.clients, system=system, progress=False)
    planned = [plan.batch_sizes.min() for plan in rounds.plans if plan.policy == "schedule"]
    assert min(planned) == (2 if asks else 1)


def test_no_last_round_has_batches_that_are_not_trusted() -> None:
    """One sample on a device of its own kind took a network from 21 to 10 % in its last round."""

    class Late(Rounds):
        def measured(self, measurement: Measurement, **more: object) -> None:
            flat = 0.5 * float(measurement.spectrum[0])
            found = dataclasses.replace(measurement, curvature_kind="gauss-newton", sample_curvature=flat)
            assert found.smallest_batch == 2
            super().measured(found, **more)
            # Time for one sample on the slowest device, not for two.
            self.planner.wait(self.planner.time_left - 0.125)

    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    rounds = Late(controller(budget=Budget(time=60)))
    system = SystemModel(SPEEDS, 0.1)
    simulate(rounds, model.gradient, model.start(), federation.clients, system=system, progress=False)
    assert [plan.policy for plan in rounds.plans] == ["warm-up"] * 3


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_a_network_is_measured_again_before_its_rounds_grow() -> None:
    """Where training begins it is nearly flat, which calls for long rounds of tiny batches."""

    class Network(Rounds):
        def measured(self, measurement: Measurement, **more: object) -> None:
            super().measured(dataclasses.replace(measurement, curvature_kind="gauss-newton"), **more)

    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    rounds = Network(controller(budget=Budget(time=200)))
    system = SystemModel(SPEEDS, 2.0)
    simulate(rounds, model.gradient, model.start(), federation.clients, system=system, progress=False)
    steps = np.array([plan.local_steps for plan in rounds.plans])
    assert steps[:3].tolist() == [1, 1, 1] and steps[3] == 4 and 4 < steps.max() <= 64
    _, *later = rounds.charges
    assert 1 <= len(later) <= 2


def test_a_server_that_never_asks_gets_the_rule_that_needs_no_measurement() -> None:
    few = Budget(max_rounds=12, cost=20_000)
    silent, asked = controller(budget=few), controller(budget=few, policy="horizon")

    class Deaf(Rounds):
        def wants(self, **options: object) -> None:
            """Cannot measure."""

    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    plans = []
    for planner in (silent, asked):
        rounds = Deaf(planner)
        system = SystemModel(SPEEDS, 0.1, compute_jitter=0.2)
        simulate(rounds, model.gradient, model.start(), federation.clients, system=system, progress=False)
        plans.append([plan.to_dict() for plan in rounds.plans])
    assert {plan["policy"] for plan in plans[0][3:]} == {"horizon"}
    # NaN in the plans of the warm-up.
    assert repr(plans[0]) == repr(plans[1])


def test_a_state_goes_on_bit_for_bit_in_the_middle_of_a_plan(trained: tuple[Rounds, float]) -> None:
    whole, _ = trained
    moved: list[Controller] = []

    class Interrupted(Rounds):
        """Saves itself, and goes on in a new controller before every fifth round."""

        def plan(self) -> RoundPlan | Stopped:
            if len(self.plans) % 5 == 4:
                fresh = controller()
                fresh.load_state_dict(json.loads(json.dumps(self.planner.state_dict())))
                self.planner = fresh
                moved.append(fresh)
            return super().plan()

    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    rounds = Interrupted(controller())
    system = SystemModel(SPEEDS, 0.1, compute_jitter=0.2, link_jitter=0.2)
    simulate(rounds, model.gradient, model.start(), federation.clients, system=system, progress=False)
    assert len(moved) > 10 and moved[-1].measurement == whole.planner.measurement
    assert repr([p.to_dict() for p in rounds.plans]) == repr([p.to_dict() for p in whole.plans])


def test_a_refused_state_leaves_the_controller_as_it_was(trained: tuple[Rounds, float]) -> None:
    state = trained[0].planner.state_dict()
    fresh = controller()
    before = json.dumps(fresh.state_dict())
    for changed in (
        state["measured"] | {"measurement": "no base64!"},
        state["measured"] | {"measurement": "AAAA"},
        {},
    ):
        with pytest.raises(InvalidProblemError):
            fresh.load_state_dict(state | {"measured": changed})
        assert json.dumps(fresh.state_dict()) == before


def test_what_was_measured_has_to_be_of_the_fleet() -> None:
    planner = controller()
    task = [np.random.default_rng(i).normal(size=(30, 3)) for i in range(2)]
    found = measure(lambda w, x: (0.5 * np.mean((w - x) ** 2), (w - x).mean(axis=0)), np.ones(3), task)
    with pytest.raises(InvalidProblemError, match="measurement is of 2 devices, and the fleet has 6"):
        planner.measured(found, seconds=1.0)
    with pytest.raises(InvalidProblemError, match="measurement = 3"):
        planner.measured(3, seconds=1.0)
    with pytest.raises(InvalidProblemError, match="seconds = -1"):
        planner.measured(None, seconds=-1.0)
    assert planner.spent_seconds == 0.0
    planner.measured(None, seconds=2.0)
    assert planner.spent_seconds == 2.0 and planner.spent_cost == 60.0 and planner.measurement is None


def test_a_fixed_plan_wants_nothing_and_charges_what_is_told() -> None:
    plan = FixedPlan(Fleet([60, 40], 1.0, 1.0), 5, 2, 4, 0.1)
    assert plan.wants(gradients_a_product=2) is None
    plan.measured(None, seconds=3.0, cost=7.0)
    assert (plan.spent_seconds, plan.spent_cost) == (3.0, 7.0)


@pytest.mark.parametrize("limits", [Budget(cost=40_000), Budget(time=60), Budget(cost=40_000, time=60)])
def test_requests_keep_to_a_tenth_and_slow_devices_look_at_fewer_rows(limits: Budget) -> None:
    fleet = Fleet([400] * 5, 1.0, 1.0, throughput=[20.0, 100, 100, 100, 400], round_time=0.05)
    wanted = request(fleet, np.arange(5), left=limits, total=limits, gradients_a_product=2, seed=3)
    assert wanted is not None and wanted.exchanges == wanted.directions + 2 and wanted.seed == 3
    assert wanted.cost <= 0.1 * limits.cost and wanted.seconds <= 0.1 * limits.time
    work = wanted.samples(2)
    assert float(work.sum()) <= wanted.cost
    if limits.time < math.inf:
        assert wanted.rows[0] < wanted.rows[4] and wanted.rows[0] >= 2


def test_a_device_too_slow_is_left_out_but_not_half_of_the_fleet() -> None:
    limits = Budget(time=60)

    def asked(speeds: list[float]) -> object:
        fleet = Fleet([400] * len(speeds), 1.0, 1.0, throughput=speeds, round_time=0.05)
        every = np.arange(len(speeds))
        return request(fleet, every, left=limits, total=limits, gradients_a_product=1, seed=0)

    one = asked([0.5] + [100.0] * 10)
    assert one is not None and one.left_out.tolist() == [0]
    assert asked([0.5] * 5 + [100.0] * 5) is None


def test_rather_more_are_left_out_than_that_nothing_is_measured() -> None:
    """Two slow phones with a fifth of the data, as there are among ten: reports alone plan far worse."""
    limits = Budget(cost=40_000, time=60)

    def left_out(slow: float) -> list[int]:
        speeds = [slow] * 2 + [100.0] * 8
        fleet = Fleet([400] * 10, 1.0, 1.0, throughput=speeds, round_time=0.05)
        found = request(fleet, np.arange(10), left=limits, total=limits, gradients_a_product=1, seed=0)
        assert found is not None
        return found.left_out.tolist()

    assert left_out(0.5) == [0, 1]
    # Whoever can be measured in twice the usual time is.
    assert left_out(5.0) == []


def test_nothing_is_wanted_where_too_little_is_left() -> None:
    fleet = Fleet([400] * 5, 1.0, 1.0, throughput=100.0)
    total = Budget(cost=40_000)

    def asked(left: float) -> MeasureRequest | None:
        return request(
            fleet, np.arange(5), left=Budget(cost=left), total=total, gradients_a_product=1, seed=0
        )

    # Four directions on two rows of five devices take 120 samples, and 30 % of what is left at most.
    assert asked(300) is None and asked(399) is None
    least = asked(401)
    assert least is not None and least.directions == 4 and least.cost == 120


def test_the_first_rounds_are_brief_where_the_server_measures_later() -> None:
    """A server that never asks what to measure plans by reports alone, and has to learn of the loss."""
    plans = []
    for asks in (True, False):
        controller = Controller(Fleet([400] * 5, 1.0, 1.0), Budget(cost=1e6, time=1000.0), 0.1)
        assert not (asks and controller.wants() is not None)
        plan = controller.plan()
        assert isinstance(plan, RoundPlan)
        plans.append((plan.local_steps, plan.batch_sizes.tolist()))
    assert plans == [(1, [2] * 5), (2, [16] * 5)]


def test_a_fifth_of_a_small_budget_is_measured_with() -> None:
    """At 10 % of this nothing fits: rates and steps would stay as they were given."""
    fleet = Fleet([400] * 5, 1.0, 1.0, throughput=100.0)
    total = Budget(cost=1000)
    found = request(fleet, np.arange(5), left=Budget(cost=900), total=total, gradients_a_product=1, seed=0)
    assert found is not None and (found.directions, found.cost) == (8, 160)


def test_rows_may_differ_by_device_here_and_far_away() -> None:
    rng = np.random.default_rng(0)
    clients = [rng.normal(size=(50, 4)) + i for i in range(3)]

    def gradient(w: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.5 * float(np.mean(np.sum((w - x) ** 2, axis=1))), (w - x).mean(axis=0)

    workers = [ClientMeasure(i, gradient, data) for i, data in enumerate(clients)]

    def ask(message: Message, asked: list[int]) -> list[tuple[int, Message]]:
        return [(i, workers[i].answer(message)) for i in asked]

    rows = [0, 4, 12]
    far = measure_clients(ask, np.ones(4), [50] * 3, rows=rows, directions=3)
    here = measure(gradient, np.ones(4), clients, rows=rows, directions=3)
    for found in (far, here):
        assert found.rows.tolist() == rows and found.measured.tolist() == [False, True, True]
    with pytest.raises(InvalidProblemError, match="rows is given for each device, and samples too"):
        measure(gradient, np.ones(4), clients, rows=rows, samples=1000)
    with pytest.raises(InvalidProblemError, match="client 0 is asked to measure on no rows"):
        workers[0].answer(
            Message("gradient", {"parameters": np.ones(4), "rows": np.array([0, 4, 4]), "seed": np.array(0)})
        )
