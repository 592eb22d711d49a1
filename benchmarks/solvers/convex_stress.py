"""Does the convex solver always end with a plan? Problems of any scale, with constraints of a user's own.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers.convex_stress          # 500 problems
    python -m benchmarks.solvers.convex_stress --report                   # the table from the committed CSV

The units of cost, time, energy and loss are drawn over twelve decades each, and so is the unit in which a
constraint is written. Every problem has a plan by construction. Half of the constraints are slack at the
optimum of the problem without them, so that the exact solver's value is known to be the right one.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize_scalar

from benchmarks import tables
from coopt import Allocation, BoundWarning, Budget, Constants, CooptError, Fleet, Problem, solve_allocation
from coopt.objectives.registry import resolve_bound
from coopt.problem import limits
from coopt.solvers.exact.cost_and_energy import best_share
from coopt.solvers.proposers.own_constraints import meets
from coopt.solvers.proposers.progress import floor_at, progress_of, value_after
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.whole_units.batches import relax

RESULTS = Path(__file__).parent / "results"
INSTANCES = 500
BOUNDS = ("dynamite", "adacoopt", "certified(gamma=1, z=1)", "nonconvex(gamma=1, z=1)")
# Relative gap to which the exact solver proves what the plans are compared with.
EXACT_GAP = 1e-6
SECONDS = 20.0
MOST_STEPS = 60
FIELDS = (
    "seed",
    "bound",
    "devices",
    "limits",
    "rule",
    "slack",
    "exact",
    "continuous",
    "outcome",
    "value",
    "lower",
    "relaxation",
    "solves",
    "tries",
    "seconds",
)

# What a user may limit: convex functions of the batch sizes, at most a level; the last one, at least.
MEASURES: dict[str, Callable[[cp.Expression], cp.Expression]] = {
    "sum": lambda s: cp.sum(s[: max(s.size // 2, 1)]),
    "squares": cp.sum_squares,
    "norm": cp.norm,
    "largest": cp.max,
    "spread": lambda s: cp.max(s) - 0.5 * cp.min(s),
    "power": lambda s: cp.sum(cp.power(s, 1.5)),
    "logarithms": lambda s: cp.sum(cp.log(s)),
}


@dataclass(frozen=True)
class Case:
    """A problem, the name of a bound, and a constraint with its name."""

    problem: Problem
    bound: str
    limits: str
    rule: str
    slack: bool
    free: Allocation
    constraints: Callable[[cp.Expression], list[cp.Constraint]] | None


def _decades(rng: np.random.Generator, low: float, high: float, size: int | None = None) -> np.ndarray:
    return 10.0 ** rng.uniform(low, high, size)


def random_case(seed: int) -> Case:
    """The case of a seed; its problem has a plan that meets all limits and constraints."""
    rng = np.random.default_rng([seed, 12])
    size = int(rng.integers(2, 13))
    money, second, joule, loss = (float(_decades(rng, -6.0, 6.0)) for _ in range(4))
    with_energy, with_time, some = rng.random(3) < (0.4, 0.5, 0.25)
    fleet = Fleet(
        samples=np.rint(_decades(rng, 3.0, 5.0, size)).astype(int),
        gradient_noise=loss * _decades(rng, -0.5, 1.5, size),
        divergence=math.sqrt(loss) * _decades(rng, -2.0, -1.0, size),
        throughput=_decades(rng, 2.0, 3.0, size) / second,
        round_time=_decades(rng, -1.5, 0.0, size) * second,
        sample_cost=money * (rng.uniform(0.5, 2.0, size) if rng.random() < 0.3 else 1.0),
        sample_energy=joule * rng.uniform(0.5, 2.0, size) if with_energy else 0.0,
        replacement=bool(rng.random() < 0.8),
    )
    constants = Constants(
        learning_rate=0.05,
        smoothness=4.0,
        initial_gap=2.0 * loss,
        pl_constant=0.5,
        curvature_floor=0.0,
        lipschitz=0.2,
    )
    work = size * float(_decades(rng, 4.5, 6.0))
    budget = Budget(
        cost=money * work,
        time=second * work / size / float(_decades(rng, 1.0, 2.5)) if with_time else math.inf,
        energy=joule * work * float(_decades(rng, -0.3, 0.3)) if with_energy else math.inf,
        round_cost=money * float(rng.choice([1.0, 40.0, 400.0])) * size,
        max_local_steps=MOST_STEPS,
        participants=int(rng.integers(1, size + 1)) if some else None,
    )
    bound = str(rng.choice(BOUNDS[2:] if some else BOUNDS))
    problem = Problem(fleet, constants, budget)
    free = solve_allocation(problem, bound=bound, gap_tolerance=EXACT_GAP, time_limit=SECONDS)
    flags = {"time": with_time, "energy": with_energy, "participants": some}
    named = ", ".join(["cost", *(name for name, there in flags.items() if there)])
    rule, slack = str(rng.choice(["none", *MEASURES])), bool(rng.random() < 0.5)
    if rule == "none":
        return Case(problem, bound, named, rule, True, free, None)
    measure, unit = MEASURES[rule], float(_decades(rng, -6.0, 6.0))

    def level(batches: np.ndarray) -> float:
        return float(measure(cp.Constant(batches)).value)

    best, least = level(free.batch_sizes), level(fleet.batch_range()[0])
    if rule == "logarithms":
        # Of what the plan without it has, a part is asked for, or all: more may not be had at any price.
        asked = best * float(rng.uniform(0.3, 0.9) if slack else 1.0)
        return Case(problem, bound, named, rule, slack, free, lambda s: [unit * measure(s) >= unit * asked])
    share = float(rng.uniform(1.5, 10.0) if slack else rng.uniform(0.05, 0.9))
    allowed = max(share * best, least)
    return Case(problem, bound, named, rule, slack, free, lambda s: [unit * measure(s) <= unit * allowed])


def continuous(problem: Problem, bound: str, local_steps: int) -> float:
    """The smallest bound with real K and batch sizes at tau, by water-filling at each K: no cvxpy in it."""
    form = resolve_bound(bound).monotone_form(problem)
    progress = progress_of(form, "stress")
    offset, weights = floor_at(form, local_steps)
    if form.population is not None:
        offset -= float(np.sum(weights / form.population))
    plain, ranges = problem.plain, feasible_ranges(problem, None, None)
    lower, upper = plain.fleet.batch_range()

    def value(logarithm: float) -> float:
        rounds = math.exp(logarithm)
        caps = np.minimum(upper, limits.time_caps(plain, rounds, local_steps))
        spend = limits.step_budget(plain, rounds, local_steps)
        if (caps < lower).any() or spend < float(np.sum(plain.fleet.sample_cost * lower)):
            return math.inf
        if plain.budget.energy < math.inf:
            batches = best_share(plain, weights, rounds, local_steps, lower, caps)[1].batch_sizes
        else:
            batches = relax(weights, plain.fleet.sample_cost, spend, lower, caps).batch_sizes
        return value_after(progress, rounds * local_steps, offset, float(np.sum(weights / batches)))

    most = max(ranges.most_rounds(local_steps), 1)
    grid = np.linspace(0.0, math.log(most), 65)
    best = int(np.argmin([value(place) for place in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    found = minimize_scalar(value, bounds=ends, method="bounded", options={"xatol": 1e-9})
    return min(float(found.fun), value(grid[best]))


def solve(seed: int) -> dict[str, object]:
    """One row of the table."""
    case = random_case(seed)
    row: dict[str, object] = {
        "seed": seed,
        "bound": case.bound,
        "devices": len(case.problem.fleet),
        "limits": case.limits,
        "rule": case.rule,
        "slack": int(case.slack),
        "exact": case.free.error_bound,
    }
    begun = time.process_time()
    try:
        plan = solve_allocation(
            case.problem, bound=case.bound, solver="cvxpy", constraints=case.constraints, time_limit=SECONDS
        )
    except CooptError as error:
        return row | {"outcome": f"{type(error).__name__}: {error}", "seconds": time.process_time() - begun}
    row["seconds"] = time.process_time() - begun
    broken = [str(each) for each in case.problem.violations(plan.rounds, plan.local_steps, plan.batch_sizes)]
    if case.constraints is not None and not meets(case.constraints, plan.batch_sizes):
        broken.append("constraints")
    if case.slack:
        near = range(max(plan.local_steps - 2, 1), min(plan.local_steps + 2, MOST_STEPS) + 1)
        row["continuous"] = min(continuous(case.problem, case.bound, tau) for tau in near)
    tries = {key.removeprefix("tries of "): v for key, v in plan.trace.items() if key.startswith("tries")}
    return row | {
        "outcome": f"breaks {'; '.join(broken)}" if broken else "plan",
        "value": plan.error_bound,
        "lower": plan.lower_bound,
        "relaxation": plan.trace["relaxation_value"],
        "solves": int(plan.trace["convex_solves"]),
        "tries": "; ".join(f"{name}: {int(count)}" for name, count in tries.items()),
    }


def _percentiles(values: list[float], *percents: float) -> str:
    return " / ".join(f"{each:.2g}" for each in np.percentile(values, percents)) if values else ""


def report(rows: list[dict[str, str]]) -> str:
    """The table in markdown."""
    head = (
        "constraint",
        "problems",
        "plans",
        "slack",
        "above exact, p50 / max",
        "relaxation below optimum, max",
        "gap where it binds, p50 / p90",
        "solves",
        "looser",
        "other",
        "seconds, p50 / max",
    )
    lines = [
        f"{len(rows)} problems (`benchmarks/solvers/convex_stress.py`). A plan counts when it",
        "meets all limits and constraints. Where constraints are slack: how far the plan is above the exact",
        "solver's, and the proved relaxation below the continuous optimum that water-filling finds without",
        "cvxpy. Looser: how often the default backend was asked again; other: how often another solver was.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for rule in ("none", *MEASURES, "all"):
        own = [row for row in rows if rule in ("all", row["rule"])]
        plans = [row for row in own if row["outcome"] == "plan"]
        slack = [row for row in plans if row["slack"] == "1"]
        above = [float(row["value"]) / float(row["exact"]) - 1.0 for row in slack]
        below = [1.0 - float(row["relaxation"]) / float(row["continuous"]) for row in slack]
        gaps = [1.0 - float(row["lower"]) / float(row["value"]) for row in plans if row["slack"] == "0"]
        counted: Counter[str] = Counter()
        for row in plans:
            for entry in row["tries"].split("; "):
                name, count = entry.rsplit(": ", 1)
                kind = "looser" if name == "CLARABEL, looser" else "" if name == "CLARABEL" else "other"
                counted[kind] += int(count)
        seconds = [float(row["seconds"]) for row in own]
        cells = [
            rule,
            f"{len(own)}",
            f"{len(plans)}",
            f"{len(slack)}",
            _percentiles(above, 50, 100),
            _percentiles(below, 100),
            _percentiles(gaps, 50, 90),
            f"{sum(int(row['solves']) for row in plans)}",
            f"{counted['looser']}",
            f"{counted['other']}",
            _percentiles(seconds, 50, 100),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the CSV")
    parser.add_argument("--instances", type=int, default=INSTANCES)
    options = parser.parse_args()
    table = RESULTS / "convex_stress.csv"
    if not options.report:
        warnings.simplefilter("ignore", BoundWarning)
        table.unlink(missing_ok=True)
        with tables.growing(table, FIELDS) as add:
            for seed in range(options.instances):
                add(solve(seed))
    text = report(tables.read(table))
    (RESULTS / "convex_stress.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
