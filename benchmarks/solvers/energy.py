"""How often plans under a limit on cost and one on energy are solved to optimality, and how long that takes.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.energy            # 5 minutes of one core
    python -m benchmarks.solvers.energy --report                     # the table from the committed CSV

Fleets are those of exact_speed.py with lognormal energies a sample and 10 to 50 J a round; a sample costs the
same everywhere, or 0.5 to 2 with a mean of one. The limit on energy lies between what the best plan under the
limit on cost uses and the least with which that on cost still allows all that energy does, at the rounds and
local steps of that plan: it is their geometric mean. Both limits bind then in most fleets; the table says in
how many.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.solvers.exact_speed import fleet_of
from coopt import Bound, BoundWarning, Certified, Dynamite, Problem, solve_allocation
from coopt.problem import limits
from coopt.solvers.whole_units.batches import relax

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "energy.csv"
SIZES = (3, 10, 20, 100, 1_000, 10_000, 100_000)
SEEDS = 5
BOUNDS: dict[str, Bound] = {
    "dynamite": Dynamite(),
    "certified, gamma = z = 1": Certified(1, 1),
    "certified, family": Certified(),
}
COSTS = ("equal", "0.5 to 2")
# A plan counts as closed at this relative gap.
CLOSED = 1e-12
HALVINGS = 40
FIELDS = ("bound", "devices", "costs", "seed", "gap", "seconds", "cost_price", "energy_price")


def powered(devices: int, seed: int, costs: str, bound: Bound) -> Problem:
    """A random problem with both limits."""
    base = fleet_of(devices, seed)
    rng = np.random.default_rng([devices, seed])
    energies, rest = rng.lognormal(0.0, 0.7, devices), rng.uniform(10.0, 50.0, devices)
    prices = np.ones(devices) if costs == "equal" else rng.uniform(0.5, 2.0, devices)
    fleet = replace(base.fleet, sample_energy=energies, round_energy=rest, sample_cost=prices / prices.mean())
    free = Problem(fleet, base.constants, base.budget)
    plan = solve_allocation(free, bound=bound, gap_tolerance=1e-3)
    most, rounds, steps = plan.energy, plan.rounds, plan.local_steps
    # Where energy alone is limited, more of it costs more.
    _, weights = plan.bound_object.coefficients(free, rounds, steps)
    lower, upper = fleet.batch_range()
    upper = np.maximum(np.minimum(upper, limits.time_caps(free, rounds, steps)), lower)
    low, high = 0.0, most / (rounds * steps)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        batches = relax(weights, energies, middle, lower, upper).batch_sizes
        low, high = (middle, high) if free.cost(rounds, steps, batches) < free.budget.cost else (low, middle)
    least = rounds * (steps * high + float(rest.sum()))
    return replace(free, budget=replace(free.budget, energy=math.sqrt(least * most)))


def measured() -> list[dict[str, object]]:
    """One row for each bound, size, kind of cost and seed."""
    rows: list[dict[str, object]] = []
    for name, bound in BOUNDS.items():
        for devices in SIZES:
            for costs in COSTS:
                for seed in range(SEEDS):
                    problem = powered(devices, seed, costs, bound)
                    begun = time.process_time()
                    plan = solve_allocation(problem, bound=bound)
                    seconds = time.process_time() - begun
                    prices = plan.shadow_prices
                    numbers = (
                        f"{each:.3g}" for each in (plan.gap, seconds, prices["cost"], prices["energy"])
                    )
                    rows.append(dict(zip(FIELDS, (name, devices, costs, seed, *numbers), strict=True)))
    return rows


def report(rows: list[dict[str, str]]) -> str:
    """The table in markdown."""
    lines = [
        "Whole plans under a limit on cost and one on energy (`benchmarks/solvers/energy.py`): how many of",
        f"{SEEDS} fleets are solved to a gap of {CLOSED:g}, the largest gap, the median and the longest CPU",
        "time of one thread, and in how many of them both limits have a price.",
        "",
        "| bound | devices | cost of a sample | closed | largest gap | seconds | longest | both bind |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row["bound"], row["devices"], row["costs"]) for row in rows):
        own = [row for row in rows if (row["bound"], row["devices"], row["costs"]) == key]
        gaps = [float(row["gap"]) for row in own]
        closed = sum(gap <= CLOSED for gap in gaps)
        largest = "0" if closed == len(own) else f"{max(gaps):.1g}"
        seconds = [float(row["seconds"]) for row in own]
        binding = sum(float(row["cost_price"]) > 0.0 < float(row["energy_price"]) for row in own)
        lines.append(
            f"| {key[0]} | {int(key[1]):,} | {key[2]} | {closed} of {len(own)} | {largest} "
            f"| {statistics.median(seconds):.2g} | {max(seconds):.2g} | {binding} of {len(own)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the CSV")
    if not parser.parse_args().report:
        warnings.simplefilter("ignore", BoundWarning)
        rows = measured()
        tables.write(TABLE, rows)
    text = report(tables.read(TABLE))
    (RESULTS / "energy.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
