"""What a collection saves over solving its problems one by one.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.many            # two minutes of one core
    OMP_NUM_THREADS=1 python -m benchmarks.solvers.many --report   # table from the committed CSV

Two collections of 6 problems with the fleets of peer_solvers/formula.py: a sweep (one fleet, cost limits from
0.8 to 1.2 times the usual) and strangers (6 fleets). Each is solved by a loop over solve_allocation, by
solve_many, and by each of its two savings alone: the bound tied to fleet and constants once, or the plan of
one problem as the start of the next. Seconds of CPU, medians of three repetitions, all after one unmeasured
solve. Results are compared: they agree to 1e-10.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.solvers.peer_solvers.formula import instance
from coopt import BoundWarning, Problem, solve_allocation, solve_many
from coopt.objectives.registry import resolve_bound
from coopt.questions.kept_form import keeping_form

RESULTS = Path(__file__).parent / "results"
COUNT, REPETITIONS = 6, 3
Way = Callable[[list[Problem], str], list[float]]


def one_by_one(problems: list[Problem], bound: str) -> list[float]:
    return [solve_allocation(problem, bound=bound).error_bound for problem in problems]


def together(problems: list[Problem], bound: str) -> list[float]:
    return [plan.error_bound for plan in solve_many(problems, bound=bound).allocations]


def tied_once(problems: list[Problem], bound: str) -> list[float]:
    shared = keeping_form(resolve_bound(bound))
    return [solve_allocation(problem, bound=shared).error_bound for problem in problems]


def started(problems: list[Problem], bound: str) -> list[float]:
    plans = [solve_allocation(problems[0], bound=bound)]
    for problem in problems[1:]:
        plans.append(solve_allocation(problem, bound=bound, warm_start=plans[-1]))
    return [plan.error_bound for plan in plans]


WAYS: dict[str, Way] = {
    "one_by_one": one_by_one,
    "solve_many": together,
    "tied_once": tied_once,
    "started": started,
}


def sweep(size: int) -> list[Problem]:
    base = instance(size, 0)
    factors = np.linspace(0.8, 1.2, COUNT)
    return [replace(base, budget=replace(base.budget, cost=base.budget.cost * f)) for f in factors.tolist()]


def strangers(size: int) -> list[Problem]:
    return [instance(size, seed) for seed in range(COUNT)]


def measure() -> list[dict[str, str]]:
    rows = []
    for bound in ("dynamite", "certified"):
        for name, make in (("sweep", sweep), ("strangers", strangers)):
            for size in (10, 1000):
                problems = make(size)
                solve_allocation(problems[0], bound=bound)
                seconds: dict[str, list[float]] = {way: [] for way in WAYS}
                expected = one_by_one(problems, bound)
                for _ in range(REPETITIONS):
                    for way, run in WAYS.items():
                        began = time.process_time()
                        found = run(problems, bound)
                        seconds[way].append(time.process_time() - began)
                        assert np.allclose(found, expected, rtol=1e-10, atol=0.0)
                medians = {way: f"{np.median(times):.4g}" for way, times in seconds.items()}
                rows.append({"bound": bound, "collection": name, "devices": str(size), **medians})
                print(rows[-1], flush=True)
    return rows


def report(rows: list[dict[str, str]]) -> str:
    lines = [
        "# Collections",
        "",
        f"{COUNT} problems each; seconds of CPU, medians of {REPETITIONS}; in brackets against one by one.",
        "",
        "| bound | collection | devices | one by one | `solve_many` | only tied once | only started |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = float(row["one_by_one"])
        cells = [f"{float(row[way]):.3g} ({float(row[way]) / first:.0%})" for way in list(WAYS)[1:]]
        start = (row["bound"], row["collection"], row["devices"], f"{first:.3g}")
        lines.append(f"| {' | '.join([*start, *cells])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--report", action="store_true", help="write the table from the committed CSV")
    table = RESULTS / "many.csv"
    if not parser.parse_args().report:
        warnings.simplefilter("ignore", BoundWarning)
        rows = measure()
        tables.write(table, rows)
    (RESULTS / "many.md").write_text(report(tables.read(table)))


if __name__ == "__main__":
    main()
