"""The Flower strategy against nodes in this process: own tasks, deadlines, faults, never overspent."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flwr") is None:
    pytest.skip("flwr is not installed", allow_module_level=True)

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx, Strategy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coopt import Budget, Controller, CooptError, Fleet, InvalidProblemError, Stopped
from coopt.adapters.aggregate import step_factors
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.flower import CoOptResult, CoOptStrategy, ask_samples
from coopt.adapters.flower.client import client_app, partition_id
from fake_grid import DIMENSION, FakeGrid, FakeTime, Node, Quadratic, install_clock, is_training, tasks_of

SAMPLES = [60, 40, 80, 50]
QUIET = {"fraction_evaluate": 0.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return install_clock(monkeypatch)


def controller(cost: float = 2500.0, time: float = 200.0, **options: Any) -> Controller:
    budget = Budget(cost=cost, time=time, round_cost=20, max_rounds=options.pop("max_rounds", None))
    return Controller(
        Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0), budget, learning_rate=0.1, **options
    )


def nodes(**behaviour: Any) -> tuple[Quadratic, dict[int, Node]]:
    work = Quadratic(SAMPLES)
    return work, {100 + 7 * i: work.node(i, **behaviour) for i in range(len(SAMPLES))}


def start() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.full(DIMENSION, 5.0))})


def each(result: CoOptResult, name: str) -> np.ndarray:
    """What every round added."""
    return np.diff([getattr(record, name) for record in result.rounds], prepend=0)


def check(result: CoOptResult, strategy: CoOptStrategy, rounds: int | None = None) -> None:
    """What holds of every run, whatever happens in it."""
    used = strategy.controller
    assert isinstance(used, Controller)
    budget = used.budget
    assert [record.round for record in result.rounds] == list(range(used.round))
    assert np.all(each(result, "cost") > 0) and result.rounds[-1].cost == used.spent_cost
    assert np.all(each(result, "seconds") >= 0) and result.rounds[-1].seconds <= used.spent_seconds
    assert used.spent_cost <= budget.cost * (1 + 1e-9)
    assert used.spent_seconds <= budget.time * (1 + 1e-9)
    assert np.all(np.isfinite(result.arrays["w"].numpy()))
    assert rounds is None or len(result.rounds) == rounds


def test_every_node_gets_the_work_planned_for_its_device(clock: FakeTime) -> None:
    work, all_nodes = nodes()
    strategy = CoOptStrategy(controller(), seed=5)
    result = strategy.start(FakeGrid(clock, all_nodes), start())
    check(result, strategy)
    assert len(result.rounds) > 10
    for node in all_nodes.values():
        tasks = tasks_of(node)
        assert [task.round for task in tasks] == list(range(len(result.rounds)))
        for task, record in zip(tasks, result.rounds, strict=True):
            assert task.device == node.device and task.seed == 5 and task.learning_rate == 0.1
            assert task.local_steps == record.local_steps
            assert task.batch_size == record.batch_sizes[node.device]
    assert len({tuple(record.batch_sizes) for record in result.rounds}) > 3
    assert any(len(set(record.batch_sizes)) > 1 for record in result.rounds)
    best = np.average([data.mean(axis=0) for data in work.data], axis=0, weights=SAMPLES)
    assert np.linalg.norm(result.arrays["w"].numpy() - best) < 0.5
    assert isinstance(result.stopped, Stopped) and result.stopped.reason.name == "COST"


def test_the_model_is_the_average_by_the_fleets_weights(clock: FakeTime) -> None:
    work, all_nodes = nodes()
    weights = np.array([1.0, 5.0, 2.0, 0.0]) / 8
    fleet = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0, weights=weights)
    strategy = CoOptStrategy(Controller(fleet, Budget(cost=2500), learning_rate=0.1), seed=3)
    result = strategy.start(FakeGrid(clock, all_nodes), start(), num_rounds=1)
    models = [work.train({"w": np.full(DIMENSION, 5.0)}, task, None)[0]["w"] for task in work.tasks[:4]]
    devices = [task.device for task in work.tasks[:4]]
    expected = np.average(models, axis=0, weights=weights[devices])
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected, rtol=1e-12)
    assert result.stopped is None and len(result.rounds) == 1


@pytest.mark.parametrize(
    "base",
    [
        FedAvg(**QUIET),
        FedProx(proximal_mu=0.5, **QUIET),
        FedAdam(eta=0.1, **QUIET),
        FedAvgM(server_momentum=0.5, **QUIET),
    ],
    ids=lambda base: type(base).__name__,
)
def test_any_base_strategy_aggregates_and_configures(clock: FakeTime, base: Strategy) -> None:
    _, all_nodes = nodes()
    strategy = CoOptStrategy(controller(), base)
    config = ConfigRecord({"augment": True})
    result = strategy.start(FakeGrid(clock, all_nodes), start(), train_config=config)
    check(result, strategy)
    assert result.rounds[-1].train_loss < result.rounds[0].train_loss
    for node in all_nodes.values():
        sent = [message.content["config"] for message in node.received if is_training(message)]
        assert all(record["augment"] is True for record in sent)
        assert [record["server-round"] for record in sent] == list(range(1, len(sent) + 1))
        assert all(record.get("proximal-mu") == getattr(base, "proximal_mu", None) for record in sent)
    assert dict(config) == {"augment": True}
    assert sorted(result.train_metrics_clientapp) == list(range(1, len(result.rounds) + 1))


def test_a_node_later_than_the_deadline_is_measured_and_left_in_peace(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    slow = all_nodes[100]
    slow.seconds = lambda message: 12.0 if len(slow.received) > 6 else 1.0
    strategy = CoOptStrategy(controller(cost=4000.0, time=400.0))
    result = strategy.start(FakeGrid(clock, all_nodes), start())
    check(result, strategy)
    assert sum(record.late for record in result.rounds) > 0
    # While it is busy the others go on without it; then the deadline is one that it can meet.
    done = [task.round for task in tasks_of(slow)]
    missed = [record.round for record in result.rounds if record.round not in done]
    assert missed and all(result.rounds[k].reports == 3 for k in missed)
    assert max(each(result, "seconds")[missed]) < 5
    assert result.rounds[done[-2]].reports == 4 and each(result, "seconds")[done[-2]] > 12


def test_a_dead_node_costs_what_was_planned_until_its_absence_is_known(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    dead = all_nodes[107]
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: [node for node in all_nodes if node != 107 or clock.now < 140]
    dead.seconds = lambda message: math.inf if is_training(message) and clock.now > 105 else 1.0
    strategy = CoOptStrategy(controller())
    result = strategy.start(grid, start())
    check(result, strategy)
    assert {record.reports for record in result.rounds} == {3, 4}
    lost = [record for record in result.rounds if record.sent == 4 and record.reports == 3]
    gone = [record for record in result.rounds if record.sent == 3]
    assert len(lost) >= 1 and len(gone) > 5
    costs = each(result, "cost")
    for record in lost:
        assert costs[record.round] >= 20 + record.local_steps * sum(record.batch_sizes)
    for record in gone:
        others = sum(record.batch_sizes) - record.batch_sizes[1]
        assert costs[record.round] <= 20 + record.local_steps * others + sum(record.batch_sizes)


def test_a_node_that_does_less_is_averaged_as_what_it_did_and_a_liar_gains_nothing(clock: FakeTime) -> None:
    work, all_nodes = nodes()
    honest = work.train

    def train(model: Any, task: Any, context: Any) -> Any:
        few = {0: 1, 1: task.local_steps}.get(task.device, task.local_steps)
        local, report = honest(model, dataclasses.replace(task, local_steps=few), context)
        if task.device == 1:
            report = dataclasses.replace(report, local_steps=1)
        return local, report

    for i, node in enumerate(all_nodes.values()):
        node.app = client_app(train, lambda context: 50)
        node.device = i
    fixed = FixedPlan(Fleet([50] * 4, 1.0, 1.0), 1, 20, 8, 0.01)
    strategy = CoOptStrategy(fixed, seed=3)
    result = strategy.start(FakeGrid(clock, all_nodes), start())
    began = np.full(DIMENSION, 5.0)
    changes = {task.device: honest({"w": began}, task, None)[0]["w"] - began for task in work.tasks[:4]}
    steps, norms = np.array([1, 1, 20, 20]), [np.linalg.norm(changes[i]) for i in range(4)]
    factors = step_factors(np.full(4, 0.25), steps, norms)
    # The honest one counts more, the liar hardly: its change is as long as the others'.
    assert factors[0] > 5 and factors[1] < 1.5
    expected = began + 0.25 * sum(factor * changes[i] for i, factor in enumerate(factors))
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected, rtol=1e-12)
    assert fixed.spent_cost == 4 * 20 * 8  # the server saw no steps


def test_some_nodes_a_round_are_drawn_among_those_that_are_connected(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: [node for node in all_nodes if node != 107]
    fleet = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0)
    planner = Controller(fleet, Budget(cost=2500, time=200.0, round_cost=20, participants=2), 0.1)
    strategy = CoOptStrategy(planner)
    result = strategy.start(grid, start(), num_rounds=12)
    check(result, strategy, rounds=12)
    sent = [len(tasks_of(node)) for node in all_nodes.values()]
    assert sent[1] == 0 and all(many > 0 for many in (sent[0], sent[2], sent[3]))
    assert all(1 <= record.sent <= 2 and record.arrived == record.sent for record in result.rounds)
    assert sum(sent) == sum(record.sent for record in result.rounds)


def test_a_device_that_joins_gets_work(clock: FakeTime) -> None:
    work, all_nodes = nodes()
    newcomer = all_nodes.pop(100 + 7 * 3)
    planner = controller(cost=1e5)
    planner.leave(3)
    grid = FakeGrid(clock, all_nodes | {121: newcomer})
    first = CoOptStrategy(planner).start(grid, start(), num_rounds=3)
    assert len(tasks_of(newcomer)) == 0
    planner.join(3)
    planner.join(Fleet([SAMPLES[0]], 1.0, 1.0))
    work.data.append(work.data[0])
    grid.nodes[200] = work.node(4)
    CoOptStrategy(planner).start(grid, first.arrays, num_rounds=3)
    assert len(tasks_of(newcomer)) == len(tasks_of(grid.nodes[200])) == 3


def test_a_node_that_hangs_costs_its_deadline_twice_at_most(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    hung = all_nodes[107]
    hung.seconds = lambda message: math.inf if is_training(message) else 1.0
    strategy = CoOptStrategy(controller(cost=1e5, time=300.0))
    result = strategy.start(FakeGrid(clock, all_nodes), start())
    check(result, strategy)
    took = each(result, "seconds")
    # The others take a second; the first round, of which nobody knew how long it takes, is one of the two.
    assert np.sum(took > 1.6) <= 2 and took[0] < 6.0
    assert len(result.rounds) > 200
    assert len(tasks_of(hung)) >= 3  # it has work again, and nobody waits for it


def test_a_node_that_replies_with_an_error_is_charged_and_the_round_goes_on(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    all_nodes[100].fails = is_training
    strategy = CoOptStrategy(controller())
    result = strategy.start(FakeGrid(clock, all_nodes), start())
    check(result, strategy)
    assert all(record.sent == 4 and record.reports == 3 for record in result.rounds)
    assert result.rounds[-1].train_loss < result.rounds[0].train_loss


def test_an_app_that_fails_on_every_node_does_not_burn_the_budget(clock: FakeTime, tmp_path: Path) -> None:
    _, all_nodes = nodes(fails=is_training)
    strategy = CoOptStrategy(controller(), checkpoint=tmp_path)
    with pytest.raises(CooptError, match=r"3 rounds in a row.*the app crashed"):
        strategy.start(FakeGrid(clock, all_nodes), start())
    assert strategy.controller.spent_cost < 500
    _, healthy = nodes()
    resumed = CoOptStrategy(controller(), checkpoint=tmp_path)
    result = resumed.start(FakeGrid(clock, healthy), start())
    check(result, resumed)
    assert [record.arrived for record in result.rounds[:4]] == [0, 0, 0, 4]


def test_nodes_may_all_be_missing_at_the_start_and_others_come_later(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    began = clock.now
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: [node for node in all_nodes if clock.now > began + {100: 50, 107: 50}.get(node, 70)]
    strategy = CoOptStrategy(controller())
    result = strategy.start(grid, start())
    check(result, strategy)
    assert result.rounds[0].sent == 2 and result.rounds[-1].sent == 4
    assert (
        strategy.controller.spent_seconds < clock.now - began - 49
    )  # nothing has begun while nobody is there


def test_waiting_in_the_middle_takes_from_the_time_and_may_end_training(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    began = clock.now
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: all_nodes if clock.now < began + 20 else []
    strategy = CoOptStrategy(controller(cost=1e6, time=60.0))
    result = strategy.start(grid, start())
    check(result, strategy)
    assert result.stopped is not None and result.stopped.reason.name == "TIME"
    assert 60 <= clock.now - began < 65
    assert strategy.controller.spent_seconds == pytest.approx(60, abs=0.5)


def test_a_device_that_comes_back_under_a_new_id_takes_its_old_place(clock: FakeTime) -> None:
    work, all_nodes = nodes()
    all_nodes[999] = work.node(1)
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: [node for node in all_nodes if node != (107 if clock.now > 120 else 999)]
    strategy = CoOptStrategy(controller())
    result = strategy.start(grid, start())
    check(result, strategy)
    done = [{task.round for task in tasks_of(all_nodes[node])} for node in (107, 999)]
    assert done[0] and done[1] and not done[0] & done[1]
    assert max(done[0]) < min(done[1])


@pytest.mark.parametrize("device", [4, -1])
def test_nodes_that_are_no_device_of_the_fleet_get_no_work(clock: FakeTime, device: int) -> None:
    work, all_nodes = nodes()
    all_nodes[500] = Node(device, client_app(work.train, lambda context: 1))
    all_nodes[501] = Node(0, ClientApp())  # answers no question
    strategy = CoOptStrategy(controller())
    result = strategy.start(FakeGrid(clock, all_nodes), start())
    check(result, strategy)
    for stranger in (500, 501):
        assert not tasks_of(all_nodes[stranger])
        assert len(all_nodes[stranger].received) == 3  # asked again, but not for ever
    assert all(record.sent == 4 for record in result.rounds)


def test_a_node_that_comes_back_mended_is_asked_again(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    all_nodes[107].fails = lambda message: clock.now < 120
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: [node for node in all_nodes if node != 107 or not 120 < clock.now < 125]
    strategy = CoOptStrategy(controller())
    result = strategy.start(grid, start())
    check(result, strategy)
    assert result.rounds[0].sent == 3 and result.rounds[-1].sent == 4


def test_another_start_than_its_own_is_told_so(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    with pytest.raises(InvalidProblemError, match="as `base`"):
        Strategy.start(CoOptStrategy(controller()), FakeGrid(clock, all_nodes), start())


def change(content: RecordDict, how: str) -> None:
    wrong = {
        "no model": lambda: content.pop("arrays"),
        "other arrays": lambda: content["arrays"].update({"v": Array(np.zeros(2))}),
        "other shape": lambda: content["arrays"].update({"w": Array(np.zeros(DIMENSION + 1))}),
        "not finite": lambda: content["arrays"].update({"w": Array(np.full(DIMENSION, np.nan))}),
        "not an array": lambda: content["arrays"].update(
            {"w": Array("float64", (DIMENSION,), "numpy.ndarray", b"")}
        ),
        "not numbers": lambda: content["arrays"].update({"w": Array(np.array(["a", "b", "c"]))}),
        "no report": lambda: content.pop("coopt"),
        "empty report": content.get("coopt", {}).clear,
        "lists in the report": lambda: content["coopt"].update({"loss": [1.0, 2.0]}),
        "unknown entry": lambda: content["coopt"].update({"colour": 3}),
        "another device": lambda: content["coopt"].update({"client": 3, "round": 99}),
        "nonsense": lambda: content["coopt"].update(
            {"loss": math.nan, "seconds_computing": -1.0, "samples_processed": 10**12}
        ),
        "broken vector": lambda: content["coopt-vectors"].update(
            {"gradient": Array("float64", (3,), "numpy.ndarray", b"x")}
        ),
        "more metrics": lambda: content["metrics"].update({"accuracy": 0.5, "curve": [1.0, 2.0]}),
        "no metrics": lambda: content.pop("metrics"),
        "wrong weight": lambda: content["metrics"].update({"num-examples": [1, 2]}),
        "huge weight": lambda: content["metrics"].update({"num-examples": 10**12}),
    }
    wrong[how]()


USES_MODEL = {
    "no report": 3,
    "empty report": 3,
    "lists in the report": 3,
    "unknown entry": 3,
    "broken vector": 3,
    "another device": 4,
    "nonsense": 4,
    "more metrics": 4,
    "no metrics": 4,
    "wrong weight": 4,
    "huge weight": 4,
}
LOSES_MODEL = ["no model", "other arrays", "other shape", "not finite", "not an array", "not numbers"]


@pytest.mark.parametrize("how", [*USES_MODEL, *LOSES_MODEL])
def test_malformed_replies_harm_nothing_but_themselves(clock: FakeTime, how: str) -> None:
    _, all_nodes = nodes()

    def spoil(reply: Message) -> Message:
        if is_training(reply):
            change(reply.content, how)
        return reply

    all_nodes[100].spoil = spoil
    honest_work, honest = nodes()
    results = []
    for fleet in (all_nodes, honest):
        strategy = CoOptStrategy(controller(max_rounds=6))
        result = strategy.start(FakeGrid(clock, fleet), start(), num_rounds=1)
        check(result, strategy, rounds=1)
        results.append(result)
    same = np.array_equal(results[0].arrays["w"].numpy(), results[1].arrays["w"].numpy())
    assert same == (how in USES_MODEL)
    assert results[0].rounds[0].reports == USES_MODEL.get(how, 3)
    assert honest_work.tasks


def test_metrics_of_ones_own_are_aggregated_where_all_nodes_give_them(clock: FakeTime) -> None:
    _, all_nodes = nodes()

    def spoil(device: int) -> Any:
        def add(reply: Message) -> Message:
            if is_training(reply):
                reply.content["metrics"].update({"accuracy": float(device)})
                if device:
                    reply.content["metrics"].update({"some": 1.0})
            return reply

        return add

    for node in all_nodes.values():
        node.spoil = spoil(node.device)
    strategy = CoOptStrategy(controller())
    result = strategy.start(FakeGrid(clock, all_nodes), start(), num_rounds=2)
    expected = np.average(range(4), weights=SAMPLES)
    assert dict(result.train_metrics_clientapp[2]) == {"accuracy": pytest.approx(expected)}


def test_evaluation_on_nodes_and_server_is_not_charged(clock: FakeTime) -> None:
    _, all_nodes = nodes(seconds=lambda message: 1.0 if is_training(message) else 30.0)
    for node in all_nodes.values():

        @node.app.evaluate()
        def evaluate(message: Message, context: Any) -> Message:
            metrics = MetricRecord({"loss": 1.0 * partition_id(context), "num-examples": 10})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

    strategy = CoOptStrategy(controller(), FedAvg())
    seen = []

    def evaluate_fn(number: int, arrays: ArrayRecord) -> MetricRecord:
        clock.sleep(5)
        seen.append(number)
        return MetricRecord({"first": float(arrays["w"].numpy()[0])})

    result = strategy.start(FakeGrid(clock, all_nodes), start(), num_rounds=3, evaluate_fn=evaluate_fn)
    check(result, strategy, rounds=3)
    assert seen == [0, 1, 2, 3] == sorted(result.evaluate_metrics_serverapp)
    assert result.evaluate_metrics_serverapp[0]["first"] == 5
    assert [dict(result.evaluate_metrics_clientapp[k]) for k in (1, 2, 3)] == [{"loss": 1.5}] * 3
    assert strategy.controller.spent_seconds < 10


@pytest.mark.parametrize("broken", ["an error", "other metrics"])
def test_evaluation_that_fails_does_not_end_training(clock: FakeTime, broken: str) -> None:
    _, all_nodes = nodes()
    if broken == "other metrics":
        for node in all_nodes.values():

            @node.app.evaluate()
            def evaluate(message: Message, context: Any) -> Message:
                metrics = MetricRecord({f"loss of {partition_id(context)}": 1.0})
                return Message(RecordDict({"metrics": metrics}), reply_to=message)

    strategy = CoOptStrategy(controller(), FedAvg())
    result = strategy.start(FakeGrid(clock, all_nodes), start(), num_rounds=2)
    check(result, strategy, rounds=2)
    assert not result.evaluate_metrics_clientapp


def test_round_limit_gain_and_time_are_reasons_to_stop(clock: FakeTime) -> None:
    reasons = {}
    for name, options in {
        "ROUNDS": {"max_rounds": 4},
        "TIME": {"cost": 1e9, "time": 30.0},
        "GAIN": {"min_gain": 0.999},
    }.items():
        _, all_nodes = nodes()
        strategy = CoOptStrategy(controller(**options))
        result = strategy.start(FakeGrid(clock, all_nodes), start())
        check(result, strategy)
        assert result.stopped is not None
        reasons[name] = result.stopped.reason.name
    assert reasons == {name: name for name in reasons}


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidProblemError, match="waits for 5 nodes, the fleet has 4"):
        CoOptStrategy(controller(), FedAvg(min_available_nodes=5))
    with pytest.raises(InvalidProblemError, match="poll_seconds"):
        CoOptStrategy(controller(), poll_seconds=0)
    with pytest.raises(InvalidProblemError, match="seed"):
        CoOptStrategy(controller(), seed=-1)


def test_a_base_strategy_that_chooses_nobody_is_an_error(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    strategy = CoOptStrategy(controller(), FedAvg(fraction_train=0.0, **QUIET))
    with pytest.raises(InvalidProblemError, match="fraction_train"):
        strategy.start(FakeGrid(clock, all_nodes), start())


def test_the_nodes_say_how_much_they_hold(clock: FakeTime) -> None:
    work, all_nodes = nodes()
    began = clock.now
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: all_nodes if clock.now > began + 10 else []
    assert ask_samples(grid, 4) == SAMPLES
    del all_nodes[107]
    with pytest.raises(InvalidProblemError, match=r"devices \[1\].*30 s"):
        ask_samples(grid, 4, timeout=30)
    assert ask_samples(grid, 4, timeout=30, missing=7) == [60, 7, 80, 50]
    all_nodes[107] = Node(1, client_app(work.train, lambda context: -3))  # cannot be believed
    assert ask_samples(grid, 4, timeout=30, missing=7) == [60, 7, 80, 50]


@pytest.mark.parametrize("missing", [None, 7])
def test_a_device_without_samples_is_named_at_once(clock: FakeTime, missing: int | None) -> None:
    work, all_nodes = nodes()
    all_nodes[107] = Node(1, client_app(work.train, lambda context: 0))
    began = clock.now
    with pytest.raises(InvalidProblemError, match=r"devices \[1\] say that they hold 0 samples"):
        ask_samples(FakeGrid(clock, all_nodes), 4, missing=missing)
    assert clock.now - began < 10


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_never_overspent_whatever_the_nodes_do(data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = install_clock(monkeypatch)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    trouble = data.draw(st.floats(0, 0.5))
    _, all_nodes = nodes()
    for node in all_nodes.values():
        node.fails = lambda message: is_training(message) and bool(rng.random() < trouble / 2)
        node.seconds = lambda message: (
            math.inf if rng.random() < trouble / 2 else float(rng.lognormal(0, 3 * trouble))
        )
    grid = FakeGrid(clock, all_nodes)
    grid.online = lambda: [node for node in all_nodes if rng.random() > trouble / 4]
    cost, time = data.draw(st.floats(200, 1500)), data.draw(st.floats(5, 100))
    strategy = CoOptStrategy(controller(cost=cost, time=time))
    result = strategy.start(grid, start())
    check(result, strategy)
    assert result.stopped is not None
