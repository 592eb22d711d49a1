"""Processes that are killed (SIGKILL) at random moments, and what the next one makes of what they left.

    python -m benchmarks.online.kills      # about five minutes on one core

A parent forks a process that trains and saves after every round, kills it after a random time, forks the
next, and so on until the training has ended; then all over again, until so many have been killed.

- torch: `FederatedTrainer` under a controller with a simulated clock. What comes out must be, bit for bit,
  what a training that nobody killed gives.
- flower: `CoOptStrategy` and its checkpoint, with FedAdam, on a grid of simulated nodes: the server dies. A
  round that was under way is charged and lost, so the run is another one: it must end within its budget,
  with every round in its history once.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAdam

from benchmarks import tables
from benchmarks.online.small_training import small_training
from coopt import Budget, Controller, Fleet
from coopt.adapters.flower import CoOptStrategy
from coopt.adapters.flower.checkpoint import Checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from fake_grid import DIMENSION, FakeGrid, FakeTime, Quadratic, install_clock

RESULTS = Path(__file__).parent / "results"
KILLS = {"torch": 150, "flower": 50}
SAMPLES = [60, 40, 80]
COST, SECONDS = 6000.0, 200.0
COLUMNS = (
    *("loop", "killed", "while_writing", "trainings", "resumed", "as_expected", "other", "overruns"),
    *("largest_cost", "largest_time"),
)


def torch_run(folder: Path) -> tuple[str, float, float]:
    """Train, and give a digest of all that came out, and the shares of cost and time that were used."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(SAMPLES), 20, generator=generator)
    y = (x[:, :3].sum(dim=1) > 0).long()
    data = list(zip(torch.split(x, SAMPLES), torch.split(y, SAMPLES), strict=True))
    fleet = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0)
    controller = Controller(fleet, Budget(cost=COST, time=SECONDS), 0.3)
    history, weights = small_training(data, controller, checkpoint=folder / "run.npz", checkpoint_every=1)
    told = repr(history.state_dict()["records"]).encode() + weights.tobytes()
    last = history.records[-1]
    return hashlib.sha256(told).hexdigest(), last.cost / COST, last.seconds / SECONDS


def flower_run(folder: Path) -> tuple[str, float, float]:
    """Let a server train on simulated nodes; the digest says whether every round is there once."""
    with pytest.MonkeyPatch.context() as patch:
        clock: FakeTime = install_clock(patch)
        work = Quadratic(SAMPLES)
        grid = FakeGrid(clock, {10 + i: work.node(i) for i in range(len(SAMPLES))})
        fleet = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0)
        controller = Controller(fleet, Budget(cost=COST, time=SECONDS, round_cost=20), 0.1)
        strategy = CoOptStrategy(controller, FedAdam(eta=0.1, fraction_evaluate=0.0), checkpoint=folder)
        result = strategy.start(grid, ArrayRecord({"w": Array(np.full(DIMENSION, 5.0))}))
        saved = Checkpoint(folder).load()
    rounds = [record.round for record in result.rounds]
    finite = bool(np.isfinite(result.arrays["w"].numpy()).all())
    whole = rounds == list(range(len(rounds))) and finite and saved is not None and saved.begun is None
    return "whole" if whole else "broken", controller.spent_cost / COST, controller.spent_seconds / SECONDS


def life(run: Callable[[Path], tuple[str, float, float]], folder: Path, answer: Path) -> int:
    """Fork a process that trains and writes down what came out."""
    child = os.fork()
    if child:
        return child
    try:
        os.close(2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer.write_text(json.dumps(run(folder)))
        os._exit(0)
    finally:
        os._exit(1)


def measure(name: str, run: Callable[[Path], tuple[str, float, float]], kills: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    row: dict[str, object] = dict.fromkeys(COLUMNS, 0) | {"loop": name}
    with tempfile.TemporaryDirectory() as home:
        expected, longest = None, 0.0
        while int(str(row["killed"])) < kills or expected is None:
            folder, answer = Path(tempfile.mkdtemp(dir=home)), Path(home) / "answer"
            killed = 0
            while True:
                began = time.monotonic()
                child = life(run, folder, answer)
                if expected is None:
                    os.waitpid(child, 0)
                    longest = time.monotonic() - began
                    break
                # Long enough for some progress, short enough to be killed several times a training.
                time.sleep(rng.uniform(0.02, 0.6) * longest)
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                if not os.WIFSIGNALED(status):
                    break
                killed += 1
                row["while_writing"] += any(folder.glob(".*.unfinished"))
            found, cost, seconds = json.loads(answer.read_text())
            row["trainings"] += 1
            row["killed"] += killed
            row["resumed"] += killed > 0
            expected = expected or found
            row["as_expected" if found == expected else "other"] += 1
            row["overruns"] += cost > 1 + 1e-9 or seconds > 1 + 1e-9
            row["largest_cost"] = max(float(str(row["largest_cost"])), round(cost, 6))
            row["largest_time"] = max(float(str(row["largest_time"])), round(seconds, 6))
            answer.unlink()
    return row


def main() -> None:
    torch.set_num_threads(1)
    rows = [measure("torch", torch_run, KILLS["torch"]), measure("flower", flower_run, KILLS["flower"])]
    tables.write(RESULTS / "kills.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
