"""Does the bound point at the best (K, tau, s)? Plans of equal cost on MNIST, predicted and measured.

    python -m benchmarks.federated.theorem            # about four minutes of one core
    python -m benchmarks.federated.theorem --quick

A squared-hinge SVM with ridge on ten devices of unequal size, half of the samples of each of one digit. Every
plan of the grid spends the same cost; the training loss at its end is exact. "Global" constants hold for all
models: smoothness from the data, c and ell the ridge; noise and divergence are the largest at the start, at
the optimum and at the ends of runs, since a squared hinge has no supremum over all models. "Calibrated" ones
are what the controller measures in ten rounds of two steps with batches of 16. "Told c" has as well the true
gap at the start and the constant c that holds where the best plan ends, which nobody knows beforehand.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.federated.data import cache_folder
from benchmarks.federated.federation import Federation, Instance, build
from benchmarks.federated.models import linear
from benchmarks.federated.report import command_line, interval, write_cells
from benchmarks.federated.runner import RIDGE, VERSION, train
from benchmarks.tables import Row, picture, save
from coopt import BoundWarning, Budget, Certified, Constants, Dynamite, Fleet, Problem
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.torch import FederatedTrainer, SharedData
from coopt.objectives.monotone import MonotoneBase, member_values
from coopt.policies import Choice, Situation
from coopt.policies.horizon import calibrated_gap

Floats = np.ndarray
Plan = tuple[int, int, int]

STEPS, BATCHES = (1, 2, 5, 10, 20, 40), (2, 4, 8, 16, 32, 64)
PILOT_ROUNDS = 10


class Loss:
    """The global training loss, its devices' gradients and their noise."""

    def __init__(self, federation: Federation) -> None:
        data = federation.data
        self.x = [data.x[hand].astype(np.float64) for hand in federation.hands]
        self.sign = [2.0 * np.eye(data.classes)[data.y[hand]] - 1.0 for hand in federation.hands]
        self.weights = federation.fleet.weights
        self.shape = (data.x.shape[1], data.classes)

    def at(self, w: Floats) -> tuple[float, Floats, Floats]:
        """Loss, gradient of every device (N, n), trace of the covariance of its samples' gradients (N,)."""
        w = w.reshape(self.shape)
        loss, gradients, noise = 0.0, [], []
        for p, x, sign in zip(self.weights, self.x, self.sign, strict=True):
            slack = np.maximum(0.0, 1.0 - sign * (x @ w))
            residual = -2.0 * sign * slack
            mean = x.T @ residual / len(x)
            loss += p * float(np.mean(np.sum(slack**2, axis=1)))
            each = np.mean(np.sum(x**2, axis=1) * np.sum(residual**2, axis=1))
            gradients.append((mean + RIDGE * w).ravel())
            noise.append(float(each - np.sum(mean**2)))
        return loss + RIDGE / 2 * float(np.sum(w**2)), np.array(gradients), np.array(noise)

    def minimiser(self) -> Floats:
        from scipy.optimize import minimize

        def total(w: Floats) -> tuple[float, Floats]:
            loss, gradients, _ = self.at(w)
            return loss, self.weights @ gradients

        start = np.zeros(self.shape[0] * self.shape[1])
        return minimize(total, start, jac=True, method="L-BFGS-B", options={"maxiter": 3000}).x

    def curvatures(self) -> Floats:
        """Largest curvature of every device's loss."""
        return np.array([2.0 * np.linalg.eigvalsh(x.T @ x / len(x))[-1] for x in self.x]) + RIDGE


class Pilot:
    """A policy that runs ten small rounds, and remembers what is then known."""

    name, needs_estimates, measures_curvature = "pilot", True, True

    def __init__(self) -> None:
        self.first_loss, self.last = math.nan, None

    def choose(self, situation: Situation) -> Choice:
        self.last = situation
        return Choice(2, np.full(len(situation.problem.fleet), 16))

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: np.ndarray) -> float:
        del situation, local_steps, batch_sizes  # it expects nothing
        return math.nan


