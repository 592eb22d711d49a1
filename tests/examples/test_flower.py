"""The Flower example on Flower's own engines: simulated nodes, and processes that talk over the loopback."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from coopt import Budget, Fleet
from coopt.measuring.report import ClientReport
from coopt.online.round_plan import RoundPlan, Stopped, StopReason

pytest.importorskip("flwr", reason="coopt[flower] is not installed")
pytest.importorskip("torch", reason="coopt[torch] is not installed")

from coopt.adapters.flower.checkpoint import Checkpoint, Saved
from coopt.adapters.torch import FederatedTrainer, ProbeOptions
from flower_deployment import CONNECTION, Deployment, Identity, wait_until

APP = Path(__file__).resolve().parents[2] / "docs" / "examples" / "flower"
PATIENCE = 500.0  # seconds for a run; a busy machine needs many times those of an idle one
# Deadlines that a busy machine keeps, for runs in which all devices are to take part.
UNHURRIED: dict[str, Any] = {"seconds": 1e4, "deadline_slack": 50.0}


@pytest.fixture
def calm() -> None:
    """Flower gives up a process that is silent for 30 s, as all are on a machine that is too busy."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 4 * cores:
        pytest.skip(f"the machine is too busy for Flower's heartbeats: load {load:.0f} on {cores} cores")


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The learning problem of the example."""
    monkeypatch.syspath_prepend(str(APP))
    return importlib.import_module("coopt_digits.task")


class Replay:
    """A planner that repeats the plans of a run."""

    def __init__(self, saved: Saved, fleet: Fleet) -> None:
        self.fleet, self.budget = fleet, Budget()
        self.spent_cost = self.spent_seconds = 0.0
        self._records = saved.result.rounds
        self._round = 0

    def plan(self) -> RoundPlan | Stopped:
        if self._round == len(self._records):
            return Stopped(StopReason.ROUNDS, self._round, 0.0, 0.0)
        record = self._records[self._round]
        return RoundPlan(
            round=record.round,
            local_steps=record.local_steps,
            batch_sizes=np.array(record.batch_sizes),
            learning_rate=record.learning_rate,
            extra_evaluation=False,
            deadline=np.inf,
            predicted_cost=0.0,
            predicted_seconds=0.0,
            rounds_left=1,
            predicted_error=np.nan,
            rest_local_steps=1,
        )

    @property
    def round(self) -> int:
        return self._round

    def wants(self, **others: Any) -> None:
        """Nothing is measured."""

    def wait(self, seconds: float) -> None:
        """No time passes."""

    def observe(self, reports: Iterable[ClientReport], **others: Any) -> list[Any]:
        self._round += 1
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def run(deployment: Deployment, folder: Path, *, nodes: int | None = None, **config: object) -> Saved:
    """Run the example to its end, and read what it saved."""
    number = submit(deployment, folder, nodes=nodes, **config)
    return finish(deployment, number, folder)


def submit(
    deployment: Deployment, folder: Path, *, nodes: int | None = None, app: Path = APP, **config: object
) -> str:
    named: dict[str, object] = {"round-cost": 500.0, "folder": str(folder)}
    named |= {key.replace("_", "-"): value for key, value in config.items()}
    return deployment.submit(app, named, nodes=nodes)


def finish(deployment: Deployment, number: str, folder: Path) -> Saved:
    status = deployment.wait(number, PATIENCE)
    assert status == "finished:completed", deployment.flwr("log", number, CONNECTION, "--show")
    saved = Checkpoint(folder).load()
    assert saved is not None
    return saved


def state_of(folder: Path) -> dict[str, Any]:
    """What the server keeps on disk; nothing before it has begun."""
    saved = Checkpoint(folder).load()
    if saved is None:
        return {"begun": None, "rounds": []}
    return {"begun": saved.begun, "rounds": saved.result.rounds}


def wait_for_round(folder: Path, number: int) -> None:
    """Wait until a round is under way."""

    def holds() -> bool:
        state = state_of(folder)
        return state["begun"] is not None and len(state["rounds"]) == number

    wait_until(holds, PATIENCE, f"round {number} to begin", folder)


def check_accounts(saved: Saved, *, cost: float, seconds: float) -> None:
    """The history is complete, adds up, and stays within the budget."""
    rounds = saved.result.rounds
    assert [record.round for record in rounds] == list(range(len(rounds)))
    assert saved.controller["account"]["round"] == len(rounds)
    for field in ("cost", "seconds"):
        assert (np.diff([getattr(record, field) for record in rounds]) > 0).all()
    assert rounds[-1].cost == saved.controller["account"]["cost"] <= cost
    assert rounds[-1].seconds <= saved.controller["account"]["seconds"] <= seconds
    evaluated = {record.round + 1 for record in rounds if not record.interrupted}
    assert set(saved.result.evaluate_metrics_serverapp) == {0} | evaluated


def assert_model_is_that_of_the_torch_adapter(saved: Saved, task: ModuleType) -> None:
    parts = task.split(len(saved.result.rounds[0].batch_sizes))
    start = task.model()
    trainer = FederatedTrainer(
        start.module,
        start.loss,
        [task.digits(part) for part in parts],
        probe=ProbeOptions(pair="same", vectors="none"),
        progress=False,
    )
    fleet = Fleet([len(part) for part in parts], gradient_noise=1.0, divergence=1.0)
    trainer.run(Replay(saved, fleet))
    expected = trainer.model.state_dict()
    assert expected.keys() == saved.result.arrays.keys()
    for name, tensor in expected.items():
        values = tensor.numpy()
        assert np.abs(values).max() > 1e-3
        np.testing.assert_allclose(saved.result.arrays[name].numpy(), values, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
def test_simulation_gives_the_model_of_the_torch_adapter(task: ModuleType, tmp_path: Path) -> None:
    """Ten nodes; more rounds than are needed to warm up, so that batch sizes differ."""
    with Deployment(tmp_path, simulation=True) as deployment:
        saved = run(deployment, tmp_path / "run", nodes=10, devices=10, rounds=5, **UNHURRIED)
    check_accounts(saved, cost=60_000, seconds=1e4)
    assert len(saved.result.rounds) == 5
    assert all(record.reports == 10 for record in saved.result.rounds)
    assert len(set(saved.result.rounds[-1].batch_sizes)) > 1
    assert_model_is_that_of_the_torch_adapter(saved, task)


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
def test_deployment_gives_the_model_of_the_torch_adapter(task: ModuleType, tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.start_nodes(3)
        saved = run(deployment, tmp_path / "run", devices=3, rounds=3, **UNHURRIED)
    check_accounts(saved, cost=60_000, seconds=1e4)
    assert [record.reports for record in saved.result.rounds] == [3, 3, 3]
    assert_model_is_that_of_the_torch_adapter(saved, task)


HOLD_UP = """
import time
from pathlib import Path

