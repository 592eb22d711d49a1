"""What the tables share: intervals over seeds, savings to a target, files side by side in results/."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables
from benchmarks.federated.runner import Record
from benchmarks.tables import Row

RESULTS = Path(__file__).parent / "results"
# Student's t, two-sided 95 %, by degrees of freedom.
STUDENT = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval."""
    x = np.array(list(values))
    if len(x) < 2:
        return float(x.mean()), float("nan")
    return float(x.mean()), float(STUDENT[len(x) - 1] * x.std(ddof=1) / np.sqrt(len(x)))


def points(values: Iterable[float], digits: int = 1) -> str:
    """Mean and interval of shares, in per cent."""
    mean, half = interval(100 * value for value in values)
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def reached(record: Record, target: float, axis: int) -> float:
    """Share of the budget (axis 0: cost, 1: time) at which the target was first met; else infinity."""
    for point in record.curve:
        if point[2] >= target:
            return point[axis]
    return float("inf")


def saving(ours: Record, theirs: Record, axis: int) -> float:
    """What we save on the way to the accuracy that they end with, as a share of what they spend on it.

    Where we never reach it, all that we spent counts, so the saving is understated in their favour or ours by
    no more than the rest of the budget; how often that happens is told beside it.
    """
    target = theirs.accuracy
    spent = (ours.cost, ours.time)[axis]
    return 1 - min(reached(ours, target, axis), spent) / reached(theirs, target, axis)


def write_cells(name: str, rows: Sequence[Row], folder: Path) -> None:
    """Write NAME_cells.csv: one line a run."""
    tables.write(folder / f"{name}_cells.csv", rows, digits=5)


def cell_row(where: str, method: str, kind: str, setting: Sequence[float], seed: int, record: Record) -> Row:
    """One run as a line."""
    return {
        "instance": where,
        "method": method,
        "kind": kind,
        "setting": "-".join(f"{value:g}" for value in setting),
        "seed": seed,
        "accuracy": record.accuracy,
        "loss": record.loss,
        "rounds": record.rounds,
        "local_steps": record.local_steps,
        "batch": record.batch,
        "cost": record.cost,
        "time": record.time,
    }


def command_line(run: Callable[[bool, Path, str], Any], about: str | None) -> None:
    """--quick for a smoke run, --out for another folder than results/, --device for torch."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="seconds, on digits, for a smoke test")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the tables and pictures")
    parser.add_argument("--device", default="cpu", help="torch device, for example cuda")
    arguments = parser.parse_args()
    run(arguments.quick, arguments.out, arguments.device)