def plans(federation: Federation, steps: tuple[int, ...], batches: tuple[int, ...]) -> list[Plan]:
    """(K, tau, s) with as many rounds as the cost allows."""
    budget, devices = federation.budget, len(federation.fleet)
    found = []
    for tau in steps:
        for batch in batches:
            rounds = int(budget.cost / (tau * batch * devices + budget.round_cost))
            if rounds >= 1:
                found.append((rounds, tau, batch))
    return found


def trained(instance: Instance, federation: Federation, plan: Plan, seed: int, device: str) -> Floats:
    """The model at the end of a plan, kept in the cache."""
    key = json.dumps([VERSION, asdict(instance), plan, seed], sort_keys=True)
    path = cache_folder() / "federated" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
    if path.exists():
        return np.load(path)
    data = federation.data
    model = linear(data.x.shape[1], data.classes, "svm", RIDGE)
    trainer = FederatedTrainer(
        model.make(),
        model.loss,
        SharedData(torch.from_numpy(data.x), torch.from_numpy(data.y), federation.hands),
        device=device,
        seed=seed,
        weight_decay=RIDGE,
        weights=federation.fleet.weights,
        probe=None,
        system=federation.system,
        progress=False,
    )
    trainer.run(FixedPlan(federation.fleet, *plan, federation.learning_rate))
    weight = next(trainer.model.parameters()).detach().cpu().numpy().astype(np.float64)
    model_now = weight.T.ravel()  # torch holds (classes, features)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, model_now)
    part.replace(path)
    return model_now


def global_problem(federation: Federation, loss: Loss, models: list[Floats]) -> Problem:
    seen = [loss.at(w) for w in models]
    spread = [np.linalg.norm(gradients - loss.weights @ gradients, axis=1) for _, gradients, _ in seen]
    fleet = Fleet(
        federation.fleet.samples,
        np.max([noise for _, _, noise in seen], axis=0),
        np.max(spread, axis=0),
    )
    x = np.concatenate(loss.x)
    constants = Constants(
        learning_rate=federation.learning_rate,
        smoothness=float(loss.curvatures().max()),
        mean_smoothness=2.0 * float(np.linalg.eigvalsh(x.T @ x / len(x))[-1]) + RIDGE,
        initial_gap=seen[0][0] - seen[1][0],
        pl_constant=RIDGE,
        curvature_floor=RIDGE,
    )
    return Problem(fleet, constants, Budget())


def calibrated_problem(instance: Instance, federation: Federation, first: float, seed: int) -> Problem:
    """What the controller knows after the pilot; the gap is moved back to the start."""
    pilot = Pilot()
    short = replace(federation, budget=Budget(max_rounds=PILOT_ROUNDS, cost=1e12))
    train(instance, short, pilot, seed)
    assert pilot.last is not None
    problem, loss = pilot.last.problem, pilot.last.loss
    gap = first - loss + problem.constants.initial_gap
    return Problem(problem.fleet, replace(problem.constants, initial_gap=gap), Budget())


def told(problem: Problem, loss: Loss, start: Floats, end: Floats, lowest: float) -> Problem:
    """The same with the true gap at the start, and with c = ||grad F||^2 / (2 (F - F*)) at `end`."""
    value, gradients, _ = loss.at(end)
    c = float(np.sum((loss.weights @ gradients) ** 2)) / (2 * (value - lowest))
    constants = problem.constants
    known = replace(
        constants, pl_constant=min(c, constants.smoothness), initial_gap=loss.at(start)[0] - lowest
    )
    return Problem(problem.fleet, known, Budget())


def values(bound: MonotoneBase, problem: Problem, grid: list[Plan]) -> Floats:
    form, devices = bound.monotone_form(problem), len(problem.fleet)
    return np.array([member_values(form, k, tau, np.full(devices, float(s))).min() for k, tau, s in grid])


