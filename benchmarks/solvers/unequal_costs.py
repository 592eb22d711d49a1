"""How often whole batches at unequal sample costs are solved to optimality, and how long that takes.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.unequal_costs     # 1 minute of one core
    python -m benchmarks.solvers.unequal_costs --report              # the table from the committed CSV

Two problems: the batches of one step alone (`allocate_batches`, twenty units a device on average), and the
whole plan (`solve_allocation`, rounds, local steps and batches, by the bounds "dynamite" and "certified").
Fleets are those of exact_speed.py, with sample costs of several kinds; equal ones are solved in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import tables
from benchmarks.solvers.exact_speed import fleet_of
from coopt import BoundWarning, Fleet, Problem, allocate_batches, solve_allocation

Floats = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
SIZES = (20, 100, 1000, 10_000)
SEEDS = 5
COSTS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "equal": lambda _rng, n: np.ones(n),
    "real, 0.5 to 2": lambda rng, n: rng.uniform(0.5, 2.0, n),
    "cents, 0.50 to 2.00": lambda rng, n: np.round(rng.uniform(0.5, 2.0, n), 2),
    "1, 2 or 5": lambda rng, n: rng.choice([1.0, 2.0, 5.0], n),
    "lognormal": lambda rng, n: rng.lognormal(0.0, 1.0, n),
    "real, within 10 %": lambda rng, n: rng.uniform(1.0, 1.1, n),
    "real, within 1 %": lambda rng, n: rng.uniform(1.0, 1.01, n),
    "real, within 0.1 %": lambda rng, n: rng.uniform(1.0, 1.001, n),
    "real, within 1e-6": lambda rng, n: rng.uniform(1.0, 1.0 + 1e-6, n),
    "1, 2 or 5, within 1 %": lambda rng, n: rng.choice([1.0, 2.0, 5.0], n) * rng.uniform(1.0, 1.01, n),
}
FIELDS = ("problem", "devices", "costs", "seed", "gap", "seconds")


def with_costs(devices: int, seed: int, costs: Floats) -> Problem:
    """The problem of exact_speed.py with these sample costs, their mean scaled to one."""
    base = fleet_of(devices, seed)
    fleet = base.fleet
    return Problem(
        Fleet(
            samples=fleet.samples,
            gradient_noise=fleet.gradient_noise,
            divergence=fleet.divergence,
            throughput=fleet.throughput,
            round_time=fleet.round_time,
            sample_cost=costs,
        ),
        base.constants,
        base.budget,
    )


def measured() -> list[dict[str, object]]:
    """One row for each problem, size, kind of cost and seed."""
    rows: list[dict[str, object]] = []

    def add(problem: str, devices: int, kind: str, seed: int, gap: float, seconds: float) -> None:
        rows.append(
            {
                "problem": problem,
                "devices": devices,
                "costs": kind,
                "seed": seed,
                "gap": gap,
                "seconds": seconds,
            }
        )

    for devices in SIZES:
        for kind, draw in COSTS.items():
            for seed in range(SEEDS):
                rng = np.random.default_rng([devices, seed])
                costs, weights = draw(rng, devices), rng.lognormal(0.0, 1.0, devices)
                upper = rng.integers(20, 200, devices)
                begun = time.process_time()
                plan = allocate_batches(weights, costs, 20.0 * float(costs.sum()), 1, upper)
                seconds = time.process_time() - begun
                add("batches", devices, kind, seed, 1.0 - plan.lower_bound / plan.value, seconds)
                for bound in ("dynamite", "certified"):
                    problem = with_costs(devices, seed, costs)
                    begun = time.process_time()
                    found = solve_allocation(problem, bound=bound)
                    add(bound, devices, kind, seed, found.gap, time.process_time() - begun)
    return rows


def _kind(row: dict[str, str]) -> tuple[str, str, str]:
    return row["problem"], row["devices"], row["costs"]


def report(rows: list[dict[str, str]]) -> str:
    """The table in markdown."""
    lines = [
        "Whole batches at unequal sample costs (`benchmarks/solvers/unequal_costs.py`): how many fleets",
        f"of {SEEDS} of each kind are solved to a gap of 1e-12, the largest gap, the median time, and how",
        "many times as long as at equal costs that is.",
        "",
        "| problem | devices | costs | closed | largest gap | seconds | of equal costs |",
        "|---|---|---|---|---|---|---|",
    ]
    seconds_of = {
        key: statistics.median(float(row["seconds"]) for row in rows if _kind(row) == key)
        for key in dict.fromkeys(map(_kind, rows))
    }
    for key in sorted(seconds_of, key=lambda key: (key[0] != "batches", key[0], int(key[1]))):
        own = [row for row in rows if _kind(row) == key]
        gaps = [float(row["gap"]) for row in own]
        closed = sum(gap <= 1e-12 for gap in gaps)
        largest = "0" if closed == len(own) else f"{max(gaps):.1g}"
        seconds = seconds_of[key]
        ratio = seconds / seconds_of[key[0], key[1], "equal"]
        lines.append(
            f"| {key[0]} | {int(key[1]):,} | {key[2]} | {closed} of {len(own)} | {largest} "
            f"| {seconds:.2g} | {ratio:.2g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the CSV")
    table = RESULTS / "unequal_costs.csv"
    if not parser.parse_args().report:
        warnings.simplefilter("ignore", BoundWarning)
        rows = measured()
        tables.write(table, rows)
    text = report(tables.read(table))
    (RESULTS / "unequal_costs.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
