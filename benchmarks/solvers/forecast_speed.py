"""How long it takes to plan for a forecast and to prove it, from 10 to 10,000 devices.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.forecast_speed             # about ten minutes of one core
    python -m benchmarks.solvers.forecast_speed --report                      # the table from the CSV

Federations are random: in 32 directions with curvatures that fall like k^-1.5, every device has the curvature
and the noise of 64 rows of its own, a best model of its own, and 50 to 400 samples. The learning rate is half
the inverse of the largest curvature; up to 200 rounds and 200 local steps, within a cost at which batches
stay small and both rounds and local steps matter. Best models of devices that are alike differ by 3 % of what
is common to them, those of others by as much as that.

Seconds are CPU time of one thread, on a problem that was not seen before: preparing (an eigendecomposition a
device), then solve_allocation with time_limit=0, which finds a plan and proves nothing, then until the gap is
proved to be at most 1e-3, and at most 1e-12. The faster of two repetitions counts, for the machine does other
things as well. Memory is the largest allocation beyond the arrays of the measurement itself, in another run
on the first federation of a kind. Of 10,000 devices there is one federation. The excess is that of the plan
found first over the optimum.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import tracemalloc
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import Budget, Constants, Fleet, Forecast, LocalModel, Problem, solve_allocation

TABLE = Path(__file__).parent / "results" / "forecast_speed.csv"
SEEDS, REPEATS, DIRECTIONS, ROWS = 3, 2, 32, 64
SIZES = (10, 100, 1_000, 10_000)
# From here on one federation, once.
LARGE = 10_000
KINDS = {"alike": (0.03, 3.0), "unlike": (1.0, 3.0), "unlike, noisy": (1.0, 100.0)}
FIELDS = (
    "devices", "kind", "seed", "prepare", "plan", "proved_1e-3", "proved_1e-12", "megabytes", "excess",
    "rounds", "local_steps", "inner_solves",
)  # fmt: skip


def federation(devices: int, unlike: float, noise: float, seed: int) -> LocalModel:
    """A random federation; see above."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1.0, DIRECTIONS + 1.0) ** -0.75
    curvatures, covariances = np.empty((2, devices, DIRECTIONS, DIRECTIONS))
    for i in range(devices):
        for matrices, size in ((curvatures, 1.0), (covariances, noise)):
            rows = rng.normal(size=(ROWS, DIRECTIONS)) * scale
            matrices[i] = size * rows.T @ rows / ROWS
    best = rng.normal(size=DIRECTIONS) + unlike * rng.normal(size=(devices, DIRECTIONS))
    samples = rng.integers(50, 400, devices)
    return LocalModel(
        samples / samples.sum(), -np.einsum("nab,nb->na", curvatures, best), curvatures, covariances, samples
    )


def problem_of(model: LocalModel) -> Problem:
    """Up to 200 rounds and local steps, and a cost of 3,000 samples a device."""
    devices = len(model)
    return Problem(
        Fleet(model.samples, 1.0, 1.0),
        Constants(0.5 / model.loss.largest, model.loss.largest, 1.0),
        Budget(cost=3_000.0 * devices, round_cost=30.0 * devices, max_rounds=200, max_local_steps=200),
    )


def fresh(model: LocalModel) -> LocalModel:
    """The same model with nothing computed."""
    return LocalModel(model.weights, model.gradients, model.curvatures, model.covariances, model.samples)


def measured(devices: int, kind: str, seed: int) -> dict[str, float | int | str]:
    """One row of the table."""
    model = federation(devices, *KINDS[kind], seed)
    problem = problem_of(model)
    seconds: dict[str, list[float]] = {"prepare": [], "plan": [], "proved_1e-3": [], "proved_1e-12": []}
    for _ in range(REPEATS if devices < LARGE else 1):
        forecast = Forecast(fresh(model))
        begun = time.process_time()
        forecast.coefficients(problem, 1, 1)
        seconds["prepare"].append(time.process_time() - begun)
        for name, options in (
            ("plan", {"time_limit": 0.0}),
            ("proved_1e-3", {"gap_tolerance": 1e-3}),
            ("proved_1e-12", {}),
        ):
            again = Forecast(fresh(model))
            again.coefficients(problem, 1, 1)
            begun = time.process_time()
            plan = solve_allocation(problem, bound=again, **options)
            seconds[name].append(time.process_time() - begun)
            if name == "plan":
                first = plan
    memory = math.nan
    if seed == 0:
        forecast = Forecast(fresh(model))
        tracemalloc.start()
        solve_allocation(problem, bound=forecast, gap_tolerance=1e-3)
        memory = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    return {
        "devices": devices,
        "kind": kind,
        "seed": seed,
        **{name: round(min(times), 4) for name, times in seconds.items()},
        "megabytes": round(memory, 1),
        "excess": first.predicted_error / plan.predicted_error - 1.0,
        "rounds": plan.rounds,
        "local_steps": plan.local_steps,
        "inner_solves": int(plan.trace["inner_solves"]),
    }


def report(rows: list[dict[str, str]]) -> str:
    """The table as Markdown."""
    headings = (
        "devices", "kind", "prepare", "plan found", "proved to 1e-3", "proved to 1e-12", "megabytes",
        "excess of the first plan", "rounds", "local steps",
    )  # fmt: skip
    lines = [
        f"Medians over {SEEDS} federations in {DIRECTIONS} directions; seconds of one thread.",
        "Plans and proofs come after preparing; megabytes are beyond the measurement.",
        "",
        f"| {' | '.join(headings)} |",
        f"|---:|---|{'---:|' * (len(headings) - 2)}",
    ]
    for size in SIZES:
        for kind in KINDS:
            some = [row for row in rows if row["devices"] == str(size) and row["kind"] == kind]
            if not some:
                continue
            middle = {
                field: statistics.median(x for row in some if (x := float(row[field])) == x)
                for field in FIELDS[3:]
            }
            times = " | ".join(f"{middle[name]:.3g}" for name in FIELDS[3:7])
            lines.append(
                f"| {size:,} | {kind} | {times} | {middle['megabytes']:,.0f} | {middle['excess']:.1e} | "
                f"{middle['rounds']:.0f} | {middle['local_steps']:.0f} |"
            )
    one = DIRECTIONS**2 * 8 / 1024
    lines += [
        "",
        "What limits the number of devices is memory, and time by the same numbers: each device",
        f"needs some ten m x m matrices of {one:.0f} kB at a time (eigenvectors, rotated noise, products).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what the CSV lacks, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="write the table from the CSV, measure nothing")
    options = parser.parse_args()
    if not options.report:
        TABLE.unlink(missing_ok=True)
        with tables.growing(TABLE, FIELDS) as add:
            for devices in SIZES:
                for kind in KINDS if devices < LARGE else ("unlike",):
                    for seed in range(SEEDS if devices < LARGE else 1):
                        row = measured(devices, kind, seed)
                        add(row)
                        print(row, flush=True)
    TABLE.with_suffix(".md").write_text(report(tables.read(TABLE)), encoding="utf-8")


if __name__ == "__main__":
    main()
