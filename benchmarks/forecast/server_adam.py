"""How well plans with FedAdam are ranked by a forecast that takes its second moments for one number.

    python -m benchmarks.forecast.server_adam            # after the grid: two minutes of one core
    python -m benchmarks.forecast.server_adam --quick

FedAdam divides the averaged change D of a round by the root of a running mean v of its squares, which grows
with the learning rate, the local steps and the noise of a plan. The forecast follows v along the plan as one
number, the mean over all n parameters: E|D|^2 / n from the map of the round, noise outside the directions
included, and then takes each round for a server's step with momentum at the rate gamma (1 - beta1) /
(sqrt(v) + epsilon). What it does not see is that v differs between parameters, which is what Adam is for.
Beside it: v frozen at one local step where the measurement was taken, and a forecast of plain averaging.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.data import Floats
from benchmarks.federated.report import write_cells
from benchmarks.forecast.federations import RIDGE, Federation
from benchmarks.forecast.grid import PILOT, studies
from benchmarks.forecast.kernels import GRADIENTS, rounds_of
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.losses import training_loss, widths
from benchmarks.forecast.report import command_line, spread
from benchmarks.forecast.study import Measured, Study
from benchmarks.forecast.training import Run, kept_run
from benchmarks.tables import Row, picture, save
from coopt import Problem, ServerAdam
from coopt.objectives.forecast.round_map import FullRounds, packed_places

LEVEL, ROWS, DIRECTIONS, SEED = 4, 16, 24, 31
STEPS, BATCHES = (1, 2, 5, 10, 20, 40), (2, 8, 32)
# Of the federations of the grid, whose lowest losses are known; others by name.
NAMES = ("digits, logistic",)
# Rates of the server: from far too small to as large as trains well.
RATES = (0.003, 0.01, 0.03)
FOLLOWED, FROZEN, PLAIN = "v followed along the plan", "v frozen where measured", "plain averaging"


def trained(
    federation: Federation, start: Floats, plan: tuple[int, int, int], server: ServerAdam
) -> tuple[float, float]:
    """F at the end of one run with FedAdam, and the root of the mean of v there."""
    rounds, local_steps, batch = plan
    run, cut = rounds_of(GRADIENTS[federation.case.model]), np.array(widths(federation), dtype=np.int64)
    devices = len(federation)
    sizes, starts = federation.samples[:, None, None], federation.starts[:, None, None]
    batches, shares = np.full(devices, batch, dtype=np.int64), federation.weights.astype(np.float32)
    rng, w = np.random.default_rng([SEED, *plan]), start.astype(np.float64)
    first, second = np.zeros_like(w), np.zeros_like(w)
    for _ in range(rounds):
        picks = (rng.random((1, devices, local_steps, batch)) * sizes).astype(np.int64) + starts
        average = w.astype(np.float32)
        run(average, federation.x, federation.y, picks, batches, shares, federation.learning_rate, RIDGE, cut)
        change = average - w
        first += (1.0 - server.beta1) * (change - first)
        second += (1.0 - server.beta2) * (change**2 - second)
        w += server.learning_rate * first / (np.sqrt(second) + server.epsilon)
    return training_loss(federation, w.astype(np.float32)), math.sqrt(float(second.mean()))


def expected(
    measured: Measured, problem: Problem, plan: tuple[int, int, int], server: ServerAdam, followed: bool
) -> tuple[float, float]:
    """F - F* that is expected at the end, and the root of v there."""
    (count, local_steps, batch), found = plan, measured.measurement
    objective, rate, n = found.forecast(), problem.constants.learning_rate, found.parameters
    federation = objective.federation(problem)
    rounds, loss = federation.rounds(local_steps), objective.model.loss
    assert isinstance(rounds, FullRounds)
    # In the eigenbasis of the map of a round: D = -(step e + drift) + noise.
    step, drift, m = rounds.step, rounds.drift, rounds.step.size
    rows, columns, _ = packed_places(m)
    packed, noise = federation.noise(local_steps).sum(axis=0) / batch, np.zeros((m, m))
    noise[rows, columns] = noise[columns, rows] = packed
    noise = rounds.vectors.T @ noise @ rounds.vectors
    outside = found.noise - np.trace(found.covariances, axis1=1, axis2=2)
    beside = rate**2 * local_steps / batch * float(found.weights**2 @ np.maximum(outside, 0.0))
    # One step with the averaged gradient, where the measurement was taken; or nothing, as training starts.
    second = 0.0 if followed else (rate * found.gradient_norm) ** 2 / n
    mean, spreads = np.array([rounds.start, np.zeros(m)]), np.zeros((2, 2, m, m))
    ones = np.ones(m)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(count):
            if followed:
                square = float(np.sum((step * mean[0] + drift) ** 2) + np.trace(noise) + beside)
                square += float(step**2 @ np.diagonal(spreads[0, 0]))
                second += (1.0 - server.beta2) * (square / n - second)
            length = server.learning_rate * (1.0 - server.beta1) / (math.sqrt(second) + server.epsilon)
            turn = np.array(
                [[1.0 - length * step, length * server.beta1 * ones], [-step, server.beta1 * ones]]
            )
            enter = np.array([length, 1.0])
            mean = np.einsum("ija,ja->ia", turn, mean) - np.outer(enter, drift)
            half = np.einsum("ija,jlab->ilab", turn, spreads)
            spreads = np.einsum("ilab,klb->ikab", half, turn)
            spreads += np.multiply.outer(np.outer(enter, enter), noise)
        away, spread_ = rounds.vectors @ mean[0], rounds.vectors @ spreads[0, 0] @ rounds.vectors.T
        gap = float(loss.at(away[None])[0]) + 0.5 * float(np.sum(loss.curvature * spread_))
    return (gap if math.isfinite(gap) else math.inf), math.sqrt(second)


def cells(name: str, study: Study, quick: bool) -> Iterator[Row]:
    """Every plan of one federation at every rate of the server."""
    level = min(LEVEL, max(study.case.levels))
    limit, federation = CostLimit(study, level), study.federation
    measured = study.measured(PILOT, ROWS, DIRECTIONS, SEED, limit.cost)
    problem = study.problem(limit.cost)
    left = limit.cost * (1.0 - limit.charge(measured))
    steps, batches = (STEPS[:3], BATCHES[:2]) if quick else (STEPS, BATCHES)
    for gamma in RATES[1:2] if quick else RATES:
        server = ServerAdam(gamma)
        for tau in steps:
            for batch in batches:
                plan = federation.rounds(left, tau, batch), tau, batch
                if plan[0] < 3:
                    continue

                def make(plan: tuple[int, int, int] = plan, server: ServerAdam = server) -> Run:
                    end = trained(federation, measured.model, plan, server)
                    return Run(
                        np.zeros(1, dtype=np.int64), np.array([end]), np.zeros((1, 1), dtype=np.float32)
                    )

                kept = kept_run(study.case, ["server adam", plan, gamma, SEED], 1, make).losses[0]
                row: Row = {
                    "federation": name,
                    "server's rate": gamma,
                    "rounds": plan[0],
                    "tau": tau,
                    "s": batch,
                }
                row |= {"gap": float(kept[0]) - study.lowest, "root of v": float(kept[1])}
                for chooser, followed in ((FOLLOWED, True), (FROZEN, False)):
                    value, root = expected(measured, problem, plan, server, followed)
                    row |= {chooser: value, f"root, {chooser}": root}
                value = measured.measurement.forecast().value(problem, *plan)
                yield row | {PLAIN: value}


def summary(rows: list[Row]) -> list[Row]:
    """One row a federation and rate of the server: ranks, and the gap of the plan picked over the best."""
    from scipy.stats import spearmanr

    table: list[Row] = []
    for name, gamma in dict.fromkeys((r["federation"], r["server's rate"]) for r in rows):
        own = [r for r in rows if (r["federation"], r["server's rate"]) == (name, gamma)]
        truth = [r["gap"] for r in own]
        row: Row = {"federation": name, "server's rate": gamma, "plans": len(own)}
        for chooser in (FOLLOWED, FROZEN, PLAIN):
            values = [min(r[chooser], 1e300) for r in own]
            row[f"rank, {chooser}"] = float(spearmanr(values, truth).statistic)
            row[f"regret, {chooser}"] = truth[int(np.argmin(values))] / min(truth)
        for chooser in (FOLLOWED, FROZEN):
            row[f"root of v over the true one, {chooser}"] = spread(
                r[f"root, {chooser}"] / r["root of v"] for r in own
            )
        table.append(row)
    return table


def draw(rows: list[Row]) -> Any:
    """What was expected of every plan, and what came of it."""

    def plot(axes: Any) -> None:
        for name, gamma in dict.fromkeys((r["federation"], r["server's rate"]) for r in rows):
            own = [r for r in rows if (r["federation"], r["server's rate"]) == (name, gamma)]
            sides = [[r[side] for r in own] for side in ("gap", FOLLOWED)]
            axes.loglog(*sides, "o", alpha=0.5, markersize=4, label=f"{name}, {gamma:g}")
        axes.set(xlabel="gap after training with FedAdam", ylabel=f"expected, {FOLLOWED}")
        axes.legend(fontsize=7)

    return plot


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    rows: list[Row] = []
    for name, study in studies(quick):
        if name not in (only or NAMES):
            continue
        rows += cells(name, study, quick)
        write_cells("server_adam", rows, folder)
        print(name, flush=True)
    table = summary(rows)
    save("server_adam", table, folder)
    picture("server_adam", draw(rows), folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
