"""Measuring Flower's nodes between rounds: exchanges, what they cost, old clients, crashes, sizes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flwr") is None:
    pytest.skip("flwr is not installed", allow_module_level=True)

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Strategy
from flwr.supercore.task_identity import TaskIdentity

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Controller,
    Fleet,
    InvalidProblemError,
    Optimiser,
    ServerSGD,
    measure,
)
from coopt.adapters.flower import CoOptResult, CoOptStrategy, ServerOptimiser
from coopt.adapters.flower.client import answer_queries, torch_client_app
from coopt.adapters.flower.client_measuring import UNDER_WAY
from coopt.adapters.flower.records import MEASURE, pack_message, unpack_message
from coopt.measuring.exchange import ClientMeasure
from coopt.measuring.exchange import Message as Exchanged
from fake_grid import DIMENSION, FakeGrid, FakeTime, Node, Quadratic

SAMPLES = [60, 40, 80, 50, 70]


def controller(cost: float = 30_000.0, **options: Any) -> Controller:
    fleet = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0)
    return Controller(fleet, Budget(cost=cost, time=2000.0, round_cost=20), 0.1, **options)


def nodes(measured: int = len(SAMPLES), **behaviour: Any) -> dict[int, Node]:
    work = Quadratic(SAMPLES)
    return {
        100 + 7 * i: work.node(i, measured=i < measured, seconds=seconds, **behaviour)
        for i in range(len(SAMPLES))
    }


def seconds(message: Message) -> float:
    return 0.5 if message.metadata.message_type == MEASURE else 1.0


def measuring(node: Node) -> list[Message]:
    return [message for message in node.received if message.metadata.message_type == MEASURE]


def start() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.full(DIMENSION, 5.0))})


def test_nodes_are_measured_once_and_the_rest_is_planned_by_that(clock: FakeTime) -> None:
    used, grid = controller(), FakeGrid(clock, nodes())
    result = CoOptStrategy(used, seed=3).start(grid, start())
    rules = [record.policy for record in result.rounds]
    warm = rules.count("warm-up")
    assert rules == ["warm-up"] * warm + ["schedule"] * (len(rules) - warm) and 0 < warm < len(rules)
    found = used.measurement
    assert found is not None and found.measured.all()
    # Every node is asked the same number of times: the gradient, a product for each direction, the findings.
    asked = {len(measuring(node)) for node in grid.nodes.values()}
    assert len(asked) == 1 and asked.pop() >= found.directions + 2
    # Nothing of it stays on the nodes.
    assert not any(node.state.array_records.get(UNDER_WAY) for node in grid.nodes.values())
    assert used.spent_cost <= used.budget.cost and used.spent_seconds <= used.budget.time
    assert found.loss < 40.0 and result.rounds[-1].train_loss < result.rounds[0].train_loss


def test_it_is_what_is_measured_here_and_is_charged(clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    used, grid, taken = controller(), FakeGrid(clock, nodes()), []
    original = used.measured

    def note(found: Any, *, seconds: float, **more: Any) -> None:
        before = used.spent_cost
        original(found, seconds=seconds, **more)
        taken.append((found, seconds, used.spent_cost - before, used.round))

    monkeypatch.setattr(used, "measured", note)
    strategy = CoOptStrategy(used, seed=3)
    models: list[np.ndarray] = []
    strategy.start(grid, start(), evaluate_fn=lambda number, arrays: models.append(arrays["w"].numpy()))
    ((found, took, cost, at),) = taken
    work = Quadratic(SAMPLES)

    def gradient(w: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
        loss, parts = work.gradient({"w": w}, rows)
        return loss, parts["w"]

    here = measure(
        gradient,
        models[at],
        work.data,
        rows=found.rows,
        directions=found.directions,
        seed=3 + at,
        progress=False,
    )
    np.testing.assert_allclose(found.gradients, here.gradients, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.noise, here.noise, rtol=1e-6)
    exchanges = len(measuring(next(iter(grid.nodes.values()))))
    assert took >= 0.5 * exchanges
    assert cost == pytest.approx(found.samples_used + 20 * (found.directions + 2))


@pytest.mark.parametrize("measured", [0, 4])
def test_nodes_that_cannot_be_measured_are_never_asked(clock: FakeTime, measured: int) -> None:
    """Where they hold more than a tenth of the data, nobody is, and it costs nothing."""
    used, grid = controller(cost=5000.0), FakeGrid(clock, nodes(measured))
    result = CoOptStrategy(used).start(grid, start())
    assert not any(measuring(node) for node in grid.nodes.values())
    assert {record.policy for record in result.rounds} == {"warm-up", "horizon"}
    assert used.measurement is None


@pytest.mark.parametrize(
    ("base", "client", "expected"),
    [
        (None, ClientSGD(momentum=0.5), Optimiser(ClientSGD(momentum=0.5))),
        (
            FedAvgM(server_learning_rate=0.5, server_momentum=0.8, fraction_evaluate=0.0),
            ClientSGD(),
            Optimiser(server=ServerSGD(0.5, 0.8)),
        ),
        (
            ServerOptimiser(ServerSGD(0.7), fraction_evaluate=0.0),
            ClientSGD(),
            Optimiser(server=ServerSGD(0.7)),
        ),
    ],
    ids=["devices", "FedAvgM", "server"],
)
def test_plans_are_for_the_steps_that_are_taken(
    clock: FakeTime, base: Strategy | None, client: ClientSGD, expected: Optimiser
) -> None:
    used, grid = controller(cost=8000.0), FakeGrid(clock, nodes())
    result = CoOptStrategy(used, base, optimiser=Optimiser(client)).start(grid, start())
    assert "schedule" in {record.policy for record in result.rounds}
    forecast = used._state.measured.forecast
    assert forecast is not None and forecast.optimiser == expected


@pytest.mark.parametrize(
    ("base", "client"),
    [(None, ClientAdam()), (FedAdam(fraction_evaluate=0.0), ClientSGD())],
    ids=["devices", "FedAdam"],
)
def test_where_no_forecast_knows_the_steps_nobody_is_asked(
    clock: FakeTime, base: Strategy | None, client: ClientSGD | ClientAdam
) -> None:
    used, grid = controller(cost=5000.0), FakeGrid(clock, nodes())
    result = CoOptStrategy(used, base, optimiser=Optimiser(client)).start(grid, start())
    assert not any(measuring(node) for node in grid.nodes.values())
    assert {record.policy for record in result.rounds} == {"warm-up", "horizon"}


def test_behind_a_wrapper_nothing_is_measured(clock: FakeTime) -> None:
    """It may be there for privacy, and exchanges would go around it."""

    class Wrapper(FedAvg):
        def __init__(self, strategy: Strategy) -> None:
            super().__init__(fraction_evaluate=0.0)
            self.strategy = strategy

    grid = FakeGrid(clock, nodes())
    CoOptStrategy(controller(cost=3000.0), Wrapper(FedAvg(fraction_evaluate=0.0))).start(grid, start())
    assert not any(measuring(node) for node in grid.nodes.values())


def test_a_node_that_fails_on_the_way_is_left_out(clock: FakeTime) -> None:
    all_nodes = nodes()
    broken = all_nodes[107]
    broken.fails = lambda message: message.metadata.message_type == MEASURE and len(measuring(broken)) > 2
    used = controller()
    result = CoOptStrategy(used).start(FakeGrid(clock, all_nodes), start())
    found = used.measurement
    assert found is not None and found.measured.tolist() == [True, False, True, True, True]
    assert "schedule" in {record.policy for record in result.rounds}
    assert len(measuring(broken)) == 3


def test_where_all_fail_it_is_charged_and_training_goes_on_by_the_reports(clock: FakeTime) -> None:
    def fails(message: Message) -> bool:
        return message.metadata.message_type == MEASURE

    used, grid = controller(cost=5000.0), FakeGrid(clock, nodes(fails=fails))
    result = CoOptStrategy(used).start(grid, start())
    assert {record.policy for record in result.rounds} == {"warm-up", "horizon"}
    assert {len(measuring(node)) for node in grid.nodes.values()} == {3}
    # An exchange in vain costs what a round does beside its samples, and the records sum to what was spent.
    assert result.rounds[-1].cost == used.spent_cost <= 5000.0


def run(clock: FakeTime, folder: Path, **options: Any) -> tuple[CoOptResult, Controller]:
    used = controller(cost=12_000.0)
    strategy = CoOptStrategy(used, checkpoint=folder, seed=3)
    return strategy.start(FakeGrid(clock, nodes()), start(), **options), used


def test_a_restart_goes_on_by_the_same_measurement(clock: FakeTime, tmp_path: Path) -> None:
    whole, _ = run(clock, tmp_path / "whole")
    cut = 6
    first, _ = run(clock, tmp_path / "parts", num_rounds=cut)
    assert "schedule" in {record.policy for record in first.rounds}
    rest, used = run(clock, tmp_path / "parts")
    assert used.measurement is not None
    names = ("policy", "local_steps", "batch_sizes", "learning_rate", "cost")
    for one, other in zip(whole.rounds, rest.rounds, strict=True):
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


def test_a_server_that_dies_while_it_measures_has_paid_for_it(clock: FakeTime, tmp_path: Path) -> None:
    all_nodes, dies = nodes(), [True]

    def pushed(message: Message) -> None:
        if dies and message.metadata.message_type == MEASURE and len(measuring(all_nodes[100])) == 4:
            dies.clear()
            raise KeyboardInterrupt

    grid = FakeGrid(clock, all_nodes)
    grid.on_push = pushed
    used = controller()
    with pytest.raises(KeyboardInterrupt):
        CoOptStrategy(used, checkpoint=tmp_path).start(grid, start())
    spent, rounds = used.spent_cost, used.round
    again = controller()
    result = CoOptStrategy(again, checkpoint=tmp_path).start(grid, start(), num_rounds=1)
    trained = result.rounds[rounds].cost - result.rounds[rounds - 1].cost
    assert again.spent_cost > spent + 100.0 and trained > 100.0
    assert again.spent_cost <= again.budget.cost


class Net:
    """Makes a small torch model with batch normalisation, the same each time."""

    def __call__(self) -> Any:
        import torch
        from torch import nn

        from coopt.adapters.torch import FlatModel

        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
        return FlatModel(module, nn.functional.cross_entropy)


def test_a_torch_client_answers_as_one_process_does_though_each_message_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.normal(size=(40, 4)), dtype=torch.float32), torch.tensor(rng.integers(3, size=40))
    model = Net()()
    arrays = ArrayRecord(model.module.state_dict())
    state = RecordDict()

    def far(message: Exchanged, record: ArrayRecord | None = None) -> Exchanged:
        app = torch_client_app(Net(), lambda context: (x, y))  # a process of its own
        context = Context(1, 5, {"partition-id": 0}, state, {})
        answer = app(Message(pack_message(message, record), 5, MEASURE), context)
        return unpack_message(answer.content)

    size = sum(array.numel() for array in model.module.state_dict().values() if array.is_floating_point())

    def gradient(w: np.ndarray, rows: Any) -> tuple[float, np.ndarray]:
        fresh = Net()()
        held = dict(fresh.module.state_dict())
        ends = np.cumsum([v.numel() for v in held.values() if v.is_floating_point()])
        pieces = iter(np.split(w, ends[:-1]))
        fresh.module.load_state_dict(
            {
                k: torch.tensor(next(pieces)).reshape(v.shape) if v.is_floating_point() else v
                for k, v in held.items()
            }
        )
        fresh.module.eval()
        loss = fresh.evaluate(*rows)
        trained = {name: p.grad for name, p in fresh.module.named_parameters()}
        parts = [
            trained[k].numpy().ravel() if k in trained else np.zeros(v.numel(), np.float32)
            for k, v in held.items()
            if v.is_floating_point()
        ]
        return float(loss), np.concatenate(parts)

    near = ClientMeasure(0, gradient, (x, y))
    flat = np.concatenate(
        [v.numpy().ravel() for v in model.module.state_dict().values() if v.is_floating_point()]
    )
    told = {"rows": np.array(8), "seed": np.array(1)}
    one = far(Exchanged("gradient", told), arrays)
    other = near.answer(Exchanged("gradient", told | {"parameters": flat}))
    assert one.values["gradient"].shape == (size,)
    direction = np.zeros(size)
    for place in range(3):
        direction = rng.normal(size=size).astype(np.float32)
        values = {"direction": direction, "place": np.array(place), "step": np.array(0.01)}
        product = Exchanged("product", values)
        np.testing.assert_allclose(
            far(product).values["product"], near.answer(product).values["product"], rtol=1e-4, atol=1e-4
        )
    done = Exchanged("finish", {"single": np.array(True)})
    one, other = far(done), near.answer(done)
    assert one.values.keys() == other.values.keys()
    for name in one.values:
        np.testing.assert_allclose(one.values[name], other.values[name], rtol=1e-4, atol=1e-4)
    assert not state.array_records[UNDER_WAY]
    with pytest.raises(ValueError, match="no measurement is under way"):
        far(done)


def net() -> Any:
    """As an app's own module has it."""
    return Net()()


def test_an_app_that_can_be_measured_travels_to_simulated_nodes() -> None:
    """Flower's simulation pickles it for each of its processes."""
    pytest.importorskip("torch")
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    app = torch_client_app(net, lambda context: None)
    assert cloudpickle.loads(cloudpickle.dumps(app)) is not None


def test_half_of_what_a_device_needs_to_be_measured_is_refused() -> None:
    from flwr.clientapp import ClientApp

    with pytest.raises(InvalidProblemError, match="belong together"):
        answer_queries(ClientApp(), lambda context: 3, data=lambda context: np.ones(3))
