"""How far may a learning rate grow where it is chosen with the plan? Networks, really trained.

    python -m benchmarks.forecast.free_rates            # after the grid: some minutes of one core

As in `schedules`, with the rate of each phase free up to a multiple of the one that the pilot ran at;
"stable" is 1.9 over the largest curvature measured, with the batch floor. A linear model is beside them.
Gaps are over that of the best fixed plan of the grid in hindsight, at the pilot's rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from benchmarks.forecast.federations import CASES
from benchmarks.forecast.grid import PILOT
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.report import command_line
from benchmarks.forecast.schedules import kept_losses
from benchmarks.forecast.study import Study
from benchmarks.tables import Row, save
from coopt import Constants, Problem, solve_schedule

NAMES = ("digits, tanh", "MNIST, tanh", "digits, ReLU", "MNIST, ReLU", "digits, logistic")
GROWTHS = (1.0, 1.5, 3.0, math.inf)
KINDS = {None: "given", math.inf: "stable"}
LEVEL, SEED, ROWS, DIRECTIONS, PHASES = 4, 11, 16, 24, 3


def cells(name: str, study: Study) -> Iterator[Row]:
    """One row for each kind of rates, with one phase to `PHASES`."""
    limit, usual = CostLimit(study, LEVEL), study.federation.learning_rate
    rounds = {pair: many for pair in study.runs if (many := limit.rounds(pair)) >= 1}
    best = min(study.gap(pair, many) for pair, many in rounds.items())
    measured = study.measured(PILOT, ROWS, DIRECTIONS, SEED, limit.cost)
    problem = Problem(
        measured.measurement.fleet(),
        Constants(usual, smoothness=1.0, initial_gap=1.0),
        limit.budget(1.0 - limit.charge(measured)),
    )
    for growth in (None, *GROWTHS):
        forecast = measured.measurement.forecast(rate_growth=growth)
        row: Row = {
            "federation": name,
            "rates": KINDS.get(growth, f"up to {growth}x"),
        }
        for phases in range(1, PHASES + 1):
            free = None if growth is None else "auto"
            found = solve_schedule(problem, forecast, phases=phases, learning_rate=free)
            losses = kept_losses(study, found.phases, measured.model, SEED)
            largest = max(phase.learning_rate for phase in found.phases) / usual
            row[f"{phases} phases"] = float(losses.mean() - study.lowest) / best
            row[f"rate, {phases}"] = largest
        yield row


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    table: list[Row] = []
    for name in only or (NAMES[:1] if quick else NAMES):
        for row in cells(name, Study(CASES[name])):
            table.append(row)
            print(row, flush=True)
    save("free_rates", table, folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
