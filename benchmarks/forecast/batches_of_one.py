"""When are batches of one too small? Networks, really trained, at the rate of the pilot.

    python -m benchmarks.forecast.batches_of_one            # some minutes of one core
    python -m benchmarks.forecast.batches_of_one --quick

The plan with exact batches, charged as in `benchmarks.forecast.grid`, where batches of one are allowed, and
where :attr:`coopt.Measurement.smallest_batch` holds: two, where the largest curvatures of single samples are
below that of their mean. The rule was made looking at the two convolutional networks of the grid and at
part of the measurements here, so the table shows where it matters and is no test on fresh data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.forecast.federations import CASES, QUICK, Case
from benchmarks.forecast.grid import EFFORT, EXACT_RUNS, GAP, PILOT
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.report import command_line
from benchmarks.forecast.study import Measured, Study
from benchmarks.forecast.training import Run, kept_run, train
from benchmarks.tables import Row, save
from coopt import Allocation, Constants, Problem, solve_allocation

LEVELS, SEEDS, STREAM = (1, 4), (3, 4), 2000
DIGITS, IMAGES = CASES["digits, convolutional"], CASES["CIFAR-10, convolutional"]
NETWORKS: dict[str, Case] = {
    "digits, convolutional": DIGITS,
    "digits, twice as wide": replace(DIGITS, widths=(8, 16, 32)),
    "digits, half the rate": replace(DIGITS, rate=0.05),
    "MNIST, convolutional": replace(IMAGES, data="mnist", pool=2),
    "CIFAR-10, convolutional": IMAGES,
    "CIFAR-10, tanh": replace(CASES["MNIST, tanh"], data="cifar10", pool=4),
    "CIFAR-10, ReLU": replace(CASES["MNIST, ReLU"], data="cifar10", pool=4),
    "digits, ReLU, three times the rate": replace(CASES["digits, ReLU"], rate=0.3),
    "digits, logistic": CASES["digits, logistic"],
    "MNIST, squared": CASES["MNIST, squared"],
}


def planned(study: Study, limit: CostLimit, measured: Measured, min_batch: int) -> Allocation:
    """The best plan for the forecast, with batches of at least so many."""
    rate = study.federation.learning_rate
    problem = Problem(
        measured.measurement.fleet(min_batch=min_batch),
        Constants(rate, smoothness=1.0 / rate, initial_gap=1.0),  # the forecast needs only the rate
        limit.budget(1.0 - limit.charge(measured)),
    )
    return solve_allocation(problem, bound=measured.measurement.forecast(), gap_tolerance=GAP)


def loss(study: Study, plan: Allocation, measured: Measured, seed: int) -> float:
    """F at the end of training by the plan, the mean of some runs."""
    what = ["one", plan.rounds, plan.local_steps, plan.batch_sizes.tolist(), seed]

    def make() -> Run:
        end = np.array([plan.rounds], dtype=np.int64)
        return train(
            study.federation,
            plan.local_steps,
            plan.batch_sizes,
            end,
            EXACT_RUNS,
            measured.model,
            stream=STREAM + seed,
        )

    return float(kept_run(study.case, what, EXACT_RUNS, make).losses[:, -1].mean())


def row(name: str, case: Case, level: int, seed: int) -> Row:
    """One measurement at one budget."""
    study = Study(case)
    limit = CostLimit(study, level)
    measured = study.measured(PILOT, *EFFORT[level], seed)
    found = measured.measurement
    plans = {floor: planned(study, limit, measured, floor) for floor in (1, 2)}
    losses = {floor: loss(study, plan, measured, seed) for floor, plan in plans.items()}
    return {
        "federation": name,
        "budget": f"{level}x",
        "seed": seed,
        "curvature of single samples over that of the mean": (found.sample_curvature or 0.0)
        / found.model.loss.largest,
        "smallest batch": found.smallest_batch,
        "mean batch of the plan": float(plans[1].batch_sizes.mean()),
        "loss, one allowed": losses[1],
        "loss, at least two": losses[2],
        "loss, by the rule": losses[found.smallest_batch],
    }


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    networks = {name: QUICK[name] for name in ("digits, tanh",)} if quick else NETWORKS
    table: list[Row] = []
    for name, case in networks.items():
        if only and name not in only:
            continue
        for level in LEVELS[:1] if quick else LEVELS:
            for seed in SEEDS[:1] if quick else SEEDS:
                table.append(row(name, case, level, seed))
                print(table[-1], flush=True)
    save("batches_of_one", table, folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
