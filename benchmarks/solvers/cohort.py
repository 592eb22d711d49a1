"""How large a fleet's best cohort is found and proved, and how good leaving devices out in order is.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.cohort            # a quarter of an hour of one core
    OMP_NUM_THREADS=1 python -m benchmarks.solvers.cohort --report   # table from the committed CSV

Five fleets of each size, with samples, noise, divergence, throughput, round times and round costs that differ
by orders of magnitude, a limit on cost and a deadline; all devices may train, or half of them. Each search
stops after LIMIT seconds. "closed" counts gaps of 1e-8 at most. "nested best" counts the problems, of
those that closed, where the best of the nested cohorts that the search begins with was within 0.1 % of the
optimum; "excess" is its largest over all problems. With 8 devices every cohort is solved as well, and the
best compared with what the search found.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import (
    BoundWarning,
    Budget,
    Certified,
    Constants,
    Fleet,
    InfeasibleError,
    Problem,
    choose_cohort,
    leave_out,
    solve_allocation,
)
from coopt.questions.cohort import _ForBound

RESULTS = Path(__file__).parent / "results"
SIZES = (8, 15, 20, 30, 50, 100, 1000)
SEEDS = 5
LIMIT = 20.0
ENUMERATED = 8
CLOSED, NEARLY = 1e-8, 1e-3


def instance(size: int, seed: int) -> Problem:
    """A fleet of very different devices; rounds cost time and money on each."""
    rng = np.random.default_rng([size, seed])
    fleet = Fleet(
        samples=np.maximum(rng.lognormal(5.5, 1.0, size), 20).astype(int),
        gradient_noise=rng.lognormal(1.0, 0.7, size),
        divergence=rng.lognormal(-2.7, 0.5, size),
        throughput=rng.lognormal(4.5, 1.0, size),
        round_time=rng.lognormal(0.0, 1.2, size),
        round_cost=rng.lognormal(2.0, 0.7, size),
    )
    constants = Constants(
        learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
    )
    return Problem(fleet, constants, Budget(cost=1e4 * size, time=1500.0, max_local_steps=40))


def best_of_all(problem: Problem, most: int) -> float:
    """The smallest error bound of every cohort of at most so many devices, each solved."""
    devices, best = range(len(problem.fleet)), math.inf
    for size in range(1, most + 1):
        for kept in itertools.combinations(devices, size):
            try:
                plan = solve_allocation(leave_out(problem, set(devices) - set(kept)))
            except InfeasibleError:
                continue
            best = min(best, plan.error_bound)
    return best


def row_of(size: int, seed: int, most: int) -> dict[str, str]:
    """One problem: the search, and the nested cohorts beside it."""
    problem = instance(size, seed)
    nested = _ForBound(problem, Certified(), CLOSED)
    nested.nested(most)
    begun = time.perf_counter()
    found = choose_cohort(problem, most, time_limit=LIMIT)
    seconds = time.perf_counter() - begun
    plan = found.allocation
    if size <= ENUMERATED:
        every = best_of_all(problem, most)
        assert abs(plan.error_bound - every) <= CLOSED * every, (seed, most)
    return {
        "devices": str(size),
        "most": str(most),
        "seed": str(seed),
        "trained": str(len(found.devices)),
        "error_bound": f"{plan.error_bound:.10g}",
        "gap": f"{plan.gap:.3g}",
        "nested_excess": f"{nested.value / plan.error_bound - 1.0:.3g}",
        "searches": str(found.searches),
        "nodes": str(int(plan.trace["nodes"])),
        "seconds": f"{seconds:.3g}",
    }


def measure() -> list[dict[str, str]]:
    """One row a problem."""
    rows = []
    for size, seed, half in itertools.product(SIZES, range(SEEDS), (False, True)):
        rows.append(row_of(size, seed, size // 2 if half else size))
        print(rows[-1], flush=True)
    return rows


def report(rows: list[dict[str, str]]) -> str:
    """The table, as markdown."""
    lines = [
        "# The best cohort",
        "",
        f"{SEEDS} fleets of each size; a search ends after {LIMIT:g} s. Searches, nodes, seconds: medians.",
        f"With {ENUMERATED} devices the best of all cohorts is what the search found, each time.",
        "",
        "| devices | may train | closed | largest gap | searches | nodes | seconds | nested best | excess |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (devices, most), group in itertools.groupby(
        sorted(rows, key=lambda row: (int(row["devices"]), -int(row["most"]))),
        key=lambda row: (row["devices"], row["most"]),
    ):
        same = list(group)
        closed = [row for row in same if float(row["gap"]) <= CLOSED]
        optimal = sum(float(row["nested_excess"]) <= NEARLY for row in closed)
        medians = [
            f"{np.median([float(row[name]) for row in same]):{form}}"
            for name, form in (("searches", ".0f"), ("nodes", ".0f"), ("seconds", ".2g"))
        ]
        cells = [
            devices,
            most,
            f"{len(closed)} of {len(same)}",
            f"{max(float(row['gap']) for row in same):.2g}",
            *medians,
            f"{optimal} of {len(closed)}",
            f"{max(float(row['nested_excess']) for row in same):.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--report", action="store_true", help="write the table from the committed CSV")
    table = RESULTS / "cohort.csv"
    if not parser.parse_args().report:
        warnings.simplefilter("ignore", BoundWarning)
        rows = measure()
        tables.write(table, rows)
    (RESULTS / "cohort.md").write_text(report(tables.read(table)))


if __name__ == "__main__":
    main()
