"""Which device gets which batch: the same rounds, local steps and limits, divided by different rules.

    python -m benchmarks.federated.batches            # about five minutes of one core
    python -m benchmarks.federated.batches --quick

The published controller runs with the published 120 samples a device and round; only its rule for the batches
changes. The last rows are AdaCoOpt as released and our controller, which also choose rounds and local steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.federation import Instance
from benchmarks.federated.methods import ALIKE, METHODS, OURS
from benchmarks.federated.report import cell_row, command_line, interval, points, write_cells
from benchmarks.federated.runner import Record, cell
from benchmarks.tables import Row, picture, save

RULES = {
    "DYNAMITE": "p_i sqrt(M_i), as published",
    "proportional to samples": "d_i",
    "uniform": "the same for all",
    "no straggler": "measured speed",
    "AdaCoOpt": "d_i, own estimators",
    ALIKE: "the same for all",
    OURS: "all of these, by the bound",
}
INSTANCES = {
    "MNIST, half one digit, phones": Instance("mnist", 2, "svm", devices=10, rounds=40),
    "MNIST, one digit each, speeds 1:10": Instance(
        "mnist", 2, "svm", devices=10, rounds=40, alpha=1.0, speeds=10
    ),
    "MNIST, Dirichlet 0.1, no deadline": Instance(
        "mnist", 2, "svm", devices=10, rounds=20, case="dirichlet", alpha=0.1, speeds=1, time=1000
    ),
    "activity, phones": Instance("sensors", 1, "logistic", rounds=40),
}
QUICK = {"digits, 4 phones": Instance("digits", 1, "logistic", devices=4, samples=60, rounds=3, speeds=10)}


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    seeds = range(2) if quick else range(5)
    methods = ["DYNAMITE", "uniform", OURS] if quick else list(RULES)
    table: list[Row] = []
    cells: list[Row] = []
    drawn: dict[str, dict[str, list[Record]]] = {}
    for where, instance in (QUICK if quick else INSTANCES).items():
        drawn[where] = {}
        for method in methods:
            setting = METHODS[method].default
            records = [cell(instance, method, setting, seed, device) for seed in seeds]
            drawn[where][method] = records
            cells += [
                cell_row(where, method, "default", setting, s, r) for s, r in zip(seeds, records, strict=True)
            ]
            table.append(
                {
                    "instance": where,
                    "method": method,
                    "batch in proportion to": RULES[method],
                    "accuracy, %": points(r.accuracy for r in records),
                    "test loss": interval(r.loss for r in records)[0],
                    "rounds": int(np.median([r.rounds for r in records])),
                    "tau": float(np.median([r.local_steps for r in records])),
                    "mean s": float(np.median([r.batch for r in records])),
                    "cost used, %": points((r.cost for r in records), 0),
                    "time used, %": points((r.time for r in records), 0),
                }
            )
        save("batches", table, folder)
        write_cells("batches", cells, folder)

    def plot(axes: Any) -> None:
        width = 0.8 / len(drawn)
        for k, (where, runs) in enumerate(drawn.items()):
            stats = [interval(100 * r.accuracy for r in records) for records in runs.values()]
            place = np.arange(len(runs)) + k * width
            axes.barh(place, [m for m, _ in stats], width, xerr=[h for _, h in stats], label=where)
        axes.set_yticks(np.arange(len(methods)) + 0.4 - width / 2, methods, fontsize=8)
        axes.set(xlabel="test accuracy, %")
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=2)

    picture("batches", plot, folder, height=5.0)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
