"""How long the exact solver takes to prove an optimum, from 100 to 10,000,000 devices.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.exact_speed             # about 15 minutes of one core
    OMP_NUM_THREADS=1 python -m benchmarks.solvers.exact_speed --resume    # goes on where it stopped
    python -m benchmarks.solvers.exact_speed --report                      # tables and picture from the CSV

Fleets are random: 50 to 2,000 samples a device, lognormal gradient noise and throughput, about a second of
communication; a sample costs the same everywhere. The limits admit up to 19 rounds and 3,800 local steps, and
cost and time both matter. Every solve ends with a proved gap of at most 2e-12.

Seconds are CPU time of one thread for solve_allocation on a problem that it has not seen before, the whole
batches written; building the problem, with all its checks, is timed beside it. Short solves are repeated and
the fastest counts, for the machine does other things as well. One pass is np.sum over the four float arrays
of the fleet (noise, throughput, round time, sample cost): the least that any solver must do, and a unit that
depends on the machine less than seconds do.

The peer is the strongest there is without a search of its own: cvxpy with Clarabel on one compiled
parametrised problem, golden section over K and tau, on the problems of peers.py. It has no integers and no
proof. The inner problem alone, continuous batches at one (K, tau), is compared with cvxpy and Clarabel too;
its error is that of its value against the same sums in extended precision.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.solvers.peer_solvers.formula import instance
from benchmarks.solvers.peer_solvers.relaxations import cvxpy_by_hand
from coopt import (
    Bound,
    BoundWarning,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    Problem,
    solve_allocation,
)
from coopt.solvers.whole_units.batches import relax

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "exact_speed.csv"
SEEDS = 5
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
BOUNDS: dict[str, Bound] = {
    "dynamite": Dynamite(),
    "certified, gamma = z = 1": Certified(1, 1),
    "certified, family": Certified(),
}
ENGINES = ("coopt", "cvxpy")
PEER, INNER = "dynamite, fleets of peers.py", "inner problem, continuous"
# The peer's largest fleets take minutes: once each.
PEER_SIZES, INNER_SIZES = (100, 1_000), (10_000, 100_000, 1_000_000)
FIELDS = (
    "devices", "problem", "engine", "seed", "build_seconds", "seconds", "passes", "inner_solves", "gap",
)  # fmt: skip
# The growth over all, and over the last decade, where nothing but the passes counts.
FITTED_FROM = (1_000, 1_000_000)
# Solves shorter than this are repeated.
SHORT, REPEATS = 0.5, 7
# Passes are short: the median of so many.
PASSES = 9


def fleet_of(devices: int, seed: int) -> Problem:
    """A random problem whose optimum lies inside the ranges of K and tau."""
    return Problem(Fleet(**arrays_of(devices, seed)), CONSTANTS, budget_of(devices))


def arrays_of(devices: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "samples": rng.integers(50, 2000, devices),
        "gradient_noise": rng.lognormal(1, 1, devices),
        "divergence": rng.uniform(0.01, 0.2, devices),
        "throughput": rng.lognormal(4, 1, devices),
        "round_time": rng.uniform(0.1, 2, devices),
    }


CONSTANTS = Constants(learning_rate=0.05, smoothness=4, initial_gap=2, pl_constant=0.5, curvature_floor=0)


def budget_of(devices: int) -> Budget:
    return Budget(cost=4000 * devices, time=2000, round_cost=200 * devices)


def seconds_of(run: Callable[[], object]) -> tuple[float, object]:
    begun = time.process_time()
    result = run()
    return time.process_time() - begun, result


def fastest(run: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of a call, the fastest of several where it is short."""
    seconds, result = seconds_of(run)
    for _ in range(REPEATS - 1 if seconds < SHORT else 0):
        seconds = min(seconds, seconds_of(run)[0])
    return seconds, result


