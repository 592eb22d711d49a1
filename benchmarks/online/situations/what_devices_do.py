"""Devices that do a part of their work, whose memory or clock has its own laws, and that come and go."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.online.situations.situation import Figures, Situation
from benchmarks.online.situations.who_answers import on_digits, two_classes
from benchmarks.online.small_training import small_training
from coopt import Availability, Budget, ClientReport, Controller, Fleet, RoundPlan
from coopt.adapters.aggregate import step_factors
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import RoundTimes, SystemModel
from coopt.adapters.torch import History
from coopt.measuring.ignored import Ignored


class Followed(Controller):
    """Keeps what each round was said to cost and to take, and what it did."""

    def observe(self, reports: Iterable[ClientReport], **told: Any) -> list[Ignored]:
        plan = self.plan()
        assert isinstance(plan, RoundPlan)
        cost, seconds = self.spent_cost, self.spent_seconds
        lines = super().observe(reports, **told)
        pairs = (
            (plan.predicted_cost, self.spent_cost - cost),
            (plan.predicted_seconds, self.spent_seconds - seconds),
        )
        self._rounds = [*self.rounds, pairs]
        return lines

    @property
    def rounds(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        return list(getattr(self, "_rounds", []))


def smallest_batch_binds() -> Figures:
    """Ten devices, of which one takes 16 s for a step of its smallest batch, and half an hour."""
    rng = np.random.default_rng(0)
    clients = [(rng.normal(size=(500, 5)) + 0.1 * rng.normal(size=5), np.zeros(500)) for _ in range(10)]
    optimum = np.mean([rows for rows, _ in clients], axis=(0, 1))
    curvature = np.linspace(0.05, 1.0, 5)
    fleet = Fleet([500] * 10, 4.0, 0.01, throughput=[2.0] + [400.0] * 9, round_time=20.0, min_batch=32)

    def gradient(model: np.ndarray, rows: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
        away = model - rows[0]
        return float(np.mean(away**2 @ curvature) / 2), curvature * away.mean(axis=0)

    def gap(planner: Any) -> float:
        system = SystemModel(fleet.throughput, fleet.round_time)
        run = simulate(planner, gradient, np.full(5, 5.0), clients, system=system, progress=False)
        assert run.seconds[-1] <= 1800.0 * (1 + 1e-9)
        return float(curvature @ (run.parameters - optimum) ** 2 / 2)

    batches = [32] + [400] * 9
    return {
        # As the certified optimum has it, and with the rounds that two steps of the slow one leave time for.
        "together": gap(FixedPlan(fleet, 2, 55, batches, 0.05)),
        "own": gap(FixedPlan(fleet, 31, 38, batches, 0.05, device_steps=[2] + [38] * 9)),
        "horizon": gap(Controller(fleet, Budget(time=1800), 0.05, policy="horizon")),
        "default": gap(Controller(fleet, Budget(time=1800), 0.05)),
    }


def fewer_steps() -> Figures:
    """Two quadratics with their optima at -1 and 1, of which the first does one step of ten."""
    centres, shares, steps = np.array([-1.0, 1.0]), np.array([0.5, 0.5]), np.array([1, 10])

    def ends(rate: float, factors: np.ndarray) -> float:
        w = 0.0
        for _ in range(3000):
            local = centres + (1 - rate) ** steps * (w - centres)
            w += float((shares * factors) @ (local - w))
        return abs(w)

    kept = step_factors(shares, steps)
    return {"plain": ends(0.1, np.ones(2)), "kept": ends(0.1, kept), "kept, small": ends(0.001, kept)}


def liars() -> Figures:
    """A fifth of the clients does ten steps and says one, and has changes of any length."""
    rng, longest = np.random.default_rng(0), 0.0
    for _ in range(1000):
        steps, norms = np.array([1, 1] + [10] * 8), np.exp(rng.normal(size=10))
        counted = step_factors(np.full(10, 0.1), steps, norms) * norms
        longest = max(longest, float(np.max(counted / np.maximum(norms, np.median(norms)))))
    return {"longest": longest}


def step_time() -> Figures:
    controller = Followed(Fleet(digits(8).samples, 1.0, 1.0), Budget(time=60.0), 0.1)
    on_digits(controller, 8, SystemModel([2000.0] * 8, 0.1, step_time=0.03, compute_jitter=0.1))
    alpha, _ = controller.estimates.timing.seconds()
    off = [abs(said / took - 1) for _, (said, took) in controller.rounds[5:]]
    return {"rounds": controller.round, "off": float(np.median(off)), "step": float(np.median(alpha))}


def some_a_round() -> Figures:
    budget = Budget(cost=1e4, round_cost=20, participants=10)
    controller = Followed(Fleet(digits(100).samples, 1.0, 1.0), budget, 0.1)
    on_digits(controller, 100, SystemModel([100.0] * 100))
    said, charged = np.array([cost for cost, _ in controller.rounds]).T
    return {"rounds": controller.round, "said": said.mean(), "charged": charged.mean()}


def come_and_go() -> Figures:
    """A sixth device joins after six rounds."""
    controller = Controller(Fleet([100] * 5, 1.0, 1.0), Budget(cost=1e5, time=1e4), 0.1)

    def run_round() -> None:
        plan = controller.plan()
        assert isinstance(plan, RoundPlan)
        controller.observe(
            ClientReport(
                client=device,
                round=plan.round,
                samples=100,
                local_steps=plan.local_steps,
                batch_size=size,
                samples_processed=plan.local_steps * size,
                loss=1.0,
                seconds_computing=plan.local_steps * size / (20.0 + device),
            )
            for device, size in enumerate(plan.batch_sizes.tolist())
        )

    for _ in range(6):
        run_round()
    before = controller.estimates.timing.seconds()[1]
    controller.join(Fleet([100], 1.0, 1.0))
    changed = np.count_nonzero(controller.estimates.timing.seconds()[1][:5] != before)
    rounds = 0
    while not controller.estimates.timing.known[5]:
        run_round()
        rounds += 1
    return {"changed": changed, "known after": rounds}


def at_certain_times() -> Figures:
    """Ten devices, of which five with other data come when half of the time is over."""
    rng, side = np.random.default_rng(0), np.repeat([-1.0, 1.0], 5)
    truth, clients = rng.normal(size=8), []
    for sign in side:
        x = rng.normal(size=(80, 8))
        x[:, 0] += 1.5 * sign
        clients.append((x, (x @ truth + 2.0 * sign * x[:, 0] + 0.5 * rng.normal(size=80) > 0).astype(int)))
    model, comes = Softmax(8, 2), np.where(side < 0, 0.0, 2000.0)
    figures = {}
    for name, late, known in (
        ("told", comes, True),
        ("not told", comes, False),
        ("always", 0 * comes, False),
    ):
        controller = Controller(
            Fleet([80] * 10, 1.0, 1.0),
            Budget(cost=3e4, time=4000.0),
            0.3,
            availability=Availability(late) if known else None,
            curvature_floor=0.0,
        )

        class ByTheClock(SystemModel):
            when, clock = late, controller

            def round(self, now: int, *work: Any) -> RoundTimes:
                found = super().round(now, *work)
                away = self.clock.spent_seconds < self.when
                return RoundTimes(found.computing, found.communicating, found.absent | away)

        system = ByTheClock([100.0] * 10, 1.0)
        run = simulate(controller, model.gradient, model.start(), clients, system=system, progress=False)
        figures[name] = float(run.losses[-1])
    return figures


class DiedError(Exception):
    """The server is no more."""


def server_dies() -> Figures:
    """A run that is killed after eight rounds, and one that nobody killed."""
    data = [(torch.from_numpy(x).float(), torch.from_numpy(y)) for x, y in two_classes(3)]

    def die(history: History) -> None:
        if len(history) == 8:
            raise DiedError

    def run(**options: Any) -> tuple[int, np.ndarray]:
        controller = Controller(Fleet([80] * 3, 1.0, 1.0), Budget(cost=6000, time=200.0), 0.3)
        history, weights = small_training(data, controller, **options)
        return len(history), weights

    rounds, expected = run()
    with tempfile.TemporaryDirectory() as folder:
        saved = {"checkpoint": Path(folder) / "run.npz", "checkpoint_every": 3}
        try:
            run(callbacks=[die], **saved)
        except DiedError:
            again, found = run(**saved)
    assert again == rounds
    return {"rounds": rounds, "differ": np.count_nonzero(found != expected), "parameters": found.size}


SITUATIONS = (
    Situation(
        "A slow device whose smallest batch binds",
        "error {own:.3f} by hand, {default:.3f} by the default policy and {horizon:.3f} by "
        '`policy="horizon"`; {together:.2f} with the same steps for all',
        smallest_batch_binds,
    ),
    Situation(
        "A client does fewer steps than told",
        "off by {kept:.2f}, and by {kept, small:.3f} at a hundredth of the rate, which is drift; plain "
        "averaging is off by {plain:.2f}, where 1 is the other client's optimum",
        fewer_steps,
    ),
    Situation(
        "A client lies about what it did",
        "{longest:.2f} times the median change, or its own, at most",
        liars,
    ),
    Situation(
        "A step takes time whatever its batch",
        "rounds predicted within {off:.1%}, at {step:.3f} s a step",
        step_time,
    ),
    Situation(
        "Some clients a round",
        "10 of 100, {rounds:.0f} rounds: {said:.0f} predicted and {charged:.0f} charged a round",
        some_a_round,
    ),
    Situation(
        "The fleet grows, or devices leave",
        "{changed:.0f} of 5 speeds change when a sixth device joins, and its own is known "
        "{known after:.0f} round later",
        come_and_go,
    ),
    Situation(
        "Devices that are there at certain times",
        "loss {told:.2f} where it is {not told:.2f} without, and {always:.2f} where all are always there",
        at_certain_times,
    ),
    Situation(
        "The server dies",
        "{differ:.0f} of {parameters:.0f} parameters differ after {rounds:.0f} rounds",
        server_dies,
    ),
)
