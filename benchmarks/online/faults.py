"""Corrupted reports, dropouts and restarts: what they cost.

    python -m benchmarks.online.faults      # about three minutes on one core

Two of eight devices send corrupted reports every round (not a number, infinite, zero, huge, scaled); every
device misses a round with probability 0.3; every fifth round the server is replaced by one that knows only
the saved file. The best fixed plan in hindsight faces the same dropouts.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.online.hindsight import best_fixed
from benchmarks.online.logcosh import DEVICES, Instance, Simulation, expected_error, instance
from coopt import ClientReport, Controller
from coopt.measuring.report import HalfBatches
from coopt.online.round_plan import RoundPlan

RESULTS = Path(__file__).parent / "results"
SEEDS = range(100, 120)
LIARS = (2, 5)
DROPOUT = 0.3
SCENARIOS = ("none", "corrupted", "dropouts", "restarts", "all")


def corrupt(report: ClientReport, rng: np.random.Generator) -> ClientReport:
    kind = rng.integers(5)
    if kind == 4:
        factor = 1e3
        halves = report.halves and dataclasses.replace(
            report.halves,
            difference=report.halves.difference * factor**2,
            product=report.halves.product * factor**2,
        )
        return dataclasses.replace(
            report, loss=report.loss * factor, gradient=report.gradient * factor, halves=halves
        )
    x = (np.nan, np.inf, 0.0, 1e30)[kind]
    return dataclasses.replace(
        report,
        loss=x,
        samples=x,
        samples_processed=x,
        seconds_computing=x,
        halves=HalfBatches(4, 4, x, x),
        gradient=np.full(report.gradient.shape, x),
    )


def run(problem: Instance, seed: int, scenario: str) -> tuple[Simulation, Controller, float, int]:
    simulation = Simulation(problem, seed)
    rng = np.random.default_rng([17, seed])
    floor = min(0.0, np.floor(problem.minimum() - 1)) if problem.minimum() < 0 else 0.0

    def server() -> Controller:
        return Controller(
            problem.fleet(), problem.budget, problem.learning_rate, lowest_loss=floor, curvature_floor=0.0
        )

    controller, worst, ignored = server(), 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.npz"
        while isinstance(plan := controller.plan(), RoundPlan):
            working = rng.random(DEVICES) >= (DROPOUT if scenario in ("dropouts", "all") else 0.0)
            reports, seconds = simulation.run(plan, working)
            if scenario in ("corrupted", "all"):
                reports = [corrupt(r, rng) if r.client in LIARS else r for r in reports]
            ignored += len(controller.observe(reports, seconds=seconds))
            worst = max(worst, seconds - plan.predicted_seconds)
            if scenario in ("restarts", "all") and plan.round % 5 == 4:
                controller.save(file)
                controller = server()
                controller.load(file)
    return simulation, controller, worst, ignored


def main() -> None:
    rows = []
    for seed in SEEDS:
        problem = instance(seed, jump=False)
        best = {0.0: best_fixed(problem, seed)[0], DROPOUT: best_fixed(problem, seed, DROPOUT)[0]}
        for scenario in SCENARIOS:
            dropout = DROPOUT if scenario in ("dropouts", "all") else 0.0
            simulation, controller, worst, ignored = run(problem, seed, scenario)
            error = expected_error(problem, simulation.history, 100, seed + 5, dropout)
            rows.append(
                {
                    "faults": scenario,
                    "seed": seed,
                    "regret": f"{error / best[dropout]:.6g}",
                    "rounds": controller.round,
                    "ignored": ignored,
                    "cost_used": f"{controller.spent_cost / problem.budget.cost:.4f}",
                    "time_over": f"{max(0.0, controller.spent_seconds - problem.budget.time):.4g}",
                    "prediction_error": f"{worst:.4g}",
                }
            )
        print(seed, [row["regret"] for row in rows[-len(SCENARIOS) :]], flush=True)
    tables.write(RESULTS / "faults.csv", rows)
    lines = [
        "# Faults",
        "",
        f"Expected error over that of the best fixed plan in hindsight, {len(SEEDS)} instances; `horizon`",
        "with its defaults.",
        "`python -m benchmarks.online.faults` makes this table.",
        "",
        "| faults | median regret | 90 % quantile | ignored a round | most cost used | runs over time |",
        "|---|---|---|---|---|---|",
    ]
    for scenario in SCENARIOS:
        chosen = [row for row in rows if row["faults"] == scenario]
        regret = np.array([float(row["regret"]) for row in chosen])
        parts = np.mean([int(row["ignored"]) / max(int(row["rounds"]), 1) for row in chosen])
        over = sum(float(row["time_over"]) > 0 for row in chosen)
        lines.append(
            f"| {scenario} | {np.median(regret):.2f} | {np.quantile(regret, 0.9):.2f} | {parts:.1f} "
            f"| {max(float(row['cost_used']) for row in chosen):.4f} | {over} |"
        )
    (RESULTS / "faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
