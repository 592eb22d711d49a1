"""Which objective picks the best plan? True error of the picked (K, tau, s) over the best on a grid.

Each problem has a budget. The grid holds local steps and batch sizes, with as many rounds as it allows.
Run: python -m benchmarks.theory.regret
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory.command import command_line
from benchmarks.theory.instances import FAMILIES, Floats, Instance, draw
from benchmarks.theory.simulate import simulate
from coopt import Budget, Certified, Constants, Dynamite, Fleet, Problem, TradeOff
from coopt.objectives.monotone import MonotoneBase, member_values

LOCAL_STEPS = (1, 2, 4, 8, 16, 32)
BATCHES = (1, 2, 4, 8, 16)
MOST_STEPS = 400


@dataclass(frozen=True)
class Pilot:
    """What a short run near the current model shows."""

    coupling: float
    smoothness: float
    divergence: float
    pl_last: float  # ||grad F||^2 / (2 (F - F*)) at its end
    pl_least: float  # the least of them along the run


def grid(instance: Instance, budget: float, round_cost: float) -> list[Instance]:
    """Every plan of the grid that gets at least one round for the budget."""
    devices, plans = len(instance.weights), []
    for tau in LOCAL_STEPS:
        for batch in BATCHES:
            rounds = min(int(budget / (tau * batch * devices + round_cost)), MOST_STEPS // tau)
            if rounds >= 1:
                sizes = np.full(devices, batch)
                plans.append(replace(instance, rounds=rounds, local_steps=tau, batch_sizes=sizes))
    return plans


def device_gradients(instance: Instance, models: Floats) -> Floats:
    """grad F_i at models of shape (..., N, d) or (..., 1, d)."""
    u = (models - instance.centre) / instance.width
    slope = np.cos(u) if instance.periodic else np.tanh(u)
    return instance.quadratic * models + instance.amplitude * slope + instance.tilt


def pilot(instance: Instance, rng: np.random.Generator, *, rounds: int = 8, tau: int = 5) -> Pilot:
    """Some rounds of federated SGD with batches of 4, gradients without noise for the measurements."""
    p, devices = instance.weights[:, None], len(instance.weights)
    shape = (16, devices, len(instance.quadratic))
    spread = np.sqrt(instance.noise / 4.0 / shape[2])[:, None]
    best = instance.mean_loss(instance.minimiser())
    models = np.broadcast_to(instance.start, shape).copy()
    moved, drifted, bent, apart, pl = [], [], [], [], []
    for _ in range(rounds):
        for _ in range(tau):
            mean = np.sum(p * models, axis=1, keepdims=True)
            local, shared = device_gradients(instance, models), device_gradients(instance, mean)
            full = np.sum(p * shared, axis=1, keepdims=True)
            moved.append(np.mean(np.sum((np.sum(p * (local - shared), axis=1)) ** 2, axis=1)))
            drifted.append(np.mean(np.sum(p * (models - mean) ** 2, axis=(1, 2))))
            bent.append(np.mean(np.sum(p * (local - shared) ** 2, axis=(1, 2))))
            apart.append(np.mean(np.sum(p * (shared - full) ** 2, axis=(1, 2))))
            gap = np.mean(instance.mean_loss(mean[:, 0])) - best
            pl.append(np.mean(np.sum(full**2, axis=(1, 2))) / (2.0 * gap))
            noise = spread * rng.standard_normal(shape)
            models = models - instance.learning_rate * (local + noise)
        models = np.broadcast_to(np.sum(p * models, axis=1, keepdims=True), shape).copy()
    drift = sum(drifted)
    return Pilot(
        coupling=float(np.sqrt(sum(moved) / drift)),
        smoothness=float(np.sqrt(sum(bent) / drift)),
        divergence=float(np.sqrt(np.mean(apart))),
        pl_last=float(pl[-1]),
        pl_least=float(min(pl)),
    )


def calibrated(instance: Instance, seen: Pilot, pl_constant: float) -> Problem:
    """The problem with constants measured near the model instead of global suprema."""
    beta = min(max(seen.smoothness, seen.coupling, 1e-6), 1.0 / instance.learning_rate)
    fleet = Fleet([1] * len(instance.weights), instance.noise, seen.divergence, weights=instance.weights)
    constants = Constants(
        instance.learning_rate,
        beta,
        instance.initial_gap(),
        pl_constant=min(pl_constant, beta),
        curvature_floor=max(min(0.0, instance.curvature_range()[0]), -beta),
        coupling=min(seen.coupling, beta),
    )
    return Problem(fleet, constants, Budget())


def monotone(bound: MonotoneBase, problem: Problem, plans: Sequence[Instance]) -> Floats:
    form = bound.monotone_form(problem)
    return np.array(
        [
            member_values(form, plan.rounds, plan.local_steps, plan.batch_sizes.astype(float)).min()
            for plan in plans
        ]
    )


def trade_off(problem: Problem, plans: Sequence[Instance]) -> Floats:
    return np.array(
        [TradeOff().value(problem, plan.rounds, plan.local_steps, plan.batch_sizes) for plan in plans]
    )


Objective = Callable[[Instance, Pilot, Sequence[Instance]], Floats]


def _known(instance: Instance) -> dict[str, float]:
    low, high = instance.curvature_range()
    return {"floor": max(low, -high), "mean_smoothness": instance.mean_smoothness()}


OBJECTIVES: dict[str, Objective] = {
    "published, rho = beta/2": lambda i, _s, plans: monotone(
        Dynamite(), i.problem(rho=i.curvature_range()[1] / 2.0), plans
    ),
    "published, rho = 1/(eta tau)": lambda i, _s, plans: monotone(Dynamite(), i.problem(), plans),
    "published, rho = 1/(eta tau), local constants": lambda i, s, plans: monotone(
        Dynamite(), calibrated(i, s, s.pl_last), plans
    ),
    "certified, smooth only": lambda i, _s, plans: monotone(Certified(), i.problem(), plans),
    "certified, true ell and beta_F": lambda i, _s, plans: monotone(
        Certified(), i.problem(**_known(i)), plans
    ),
    "trade-off, true ell and beta_F": lambda i, _s, plans: trade_off(i.problem(**_known(i)), plans),
    "certified, pilot beta_d, true ell and beta_F": lambda i, s, plans: monotone(
        Certified(), i.problem(**_known(i), coupling=min(s.coupling, i.curvature_range()[1])), plans
    ),
    "certified, calibrated (local c, beta, delta; pilot beta_d)": lambda i, s, plans: monotone(
        Certified(), calibrated(i, s, s.pl_last), plans
    ),
    "certified, calibrated, least c of the pilot": lambda i, s, plans: monotone(
        Certified(), calibrated(i, s, s.pl_least), plans
    ),
}


def run(quick: bool, folder: Path) -> list[Row]:
    rng = np.random.default_rng(11)
    problems: list[tuple[Instance, list[Instance]]] = []
    for index in range(6 if quick else 240):
        instance = draw(FAMILIES[index % len(FAMILIES)], rng)
        devices = len(instance.weights)
        round_cost = devices * float(np.exp(rng.uniform(0.0, np.log(100.0))))
        budget = float(np.exp(rng.uniform(np.log(10.0), np.log(100.0)))) * (20.0 * devices + round_cost)
        problems.append((instance, grid(instance, budget, round_cost)))
    everything = [plan for _, plans in problems for plan in plans]
    truths = simulate(everything, replicas=8 if quick else 48, seed=12)
    regrets: dict[str, list[float]] = {name: [] for name in OBJECTIVES}
    start = 0
    for instance, plans in problems:
        errors = np.array([truth.error for truth in truths[start : start + len(plans)]])
        start += len(plans)
        seen = pilot(instance, rng)
        for name, objective in OBJECTIVES.items():
            picked = int(np.argmin(objective(instance, seen, plans)))
            regrets[name].append(float(errors[picked] / errors.min()))
    rows: list[Row] = [
        {
            "objective": name,
            "problems": len(values),
            "median": float(np.median(values)),
            "90 %": float(np.quantile(values, 0.9)),
            "max": float(np.max(values)),
        }
        for name, values in regrets.items()
    ]
    save("regret", rows, folder)

    def plot(axes: Any) -> None:
        for name, values in regrets.items():
            axes.plot(np.sort(values), np.linspace(0.0, 1.0, len(values)), label=name)
        axes.set(xscale="log", xlim=(1.0, 50.0), ylabel="share of problems")
        axes.set_xlabel("true error of the picked plan / best on the grid")
        axes.legend(fontsize=7)

    picture("regret", plot, folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)
