"""Run one cell, an instance with a method and a seed, and keep its record so that it is never run twice."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

import coopt
from benchmarks.federated.data import cache_folder
from benchmarks.federated.federation import Federation, Instance, build
from benchmarks.federated.methods import METHODS, Setting
from benchmarks.federated.models import Model, cnn, linear
from benchmarks.federated.streams import Stream
from coopt import Controller, Optimiser
from coopt.adapters.torch import FederatedTrainer, ProbeOptions, SharedData
from coopt.objectives.forecast.optimiser import AVERAGING
from coopt.policies import Policy

# To be raised whenever something changes that changes the results of all methods. Those of coopt's own depend
# on all of coopt's code: their cells are known by a digest of it.
VERSION = 1
CURVE = 100
RIDGE = 1e-3


@dataclass(frozen=True)
class Record:
    """What became of one cell.

    Attributes
    ----------
    accuracy, loss : float
        On test data, of the last model.
    rounds : int
        Rounds that the budget lasted for.
    local_steps, batch : float
        Medians over the rounds of tau and of the mean batch.
    cost, time : float
        Spent, over the budget.
    cpu : float
        Seconds that the cell took here.
    curve : list of [cost, time, accuracy]
        Along the way, at most 100 points.
    """

    accuracy: float
    loss: float
    rounds: int
    local_steps: float
    batch: float
    cost: float
    time: float
    cpu: float
    curve: list[list[float]]


def model_of(instance: Instance, federation: Federation, seed: int) -> Model:
    shape = federation.data.x.shape[1:]
    if instance.model == "cnn":
        return cnn(shape[0], shape[1], federation.data.classes, instance.widths, seed)
    return linear(shape[0], federation.data.classes, instance.model, RIDGE)


def train(
    instance: Instance,
    federation: Federation,
    policy: Policy,
    seed: int,
    device: str = "cpu",
    *,
    told_convex: bool = False,
    rate: float = 1.0,
    optimiser: Optimiser = AVERAGING,
) -> tuple[FederatedTrainer, Controller]:
    """Train until the budget is spent; `rate` multiplies the learning rate."""
    data, streaming = federation.data, instance.stream is not None
    controller = Controller(
        federation.fleet,
        federation.budget,
        rate * federation.learning_rate,
        policy=policy,
        curvature_floor=0.0 if told_convex and instance.model != "cnn" else None,
        streaming=streaming,
    )
    rows = federation.hands
    if instance.stream is not None:
        rows = Stream(
            instance.stream,
            federation.hands,
            data.y,
            lambda: controller.spent_seconds / federation.budget.time,
            seed,
        )
    chosen = model_of(instance, federation, seed)
    measures = policy.needs_estimates or policy.measures_curvature
    trainer = FederatedTrainer(
        chosen.make(),
        chosen.loss,
        SharedData(torch.from_numpy(data.x), torch.from_numpy(data.y), rows),
        device=device,
        seed=seed,
        weight_decay=chosen.ridge,
        weights=None if streaming else federation.fleet.weights,
        optimiser=optimiser,
        probe=ProbeOptions() if measures else None,
        system=federation.system,
        test=(torch.from_numpy(data.test_x[: instance.test]), torch.from_numpy(data.test_y[: instance.test])),
        evaluate_every=instance.evaluate_every,
        progress=False,
    )
    trainer.run(controller)
    return trainer, controller


def measure(instance: Instance, method: str, setting: Setting, seed: int, device: str = "cpu") -> Record:
    """Run a cell."""
    federation = build(instance, seed)
    begun = time.process_time()
    chosen = METHODS[method]
    policy = chosen.make(federation, setting)
    trainer, _ = train(
        instance,
        federation,
        policy,
        seed,
        device,
        told_convex=chosen.told_convex,
        rate=chosen.rate(setting),
        optimiser=chosen.optimiser(setting),
    )
    history = trainer.history
    budget = federation.budget
    points = np.column_stack(
        [
            history.column("cost") / budget.cost,
            history.column("seconds") / budget.time,
            history.column("metric"),
        ]
    )
    points = points[np.isfinite(points[:, 2])]
    kept = np.unique(np.linspace(0, len(points) - 1, CURVE).astype(int))
    return Record(
        accuracy=float(points[-1, 2]),
        loss=history.records[-1].test_loss,
        rounds=len(history),
        local_steps=float(np.median(history.column("local_steps"))),
        batch=float(np.median(history.column("mean_batch"))),
        cost=float(points[-1, 0]),
        time=float(points[-1, 1]),
        cpu=time.process_time() - begun,
        curve=[[round(float(value), 5) for value in point] for point in points[kept]],
    )


@lru_cache(maxsize=1)
def code_of_coopt() -> str:
    """A digest of every module of coopt."""
    folder = Path(coopt.__file__).parent
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:16]


def cell(instance: Instance, method: str, setting: Setting, seed: int, device: str = "cpu") -> Record:
    """Give a cell's record, from the cache if it is there."""
    code = [code_of_coopt()] if METHODS[method].ours else []
    key = json.dumps([VERSION, *code, asdict(instance), method, setting, seed], sort_keys=True)
    path = cache_folder() / "federated" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if path.exists():
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    record = measure(instance, method, setting, seed, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(record)), encoding="utf-8")
    part.replace(path)
    return record
