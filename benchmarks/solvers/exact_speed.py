"""How long the exact solver takes to prove an optimum, from 100 to 1,000,000 devices.

    OMP_NUM_THREADS=1 python benchmarks/solvers/exact_speed.py     # 3 minutes of one core
    python benchmarks/solvers/exact_speed.py --report              # table and picture from the committed CSV

Fleets are random: 50 to 2,000 samples a device, lognormal gradient noise and throughput, about a second of
communication; a sample costs the same everywhere. The limits admit up to 19 rounds and 3,800 local steps, and
cost and time both matter. Every solve ends with a proved gap of at most 2e-12. Seconds are CPU time of one
thread. One pass is np.sum over the four float arrays of the fleet (noise, throughput, round time, sample
cost): the least that any solver must do, and a unit that depends on the machine less than seconds do.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
import warnings
from pathlib import Path

import numpy as np

from coopt import (
    Bound,
    BoundWarning,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    NonConvex,
    Problem,
    solve_allocation,
)

RESULTS = Path(__file__).parent / "results"
# Fleet sizes, and how many random fleets of each.
SIZES = {100: 5, 1_000: 5, 10_000: 5, 100_000: 5, 1_000_000: 1}
BOUNDS: dict[str, Bound] = {
    "dynamite": Dynamite(),
    "certified, gamma = z = 1": Certified(1, 1),
    "certified, family": Certified(),
    "nonconvex, family": NonConvex(),
}
FIELDS = ("devices", "bound", "seed", "seconds", "passes", "inner_solves", "boxes", "gap")
# Passes are short: the median of so many.
REPEATS = 9


def fleet_of(devices: int, seed: int) -> Problem:
    """A random problem whose optimum lies inside the ranges of K and tau."""
    rng = np.random.default_rng(seed)
    return Problem(
        Fleet(
            samples=rng.integers(50, 2000, devices),
            gradient_noise=rng.lognormal(1, 1, devices),
            divergence=rng.uniform(0.01, 0.2, devices),
            throughput=rng.lognormal(4, 1, devices),
            round_time=rng.uniform(0.1, 2, devices),
        ),
        Constants(learning_rate=0.05, smoothness=4, initial_gap=2, pl_constant=0.5, curvature_floor=0),
        Budget(cost=4000 * devices, time=2000, round_cost=200 * devices),
    )


def seconds_of_a_pass(fleet: Fleet) -> float:
    """CPU time of np.sum over the four float arrays."""
    arrays = [
        np.array(array)
        for array in (fleet.gradient_noise, fleet.throughput, fleet.round_time, fleet.sample_cost)
    ]
    # Short passes are repeated until the clock can see them.
    loops = max(1, 1_000_000 // len(fleet))
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        for _ in range(loops):
            for array in arrays:
                np.sum(array)
        times.append((time.process_time() - begun) / loops)
    return statistics.median(times)


def measure() -> list[dict[str, object]]:
    """One row a solve."""
    solve_allocation(fleet_of(100, 99))  # imports and caches are not what is measured
    rows: list[dict[str, object]] = []
    for devices, seeds in SIZES.items():
        for seed in range(seeds):
            problem = fleet_of(devices, seed)
            unit = seconds_of_a_pass(problem.fleet)
            for name, bound in BOUNDS.items():
                begun = time.process_time()
                plan = solve_allocation(problem, bound=bound)
                seconds = time.process_time() - begun
                rows.append(
                    {
                        "devices": devices,
                        "bound": name,
                        "seed": seed,
                        "seconds": f"{seconds:.4g}",
                        "passes": f"{seconds / unit:.4g}",
                        "inner_solves": int(plan.trace["inner_solves"]),
                        "boxes": int(plan.trace["boxes"]),
                        "gap": f"{plan.gap:.2g}",
                    }
                )
                print(*rows[-1].values())
    return rows


def medians(rows: list[dict[str, str]]) -> list[dict[str, float | str]]:
    """One row for every size and bound."""
    found: list[dict[str, float | str]] = []
    for devices in SIZES:
        for bound in BOUNDS:
            cell = [row for row in rows if int(row["devices"]) == devices and row["bound"] == bound]
            middle = {
                name: statistics.median(float(row[name]) for row in cell)
                for name in ("seconds", "passes", "inner_solves", "boxes")
            }
            found.append({"devices": devices, "bound": bound, "fleets": len(cell), **middle})
            found[-1]["gap"] = max(float(row["gap"]) for row in cell)
    return found


def write_table(table: list[dict[str, float | str]], path: Path) -> None:
    lines = [
        "| devices | bound | fleets | CPU seconds | passes | inner solves | boxes | largest gap |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['devices']:,} | {row['bound']} | {row['fleets']} | {float(row['seconds']):.3g} | "
        f"{float(row['passes']):,.0f} | {row['inner_solves']:.0f} | {row['boxes']:.0f} | {row['gap']:.1g} |"
        for row in table
    ]
    path.write_text(
        "Medians over the fleets of a size; passes are multiples of one np.sum over the input.\n\n"
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )


def draw_picture(table: list[dict[str, float | str]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for bound in BOUNDS:
        rows = [row for row in table if row["bound"] == bound]
        axes.loglog([row["devices"] for row in rows], [row["seconds"] for row in rows], "o-", label=bound)
    axes.set(xlabel="devices", ylabel="CPU time to a proved optimum [s]")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="read the committed CSV instead of measuring")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "exact_speed.csv"
    if not parser.parse_args().report:
        warnings.simplefilter("ignore", BoundWarning)
        rows = measure()
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    with path.open(newline="", encoding="utf-8") as stream:
        table = medians(list(csv.DictReader(stream)))
    write_table(table, RESULTS / "exact_speed.md")
    draw_picture(table, RESULTS / "exact_speed.png")


if __name__ == "__main__":
    main()
