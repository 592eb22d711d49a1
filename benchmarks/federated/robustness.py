"""Where batches that differ stop paying: from i.i.d. data to one digit each, from equal speeds to 1:100.

    python -m benchmarks.federated.robustness            # about five minutes of one core
    python -m benchmarks.federated.robustness --quick

Both runs plan with the same controller; in one all devices of a round get the same batch, for no more time
and no more cost than the plan's. The table shows by how much the other one is more accurate.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.federation import Instance
from benchmarks.federated.methods import METHODS, SCHEDULE, SCHEDULE_ALIKE
from benchmarks.federated.report import cell_row, command_line, interval, write_cells
from benchmarks.federated.runner import cell
from benchmarks.tables import Row, picture, save

SHARES, RATIOS = (0.0, 0.5, 1.0), (1, 10, 100)
BASE = Instance("mnist", 2, "svm", devices=10, rounds=25)
COMPARED = (SCHEDULE_ALIKE, "FedAvg")


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    shares, ratios, seeds = ((1.0,), (1, 10), range(2)) if quick else (SHARES, RATIOS, range(5))
    base = replace(BASE, data="digits", pool=1, devices=4, samples=60, rounds=3) if quick else BASE
    table: list[Row] = []
    cells: list[Row] = []
    for alpha in shares:
        for ratio in ratios:
            instance = replace(base, alpha=alpha, speeds=float(ratio))
            where = f"alpha {alpha:g}, speeds 1:{ratio}"
            ours = [cell(instance, SCHEDULE, (), seed, device) for seed in seeds]
            row: Row = {
                "one digit, share": alpha,
                "speeds": f"1:{ratio}",
                "coopt, %": 100 * interval(r.accuracy for r in ours)[0],
            }
            cells += [
                cell_row(where, SCHEDULE, "default", (), s, r) for s, r in zip(seeds, ours, strict=True)
            ]
            for method in COMPARED:
                setting = METHODS[method].default
                other = [cell(instance, method, setting, seed, device) for seed in seeds]
                cells += [
                    cell_row(where, method, "default", setting, s, r)
                    for s, r in zip(seeds, other, strict=True)
                ]
                pairs = list(zip(ours, other, strict=True))
                name = "same batch" if method == SCHEDULE_ALIKE else "FedAvg"
                gain, half = interval(100 * (a.accuracy - b.accuracy) for a, b in pairs)
                row |= {f"over {name}, points": gain, f"{name}, 95 % ±": half}
                loss, half = interval(100 * (1 - a.loss / b.loss) for a, b in pairs)
                row |= {f"loss below {name}, %": loss}
            table.append(row)
            save("robustness", table, folder)
            write_cells("robustness", cells, folder)

    def plot(axes: Any) -> None:
        key = "over same batch, points"
        gains = np.array([row[key] for row in table]).reshape(len(shares), len(ratios))
        errors = np.array([row["same batch, 95 % ±"] for row in table]).reshape(gains.shape)
        most = max(float(np.abs(gains).max()), 1e-9)
        shown = axes.imshow(gains, cmap="RdBu", vmin=-most, vmax=most, aspect="auto", origin="lower")
        for i in range(len(shares)):
            for j in range(len(ratios)):
                axes.text(j, i, f"{gains[i, j]:+.1f} ± {errors[i, j]:.1f}", ha="center", va="center")
        axes.set_xticks(range(len(ratios)), [f"1:{ratio}" for ratio in ratios])
        axes.set_yticks(range(len(shares)), [f"{share:g}" for share in shares])
        axes.set(xlabel="slowest to fastest device", ylabel="share of one digit")
        axes.figure.colorbar(shown, label="points more accurate than one batch for all")

    picture("robustness", plot, folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
