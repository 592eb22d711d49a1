"""Does the convex solver always end with a plan? Problems of any scale, with constraints of a user's own.

    OMP_NUM_THREADS=1 python benchmarks/solvers/convex_stress.py          # 500 problems
    python benchmarks/solvers/convex_stress.py --report                   # the table from the committed CSV

The units of cost, time, energy and loss are drawn over twelve decades each, and so is the unit in which a
constraint is written. Every problem has a plan by construction. Half of the constraints are slack at the
optimum of the problem without them, so that the exact solver's value is known to be the right one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cvxpy as cp
import numpy as np

from coopt import Allocation, Budget, Constants, CooptError, Fleet, Problem, solve_allocation
from coopt.solvers.proposers.own_constraints import meets

RESULTS = Path(__file__).parent / "results"
INSTANCES = 500
BOUNDS = ("dynamite", "adacoopt", "certified(gamma=1, z=1)", "nonconvex(gamma=1, z=1)")
# The exact solver's own gap, and how near the convex solver has to come where constraints are slack.
EXACT_GAP, NEAR = 1e-6, 1e-4
SECONDS = 20.0

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
        max_local_steps=60,
        participants=int(rng.integers(1, size + 1)) if some else None,
    )
    bound = str(rng.choice(BOUNDS[2:] if some else BOUNDS))
    problem = Problem(fleet, constants, budget)
    free = solve_allocation(problem, bound=bound, gap_tolerance=EXACT_GAP, time_limit=SECONDS)
    rule, slack = str(rng.choice(["none", *MEASURES])), bool(rng.random() < 0.5)
    if rule == "none":
        return Case(problem, bound, rule, True, free, None)
    measure, unit = MEASURES[rule], float(_decades(rng, -6.0, 6.0))

    def level(batches: np.ndarray) -> float:
        return float(measure(cp.Constant(batches)).value)

    best, least = level(free.batch_sizes), level(fleet.batch_range()[0])
    if rule == "logarithms":
        # Of what the plan without it has, a part is asked for, or all: more may not be had at any price.
        asked = best * float(rng.uniform(0.3, 0.9) if slack else 1.0)
        return Case(problem, bound, rule, slack, free, lambda s: [unit * measure(s) >= unit * asked])
    share = float(rng.uniform(1.5, 10.0) if slack else rng.uniform(0.05, 0.9))
    allowed = max(share * best, least)
    return Case(problem, bound, rule, slack, free, lambda s: [unit * measure(s) <= unit * allowed])


def solve(seed: int) -> dict[str, object]:
    """One row of the table."""
    case = random_case(seed)
    row: dict[str, object] = {
        "seed": seed,
        "bound": case.bound,
        "devices": len(case.problem.fleet),
        "rule": case.rule,
        "slack": int(case.slack),
        "exact": case.free.error_bound,
        "exact_lower": case.free.lower_bound,
    }
    begun = time.process_time()
    try:
        plan = solve_allocation(
            case.problem, bound=case.bound, solver="cvxpy", constraints=case.constraints, time_limit=SECONDS
        )
    except CooptError as error:
        return row | {"outcome": f"{type(error).__name__}: {error}", "seconds": time.process_time() - begun}
    broken = case.problem.violations(plan.rounds, plan.local_steps, plan.batch_sizes)
    if case.constraints is not None and not meets(case.constraints, plan.batch_sizes):
        broken.append("constraints")
    return row | {
        "outcome": f"breaks {broken}" if broken else "plan",
        "value": plan.error_bound,
        "lower": plan.lower_bound,
        "relaxation": plan.trace["relaxation_value"],
        "accurate": 1,
        "trace": " ".join(f"{k}={v:g}" for k, v in plan.trace.items()),
        "seconds": time.process_time() - begun,
    }
