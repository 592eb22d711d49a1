"""The grid's table with its plans off the grid planned and trained anew; all other rows stay.

    python -m benchmarks.forecast.off_grid        # after the grid: a quarter of an hour of one core
    python -m benchmarks.forecast.off_grid --quick

What is picked from the grid, and what tuners find, does not depend on how coopt plans; batches of every
device's own do. Each plan stays in the cache, so that a run that was ended goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks import tables
from benchmarks.forecast import grid
from benchmarks.forecast.report import RESULTS, command_line
from benchmarks.forecast.study import MEASURED, Measured, Study, kept_text
from benchmarks.tables import Row

# To be raised whenever something changes that changes which plans are found.
PLANNED = 1
# What tells rows apart, and which columns are no numbers.
WHICH, TEXT = ("federation", "budget", "chooser", "seed"), ("federation", "budget", "chooser")


def cells(name: str, study: Study, quick: bool) -> Iterator[Row]:
    """The plans off the grid of one federation."""
    for contest in grid.contests(name, study, quick):
        effort = grid.SLOW if isinstance(contest.limit, grid.Phones) else grid.EFFORT[contest.limit.level]
        left_out = contest.limit.too_slow(*effort)
        for seed in range(1 if quick else grid.MEASUREMENTS):
            measured = study.measured(grid.PILOT, *effort, seed, left_out=left_out)

            def make(contest: grid.Contest = contest, measured: Measured = measured, seed: int = seed) -> str:
                return json.dumps(contest.exact(measured, seed))

            what = ["off the grid", PLANNED, MEASURED, grid.PILOT, effort, left_out, contest.budget, seed]
            row: Row = json.loads(kept_text(study.case, what, make))
            yield row


def known(folder: Path) -> list[Row]:
    """All rows of the grid's table."""
    rows = tables.read(folder / "grid_cells.csv")
    return [{key: value if key in TEXT else number(value) for key, value in row.items()} for row in rows]


def number(value: str) -> float | None:
    return float(value) if value else None


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    if quick:
        grid.run(quick, folder, only)
    rows = known(folder if quick else RESULTS)
    places = {tuple(row[key] for key in WHICH): place for place, row in enumerate(rows)}
    for name, study in grid.studies(quick):
        if only and name not in only:
            continue
        for fresh in cells(name, study, quick):
            rows[places[tuple(fresh[key] for key in WHICH)]] = fresh
        print(name, flush=True)
    return grid.saved(rows, folder)


if __name__ == "__main__":
    command_line(run, __doc__)
