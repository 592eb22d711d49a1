"""The Flower strategy against nodes in this process: own tasks, averages, who takes part, evaluation."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flwr") is None:
    pytest.skip("flwr is not installed", allow_module_level=True)

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.strategy import FedAvg as OlderFedAvg
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx, Strategy

from coopt import Budget, Controller, Fleet, InvalidProblemError, Stopped
from coopt.adapters.flower import CoOptStrategy, ask_samples
from coopt.adapters.flower.client import client_app, partition_id
from fake_grid import DIMENSION, FakeGrid, FakeTime, Node, is_training, tasks_of
from flower_federation import QUIET, SAMPLES, check, controller, nodes, start


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


def test_another_start_than_its_own_is_told_so(clock: FakeTime) -> None:
    _, all_nodes = nodes()
    with pytest.raises(InvalidProblemError, match="as `base`"):
        Strategy.start(CoOptStrategy(controller()), FakeGrid(clock, all_nodes), start())


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
    with pytest.raises(
        InvalidProblemError, match=r"base is the class flwr.*FedAvg: must be .* such as FedAvg\(\)"
    ):
        CoOptStrategy(controller(), FedAvg)
    with pytest.raises(InvalidProblemError, match=r"import FedAvg from flwr\.serverapp\.strategy"):
        CoOptStrategy(controller(), OlderFedAvg())


def test_clients_that_know_nothing_of_coopt_are_reported_at_once(clock: FakeTime) -> None:
    """Their Flower app is as it was, and only the server has been changed."""
    began = clock.now
    grid = FakeGrid(clock, {100 + device: Node(device, ClientApp()) for device in range(4)})
    message = r"no node says which device it is: does the app come .* One node says: No query function"
    with pytest.raises(InvalidProblemError, match=message):
        ask_samples(grid, 4)
    with pytest.raises(InvalidProblemError, match=message):
        CoOptStrategy(controller(), FedAvg(**QUIET)).start(grid, start())
    assert ask_samples(grid, 4, timeout=5, missing=7) == [7] * 4
    assert clock.now - began < 20


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
