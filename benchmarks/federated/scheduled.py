"""The controller that measures and plans in phases, beside planning by reports alone and a tuned baseline.

    python -m benchmarks.federated.scheduled           # five minutes of one core
    python -m benchmarks.federated.scheduled --quick

Nothing of coopt is tuned; everything is charged, warm-up and measuring included. AdaCoOpt, the strongest of
the baselines, runs at the setting that was most accurate on two other seeds. No rule of coopt was made
looking at the seeds that are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.federation import Instance
from benchmarks.federated.headline import COMPARISONS, QUICK, TUNING
from benchmarks.federated.methods import FREE, OURS, SCHEDULE
from benchmarks.federated.report import cell_row, command_line, interval, points, write_cells
from benchmarks.federated.runner import Record, cell
from benchmarks.federated.tuning import tuned
from benchmarks.tables import Row, picture, save

SEEDS = range(20, 23)
CHOSEN = {
    where: COMPARISONS[where].instance
    for where in ("MNIST, 10 phones", "activity, 46 devices", "CIFAR-10 stream")
}
BASELINE = "AdaCoOpt"
METHODS = (SCHEDULE, FREE, OURS, BASELINE)
NAMES = {
    SCHEDULE: "coopt, measured, the rate given",
    FREE: "coopt, measured, free rates",
    OURS: "coopt, by reports alone",
    BASELINE: "AdaCoOpt, tuned",
}


def compare(where: str, instance: Instance, seeds: range, device: str) -> tuple[list[Row], list[Row], Any]:
    """Rows of the table, rows of single runs, and the records by method."""
    runs: dict[str, list[Record]] = {}
    cells: list[Row] = []
    for method in METHODS:
        setting = tuned(instance, BASELINE, TUNING, device, rates=False) if method == BASELINE else ()
        runs[method] = [cell(instance, method, setting, seed, device) for seed in seeds]
        kind = "tuned" if method == BASELINE else "default"
        cells += [
            cell_row(where, method, kind, setting, s, r) for s, r in zip(seeds, runs[method], strict=True)
        ]
        print(where, method, [round(100 * r.accuracy, 1) for r in runs[method]], flush=True)
    table = []
    for method, records in runs.items():
        above = [a.accuracy - b.accuracy for a, b in zip(records, runs[BASELINE], strict=True)]
        ours = method != BASELINE
        table.append(
            {
                "instance": where,
                "method": NAMES[method],
                "accuracy, %": points(r.accuracy for r in records),
                "test loss": interval(r.loss for r in records)[0],
                "points above AdaCoOpt": points(above) if ours else "",
                "smallest": 100 * min(above) if ours else "",
                "rounds": int(np.median([r.rounds for r in records])),
                "tau": float(np.median([r.local_steps for r in records])),
                "mean s": float(np.median([r.batch for r in records])),
                "cost used, %": points((r.cost for r in records), 0),
                "time used, %": points((r.time for r in records), 0),
            }
        )
    return table, cells, runs


def draw(drawn: dict[str, dict[str, list[Record]]]) -> Any:
    """Accuracy of every run."""

    def plot(axes: Any) -> None:
        for k, runs in enumerate(drawn.values()):
            for j, (method, records) in enumerate(runs.items()):
                x = k + 0.18 * (j - 1.5)
                y = [100 * record.accuracy for record in records]
                axes.plot([x] * len(y), y, "o", color=f"C{j}", label=NAMES[method] if k == 0 else None)
                axes.plot(x, np.mean(y), "_", color="black", markersize=14)
        axes.set_xticks(range(len(drawn)), list(drawn))
        axes.set(ylabel="test accuracy, %")
        axes.legend(fontsize=7)

    return plot


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    table: list[Row] = []
    cells: list[Row] = []
    drawn = {}
    quickly = {where: chosen.instance for where, chosen in QUICK.items()}
    for where, instance in (quickly if quick else CHOSEN).items():
        rows, single, drawn[where] = compare(where, instance, range(20, 22) if quick else SEEDS, device)
        table += rows
        cells += single
        save("scheduled", table, folder)  # after every instance: a run that is stopped leaves what it has
        write_cells("scheduled", cells, folder)
        picture("scheduled", draw(drawn), folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