def seconds_of_a_pass(fleet: Fleet) -> float:
    """CPU time of np.sum over the four float arrays."""
    arrays = [
        np.array(array)
        for array in (fleet.gradient_noise, fleet.throughput, fleet.round_time, fleet.sample_cost)
    ]
    # Short passes are repeated until the clock can see them.
    loops = max(1, 1_000_000 // len(fleet))
    times = []
    for _ in range(PASSES):
        begun = time.process_time()
        for _ in range(loops):
            for array in arrays:
                np.sum(array)
        times.append((time.process_time() - begun) / loops)
    return statistics.median(times)


def joint(devices: int, seed: int, unit: float, bound: Bound) -> dict[str, object]:
    arrays, found = arrays_of(devices, seed), []
    for _ in range(REPEATS):
        build, problem = seconds_of(lambda: Problem(Fleet(**arrays), CONSTANTS, budget_of(devices)))
        seconds, plan = seconds_of(lambda problem=problem: solve_allocation(problem, bound=bound))
        found.append((seconds, build))
        if seconds > SHORT:
            break
    seconds, build = (min(each) for each in zip(*found, strict=True))
    return {
        "build_seconds": f"{build:.4g}",
        "seconds": f"{seconds:.4g}",
        "passes": f"{seconds / unit:.4g}",
        "inner_solves": int(plan.trace["inner_solves"]),
        "gap": f"{plan.gap:.2g}",
    }


def inner_problem(devices: int, seed: int) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Weights, upper ends and budget of the inner problem at K = tau = 13, whose lower ends are one."""
    fleet = fleet_of(devices, seed).fleet
    budget = budget_of(devices)
    weights = fleet.weights * (1.0 - fleet.weights) * fleet.gradient_noise
    caps = fleet.throughput * (budget.time / 13 - fleet.round_time) / 13
    upper = np.maximum(np.minimum(fleet.max_batch, caps), 1.0)
    return weights / weights.sum(), upper, (budget.cost / 13 - budget.round_cost) / 13, np.ones(1)


def inner(devices: int, seed: int, unit: float, engine: str) -> dict[str, object]:
    weights, upper, spend, one = inner_problem(devices, seed)
    cost, lower = np.broadcast_to(one, (devices,)), np.broadcast_to(one, (devices,))
    if engine == "cvxpy":
        seconds, batches = seconds_of(lambda: clarabel(weights, upper, spend))
    else:
        seconds, best = fastest(lambda: relax(weights, cost, spend, lower, upper))
        batches = best.batch_sizes
    value = float(np.sum(weights.astype(np.longdouble) / batches))
    error = abs(value / reference(weights, upper, spend) - 1.0)
    return {"seconds": f"{seconds:.4g}", "passes": f"{seconds / unit:.4g}", "gap": f"{error:.2g}"}


def clarabel(weights: np.ndarray, upper: np.ndarray, spend: float) -> np.ndarray:
    import cvxpy as cp

    scale = np.sqrt(weights) * spend / float(np.sqrt(weights).sum())
    x = cp.Variable(weights.size)
    noise = weights / scale
    model = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(noise / noise.sum(), cp.inv_pos(x)))),
        [(scale / spend) @ x <= 1.0, x <= upper / scale, x >= 1.0 / scale],
    )
    model.solve(solver=cp.CLARABEL)
    return x.value * scale


def reference(weights: np.ndarray, upper: np.ndarray, spend: float) -> float:
    """The optimal value by bisection in extended precision."""
    roots, upper = np.sqrt(weights.astype(np.longdouble)), upper.astype(np.longdouble)
    low, high = np.longdouble(0.0), np.longdouble(upper.max()) / roots.min()
    for _ in range(90):
        level = (low + high) / 2
        low, high = (low, level) if np.clip(level * roots, 1, upper).sum() > spend else (level, high)
    return float((weights / np.clip(low * roots, 1, upper)).sum())


def tasks() -> list[tuple[int, str, str, int]]:
    """Sizes, problems, engines and seeds, the engines side by side."""
    found = [(n, PEER, engine, s) for n in PEER_SIZES for s in range(SEEDS) for engine in ENGINES]
    found += [
        (n, INNER, engine, s)
        for n in INNER_SIZES
        for s in range(SEEDS)
        for engine in ENGINES
        if engine != "cvxpy" or s == 0
    ]
    found += [(n, name, "coopt", s) for n in SIZES for s in range(SEEDS) for name in BOUNDS]
    return found


def measure(devices: int, problem: str, engine: str, seed: int, unit: float) -> dict[str, object]:
    if problem == INNER:
        return inner(devices, seed, unit, engine)
    if problem in BOUNDS:
        return joint(devices, seed, unit, BOUNDS[problem])
    if engine == "cvxpy":
        seconds, _ = seconds_of(lambda: cvxpy_by_hand(instance(devices, seed)))
        return {"seconds": f"{seconds:.4g}", "passes": f"{seconds / unit:.4g}"}
    seconds, plan = fastest(lambda: solve_allocation(instance(devices, seed), bound="dynamite"))
    return {
        "seconds": f"{seconds:.4g}",
        "passes": f"{seconds / unit:.4g}",
        "inner_solves": int(plan.trace["inner_solves"]),
        "gap": f"{plan.gap:.2g}",
    }


def run(known: set[tuple[str, ...]]) -> None:
    """Measure what is missing from the CSV, row by row."""
    # Imports and caches are not what is measured.
    for bound in BOUNDS.values():
        solve_allocation(fleet_of(100, 99), bound=bound)
    units: dict[tuple[int, int], float] = {}
    with tables.growing(TABLE, FIELDS) as add:
        for devices, problem, engine, seed in tasks():
            if (str(devices), problem, engine, str(seed)) in known:
                continue
            if (devices, seed) not in units:
                units[devices, seed] = seconds_of_a_pass(fleet_of(devices, seed).fleet)
            row = measure(devices, problem, engine, seed, units[devices, seed])
            add({"devices": devices, "problem": problem, "engine": engine, "seed": seed, **row})
            print(devices, problem, engine, seed, *row.values())


def cells(
    rows: list[dict[str, str]], columns: tuple[str, ...]
) -> dict[tuple[int, str, str], dict[str, float]]:
    """Medians of columns for every size, problem and engine."""
    groups: dict[tuple[int, str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((int(row["devices"]), row["problem"], row["engine"]), []).append(row)
    found = {}
    for key, group in groups.items():
        values = {name: [float(row[name]) for row in group if row[name]] for name in columns}
        found[key] = {name: statistics.median(each) if each else math.nan for name, each in values.items()}
        found[key]["fleets"] = len(group)
        found[key]["largest"] = max((float(row["gap"]) for row in group if row["gap"]), default=math.nan)
    return found


def slope(found: dict[tuple[int, str, str], dict[str, float]], name: str, least: int) -> float:
    """Exponent of the growth of seconds with the number of devices, from `least` on."""
    points = [
        (n, cell["seconds"]) for (n, p, e), cell in found.items() if (p, e) == (name, "coopt") and n >= least
    ]
    sizes, seconds = np.log([point[0] for point in points]), np.log([point[1] for point in points])
    return float(np.polyfit(sizes, seconds, 1)[0])


def write_tables(rows: list[dict[str, str]], path: Path) -> None:
    found = cells(rows, ("build_seconds", "seconds", "passes", "inner_solves"))
    lines = [
        f"Medians over {SEEDS} fleets of a size; passes are multiples of one np.sum over the four inputs.",
        "",
        "| devices | bound | seconds | passes | inner solves | building: s | gap |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for devices in SIZES:
        for name in BOUNDS:
            if (cell := found.get((devices, name, "coopt"))) is None:
                continue
            lines.append(
                f"| {devices:,} | {name} | {cell['seconds']:.3g} | {cell['passes']:,.0f} "
                f"| {cell['inner_solves']:.0f} | {cell['build_seconds']:.2g} | {cell['largest']:.1g} |"
            )
    lines += ["", "Exponents of the growth with the number of devices:", ""]
    for name in BOUNDS:
        steps = [f"{slope(found, name, least):.2f} from {least:,} on" for least in FITTED_FROM]
        lines += [f"- {name}: " + ", ".join(steps)]
    lines += [""]
    lines += [
        "Beside cvxpy and Clarabel (DPP), by hand, on the fleets of peers.py under the published bound:",
        "",
        "| devices | cvxpy, seconds | coopt, seconds | times faster |",
        "|---:|---:|---:|---:|",
    ]
    lines += [_beside(found, devices, PEER) for devices in PEER_SIZES]
    lines += [
        "",
        "The inner problem alone, continuous batches at one (K, tau); error of the value.",
        "",
        "| devices | cvxpy: s | error | coopt: s | passes | error |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for devices in INNER_SIZES:
        peer = found.get((devices, INNER, "cvxpy"))
        line = f"| {devices:,} | " + (
            f"{peer['seconds']:.3g} | {peer['largest']:.1g}" if peer else "not run | "
        )
        cell = found[devices, INNER, "coopt"]
        lines.append(f"{line} | {cell['seconds']:.3g} | {cell['passes']:.1f} | {cell['largest']:.1g} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _beside(found: dict[tuple[int, str, str], dict[str, float]], devices: int, problem: str) -> str:
    ours, peer = (found[devices, problem, engine]["seconds"] for engine in ENGINES)
    return f"| {devices:,} | {peer:.3g} | {ours:.3g} | {peer / ours:,.0f} |"


def draw_picture(rows: list[dict[str, str]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = cells(rows, ("seconds",))
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for color, name in enumerate(BOUNDS):
        points = [(n, found[n, name, "coopt"]["seconds"]) for n in SIZES if (n, name, "coopt") in found]
        axes.loglog(*zip(*points, strict=True), "o-", color=f"C{color}", label=name)
    axes.set(xlabel="devices", ylabel="CPU time to a proved optimum [s]")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resume", action="store_true", help="keep the rows that the CSV has")
    parser.add_argument("--report", action="store_true", help="read the committed CSV instead of measuring")
    options = parser.parse_args()
    if not options.report:
        warnings.simplefilter("ignore", BoundWarning)
        if not options.resume:
            TABLE.unlink(missing_ok=True)
        keys = ("devices", "problem", "engine", "seed")
        run({tuple(row[key] for key in keys) for row in tables.read(TABLE)} if TABLE.exists() else set())
    rows = tables.read(TABLE)
    write_tables(rows, RESULTS / "exact_speed.md")
    draw_picture(rows, RESULTS / "exact_speed.png")


if __name__ == "__main__":
    main()
