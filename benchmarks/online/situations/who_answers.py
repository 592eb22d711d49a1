"""Devices that hang, are slow, or have nothing to answer with."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.online.situations.situation import Figures, Situation
from coopt import Budget, ClientReport, Controller, Fleet, InvalidProblemError, RoundPlan
from coopt.adapters.flower import ask_samples
from coopt.adapters.simulated import SimulatedRun, Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import FederatedTrainer
from coopt.measuring.ignored import Ignored
from coopt.policies import Policy
from coopt.policies.scheduled import Scheduled
from coopt.policies.situation import Choice, Ints
from coopt.policies.situation import Situation as Known

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))
from fake_grid import FakeGrid, Node, Quadratic, client_app, install_clock

HANGS = 1e-6  # samples a second
DIGITS = Softmax(64, 10)


class Timed(Controller):
    """Adds up how long rounds went on after the last answer that came in time."""

    def observe(
        self,
        reports: Iterable[ClientReport],
        *,
        seconds: float | None = None,
        answered: Any = None,
        **told: Any,
    ) -> list[Ignored]:
        came = np.asarray(answered)
        last = float(np.max(came[np.isfinite(came)], initial=0.0))
        self._in_vain = self.in_vain + float(seconds or 0.0) - last
        return super().observe(reports, seconds=seconds, answered=answered, **told)

    @property
    def in_vain(self) -> float:
        return float(getattr(self, "_in_vain", 0.0))


@dataclass(frozen=True)
class WaitsForAll:
    """The default rule, but for saying what it expects: everybody is waited for then."""

    rule: Scheduled = field(default_factory=Scheduled)
    name: str = "schedule"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def choose(self, situation: Known) -> Choice:
        return self.rule.choose(situation)

    def departed(self, situation: Known) -> float:
        return self.rule.departed(situation)

    def gap_after(self, situation: Known, local_steps: int, batch_sizes: Ints) -> float:
        return self.rule.gap_after(situation, local_steps, batch_sizes)


def two_classes(devices: int, held: int = 80) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points in twenty dimensions on both sides of a plane, some on the wrong one."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(devices, held, 20))
    side = points.sum(axis=2) + 0.5 * rng.normal(size=(devices, held)) > 0
    return [(rows, labels.astype(np.int64)) for rows, labels in zip(points, side, strict=True)]


def on_digits(controller: Controller, devices: int, system: SystemModel) -> SimulatedRun:
    clients = digits(devices).clients
    return simulate(controller, DIGITS.gradient, DIGITS.start(), clients, system=system, progress=False)


def hangs() -> Figures:
    model, clients = Softmax(20, 2), two_classes(10)
    figures = {}
    for name, first in (("healthy", 100.0), ("hung", HANGS)):
        fleet = Fleet([80] * 10, 1.0, 1.0, throughput=100.0, round_time=0.5)
        controller = Timed(fleet, Budget(cost=1e9, time=300.0), 0.3)
        system = SystemModel([first] + [100.0] * 9, 0.5)
        simulate(controller, model.gradient, model.start(), clients, system=system, progress=False)
        figures |= {f"rounds, {name}": controller.round, f"in vain, {name}": controller.in_vain}
    return figures


def first_round() -> Figures:
    plan = Controller(Fleet([500] * 10, 1.0, 1.0), Budget(cost=1e7, time=3600.0), 0.1).plan()
    assert isinstance(plan, RoundPlan)
    return {"others": 1.4, "ends": plan.closes([math.inf, *np.linspace(1.0, 1.4, 9)])}


def far_slower() -> Figures:
    figures = {}
    rules: dict[str, Policy] = {"some": Scheduled(), "all": WaitsForAll()}
    for name, policy in rules.items():
        fleet = Fleet(digits(20).samples, 1.0, 1.0)
        controller = Controller(fleet, Budget(time=100.0), 0.1, policy=policy)
        run = on_digits(controller, 20, SystemModel([0.5] + [20.0] * 19, 0.5))
        figures |= {f"rounds, {name}": controller.round, f"loss, {name}": float(run.losses[-1])}
    return figures


def stragglers() -> Figures:
    figures = {}
    system = SystemModel([40.0] * 20, 0.5, straggler_rate=0.05, straggler_factor=20.0, compute_jitter=0.2)
    for name, slack in (("deadline", 2.0), ("none", 1e9)):
        fleet = Fleet(digits(20).samples, 1.0, 1.0)
        controller = Controller(fleet, Budget(time=200.0), 0.1, deadline_slack=slack)
        run = on_digits(controller, 20, system)
        figures |= {f"rounds, {name}": controller.round, f"loss, {name}": float(run.losses[-1])}
    return figures


def not_a_number() -> Figures:
    federation = digits(5)
    clients = [(images.copy(), labels) for images, labels in federation.clients]
    clients[3][0][:] = math.nan
    others = [client for place, client in enumerate(federation.clients) if place != 3]
    figures = {}
    for name, data, away in (("broken", clients, 0.0), ("away", federation.clients, 1.0)):
        controller = Controller(Fleet(federation.samples, 1.0, 1.0), Budget(cost=20_000), 0.3)
        run = simulate(
            controller,
            DIGITS.gradient,
            DIGITS.start(),
            data,
            system=SystemModel([100.0] * 5, 0.1, dropout=[0, 0, 0, away, 0]),
            progress=False,
        )
        losses = [DIGITS.gradient(run.parameters, rows)[0] for rows in others]
        figures |= {
            f"rounds, {name}": controller.round,
            f"left out, {name}": sum(3 in left_out for left_out in run.left_out),
            f"loss, {name}": float(np.mean(losses)),
        }
    return figures


def rate_too_large() -> Figures:
    controller = Controller(Fleet([80] * 4, 1.0, 1.0), Budget(cost=1e5), 1e200)

    def gradient(model: np.ndarray, rows: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
        away = model - rows[0].mean(axis=0)
        return 0.5 * float(away @ away), away

    with np.errstate(over="ignore", invalid="ignore"):
        run = simulate(
            controller,
            gradient,
            np.full(20, 5.0),
            two_classes(4),
            system=SystemModel([100.0] * 4),
            progress=False,
        )
    assert run.stopped.name == "NOT_FINITE"
    return {"rounds": controller.round, "spent": controller.spent_cost / 1e5}


def batch_norm() -> Figures:
    held = [1, 3, 40, 120, 500]
    data = [(torch.from_numpy(x).float(), torch.from_numpy(y)) for x, y in two_classes(1, sum(held))]
    parts = list(zip(*(each.split(held) for each in data[0]), strict=True))
    said, rounds = "", []
    for fields in ({}, {"min_batch": 8, "max_batch": [8, 8, 40, 120, 500]}):
        torch.manual_seed(0)
        layers = torch.nn.Linear(20, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        trainer = FederatedTrainer(
            torch.nn.Sequential(*layers), functional.cross_entropy, parts, mode="loop", progress=False
        )
        try:
            trainer.run(Controller(Fleet(held, 1.0, 1.0, **fields), Budget(cost=4000), 0.1))
        except InvalidProblemError as error:
            said = str(error)
        rounds.append(len(trainer.history))
    assert "client 0" in said and "min_batch" in said
    return {"rounds": rounds[0], "rounds, cured": rounds[1]}


def no_samples() -> Figures:
    with pytest.MonkeyPatch.context() as patch:
        clock = install_clock(patch)
        work = Quadratic([60, 40, 80])
        nodes = {10 + device: work.node(device) for device in range(3)}
        nodes[11] = Node(1, client_app(work.train, lambda context: 0))
        began = clock.now
        with pytest.raises(InvalidProblemError, match=r"devices \[1\] say that they hold 0 samples"):
            ask_samples(FakeGrid(clock, nodes), 3)
        return {"seconds": clock.now - began}


SITUATIONS = (
    Situation(
        "A client hangs for ever",
        "{in vain, hung:.1f} s of 300 s waited in vain: {rounds, hung:.0f} rounds, "
        "and {rounds, healthy:.0f} where nobody hangs",
        hangs,
    ),
    Situation(
        "Nobody knows the speeds in the first round",
        "{ends:.1f} s of an hour where the others take {others:.1f} s",
        first_round,
    ),
    Situation(
        "A device is far slower than the others",
        "one of 20 devices at 2 s a sample, 40 times as slow: {rounds, some:.0f} rounds to a loss of "
        "{loss, some:.3f}, and {rounds, all:.0f} to {loss, all:.3f} when all wait",
        far_slower,
    ),
    Situation(
        "Stragglers, now and then",
        "one in twenty 20 times as slow: {rounds, deadline:.0f} rounds to a loss of {loss, deadline:.3f}, "
        "and {rounds, none:.0f} to {loss, none:.3f} without deadlines",
        stragglers,
    ),
    Situation(
        "A client's model or loss is NaN",
        "left out in {left out, broken:.0f} of {rounds, broken:.0f} rounds; the others' loss is "
        "{loss, broken:.3f}, and {loss, away:.3f} where it never takes part",
        not_a_number,
    ),
    Situation(
        "The learning rate is too large for all",
        "{rounds:.0f} round, {spent:.1%} of the cost",
        rate_too_large,
    ),
    Situation(
        "Batch norm, and clients with few samples",
        "refused after {rounds:.0f} rounds; with the cure {rounds, cured:.0f} rounds are trained",
        batch_norm,
    ),
    Situation("Clients without samples", "after {seconds:.0f} s, not after 600 s", no_samples),
)
