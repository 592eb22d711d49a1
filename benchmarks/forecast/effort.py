"""How many rows, how many directions, and when to measure?

    python -m benchmarks.forecast.effort            # after the grid: ten minutes of one core
    python -m benchmarks.forecast.effort --quick

Regret as in `benchmarks.forecast.grid`, everything charged; the rank correlation compares the forecast with
the loss of all plans of the grid after the rest of the budget.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.report import write_cells
from benchmarks.forecast.federations import BATCHES, CASES, LOCAL_STEPS, QUICK
from benchmarks.forecast.grid import EFFORT, PILOT, QUICK_GRID, Contest
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.report import command_line, spread
from benchmarks.forecast.study import Study
from benchmarks.tables import Row, picture, save

SEEDS = 2
# (pilot rounds, rows, directions): all efforts, and other pilots.
SETTINGS = (
    *((PILOT, rows, directions) for rows in (2, 4, 8, 16, 32) for directions in (8, 16, 24, 32)),
    *((pilot, *EFFORT[16]) for pilot in (0, 20, 60)),
)
QUICK_SETTINGS = ((0, 4, 4), (2, 8, 8))


def cells(name: str, study: Study, settings: tuple[tuple[int, int, int], ...], seeds: int) -> list[Row]:
    rows = []
    for level in study.case.levels:
        contest = Contest(name, study, CostLimit(study, level), f"{level}x")
        for pilot, many, directions in settings:
            for seed in range(seeds):
                measured = study.measured(pilot, many, directions, seed)
                row = contest.forecast(measured, seed)
                seen = measured.measurement
                rows.append(
                    {"pilot": pilot, "rows": many, "directions": directions}
                    | row
                    | {"unseen": seen.unseen, "noise seen": seen.noise_seen}
                )
    return rows


def summary(rows: list[Row]) -> list[Row]:
    table = []
    for setting in dict.fromkeys((r["pilot"], r["rows"], r["directions"]) for r in rows):
        line: Row = dict(zip(("pilot rounds", "rows", "directions"), setting, strict=True))
        for budget in dict.fromkeys(r["budget"] for r in rows):
            own = [
                r
                for r in rows
                if r["budget"] == budget and (r["pilot"], r["rows"], r["directions"]) == setting
            ]
            left = [r for r in own if np.isfinite(r["regret"])]
            line[f"{budget}: charge, %"] = f"{100 * np.mean([r['charge'] for r in own]):.0f}"
            line[f"{budget}: regret"] = spread(r["regret"] for r in left) if len(left) == len(own) else None
            line[f"{budget}: worst"] = max(r["regret"] for r in left) if len(left) == len(own) else None
            line[f"{budget}: rank"] = f"{np.mean([r['rank'] for r in left]):.2f}" if left else "-"
        table.append(line)
    return table


def draw(table: list[Row], budgets: list[str]) -> Any:
    def plot(axes: Any) -> None:
        labels = [f"{t['pilot rounds']} rounds, {t['rows']} x {t['directions']}" for t in table]
        for budget in budgets:
            axes.plot([t[f"{budget}: regret"] or np.nan for t in table], range(len(table)), "o", label=budget)
        axes.set_yticks(range(len(table)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlim=(1, 3), xlabel="gap of the plan picked / best of the grid, all costs charged")
        axes.legend(fontsize=8)  # what is beyond 3 is in the table

    return plot


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    rows: list[Row] = []
    for name, case in (QUICK if quick else CASES).items():
        # A pilot of 60 rounds is most of what convolutional networks were trained for.
        if (not quick and 16 not in case.levels) or (only and name not in only):
            continue
        grid = QUICK_GRID if quick else (LOCAL_STEPS, BATCHES)
        study = Study(case, *grid, 2 if quick else None)
        rows += cells(name, study, QUICK_SETTINGS if quick else SETTINGS, 1 if quick else SEEDS)
        print(name, flush=True)
    table = summary(rows)
    write_cells("effort", rows, folder)
    save("effort", table, folder)
    picture("effort", draw(table, list(dict.fromkeys(r["budget"] for r in rows))), folder, height=5.0)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
