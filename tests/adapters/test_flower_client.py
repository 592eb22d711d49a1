"""Flower clients: what they are sent, what they send, and the same models as the torch adapter trains."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flwr") is None:
    pytest.skip("flwr is not installed", allow_module_level=True)

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedProx
from hypothesis import given
from hypothesis import strategies as st

from coopt import Budget, ClientReport, Controller, CooptError, Fleet, InvalidProblemError
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.flower import CoOptStrategy
from coopt.adapters.flower.client import (
    Task,
    answer_queries,
    client_app,
    partition_id,
    reply,
    task_of,
    torch_client_app,
)
from coopt.adapters.flower.records import pack_report, unpack_report
from coopt.measuring.report import HalfBatches, SameBatchPair
from fake_grid import FakeGrid, FakeTime, Node

SAMPLES = [30, 50, 20]
TASK = Task(round=4, device=2, local_steps=3, batch_size=6, learning_rate=0.1, probe=True, seed=7)


def context(**config: Any) -> Context:
    return Context(1, 5, config, RecordDict(), {})


def message(kind: str = "train", **records: Any) -> Message:
    return Message(RecordDict(records), 5, kind)


def finite() -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False)


counts = st.integers(0, 10**9)
vectors = st.none() | st.lists(finite(), min_size=1, max_size=5).map(np.array)
reports = st.builds(
    ClientReport,
    client=counts,
    round=counts,
    samples=counts,
    local_steps=counts,
    batch_size=counts,
    samples_processed=counts,
    loss=finite(),
    seconds_computing=finite(),
    cost=st.none() | finite(),
    halves=st.none() | st.builds(HalfBatches, counts, counts, finite(), finite()),
    pair=st.none() | st.builds(SameBatchPair, *[finite()] * 5),
    gradient=vectors,
    change=vectors,
)


def test_what_makes_the_model_is_a_function() -> None:
    torch = pytest.importorskip("torch")
    for wrong in (torch.nn.ReLU, torch.nn.ReLU()):
        with pytest.raises(
            InvalidProblemError, match=r"module ReLU itself.*lambda: FlatModel\(ReLU\(\), loss\)"
        ):
            torch_client_app(wrong, lambda context: None)
    with pytest.raises(InvalidProblemError, match="data is a list: must be a function of the context"):
        torch_client_app(lambda: None, [1, 2])


@given(reports)
def test_reports_travel_unchanged(report: ClientReport) -> None:
    assert unpack_report(RecordDict(dict(pack_report(report)))) == report


def test_a_task_is_found_in_any_configuration_and_its_absence_is_named() -> None:
    config = ConfigRecord({"lr": 3.0, **TASK.to_config()})
    assert task_of(RecordDict({"other": ConfigRecord({"a": 1}), "config": config})) == TASK
    del config["batch-size"]
    with pytest.raises(InvalidProblemError, match=r"batch-size.*CoOptStrategy"):
        task_of(RecordDict({"config": config}))


def test_an_app_of_ones_own_changes_in_three_places(clock: FakeTime) -> None:
    app = ClientApp()
    answer_queries(app, lambda context: 12)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        task = task_of(message.content)
        report = ClientReport(task.device, task.round, 12, 1, 2, 2, loss=1.0, seconds_computing=0.1)
        return reply(message, message.content["weights"], report, {"accuracy": 0.5})

    arrays = ArrayRecord([np.ones(2)])
    answer = app(message(weights=arrays, config=ConfigRecord(TASK.to_config())), context())
    assert answer.content["weights"] == arrays
    assert dict(answer.content["metrics"]) == {"accuracy": 0.5, "num-examples": 12}
    assert unpack_report(answer.content).samples_processed == 2
    known = app(message("query.coopt"), context(**{"partition-id": 1}))
    assert dict(known.content["coopt"]) == {"device": 1, "num-examples": 12}


def test_a_node_without_partition_id_is_told_what_to_do() -> None:
    assert partition_id(context(**{"partition-id": 3})) == 3
    with pytest.raises(InvalidProblemError, match="--node-config"):
        partition_id(context())


def test_any_framework_trains_on_named_numpy_arrays(clock: FakeTime) -> None:
    seen: list[Task] = []

    def train(model: dict[str, np.ndarray], task: Task, _: Context) -> tuple[Any, ClientReport]:
        seen.append(task)
        report = ClientReport(task.device, task.round, 5, 1, 2, 2, loss=1.0, seconds_computing=0.1)
        return {name: values + 1 for name, values in model.items()}, report

    app = client_app(train, lambda context: 5, device=lambda context: 1)
    arrays = ArrayRecord({"a": Array(np.zeros((2, 2))), "b": Array(np.array(3.0))})
    answer = app(message(arrays=arrays, config=ConfigRecord(TASK.to_config())), context())
    np.testing.assert_array_equal(answer.content["arrays"]["a"].numpy(), np.ones((2, 2)))
    assert answer.content["arrays"]["b"].numpy() == 4 and seen == [TASK]
    assert app(message("query.coopt"), context()).content["coopt"]["device"] == 1


# The rest trains in torch.


def problem(module: Any) -> list[tuple[Any, Any]]:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(n, 4, generator=generator) + 0.3 * i for i, n in enumerate(SAMPLES)]
    return [(x, (x[:, 0] + 0.3 * x[:, 1] > 0.2).long()) for x in data]


def model() -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))


def torch_nodes(clock: FakeTime, data: list[tuple[Any, Any]], **options: Any) -> FakeGrid:
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch import FlatModel

    nodes = {}
    for device, tensors in enumerate(data):
        app = torch_client_app(
            lambda: FlatModel(model(), torch.nn.functional.cross_entropy, weight_decay=0.01),
            lambda _, tensors=tensors: tensors,
            **options,
        )
        nodes[50 - device] = Node(device, app)
    return FakeGrid(clock, nodes)


@pytest.mark.parametrize("replacement", [True, False])
def test_the_same_global_model_as_the_torch_adapter(clock: FakeTime, replacement: bool) -> None:
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch import FederatedTrainer, ProbeOptions

    data = problem(model())
    fleet = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0)

    def plan() -> FixedPlan:
        return FixedPlan(fleet, rounds=5, local_steps=4, batch_sizes=[6, 9, 3], learning_rate=0.3)

    trainer = FederatedTrainer(
        model(),
        torch.nn.functional.cross_entropy,
        data,
        mode="loop",
        seed=11,
        weight_decay=0.01,
        replacement=replacement,
        probe=ProbeOptions("same"),
    )
    trainer.run(plan())
    strategy = CoOptStrategy(plan(), seed=11)
    grid = torch_nodes(clock, data, replacement=replacement)
    result = strategy.start(grid, ArrayRecord(model().state_dict()))
    trained = result.arrays.to_torch_state_dict()
    for name, expected in trainer.model.state_dict().items():
        assert torch.allclose(trained[name], expected, rtol=1e-5, atol=1e-6), name
        assert not torch.allclose(trained[name], model().state_dict()[name], atol=1e-2)
    assert result.stopped is not None and result.stopped.reason.name == "ROUNDS"
    losses = [record.train_loss for record in result.rounds]
    np.testing.assert_allclose(losses, trainer.history.column("train_loss"), rtol=1e-5)
    costs = [record.cost for record in result.rounds]
    np.testing.assert_allclose(costs, trainer.history.column("cost"), rtol=1e-12)


def test_a_controller_learns_from_torch_clients(clock: FakeTime) -> None:
    pytest.importorskip("torch")
    data = problem(model())
    controller = Controller(
        Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0, min_batch=2),
        Budget(cost=2500, round_cost=20),
        learning_rate=0.3,
    )
    strategy = CoOptStrategy(controller, FedAdam(eta=0.05, fraction_evaluate=0.0))
    result = strategy.start(torch_nodes(clock, data), ArrayRecord(model().state_dict()))
    assert controller.spent_cost <= 2500
    assert all(record.reports == 3 for record in result.rounds)
    assert result.rounds[-1].train_loss < 0.9 * result.rounds[0].train_loss
    assert controller.estimates.loss.known and controller.estimates.gradient.known


def test_buffers_of_normalisation_layers_travel_with_the_model(clock: FakeTime) -> None:
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch import FlatModel

    module = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    app = torch_client_app(
        lambda: FlatModel(module, torch.nn.functional.cross_entropy),
        lambda _: (torch.randn(30, 4) + 3, torch.arange(30) % 2),
    )
    task = Task(round=0, device=0, local_steps=2, batch_size=8, learning_rate=0.1, probe=True, seed=0)
    sent = ArrayRecord(module.state_dict())
    answer = app(message(arrays=sent, config=ConfigRecord(task.to_config())), context())
    assert answer.content["arrays"].keys() == sent.keys()
    assert answer.content["arrays"]["0.running_mean"].numpy().min() > 0.1
    assert isinstance(answer.content["metrics"], MetricRecord)


def test_a_proximal_term_is_refused_rather_than_left_out(clock: FakeTime) -> None:
    data = problem(model())
    strategy = CoOptStrategy(
        FixedPlan(Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0), 9, 1, 4, 0.1),
        FedProx(proximal_mu=0.1, fraction_evaluate=0.0),
    )
    with pytest.raises(CooptError, match="proximal term"):
        strategy.start(torch_nodes(clock, data), ArrayRecord(model().state_dict()))


def test_a_client_takes_its_batch_in_the_parts_that_the_server_says(clock: FakeTime) -> None:
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch import FlatModel

    largest = []

    class Watched(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            largest.append(len(x))
            return super().forward(x)

    torch.manual_seed(0)
    module = Watched(4, 2).double()
    samples = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 2
    app = torch_client_app(lambda: FlatModel(module, torch.nn.functional.cross_entropy), lambda _: samples)
    answers = []
    for micro in (0, 3):
        largest.clear()
        task = replace(TASK, device=0, batch_size=8, micro_batch=micro)
        config = ConfigRecord(task.to_config())
        reply = app(message(arrays=ArrayRecord(module.state_dict()), config=config), context())
        answers.append(reply.content["arrays"]["weight"].numpy())
        assert max(largest) == (micro or 8)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-12)
    # An older server says nothing of parts.
    config = {name: value for name, value in TASK.to_config().items() if name != "micro-batch"}
    assert Task.from_config(config) == TASK


def test_a_data_set_will_do_and_loaders_are_told_what_will(clock: FakeTime) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    from coopt.adapters.torch import FlatModel

    module = torch.nn.Linear(4, 2).double()
    pair = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 2

    def answer(data: Any) -> Any:
        app = torch_client_app(lambda: FlatModel(module, torch.nn.functional.cross_entropy), lambda _: data)
        config = ConfigRecord(replace(TASK, device=0).to_config())
        return app(message(arrays=ArrayRecord(module.state_dict()), config=config), context())

    state = {name: value.clone() for name, value in module.state_dict().items()}
    trained = []
    for data in (pair, TensorDataset(*pair)):
        module.load_state_dict(state)
        trained.append(answer(data).content["arrays"]["weight"].numpy())
    np.testing.assert_array_equal(*trained)
    loader = DataLoader(TensorDataset(*pair), batch_size=8)
    with pytest.raises(
        InvalidProblemError, match=r"a tuple of DataLoader, DataLoader: .* is loader\.dataset"
    ):
        answer((loader, loader))
