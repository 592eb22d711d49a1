"""What it is worth that fresh rows confirm the gradient.

    python -m benchmarks.forecast.confirmed            # after the grid: ten minutes of one core
    python -m benchmarks.forecast.confirmed --quick

The plan with exact batches, charged and trained as in `benchmarks.forecast.grid`, by the gradient on the rows
measured alone, and by what fresh rows confirm of it. The rule was chosen looking at the first three
measurements of every federation; the other three are the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.report import write_cells
from benchmarks.forecast.federations import CASES
from benchmarks.forecast.grid import EFFORT, PILOT, Contest, studies
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.report import command_line, spread
from benchmarks.forecast.study import Measured, Study
from benchmarks.tables import Row, picture, save

CHOSEN, REPEATED = (0, 1, 2), (3, 4, 5)
ALONE, CONFIRMED = "first rows alone", "confirmed by fresh rows"


def cells(name: str, study: Study, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Both plans at every budget of one federation."""
    for level in study.case.levels:
        contest = Contest(name, study, CostLimit(study, level), f"{level}x")
        for seed in seeds:
            measured = study.measured(PILOT, *EFFORT[level], seed)
            found = measured.measurement
            alone = Measured(
                replace(found, fresh_gradient=found.gradient), measured.model, measured.work, measured.pilot
            )
            for rule, known in ((ALONE, alone), (CONFIRMED, measured)):
                yield contest.exact(known, seed) | {"chooser": rule, "confirmed": found.confirmed}


def summary(rows: list[Row]) -> list[Row]:
    """Geometric mean over federations of their mean regrets, and the largest single one."""
    table: list[Row] = []
    for budget in dict.fromkeys(r["budget"] for r in rows):
        for label, seeds in (("chosen on", CHOSEN), ("repeated on", REPEATED)):
            line: Row = {"budget": budget, "measurements": label}
            for rule in (ALONE, CONFIRMED):
                own = [
                    r for r in rows if (r["budget"], r["chooser"]) == (budget, rule) and r["seed"] in seeds
                ]
                line[rule] = spread(r["regret"] for r in own) if own else None
                line[f"{rule}: worst"] = max((r["regret"] for r in own), default=None)
            table.append(line)
    return table


def draw(rows: list[Row]) -> Any:
    """Every pair of plans, one against the other."""

    def plot(axes: Any) -> None:
        for budget in dict.fromkeys(r["budget"] for r in rows):
            sides = [
                [r["regret"] for r in rows if (r["budget"], r["chooser"]) == (budget, rule)]
                for rule in (ALONE, CONFIRMED)
            ]
            axes.loglog(*sides, "o", alpha=0.5, markersize=4, label=budget)
        ends = np.array([min(r["regret"] for r in rows), max(r["regret"] for r in rows)])
        axes.plot(ends, ends, color="grey", linewidth=0.8)
        axes.set(xlabel=f"gap over the best of the grid, {ALONE}", ylabel=CONFIRMED)
        axes.legend(fontsize=8)

    return plot


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    rows: list[Row] = []
    for name, study in studies(quick):
        # The rule was chosen before the convolutional networks were run.
        if (not quick and 16 not in CASES[name].levels) or (only and name not in only):
            continue
        rows += cells(name, study, CHOSEN[:1] if quick else CHOSEN + REPEATED)
        write_cells("confirmed", rows, folder)
        print(name, flush=True)
    table = summary(rows)
    save("confirmed", table, folder)
    picture("confirmed", draw(rows), folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
