"""Accuracy at equal cost and time, and time and cost to a target accuracy, against every baseline.

    python -m benchmarks.federated.headline            # about ten minutes of one core
    python -m benchmarks.federated.headline --quick

Every baseline runs at its default and at the one setting of its grid that was most accurate on two other
seeds of the same instance. Savings refer to the accuracy that the baseline ends with: the share of its time
(or cost) until it first shows that accuracy which ours does not need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.federation import Instance
from benchmarks.federated.headline_summary import summarise
from benchmarks.federated.methods import METHODS, OURS, Setting
from benchmarks.federated.report import (
    cell_row,
    command_line,
    interval,
    points,
    reached,
    saving,
    write_cells,
)
from benchmarks.federated.runner import Record, cell
from benchmarks.theory.report import Row, picture, save

SEEDS, TUNING = range(5), range(100, 102)
BASELINES = [name for name, method in METHODS.items() if method.grid]

INSTANCES = {
    "MNIST, 10 phones": Instance("mnist", 2, "svm", devices=10, rounds=40),
    "activity, 46 devices": Instance("sensors", 1, "logistic", rounds=40),
    "CIFAR-10 stream": Instance(
        "cifar10", 4, "logistic", devices=10, rounds=40, stream=("reservoir", "burst", "iid")
    ),
    "activity stream": Instance("sensors", 1, "logistic", rounds=40, stream=("reservoir", "burst", "iid")),
}
QUICK = {"digits, 4 phones": Instance("digits", 1, "logistic", devices=4, samples=60, rounds=4, speeds=10)}


def tuned(instance: Instance, method: str, seeds: range, device: str) -> Setting:
    """The setting of the grid that is most accurate on the tuning seeds."""
    scores = {
        setting: float(np.mean([cell(instance, method, setting, seed, device).accuracy for seed in seeds]))
        for setting in METHODS[method].grid
    }
    return max(scores, key=lambda setting: scores[setting])


def compare(
    where: str, instance: Instance, quick: bool, device: str
) -> tuple[list[Row], list[Row], dict[str, list[Record]]]:
    """Rows of the table, rows of single runs, and the records by method and kind."""
    seeds, tuning = (range(2), range(100, 101)) if quick else (SEEDS, TUNING)
    baselines = ["DYNAMITE", "FedAvg"] if quick else BASELINES
    ours = [cell(instance, OURS, (), seed, device) for seed in seeds]
    runs: dict[str, list[Record]] = {OURS: ours}
    table: list[Row] = [_row(where, OURS, "default", (), ours, ours)]
    cells = [cell_row(where, OURS, "default", (), s, r) for s, r in zip(seeds, ours, strict=True)]
    for method in baselines:
        kinds = {"default": METHODS[method].default, "tuned": tuned(instance, method, tuning, device)}
        for kind, setting in kinds.items():
            records = [cell(instance, method, setting, seed, device) for seed in seeds]
            runs[f"{method}, {kind}"] = records
            table.append(_row(where, method, kind, setting, records, ours))
            cells += [
                cell_row(where, method, kind, setting, s, r) for s, r in zip(seeds, records, strict=True)
            ]
    return table, cells, runs


def _row(
    where: str, method: str, kind: str, setting: Setting, theirs: list[Record], ours: list[Record]
) -> Row:
    row: Row = {
        "instance": where,
        "method": method,
        "setting": f"{kind} {'-'.join(f'{value:g}' for value in setting)}".strip(),
        "accuracy, %": points(r.accuracy for r in theirs),
        "test loss": interval(r.loss for r in theirs)[0],
        "ours, points more": "",
        "time saved, %": "",
        "cost saved, %": "",
        "target met": "",
        "rounds": int(np.median([r.rounds for r in theirs])),
        "tau": float(np.median([r.local_steps for r in theirs])),
        "mean s": float(np.median([r.batch for r in theirs])),
    }
    if method != OURS:
        pairs = list(zip(ours, theirs, strict=True))
        met = sum(np.isfinite(reached(a, b.accuracy, 0)) for a, b in pairs)
        row |= {
            "ours, points more": points(a.accuracy - b.accuracy for a, b in pairs),
            "time saved, %": points((saving(a, b, 1) for a, b in pairs), 0),
            "cost saved, %": points((saving(a, b, 0) for a, b in pairs), 0),
            "target met": f"{met} of {len(pairs)}",
        }
    return row


def draw(runs: dict[str, list[Record]]) -> Any:
    """Mean accuracy over time, ours bold, baselines at their best settings."""

    def plot(axes: Any) -> None:
        grid = np.linspace(0.02, 1, 50)
        for name, records in runs.items():
            if name != OURS and not name.endswith("tuned"):
                continue
            curves = np.empty((len(records), len(grid)))
            for line, record in zip(curves, records, strict=True):
                curve = np.array(record.curve)
                last = np.searchsorted(curve[:, 1], grid, side="right") - 1
                line[:] = np.where(last >= 0, curve[np.maximum(last, 0), 2], np.nan)
            axes.plot(grid, curves.mean(axis=0), label=name, linewidth=3 if name == OURS else 1)
        axes.set(xlabel="share of the time budget", ylabel="test accuracy")
        axes.legend(fontsize=7)

    return plot


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    table: list[Row] = []
    cells: list[Row] = []
    for where, instance in (QUICK if quick else INSTANCES).items():
        rows, single, runs = compare(where, instance, quick, device)
        table += rows
        cells += single
        save("headline", table, folder)  # after every instance: a run that is stopped leaves what it has
        write_cells("headline", cells, folder)
        picture("headline_" + where.replace(",", "").replace(" ", "_").lower(), draw(runs), folder)
    summarise(folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