def hold_up(path, device):
    while device == 2 and Path(path).exists():
        time.sleep(0.1)

"""

# Some four rounds: what they cost besides is most of the budget.
BUDGET: dict[str, Any] = {"cost": 2500.0, "seconds": 4000.0}
THREE: dict[str, Any] = {"devices": 3, "min_devices": 1, **BUDGET}


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(tmp_path) as deployment:
        deployment.start_nodes(3)
        yield deployment


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.usefixtures("calm")
def test_a_node_is_killed_in_the_middle_of_a_round(three: Deployment, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    number = submit(three, folder, **THREE)
    wait_for_round(folder, 1)
    three.kill_node(2)
    saved = finish(three, number, folder)
    check_accounts(saved, **BUDGET)
    assert [record.reports for record in saved.result.rounds[1:]] == [2] * (len(saved.result.rounds) - 1)
    assert len(saved.result.rounds) >= 3


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.usefixtures("calm")
def test_a_node_answers_after_the_deadline(three: Deployment, tmp_path: Path) -> None:
    """Its client app takes long; a process that is stopped would be given up by Flower itself."""
    folder, hold = tmp_path / "run", tmp_path / "hold"
    app = shutil.copytree(APP, tmp_path / "app")
    client = app / "coopt_digits" / "client_app.py"
    code = client.read_text(encoding="utf-8")
    slow = code.replace(
        "    return digits(", f"    hold_up({str(hold)!r}, partition_id(context))\n    return digits("
    )
    assert slow != code
    client.write_text(HOLD_UP + slow, encoding="utf-8")
    number = submit(three, folder, app=app, **THREE)
    wait_for_round(folder, 1)
    hold.touch()
    wait_until(lambda: len(state_of(folder)["rounds"]) == 2, PATIENCE, "round 1 to end", folder)
    hold.unlink()
    saved = finish(three, number, folder)
    check_accounts(saved, **BUDGET)
    assert saved.result.rounds[1].reports == 2
    assert any(record.late for record in saved.result.rounds[2:])


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.usefixtures("calm")
def test_the_server_is_killed_and_started_again(three: Deployment, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    submit(three, folder, **THREE)
    wait_for_round(folder, 1)
    three.kill_superlink()
    three.start_superlink()
    saved = run(three, folder, **THREE)
    check_accounts(saved, **BUDGET)
    first, interrupted, next_ = saved.result.rounds[:3]
    assert (first.interrupted, interrupted.interrupted, next_.interrupted) == (False, True, False)
    assert interrupted.cost > first.cost + 500


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    for command in ("bash", "openssl", "ssh-keygen"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")
    folder = tmp_path / "certificates"
    script = ["bash", str(APP / "certificates.sh"), str(folder), "3"]
    subprocess.run(script, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.usefixtures("calm")
def test_encrypted_run_without_the_node_that_nobody_registered(certificates: Path, tmp_path: Path) -> None:
    identity = Identity(
        *(certificates / name for name in ("authority.pem", "superlink.pem", "superlink.key"))
    )
    with Deployment(tmp_path, identity=identity, authenticate=True) as deployment:
        for node in range(2):
            deployment.flwr("supernode", "register", str(certificates / f"node-{node}.pub"), CONNECTION)
            deployment.start_node(node, key=certificates / f"node-{node}")
        # Nobody has registered this one; it says that it is device 0, too.
        deployment.start_node(2, key=certificates / "node-2", device=0)
        saved = run(deployment, tmp_path / "run", devices=2, rounds=2, **UNHURRIED)
        wait_until(lambda: deployment.nodes[2].poll() is not None, PATIENCE, "the stranger to end", tmp_path)
        assert deployment.nodes[2].returncode != 0
    assert "Failed to activate SuperNode" in deployment.log("node-2").read_text(encoding="utf-8")
    check_accounts(saved, cost=60_000, seconds=1e4)
    assert [record.reports for record in saved.result.rounds] == [2, 2]
