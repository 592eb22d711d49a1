"""Momentum, Adam and the server's steps on Flower; schedules; running statistics that nobody steps."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flwr") is None or importlib.util.find_spec("torch") is None:
    pytest.skip("flwr or torch is not installed", allow_module_level=True)

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import FedAdam, FedAvgM, FedMedian, Strategy

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Constants,
    Fleet,
    Forecast,
    InvalidProblemError,
    LocalModel,
    Optimiser,
    Phase,
    Problem,
    ServerAdam,
    ServerSGD,
    evaluate_schedule,
)
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.flower import CoOptStrategy, ServerOptimiser
from coopt.adapters.flower.client import Task, torch_client_app
from coopt.adapters.torch import FederatedTrainer, FlatModel, ProbeOptions
from fake_grid import FakeGrid, FakeTime, Node, tasks_of

SAMPLES = [30, 50, 20]
FLEET = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0)
LOSS = torch.nn.functional.cross_entropy
SAME = ProbeOptions("same", "none")
BOTH = Optimiser(ClientAdam(weight_decay=0.1), ServerSGD(0.7, 0.9, nesterov=True))


def module(normalised: bool = False) -> torch.nn.Module:
    torch.manual_seed(2)
    middle = [torch.nn.BatchNorm1d(5)] if normalised else []
    return torch.nn.Sequential(
        torch.nn.Linear(4, 5), *middle, torch.nn.Tanh(), torch.nn.Linear(5, 3)
    ).double()


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = [3.0 * torch.randn(size, 4, generator=generator).double() + 1.0 for size in SAMPLES]
    return [(rows, rows[:, :3].argmax(dim=1)) for rows in x]


def nodes(clock: FakeTime, made: torch.nn.Module) -> FakeGrid:
    def app(rows: Any) -> Any:
        return torch_client_app(lambda: FlatModel(made, LOSS), lambda _: rows, probe=SAME)

    return FakeGrid(clock, {10 + i: Node(i, app(rows)) for i, rows in enumerate(data())})


def plan(rounds: int = 4, batches: Any = 8) -> FixedPlan:
    return FixedPlan(FLEET, rounds, 3, batches, 0.05)


@pytest.mark.parametrize(
    "how",
    [BOTH, Optimiser(ClientSGD(0.9)), Optimiser(server=ServerAdam(0.05))],
    ids=["DiLoCo", "momentum", "FedAdam"],
)
@pytest.mark.parametrize("normalised", [False, True])
def test_it_trains_as_the_trainer_does(clock: FakeTime, how: Optimiser, normalised: bool) -> None:
    alone = FederatedTrainer(
        module(normalised),
        LOSS,
        data(),
        optimiser=how,
        seed=3,
        mode="loop",
        probe=SAME,
    )
    alone.run(plan())
    strategy = CoOptStrategy(plan(), optimiser=how, seed=3)
    made = module(normalised)
    result = strategy.start(nodes(clock, made), ArrayRecord(made.state_dict()))
    trained = result.arrays.to_torch_state_dict()
    for name, expected in alone.model.state_dict().items():
        if expected.is_floating_point():
            torch.testing.assert_close(trained[name].double(), expected, rtol=1e-6, atol=1e-9, msg=name)


def listened(grid: FakeGrid) -> list[list[dict[str, np.ndarray]]]:
    """What every device sends back, round after round."""
    seen: list[list[dict[str, np.ndarray]]] = []
    for node in grid.nodes.values():
        own: list[dict[str, np.ndarray]] = []

        def keep(reply: Message, own: list[dict[str, np.ndarray]] = own) -> Message:
            record = reply.content.array_records.get("arrays")
            if record is not None:
                own.append({name: array.numpy() for name, array in record.items()})
            return reply

        node.spoil = keep
        seen.append(own)
    return seen


def momentum() -> Strategy:
    return FedAvgM(server_momentum=0.9, fraction_evaluate=0.0)


def adam() -> Strategy:
    return FedAdam(eta=0.1, fraction_evaluate=0.0)


@pytest.mark.parametrize("base", [momentum, adam])
def test_running_statistics_are_averaged_whatever_the_server_does(clock: FakeTime, base: Any) -> None:
    made = module(True)
    grid = nodes(clock, made)
    seen = listened(grid)
    rounds = []
    strategy = CoOptStrategy(plan(15), base())
    strategy.start(
        grid,
        ArrayRecord(made.state_dict()),
        evaluate_fn=lambda _, arrays: rounds.append({k: a.numpy() for k, a in arrays.items()}),
    )
    shares = np.array(SAMPLES) / sum(SAMPLES)
    for number, after in enumerate(rounds[1:]):
        assert (after["1.running_var"] > 0.0).all()
        for name in ("1.running_mean", "1.running_var"):
            parts = [told[number][name] for told in seen]
            np.testing.assert_allclose(after[name], np.tensordot(shares, parts, axes=1), rtol=1e-5)
    assert all(np.isfinite(array).all() for array in rounds[-1].values())


def test_other_strategies_decide_for_themselves(clock: FakeTime) -> None:
    made = module(True)
    grid = nodes(clock, made)
    seen = listened(grid)
    strategy = CoOptStrategy(plan(1), FedMedian(fraction_evaluate=0.0))
    result = strategy.start(grid, ArrayRecord(made.state_dict()))
    parts = [told[0]["1.running_var"] for told in seen]
    np.testing.assert_allclose(result.arrays["1.running_var"].numpy(), np.median(parts, axis=0), rtol=1e-6)


@pytest.mark.parametrize("server", [BOTH.server, ServerAdam()], ids=["Nesterov", "Adam"])
def test_stopping_between_rounds_changes_nothing(clock: FakeTime, tmp_path: Path, server: Any) -> None:
    def run(folder: Path, rounds: int | None) -> dict[str, torch.Tensor]:
        made = module()
        strategy = CoOptStrategy(plan(5), optimiser=Optimiser(server=server), checkpoint=folder)
        result = strategy.start(nodes(clock, made), ArrayRecord(made.state_dict()), num_rounds=rounds)
        return dict(result.arrays.to_torch_state_dict())

    whole = run(tmp_path / "whole", None)
    for rounds in (2, 1, None):
        parts = run(tmp_path / "parts", rounds)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_a_schedule_gives_every_round_its_own_steps_batches_and_rate(clock: FakeTime) -> None:
    model = LocalModel(np.array(SAMPLES) / 100, [[1.0]] * 3, [[[1.0]]] * 3, [[[4.0]]] * 3, samples=SAMPLES)
    problem = Problem(FLEET, Constants(0.2, 1.0, 0.5), Budget())
    phases = [Phase(2, 3, [4, 5, 6], 0.2), Phase(1, 1, 8, 0.1), Phase(2, 2, [8, 9, 10], 0.05)]
    schedule = evaluate_schedule(problem, Forecast(model), phases)
    made = module()
    grid = nodes(clock, made)
    strategy = CoOptStrategy(FixedPlan.from_schedule(schedule))
    result = strategy.start(grid, ArrayRecord(made.state_dict()))
    assert [record.learning_rate for record in result.rounds] == [0.2, 0.2, 0.1, 0.05, 0.05]
    told = [(task.local_steps, task.batch_size, task.learning_rate) for task in tasks_of(grid.nodes[11])]
    assert told == [(3, 5, 0.2), (3, 5, 0.2), (1, 8, 0.1), (2, 9, 0.05), (2, 9, 0.05)]
    alone = FederatedTrainer(module(), LOSS, data(), mode="loop", probe=SAME)
    alone.run(FixedPlan.from_schedule(schedule))
    trained = result.arrays.to_torch_state_dict()
    for name, expected in alone.model.state_dict().items():
        torch.testing.assert_close(trained[name].double(), expected, rtol=1e-6, atol=1e-9)


def test_tasks_carry_the_optimiser_and_old_ones_none() -> None:
    task = Task(0, 2, 5, 8, 0.1, False, 0)
    assert not [key for key in task.to_config() if key.startswith("optimiser")]
    for client in (ClientSGD(0.9), ClientAdam(0.8, weight_decay=0.1)):
        own = Task(0, 2, 5, 8, 0.1, False, 0, optimiser=client)
        assert Task.from_config(ConfigRecord(own.to_config())) == own
    odd = task.to_config() | {"optimiser-kind": "lion"}
    with pytest.raises(InvalidProblemError, match="not an optimiser"):
        Task.from_config(odd)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidProblemError, match="there is a base strategy: give ServerOptimiser"):
        CoOptStrategy(plan(), adam(), optimiser=BOTH)
    with pytest.raises(InvalidProblemError, match=r"server = 0\.7: must be a coopt.ServerSGD"):
        ServerOptimiser(0.7)
    with pytest.raises(InvalidProblemError, match="optimiser = 'sgd'"):
        CoOptStrategy(plan(), optimiser="sgd")
