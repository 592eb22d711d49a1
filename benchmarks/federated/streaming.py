"""Training while data arrive: buffers, arrivals and orders, with the published controllers and ours.

    python -m benchmarks.federated.streaming            # about eight minutes of one core
    python -m benchmarks.federated.streaming --quick

Data arrive by the simulated clock, so running more rounds shows nobody more data. A fifth is there at the
start, buffers hold a quarter of all; a burst comes after a third of the time, smooth arrivals in twenty
portions, random ones in five. In an ordered stream every device sees one class after the other. Test data
have all classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.federated.federation import Instance
from benchmarks.federated.methods import METHODS, OURS
from benchmarks.federated.report import cell_row, command_line, points, write_cells
from benchmarks.federated.runner import Record, cell
from benchmarks.tables import Row, picture, save

SAMPLERS, ARRIVALS, ORDERS = (
    ("reservoir", "random", "fifo"),
    ("smooth", "burst", "random"),
    ("iid", "ordered"),
)
COMPARED = ("DYNAMITE", "AdaCoOpt", "FedAvg", "Dynamic-tau")
DATA = {
    "CIFAR-10": Instance("cifar10", 4, "logistic", devices=10, rounds=30),
    "activity": Instance("sensors", 1, "logistic", rounds=30),
}
QUICK = {"digits": Instance("digits", 1, "logistic", devices=4, samples=100, rounds=3, speeds=10)}


def streams(quick: bool) -> list[tuple[str, str, str]]:
    """Every arrival and order with a reservoir, and every buffer with a burst."""
    if quick:
        return [("reservoir", "burst", "iid"), ("fifo", "burst", "ordered")]
    return [
        (sampler, arrivals, order)
        for sampler in SAMPLERS
        for arrivals in ARRIVALS
        for order in ORDERS
        if sampler == "reservoir" or arrivals == "burst"
    ]


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    seeds = range(2) if quick else range(5)
    methods = (OURS, "DYNAMITE") if quick else (OURS, *COMPARED)
    table: list[Row] = []
    cells: list[Row] = []
    ours: dict[tuple[str, str], list[Record]] = {}
    for where, base in (QUICK if quick else DATA).items():
        for stream in streams(quick):
            instance = replace(base, stream=stream)
            row: Row = {"data": where, "buffer": stream[0], "arrivals": stream[1], "order": stream[2]}
            for method in methods:
                if method != OURS and stream[0] != "reservoir":
                    row[method] = None
                    continue
                setting = METHODS[method].default
                records = [cell(instance, method, setting, seed, device) for seed in seeds]
                row[method] = points(r.accuracy for r in records)
                name = f"{where}, {', '.join(stream)}"
                cells += [
                    cell_row(name, method, "default", setting, s, r)
                    for s, r in zip(seeds, records, strict=True)
                ]
                if method == OURS:
                    ours[where, f"{stream[0]}, {stream[1]}, {stream[2]}"] = records
            table.append(row)
            save("streaming", table, folder)
            write_cells("streaming", cells, folder)

    def plot(axes: Any) -> None:
        names = [f"{where}: {stream}" for where, stream in ours]
        values = [[100 * r.accuracy for r in records] for records in ours.values()]
        axes.boxplot(values, orientation="horizontal", tick_labels=names)
        axes.tick_params(axis="y", labelsize=7)
        axes.set(xlabel="test accuracy of coopt, %")

    picture("streaming", plot, folder, height=1.0 + 0.3 * len(ours))
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
