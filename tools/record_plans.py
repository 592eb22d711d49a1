"""Record what coopt answers to 500 random problems, or compare its answers with a recording.

    python tools/record_plans.py RECORDING.json            # record
    python tools/record_plans.py RECORDING.json --compare  # list every row that differs

Only public names are used, so that one script serves two states of the library. Kept as long as code moves.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import coopt
from coopt import Budget, Constants, Fleet, Problem
from coopt.symbolic import from_sympy

CASES, SEED, AGREEMENT = 500, 20240613, 1e-12
BOUNDS = (
    "certified",
    "certified(gamma=1.0, z=1.0)",
    "certified(gamma=0.3, z=2.0)",
    "certified(gamma=auto, z=0.5)",
    "dynamite",
    "adacoopt",
    "nonconvex",
    "nonconvex(gamma=0.5, z=0.4)",
    "tradeoff",
    "tradeoff(gamma=0.5, ratio=10.0)",
    "sympy",
    "sympy, not monotone",
)
SOLVERS = ("auto", "auto", "exact", "closed-form", "cvxpy", "coopt-fl")
QUESTIONS = ("solve",) * 12 + ("evaluate", "rate", "participants", "cohort", "sensitivity", "frontier")


def problem_of(rng: np.random.Generator, plain: bool) -> Problem:
    """A random problem; a plain one has no limit or loss that some solvers refuse."""
    n = int(rng.choice([1, 2, 3, 4, 5, 8, 30], p=[0.1, 0.2, 0.2, 0.2, 0.15, 0.1, 0.05]))
    equal = rng.random() < 0.6
    samples = rng.integers(1, 40, n)
    beta = 10.0 ** rng.uniform(-1, 1.5)
    distinct = rng.random() < 0.3
    drawn = not plain and rng.random() < 0.25
    fleet = Fleet(
        samples=samples,
        gradient_noise=rng.choice([0.0, 1.0, 1.0, 1.0], n) * 10.0 ** rng.uniform(-2, 2, n),
        divergence=rng.choice([0.0, 1.0, 1.0], n) * 10.0 ** rng.uniform(-2, 0.5, n),
        throughput=rng.choice([math.inf, 1.0, 7.0, 33.0], n),
        round_time=rng.choice([0.0, 0.1, 2.0], n),
        sample_cost=float(rng.choice([0.1, 1.0, 3.3])) if equal else rng.choice([0.1, 0.7, 1.0, 2.5], n),
        round_cost=rng.choice([0.0, 0.3], n),
        sample_energy=0.0 if plain or rng.random() < 0.7 else rng.choice([0.0, 0.2, 1.1], n),
        batch_multiple=int(rng.choice([1, 1, 1, 2])) if samples.min() >= 2 else 1,
        replacement=bool(plain or rng.random() < 0.5),
        weights=np.full(n, 1 / n) if distinct else None,
    )
    constants = Constants(
        learning_rate=float(rng.choice([1.0, 0.5, 0.1, 1e-2])) / beta,
        smoothness=beta,
        initial_gap=float(rng.choice([0.0, 0.1, 1.0, 30.0], p=[0.05, 0.25, 0.5, 0.2])),
        pl_constant=beta * float(rng.choice([0.5, 0.1, 0.01])),
        curvature_floor=[None, 0.0, -beta, 0.1 * beta][rng.integers(4)],
        mean_smoothness=[None, 0.5 * beta][rng.integers(2)],
        coupling=[None, 0.2 * beta][rng.integers(2)],
        quadratic_continuity=[None, 0.5 * beta][rng.integers(2)],
        lipschitz=float(10.0 ** rng.uniform(-1, 1)),
        gradient_bias=float(rng.choice([0.0, 0.3])) if not plain and rng.random() < 0.2 else None,
    )
    rounds, steps = int(rng.integers(1, 30)), int(rng.integers(1, 9))
    share = rng.random()
    batches = np.maximum((share * samples).astype(int) // 2 * 2, fleet.batch_range()[0])
    limited = Problem(
        fleet,
        constants,
        Budget(
            round_cost=float(rng.choice([0.0, 0.5, 4.0])),
            max_rounds=int(rng.integers(1, 40)),
            max_local_steps=int(rng.integers(1, 12)),
            participants=int(rng.integers(1, n + 1)) if drawn else None,
            distinct_participants=drawn and distinct,
        ),
    )
    factors = (math.inf, 1.0, 1.0, 1.0 - 1e-7, 0.5, 1.7)
    used = [limited.cost(rounds, steps, batches), limited.time(rounds, steps, batches)]
    used.append(limited.energy(rounds, steps, batches) or math.inf)
    cost, time, energy = (
        float(value * factor) if math.isfinite(value) else math.inf
        for value, factor in zip(used, rng.choice(factors, 3), strict=True)
    )
    names = ("cost", "time", "energy")
    caps = dict(zip(names, (cost, time, energy), strict=True))
    old = limited.budget
    return Problem(
        fleet,
        constants,
        Budget(
            **caps,
            round_cost=old.round_cost,
            max_rounds=old.max_rounds,
            max_local_steps=old.max_local_steps,
            participants=old.participants,
            distinct_participants=old.distinct_participants,
        ),
    )


def own_bound(monotone: bool) -> Any:
    """A bound read from a formula."""
    import sympy as sp

    K, tau, eta, D_0, sigma2, B = sp.symbols("K tau eta D_0 sigma2 B")
    if monotone:
        formula = 2 * D_0 / (eta * K * tau) + eta * sigma2 + B * (tau - 1)
        return from_sympy(formula, name="mine", values={"B": 0.01})
    return from_sympy(D_0 / (K * tau) + eta * sigma2 / tau, name="other")


def flat(plan: Any, certify: bool = True) -> dict[str, Any]:
    """What of a plan is compared."""
    row = {
        "plan": [plan.rounds, plan.local_steps, *plan.batch_sizes.tolist()],
        "texts": [plan.status.name, plan.solver, plan.bound, *plan.binding, plan.custom_bound is None],
        "values": [
            plan.error_bound,
            plan.objective_value,
            plan.cost,
            plan.time,
            plan.learning_rate,
            *plan.shadow_prices.values(),
            *plan.cap_prices.tolist(),
        ],
        "lower": plan.lower_bound,
    }
    if plan.parts is not None:
        row["parts"] = [plan.parts.transient, plan.parts.noise, plan.parts.drift]
    if certify:
        try:
            row["certified"] = plan.certify().error_bound
        except coopt.CooptError as error:
            row["certified"] = f"{type(error).__name__}: {error}"
    return row


def values_of(table: Any) -> list[list[Any]]:
    """The rows of a table without the column that came while code moved."""
    return [[each[key] for key in each if key != "predicted_error"] for each in table.to_rows()]


def answer(i: int) -> dict[str, Any]:
    """What coopt says to the i-th question."""
    rng = np.random.default_rng([SEED, i])
    question = QUESTIONS[i % len(QUESTIONS)]
    name = BOUNDS[i % len(BOUNDS)] if question == "solve" else str(rng.choice(BOUNDS))
    solver = str(rng.choice(SOLVERS))
    problem = problem_of(rng, plain=solver != "auto" or not name.startswith(("certified", "nonconvex")))
    bound = own_bound(name == "sympy") if name.startswith("sympy") else name
    row: dict[str, Any] = {"question": f"{question} {name} {solver}"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if question == "solve":
                objective = str(rng.choice(["error", "error", "cost", "time"]))
                row["question"] += f" {objective}"
                if objective == "error":
                    row |= flat(coopt.solve_allocation(problem, bound=bound, solver=solver))
                else:
                    best = coopt.solve_allocation(problem, bound=bound).error_bound
                    target = best * float(rng.choice([1.0, 1.2, 2.0, 10.0]))
                    row |= flat(
                        coopt.solve_allocation(problem, bound=bound, objective=objective, target_error=target)
                    )
            elif question == "evaluate":
                lower, _ = problem.fleet.batch_range()
                row |= flat(coopt.evaluate(problem, 1, 1, lower, bound=bound))
            elif question == "rate":
                row |= flat(
                    coopt.solve_allocation(problem, bound=bound, learning_rate="auto", time_limit=math.inf)
                )
            elif question == "participants":
                row |= flat(coopt.choose_participants(problem, bound=bound))
            elif question == "cohort":
                # Without a proof: how much of it is done in a time limit is not the same twice.
                found = coopt.choose_cohort(problem, bound=bound, time_limit=0.0)
                row |= flat(found.allocation) | {"devices": list(found.devices)}
                row.pop("lower")
            elif question == "sensitivity":
                table = coopt.sensitivity(problem, bound=bound)
                row["table"] = values_of(table)
            else:
                most = min(problem.budget.cost, 1e4)
                table = coopt.frontier(problem, values=[most * f for f in (0.5, 1.0, 2.0)], bound=bound)
                row["table"] = values_of(table)
        except coopt.CooptError as error:
            row["error"] = f"{type(error).__name__}: {error}"
    row["warnings"] = sorted(str(each.message) for each in caught)
    return row


def difference(old: Any, new: Any) -> float:
    """How far two recorded things lie apart, relatively; infinite where they are not alike."""
    if isinstance(old, float | int) and isinstance(new, float | int) and not isinstance(old, bool):
        if old == new or (math.isnan(old) and math.isnan(new)):
            return 0.0
        return abs(old - new) / max(abs(old), abs(new))
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return max((difference(*pair) for pair in zip(old, new, strict=True)), default=0.0)
    return 0.0 if old == new else math.inf


def main() -> None:
    """Record, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--cases", type=int, default=CASES)
    options = parser.parse_args()
    old = json.loads(options.recording.read_text()) if options.compare else None
    rows, apart, worst = [], 0, 0.0
    for i in range(options.cases):
        row = json.loads(json.dumps(answer(i)))
        rows.append(row)
        if i % 50 == 49:
            print(f"{i + 1} of {options.cases}", file=sys.stderr, flush=True)
        if old is None:
            continue
        for key in sorted(old[i].keys() | row.keys()):
            gap = difference(old[i].get(key), row.get(key))
            # Whole numbers and texts agree exactly, whatever the tolerance.
            exact = key in ("plan", "texts", "devices", "error", "warnings", "question")
            worst = max(worst, gap)
            if gap > (0.0 if exact else AGREEMENT):
                apart += 1
                print(
                    f"{i} ({row['question']}) {key}: {old[i].get(key)!r} is now {row.get(key)!r}, {gap:.2g}"
                )
    if old is None:
        options.recording.write_text(json.dumps(rows) + "\n")
        print(f"{len(rows)} recorded, {sum('error' in row for row in rows)} with an error")
    else:
        print(f"{len(rows)} compared: {apart} differences, the largest number apart by {worst:.2g}")


if __name__ == "__main__":
    main()