def planned(problem: Problem, grid: list[Plan], excess: float) -> Floats:
    devices = len(problem.fleet)
    return np.array(
        [calibrated_gap(problem, tau, np.full(devices, s), 0.0, 0.0, excess, k) for k, tau, s in grid]
    )


def predictions(everywhere: Problem, here: Problem, known: Problem, grid: list[Plan]) -> dict[str, Floats]:
    """Every prediction of F - F* at the end of each plan."""
    return {
        "published, global": values(Dynamite(), everywhere, grid),
        "published, calibrated": values(Dynamite(), here, grid),
        "certified, global": values(Certified(), everywhere, grid),
        "certified, calibrated": planned(here, grid, math.inf),
        "the controller's, calibrated": planned(here, grid, 2.0),
        "published, told c": values(Dynamite(), known, grid),
        "certified, told c": planned(known, grid, math.inf),
        "the controller's, told c": planned(known, grid, 2.0),
    }


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    import warnings

    from scipy.stats import spearmanr

    instance = Instance("mnist", 2, "svm", devices=10, rounds=20)
    steps, batches, seeds = STEPS, BATCHES, range(5)
    if quick:
        instance = Instance("digits", 1, "svm", devices=4, samples=60, rounds=3, speeds=10)
        steps, batches, seeds = (1, 5), (4, 32), range(2)
    cells: list[Row] = []
    found: dict[str, list[tuple[float, float, Plan]]] = {}
    best: list[Plan] = []
    for seed in seeds:
        federation = build(instance, seed)
        loss, grid = Loss(federation), plans(build(instance, seed), steps, batches)
        optimum = loss.minimiser()
        lowest = loss.at(optimum)[0]
        ends = [trained(instance, federation, plan, seed, device) for plan in grid]
        gaps = np.array([loss.at(w)[0] - lowest for w in ends])
        start = np.zeros_like(optimum)
        everywhere = global_problem(federation, loss, [start, optimum, *ends[:: max(1, len(ends) // 4)]])
        here = calibrated_problem(instance, federation, loss.at(start)[0], seed)
        best.append(grid[int(np.argmin(gaps))])
        known = told(here, loss, start, ends[int(np.argmin(gaps))], lowest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundWarning)
            predicted = predictions(everywhere, here, known, grid)
        for name, each in predicted.items():
            picked = int(np.argmin(each))
            rank = float(spearmanr(each, gaps).statistic)
            found.setdefault(name, []).append((rank, float(gaps[picked] / gaps.min()), grid[picked]))
        for i, (rounds, tau, batch) in enumerate(grid):
            cells.append(
                {"seed": seed, "rounds": rounds, "tau": tau, "s": batch, "measured gap": gaps[i]}
                | {name: float(each[i]) for name, each in predicted.items()}
            )
    rows: list[Row] = []
    for name, each in found.items():
        rank, rank_half = interval(r for r, _, _ in each)
        regret, regret_half = interval(r for _, r, _ in each)
        rows.append(
            {
                "prediction": name,
                "rank correlation": f"{rank:.2f} ± {rank_half:.2f}",
                "gap of the plan picked / best": f"{regret:.2f} ± {regret_half:.2f}",
                "picked (tau, s)": ", ".join(f"({tau}, {s})" for _, _, (_, tau, s) in each),
                "best (tau, s)": ", ".join(f"({tau}, {s})" for _, tau, s in best),
            }
        )
    save("theorem", rows, folder)
    write_cells("theorem", cells, folder)

    def plot(axes: Any) -> None:
        last = [row for row in cells if row["seed"] == 0]
        for name in found:
            axes.scatter([row["measured gap"] for row in last], [row[name] for row in last], s=14, label=name)
        ends = [min(row["measured gap"] for row in last), max(row["measured gap"] for row in last)]
        axes.plot(ends, ends, color="grey", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="measured F - F*, one seed", ylabel="predicted")
        axes.legend(fontsize=7)

    picture("theorem", plot, folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)
