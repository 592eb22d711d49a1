"""Plans in phases, chosen by the forecast and really trained, against the best fixed plan in hindsight.

    python -m benchmarks.forecast.schedules            # after the grid: 25 minutes of one core
    python -m benchmarks.forecast.schedules --quick

A plan of the grid is trained with all of the budget, at the federation's learning rate; its gap F - F* is the
mean of five runs, and the best of all plans is what the others are divided by. For a schedule the pilot and
the measurement are charged first, everything included; the rest is planned, and training goes on from the
model measured. Measurements and draws are fresh: no rule of coopt was made looking at them.

Decays of the rate, and the best fixed plan over five rates, are tuned in hindsight: of all their runs the
best one counts (:mod:`benchmarks.forecast.hindsight`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.data import Floats
from benchmarks.federated.report import write_cells
from benchmarks.forecast.federations import Federation
from benchmarks.forecast.grid import PILOT, studies
from benchmarks.forecast.hindsight import SHAPES, best_decay, best_fixed
from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.report import command_line, spread
from benchmarks.forecast.study import Measured, Study
from benchmarks.forecast.training import Run, kept_run, train
from benchmarks.tables import Row, picture, save
from coopt import Constants, Phase, Problem, Schedule, solve_schedule

LEVELS = (4, 16)
# Rows and directions: coopt's defaults.
ROWS, DIRECTIONS = 16, 24
# Sources of pilots, measurements and draws, apart from all that the grid and the rules used.
MEASUREMENTS, STREAM = (21,), 5000
RUNS = 3
PLANS: dict[str, tuple[int, Any]] = {
    "one phase": (1, None),
    "two phases": (2, None),
    "three phases": (3, None),
    "one phase, free rate": (1, "auto"),
    "two phases, free rates": (2, "auto"),
    "three phases, free rates": (3, "auto"),
    "five phases, free rates": (5, "auto"),
}
# Tuned in hindsight; the first is what all gaps are divided by.
FIXED, BEST_FIXED = "best fixed plan", "best fixed plan of five rates"
BASELINES = (FIXED, BEST_FIXED, *SHAPES)


def trained(federation: Federation, phases: Sequence[Phase], start: Floats | None, stream: int) -> Floats:
    """The loss at the end of every run."""
    models, losses = start, np.empty(0, dtype=np.float32)
    for place, phase in enumerate(phases):
        run = train(
            federation,
            phase.local_steps,
            np.broadcast_to(phase.batch_sizes, len(federation)).astype(np.int64),
            np.array([phase.rounds], dtype=np.int64),
            RUNS,
            models,
            learning_rate=phase.learning_rate,
            stream=stream + place,
        )
        models, losses = run.models, run.losses[:, -1]
    return losses


def kept_losses(study: Study, phases: Sequence[Phase], start: Floats | None, what: object) -> Floats:
    """The same, from the cache where it was trained before."""
    plan = [[p.rounds, p.local_steps, p.batch_sizes.tolist(), p.learning_rate] for p in phases]

    def make() -> Run:
        losses = trained(study.federation, phases, start, STREAM)
        return Run(np.zeros(1, dtype=np.int64), losses[:, None], np.zeros((RUNS, 1), dtype=np.float32))

    return kept_run(study.case, ["schedule", plan, what, STREAM], RUNS, make).losses[:, 0]


def planned(study: Study, measured: Measured, level: float, phases: int, rate: Any) -> Schedule:
    """The schedule for what measuring leaves of the budget."""
    limit = CostLimit(study, level)
    problem = Problem(
        measured.measurement.fleet(),
        Constants(study.federation.learning_rate, smoothness=1.0, initial_gap=1.0),
        limit.budget(1.0 - limit.charge(measured)),
    )
    return solve_schedule(problem, measured.measurement, phases=phases, learning_rate=rate)


def cells(name: str, study: Study, level: float, seeds: Sequence[int]) -> Iterator[Row]:
    """Every plan at one budget of one federation."""
    federation = study.federation
    limit = CostLimit(study, level)
    rounds = {pair: many for pair in study.runs if (many := limit.rounds(pair)) >= 1}
    gaps = {pair: study.gap(pair, many) for pair, many in rounds.items()}
    best = min(gaps, key=lambda pair: gaps[pair])
    hindsight = {FIXED: (gaps[best], f"{rounds[best]} x {best[0]}, s {best[1]}, 1 of {len(gaps)} plans")}
    hindsight[BEST_FIXED] = best_fixed(study, limit, rounds, gaps)
    hindsight |= {shape: best_decay(study, rounds, gaps, shape) for shape in SHAPES}

    def row(plan: str, seed: int, gap: float, text: str, directions: int = 0, charge: float = 0.0) -> Row:
        return {
            "federation": name,
            "budget": f"{level}x",
            "plan": plan,
            "seed": seed,
            "gap": gap,
            **{f"over the {baseline}": gap / hindsight[baseline][0] for baseline in BASELINES},
            "directions": directions,
            "charge": charge,
            "phases": text,
        }

    for seed in seeds:
        measured = study.measured(PILOT, ROWS, DIRECTIONS, seed, limit.cost)
        for plan, (phases, rate) in PLANS.items():
            found = planned(study, measured, level, phases, rate)
            losses = kept_losses(study, found.phases, measured.model, seed)
            text = "; ".join(
                f"{p.rounds} x {p.local_steps}, s {p.batch_sizes.mean():.1f}, "
                f"{p.learning_rate / federation.learning_rate:.2f}"
                for p in found.phases
            )
            gap = float(losses.mean() - study.lowest)
            yield row(plan, seed, gap, text, measured.measurement.directions, limit.charge(measured)) | {
                "rows": ROWS
            }
    for baseline, (gap, text) in hindsight.items():
        yield row(baseline, 0, gap, text) | {"rows": 0}


def summary(rows: list[Row]) -> list[Row]:
    """One row a plan, budget and measurement: geometric mean over federations, and how often it lost."""
    table = []
    for key in dict.fromkeys(_key(row) for row in rows):
        own = [row for row in rows if _key(row) == key]
        ratios = [row[f"over the {FIXED}"] for row in own]
        table.append(
            {
                "plan": key[0],
                "budget": key[1],
                "measured": key[2],
                "charge, %": 100.0 * float(np.mean([row["charge"] for row in own])),
                f"over the {FIXED}": spread(ratios),
                "smallest": min(ratios),
                "largest": max(ratios),
                "above 1.05": sum(ratio > 1.05 for ratio in ratios),
                **{f"over the {b}": spread(row[f"over the {b}"] for row in own) for b in BASELINES[1:]},
                "cases": len(ratios),
            }
        )
    return table


def _key(row: Row) -> tuple[str, str, str]:
    """The plan, the budget, and how much was measured."""
    return row["plan"], row["budget"], f"{row['rows']} rows" if row["rows"] else "nothing"


def draw(rows: list[Row]) -> Any:
    """The ratio of every plan in every case."""

    def plot(axes: Any) -> None:
        plans = list(dict.fromkeys(", ".join(_key(row)) for row in rows))
        for place, plan in enumerate(reversed(plans)):
            ratios = [row[f"over the {FIXED}"] for row in rows if ", ".join(_key(row)) == plan]
            axes.plot(ratios, [place] * len(ratios), "o", color="tab:blue", alpha=0.5, markersize=5)
            axes.plot(spread(ratios), place, "|", color="black", markersize=14, markeredgewidth=2)
        axes.axvline(1.0, color="grey", linewidth=0.8)
        axes.set_yticks(range(len(plans)), list(reversed(plans)), fontsize=8)
        axes.set(xscale="log", xlabel="gap over that of the best fixed plan in hindsight")

    return plot


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    rows: list[Row] = []
    for name, study in studies(quick):
        if only and name not in only:
            continue
        for level in [level for level in study.case.levels if quick or level in LEVELS]:
            rows += cells(name, study, level, MEASUREMENTS)
            write_cells("schedules", rows, folder)
            print(name, level, flush=True)
    table = summary(rows)
    save("schedules", table, folder)
    picture("schedules", draw(rows), folder, height=6.0)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)
