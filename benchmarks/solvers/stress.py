"""Does every problem close? Wild random instances, and enumeration where it can run.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.stress          # 400 instances, 3 minutes of one core
    python -m benchmarks.solvers.stress --report                   # the table from the committed CSV

Each instance draws from extremes: constants and prices over twelve decades, no noise or no divergence at
all, budgets that admit one plan or a billion, ranges of K and tau up to 10^9, caps, multiples, prices that
differ by device, drawing without replacement, one to 300 devices, every bound. Every other instance is
small, so that all its plans can be enumerated, which shares no code with the solver but the bound itself.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import (
    AdaCoOpt,
    Bound,
    BoundWarning,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InfeasibleError,
    NonConvex,
    Problem,
    solve_allocation,
)
from coopt.objectives.monotone import MonotoneBound, member_values

RESULTS = Path(__file__).parent / "results"
INSTANCES = 400
# By the clock on the wall, of a machine that may have other things to do.
SECONDS = 600.0
BOUNDS: dict[str, Callable[[], MonotoneBound]] = {
    "dynamite": Dynamite,
    "adacoopt": AdaCoOpt,
    "certified, one pair": lambda: Certified(0.5, 2.0),
    "certified, family": Certified,
    "nonconvex, one pair": lambda: NonConvex(1.0, 1.0),
    "nonconvex, family": NonConvex,
}
# Enumerated instances have at most so many rounds and local steps.
FEW_ROUNDS, FEW_STEPS = 12, 8
FIELDS = (
    "seed",
    "bound",
    "devices",
    "traits",
    "rounds",
    "local_steps",
    "value",
    "gap",
    "status",
    "inner_solves",
    "boxes",
    "seconds",
    "enumerated",
)


def wild(seed: int, small: bool) -> tuple[Problem, str, str]:
    """A random problem, the name of a bound, and what is special about it."""
    rng = np.random.default_rng([seed, small])
    traits: list[str] = []

    def chance(probability: float, trait: str) -> bool:
        hit = bool(rng.random() < probability)
        if hit:
            traits.append(trait)
        return hit

    def decades(low: float, high: float, size: int | None = None) -> np.ndarray:
        return 10.0 ** rng.uniform(low, high, size)

    n = int(rng.integers(1, 4)) if small else int(rng.choice([1, 2, 3, 10, 30, 100, 300]))
    samples = rng.integers(1, 9, n) if small else np.rint(decades(0.0, 4.0, n)).astype(int)
    noise = decades(-6, 6, n) if chance(0.3, "noise over 12 decades") else decades(-1, 1, n)
    if chance(0.1, "no noise"):
        noise = np.zeros(n)
    elif chance(0.2, "some without noise"):
        noise *= rng.random(n) < 0.5
    divergence = decades(-3, -1, n)
    if chance(0.25, "no divergence"):
        divergence = np.zeros(n)
    elif chance(0.2, "huge divergence"):
        divergence = decades(0, 6, n)
    price = float(decades(-6, 6)) if chance(0.2, "price of any scale") else 1.0
    prices = np.full(n, price)
    if chance(0.3, "unequal prices"):
        prices = price * (rng.choice([0.1, 0.25, 0.5, 1.0], n) if rng.random() < 0.5 else decades(-1, 1, n))
    multiple = 1
    if samples.min() >= 4 and chance(0.3, "multiples"):
        multiple = int(rng.choice([2, 4]))
    fleet = Fleet(
        samples=samples,
        gradient_noise=noise,
        divergence=divergence,
        throughput=decades(-1, 4, n) if chance(0.7, "stragglers") else math.inf,
        round_time=decades(-2, 1, n) if rng.random() < 0.5 else 0.0,
        sample_cost=prices,
        batch_multiple=multiple,
        replacement=not chance(0.3, "without replacement"),
    )
    beta = float(decades(-3, 3))
    mean = beta * float(rng.choice([1.0, 0.3]))
    constants = Constants(
        learning_rate=float(rng.choice([1.0, 0.3, 1e-2, 1e-4])) / beta,
        smoothness=beta,
        initial_gap=0.0 if chance(0.05, "no gap") else float(decades(-4, 4)),
        pl_constant=mean * float(rng.choice([1.0, 0.1, 1e-3, 1e-6])),
        curvature_floor=float(rng.choice([-beta, 0.0, 0.1 * beta])),
        mean_smoothness=mean,
        quadratic_continuity=None if rng.random() < 0.5 else float(decades(-3, 3)) * beta,
        lipschitz=float(decades(-3, 3)),
    )
    round_cost = 0.0 if chance(0.4, "rounds cost nothing") else price * float(decades(-1, 3)) * n
    problem = Problem(fleet, constants, Budget(round_cost=round_cost))
    lower, upper = fleet.batch_range()
    least = problem.cost(1, 1, lower)
    if small:
        share = rng.random()
        batches = lower + (np.rint(share * (upper - lower)) // multiple * multiple).astype(int)
        plan = int(rng.integers(1, FEW_ROUNDS)), int(rng.integers(1, FEW_STEPS)), batches
        cost, seconds = problem.cost(*plan), problem.time(*plan)
        most: dict[str, int | None] = {"max_rounds": FEW_ROUNDS, "max_local_steps": FEW_STEPS}
    else:
        cost = least * (float(decades(0, 0.3)) if chance(0.1, "tiny budget") else float(decades(1, 9)))
        seconds = problem.time(1, 1, lower) * float(decades(0, 9))
        most = {
            "max_rounds": int(decades(0, 6)) if chance(0.2, "few rounds") else 10**9,
            "max_local_steps": int(decades(0, 6)) if chance(0.2, "few steps") else 10**9,
        }
    budget = Budget(
        cost=math.inf if chance(0.1, "no cost limit") else cost,
        time=seconds if chance(0.5, "time limit") and seconds > 0.0 else math.inf,
        round_cost=round_cost,
        **most,
    )
    name = str(rng.choice(list(BOUNDS)))
    return replace(problem, budget=budget), name, ", ".join(traits)


def enumerated(problem: Problem, bound: MonotoneBound) -> float | None:
    """The smallest bound over every plan, one by one; None if none is feasible."""
    fleet, budget = problem.fleet, problem.budget
    form = bound.monotone_form(problem)
    axes = [
        range(-(-int(low) // m) * m, int(high) + 1, m)
        for low, high, m in zip(
            fleet.min_batch.tolist(), fleet.max_batch.tolist(), fleet.batch_multiple.tolist(), strict=True
        )
    ]
    plans = np.array(list(itertools.product(*axes)), dtype=float)
    inverse = 1.0 / plans
    if not fleet.replacement:
        inverse = (fleet.samples - plans) / (plans * fleet.samples)
    basis = form.floor(1, np.zeros(1, dtype=np.intp)).basis
    noise = np.column_stack([(inverse * part).sum(axis=1) for part in basis])
    everyone = np.arange(len(form.members))
    best = None
    for rounds, steps in itertools.product(range(1, FEW_ROUNDS + 1), range(1, FEW_STEPS + 1)):
        cost = rounds * (steps * (plans * fleet.sample_cost).sum(axis=1) + budget.round_cost)
        times = (rounds * (steps * plans / fleet.throughput + fleet.round_time)).max(axis=1)
        fits = (cost <= budget.cost * (1 + 1e-9)) & (times <= budget.time * (1 + 1e-9))
        if not fits.any():
            continue
        start, slope = form.progress(np.array([float(rounds * steps)]), everyone)
        floor = form.floor(steps, everyone)
        with np.errstate(invalid="ignore"):
            terms = floor.shares[:, None, :] * noise[None, fits, :]
        floors = floor.offsets[:, None] + np.where(noise[None, fits, :] == 0.0, 0.0, terms).sum(axis=2)
        place = np.unravel_index(int((start + slope * floors).argmin()), floors.shape)
        batches = plans[fits][place[1]]
        value = float(member_values(form, rounds, steps, batches).min())
        best = value if best is None else min(best, value)
    return best


def solve(seed: int, small: bool) -> dict[str, object]:
    """One row of the table."""
    problem, name, traits = wild(seed, small)
    bound: Bound = BOUNDS[name]()
    row: dict[str, object] = {"seed": seed, "bound": name, "devices": len(problem.fleet), "traits": traits}
    begun = time.process_time()
    try:
        plan = solve_allocation(problem, bound=bound, time_limit=SECONDS)
    except InfeasibleError:
        row |= {"status": "INFEASIBLE", "seconds": time.process_time() - begun}
    else:
        row |= {
            "rounds": plan.rounds,
            "local_steps": plan.local_steps,
            "value": plan.error_bound,
            "gap": plan.gap,
            "status": plan.status.name,
            "inner_solves": int(plan.trace["inner_solves"]),
            "boxes": int(plan.trace["boxes"]),
            "seconds": time.process_time() - begun,
        }
    if small:
        expected = enumerated(problem, BOUNDS[name]())
        row["enumerated"] = "none" if expected is None else expected
    return row


def agrees(row: dict[str, str]) -> bool:
    """Whether the solver and enumeration say the same."""
    if row["enumerated"] == "none" or row["status"] == "INFEASIBLE":
        return row["enumerated"] == "none" and row["status"] == "INFEASIBLE"
    return math.isclose(float(row["value"]), float(row["enumerated"]), rel_tol=1e-12, abs_tol=1e-300)


def report(rows: list[dict[str, str]]) -> str:
    """The table in markdown."""
    lines = [
        f"{len(rows)} wild instances (`benchmarks/solvers/stress.py`). An instance is closed when its gap is",
        "at most 2e-12. Agreement is with the enumeration of every plan, value for value, feasible or not.",
        "",
        "| bound | instances | closed | agree | inner solves p50 / p90 / max | seconds p50 / p90 / max |",
        "|---|---|---|---|---|---|",
    ]
    for name in (*BOUNDS, "all"):
        own = [row for row in rows if name in ("all", row["bound"])]
        solved = [row for row in own if row["status"] != "INFEASIBLE"]
        small = [row for row in own if row["enumerated"]]
        closed = sum(float(row["gap"]) <= 2e-12 for row in solved)
        inner = np.percentile([float(row["inner_solves"]) for row in solved], [50, 90, 100])
        seconds = np.percentile([float(row["seconds"]) for row in solved], [50, 90, 100])
        lines.append(
            f"| {name} | {len(own)} | {closed} of {len(solved)} "
            f"| {sum(map(agrees, small))} of {len(small)} "
            f"| {inner[0]:.0f} / {inner[1]:.0f} / {inner[2]:.0f} "
            f"| {seconds[0]:.2g} / {seconds[1]:.2g} / {seconds[2]:.2g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the CSV")
    parser.add_argument("--instances", type=int, default=INSTANCES)
    options = parser.parse_args()
    table = RESULTS / "stress.csv"
    if not options.report:
        warnings.simplefilter("ignore", BoundWarning)
        table.unlink(missing_ok=True)
        with tables.growing(table, FIELDS) as add:
            for index in range(options.instances):
                add(solve(index // 2, small=index % 2 == 0))
    text = report(tables.read(table))
    (RESULTS / "stress.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
