"""Where the forecast fails, and what the result warned of.

    python -m benchmarks.forecast.failures            # a few minutes of one core
    python -m benchmarks.forecast.failures --quick

Each line is a federation of handwritten digits with one thing wrong, and twelve plans really trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecast.federations import CASES, ChangedCase
from benchmarks.forecast.grid import EFFORT, PILOT, Contest
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.report import command_line
from benchmarks.forecast.study import Measured, Study
from benchmarks.tables import Row, picture, save
from coopt import CooptError, MeasurementWarning

ROWS, DIRECTIONS = EFFORT[16]
STEPS, BATCHES, LEVEL, RUNS = (1, 5, 20, 80), (2, 8, 32), 4, 3
LINEAR = replace(CASES["digits, logistic"], levels=(LEVEL,))
SQUARED = replace(CASES["digits, squared"], levels=(LEVEL,))
NETWORK = replace(CASES["digits, tanh"], levels=(LEVEL,))


@dataclass(frozen=True)
class Trouble:
    """A study of what was measured, one of what was trained, and when it was measured."""

    name: str
    measured: Study
    trained: Study
    pilot: int = PILOT


def troubles(quick: bool) -> Iterator[Trouble]:
    grid = ((1, 20), (2, 32), 1) if quick else (STEPS, BATCHES, RUNS)

    def study(case: Any) -> Study:
        return Study(replace(case, devices=3, samples=40, rounds=4) if quick else case, *grid)

    usual = study(LINEAR)
    changed = study(ChangedCase(**vars(LINEAR), changed=0))
    yield Trouble("nothing wrong", usual, usual)
    shuffled = study(replace(LINEAR, shuffled=True))
    yield Trouble("labels at random", shuffled, shuffled)
    yield Trouble("one device's labels change after measuring", usual, changed)
    if quick:
        return
    yield Trouble(
        "rate at 95 % of instability, squared loss", same := study(replace(SQUARED, rate=1.9)), same
    )
    network = study(NETWORK)
    yield Trouble("network, measured early", network, network)
    # 400 rounds of 16 samples are half of what the budget pays for.
    yield Trouble("network, measured when it interpolates", network, network, 400)


def row(trouble: Trouble) -> Row:
    """How well the forecast ranks the plans that are trained."""
    study = trouble.trained
    contest = Contest(trouble.name, study, CostLimit(study, max(study.case.levels)), "")
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MeasurementWarning)
        try:
            found = trouble.measured.measure_anew(trouble.pilot, ROWS, DIRECTIONS, 0)
        except CooptError as error:
            return _line(trouble.name, None, None, [str(error)])
    texts = [str(w.message) for w in caught if issubclass(w.category, MeasurementWarning)]
    # The pilot and its measurement are not charged here: what matters is what the forecast knows.
    free = Measured(found, np.zeros(0, dtype=np.float32), 0.0, 0)
    try:
        picked = contest.forecast(free, 0)
    except CooptError as error:
        return _line(trouble.name, None, found, [*texts, str(error)])
    return _line(trouble.name, picked, found, texts)


def _line(name: str, picked: Row | None, found: Any, texts: list[str]) -> Row:
    return {
        "what is wrong": name,
        "regret": picked["regret"] if picked else None,
        "rank correlation": picked["rank"] if picked else None,
        "picked (tau, s)": f"({picked['tau']}, {picked['s']})" if picked else "-",
        "gradient unseen, %": f"{100 * found.unseen:.0f}" if found else "-",
        "noise seen, %": f"{100 * found.noise_seen:.0f}" if found else "-",
        "warned of": "; ".join(text.split(":")[0] for text in texts) or "nothing",
    }


def draw(table: list[Row]) -> Any:
    def plot(axes: Any) -> None:
        shown = [t for t in table if t["regret"] is not None]
        axes.barh([t["what is wrong"] for t in shown], [t["regret"] for t in shown])
        axes.axvline(1.0, color="grey", linewidth=0.8)
        axes.invert_yaxis()
        axes.set(xlabel="gap of the plan picked / best of the grid")
        axes.tick_params(labelsize=8)

    return plot


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    table = [row(t) for t in troubles(quick) if not only or t.name in only]
    save("failures", table, folder)
    picture("failures", draw(table), folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
