"""A convolutional network on CIFAR-10 while data arrive: do the plans transfer where no assumption holds?

    python -m benchmarks.federated.deep            # about ten minutes of one core
    python -m benchmarks.federated.deep --quick

Five phones, images of 8 x 8 pixels, convolutions of 8 and 16 channels, learning rate 0.2, a burst into
reservoirs. The last rows plan once, from what a short pilot measures, with the bound for losses with the
Polyak-Lojasiewicz property and with the one that does without, and keep to that plan.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.federation import Instance
from benchmarks.federated.methods import METHODS, ONCE, OURS, SCHEDULE
from benchmarks.federated.report import cell_row, command_line, interval, points, write_cells
from benchmarks.federated.runner import Record, cell
from benchmarks.tables import Row, picture, save

SMALL = Instance(
    "cifar10",
    4,
    "cnn",
    devices=5,
    case="iid",
    samples=1500,
    spread=0.5,
    rounds=60,
    rate=0.2,
    stream=("reservoir", "burst", "iid"),
    evaluate_every=3,
)
QUICK = Instance("digits", 1, "cnn", devices=3, samples=80, rounds=2, rate=0.1, speeds=10, widths=(2, 4, 8))
NAMES = {SCHEDULE: "coopt", OURS: "coopt, by reports alone"}
COMPARED = ("DYNAMITE", "AdaCoOpt", "FedAvg", *(f"planned once, {bound}" for bound in ONCE))


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    instances = {"iid": SMALL, "half of each device one class": replace(SMALL, case="skew", alpha=0.5)}
    if quick:
        instances = {"digits": QUICK}
    methods = (SCHEDULE, "FedAvg") if quick else (SCHEDULE, OURS, *COMPARED)
    seeds = range(2) if quick else range(5)
    table: list[Row] = []
    cells: list[Row] = []
    drawn: dict[str, list[Record]] = {}
    for where, instance in instances.items():
        for method in methods:
            setting = METHODS[method].default
            records = [cell(instance, method, setting, seed, device) for seed in seeds]
            cells += [
                cell_row(where, method, "default", setting, s, r) for s, r in zip(seeds, records, strict=True)
            ]
            name = NAMES.get(method, method)
            drawn[f"{where}: {name}"] = records
            table.append(
                {
                    "partition": where,
                    "method": name,
                    "accuracy, %": points(r.accuracy for r in records),
                    "test loss": interval(r.loss for r in records)[0],
                    "rounds": int(np.median([r.rounds for r in records])),
                    "tau": float(np.median([r.local_steps for r in records])),
                    "mean s": float(np.median([r.batch for r in records])),
                    "cost used, %": points((r.cost for r in records), 0),
                    "time used, %": points((r.time for r in records), 0),
                }
            )
            save("deep", table, folder)
            write_cells("deep", cells, folder)

    def plot(axes: Any) -> None:
        for name, records in drawn.items():
            curve = np.array(records[0].curve)
            axes.plot(curve[:, 1], curve[:, 2], label=name)
        axes.set(xlabel="share of the time budget, one seed", ylabel="test accuracy")
        axes.legend(fontsize=6)

    picture("deep", plot, folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
