"""What a plan has to know of devices: their memory, shapes, noise, prices and links."""

from __future__ import annotations

import csv
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.online.situations.situation import Figures, Situation
from coopt import (
    Allocation,
    Budget,
    Certified,
    Constants,
    Fleet,
    Problem,
    choose_cohort,
    evaluate,
    solve_allocation,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))
from fleets import random_problem

CONSTANTS = Constants(0.1, 1.0, 2.0, pl_constant=0.05, curvature_floor=0.05)


def part_of_a_batch() -> Figures:
    figures = {}
    for name in ("micro_batch", "max_batch"):
        fleet = Fleet([400] * 5, 40.0, 0.1, throughput=1000.0, round_time=2.0, **{name: 16})
        plan = solve_allocation(Problem(fleet, CONSTANTS, Budget(time=600)))
        figures[name] = plan.error_bound
    return figures


def powers_of_two() -> Figures:
    """Eight fleets of two to eight devices, with like and unlike costs."""
    powers, bound, dearer = [2**k for k in range(11)], Certified(1, 1), []
    for seed in range(4):
        for equal in (True, False):
            problem = random_problem(seed, equal_costs=equal, overhead=1.0, time=300.0)
            listed = replace(problem, fleet=replace(problem.fleet, batch_choices=powers))
            plan, free = (solve_allocation(each, bound=bound) for each in (listed, problem))
            down = 2 ** np.floor(np.log2(free.batch_sizes)).astype(int)
            by_hand = bound.value(problem, free.rounds, free.local_steps, down)
            dearer.append(by_hand / plan.error_bound - 1)
    return {"least": min(dearer), "most": max(dearer)}


def private_steps() -> Figures:
    """Noise of DP-SGD with a multiplier and a clip of 1 in a thousand parameters."""
    fleet, noise = Fleet([2000] * 10, 4.0, 0.1, throughput=200.0, round_time=1.0), 1000.0
    problem = Problem(fleet, CONSTANTS, Budget(cost=4e6, time=3600))

    def true(plan: Allocation) -> float:
        noisy = replace(problem, fleet=replace(fleet, step_noise=noise / plan.batch_sizes**2.0))
        return evaluate(noisy, plan.rounds, plan.local_steps, plan.batch_sizes).error_bound

    blind = plan = solve_allocation(problem)
    best, lower, solves = np.inf, 0.0, 0
    while solves == 0 or best - lower > 1e-4 * best:
        near = fleet.with_batch_noise(noise, plan.batch_sizes)
        plan = solve_allocation(replace(problem, fleet=near))
        best, lower, solves = min(best, true(plan)), max(lower, plan.lower_bound), solves + 1
    return {
        "promised": blind.error_bound,
        "true": true(blind),
        "best": best,
        "lower": lower,
        "solves": solves,
    }


def rented() -> Figures:
    """Three machines at two dollars an hour each, and a cent for a thousand samples."""
    fleet = Fleet([6000, 4000, 2000], 4.0, 0.1, throughput=[40, 20, 5], round_time=3.0, sample_cost=1e-5)
    hourly = 6.0
    problem = Problem(fleet, CONSTANTS, Budget(cost=5.0, second_cost=hourly / 3600))
    blind = solve_allocation(replace(problem, budget=Budget(cost=5.0, time=1e6)))
    plan = solve_allocation(problem)
    return {
        "limit": 5.0,
        "blind": blind.cost + hourly / 3600 * blind.time,
        "billed": fleet.sample_cost @ plan.batch_sizes * plan.rounds * plan.local_steps
        + hourly / 3600 * plan.time,
        "gap": plan.gap,
    }


def few_links() -> Figures:
    """Two hundred phones with measured speeds and links, and two days."""
    folder = Path(os.environ["COOPT_DATA"]) / "devices"

    def column(file: str, name: str) -> np.ndarray:
        with (folder / file).open(encoding="utf-8") as stream:
            return np.array([float(row[name]) for row in csv.DictReader(stream)])

    fleet = Fleet.from_traces(
        column("phone_latency.csv", "resnet_ms"),
        column("phone_tcp_kbps.csv", "tcp_down_kbps_mean"),
        1e6,
        devices=200,
        seed=0,
        samples=500,
        gradient_noise=4.0,
        divergence=0.1,
    )
    constants = Constants(0.05, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0)
    plan = solve_allocation(Problem(fleet, constants, Budget(time="2 days")))
    assert "choose_cohort" in str(plan)
    cohort = choose_cohort(plan.problem, gap_tolerance=0.2)
    return {
        "left out": 200 - len(cohort.devices),
        "all": plan.error_bound,
        "cohort": cohort.allocation.error_bound,
        "lower": cohort.allocation.lower_bound,
    }


SITUATIONS = (
    Situation(
        "Memory holds part of a batch",
        "bound {micro_batch:.3f} where a cap of 16 gives {max_batch:.3f}",
        part_of_a_batch,
    ),
    Situation(
        "Compiled shapes, powers of two",
        "rounding down by hand costs {least:.0%} to {most:.0%}",
        powers_of_two,
    ),
    Situation(
        "Privacy noise, quantisation",
        "{promised:.5f} promised without it, {true:.5f} true; with it {best:.6f} after {solves:.0f} solves, "
        "and no plan is below {lower:.6f}",
        private_steps,
    ),
    Situation(
        "Rented machines, charged by the second",
        "planned by samples alone the bill is {blind:.2f} dollars, and {billed:.2f} of {limit:.2f} with the "
        "price of a second; gap {gap:.0e}",
        rented,
    ),
    Situation(
        "A few links dominate",
        "of 200 measured phones {left out:.0f} are left out: bound {cohort:.6f}, where it is {all:.4f} with "
        "all, and {lower:.6f} at least for any cohort",
        few_links,
    ),
)
