"""How long measuring and solving take, next to one local epoch of the fleet.

    OMP_NUM_THREADS=1 python -m benchmarks.forecast.duration            # two minutes of one core
    OMP_NUM_THREADS=1 python -m benchmarks.forecast.duration --quick

Seconds of processor time, all on one core: measuring 46 real devices, solving to a gap of 0.1 %, and one pass
of SGD in torch over all samples of all devices in batches of 32. Runs alternate; medians.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecast.federations import CASES, QUICK, RIDGE, Case
from benchmarks.forecast.grid import DIRECTIONS, EFFORT, GAP, PILOT, ROWS
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.losses import mean_loss, network
from benchmarks.forecast.report import command_line
from benchmarks.forecast.study import Study
from benchmarks.tables import Row, picture, save
from coopt import Constants, MeasurementWarning, Problem, solve_allocation

BATCH, REPEATS, SETTINGS = 32, 5, ((ROWS, DIRECTIONS), EFFORT[16])
FEDERATIONS = {
    "activity, 46 devices, linear": CASES["activity, logistic"],
    "activity, 46 devices, 32 tanh units": Case("sensors", "tanh", rate=0.1),
}


def epoch(study: Study) -> None:
    """One local epoch of every device."""
    import torch

    federation = study.federation
    module, loss = network(federation), mean_loss(federation)
    optimiser = torch.optim.SGD(module.parameters(), federation.learning_rate, weight_decay=RIDGE)
    x, y = torch.from_numpy(federation.x), torch.from_numpy(federation.y)
    for device in range(len(federation)):
        for rows in torch.arange(len(y))[federation.rows(device)].split(BATCH):
            optimiser.zero_grad()
            loss(module(x[rows]), y[rows]).backward()
            optimiser.step()


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


def row(name: str, study: Study, rows: int, directions: int, repeats: int) -> Row:
    federation = study.federation
    rate, level = federation.learning_rate, max(study.case.levels)
    taken: list[tuple[float, float, float]] = []
    for repeat in range(repeats + 1):  # the first one warms up
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MeasurementWarning)
            measuring, found = seconds(lambda seed=repeat: study.measure_anew(PILOT, rows, directions, seed))
        constants = Constants(rate, smoothness=1.0 / rate, initial_gap=1.0)
        problem = Problem(found.fleet(), constants, CostLimit(study, level).budget(1.0))
        solving, _ = seconds(
            lambda p=problem, m=found: solve_allocation(p, bound=m.forecast(), gap_tolerance=GAP)
        )
        taken.append((measuring, solving, seconds(lambda: epoch(study))[0]))
    measuring, solving, once = np.median(taken[1:], axis=0)
    return {
        "federation": name,
        "rows": rows,
        "directions": directions,
        "measure, s": float(measuring),
        "solve, s": float(solving),
        "one epoch, s": float(once),
        "measure and solve, epochs": float((measuring + solving) / once),
    }


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    table = []
    for name, case in (QUICK if quick else FEDERATIONS).items():
        for rows, directions in ((4, 4),) if quick else SETTINGS:
            if not only or name in only:
                table.append(row(name, Study(case), rows, directions, 1 if quick else REPEATS))
    save("duration", table, folder)

    def plot(axes: Any) -> None:
        labels = [f"{t['federation']}\n{t['rows']} rows, {t['directions']} directions" for t in table]
        places = np.arange(len(table))
        for shift, key in enumerate(("measure, s", "solve, s", "one epoch, s")):
            axes.barh(places + 0.25 * shift, [t[key] for t in table], 0.25, label=key[:-3])
        axes.set_yticks(places + 0.25, labels, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="seconds of one core")
        axes.legend(fontsize=8)

    picture("duration", plot, folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
