"""Reference optimum by enumerating every (K, tau) and every vector of batch sizes."""

from __future__ import annotations

import itertools

import numpy as np

from coopt import Bound, Problem
from coopt.objectives.monotone import member_values


def optimum(problem: Problem, bound: Bound, most_rounds: int, most_steps: int) -> float | None:
    """The smallest bound over all feasible plans; None if there is none."""
    fleet, budget = problem.fleet, problem.budget
    axes = [
        [s for s in range(1, int(high) + 1) if s >= low and s % multiple == 0]
        for low, high, multiple in zip(fleet.min_batch, fleet.max_batch, fleet.batch_multiple, strict=True)
    ]
    if fleet.batch_choices is not None:
        axes = [[s for s in axis if s in each] for axis, each in zip(axes, fleet.batch_choices, strict=True)]
    plans = np.array(list(itertools.product(*axes)), dtype=float)
    burning = (plans * fleet.sample_energy).sum(axis=1)
    work = (plans * fleet.sample_cost).sum(axis=1)
    if bool((fleet.sample_cost == fleet.sample_cost[0]).all()):
        work = fleet.sample_cost[0] * plans.sum(axis=1)
    inverse = 1.0 / plans
    if not fleet.replacement:
        inverse = (fleet.samples - plans) / (plans * fleet.samples)
    form = bound.monotone_form(problem)
    noise = np.column_stack(
        [
            (inverse * fleet.weights**2 * fleet.gradient_noise).sum(axis=1),
            (inverse * fleet.weights * (1 - fleet.weights) * fleet.gradient_noise).sum(axis=1),
        ]
    )
    best = None
    for rounds in range(1, most_rounds + 1):
        for steps in range(1, most_steps + 1):
            step_cost = work + fleet.step_cost.sum()
            cost = rounds * (steps * step_cost + budget.round_cost + fleet.round_cost.sum())
            burnt = rounds * (steps * (burning + fleet.step_energy.sum()) + fleet.round_energy.sum())
            parts = 1 if fleet.micro_batch is None else -(-plans // fleet.micro_batch)
            step_time = fleet.step_time * parts + plans / fleet.throughput
            times = rounds * (steps * step_time + fleet.round_time)
            feasible = (cost <= budget.cost * (1 + 1e-9)) & (burnt <= budget.energy * (1 + 1e-9))
            feasible &= times.max(axis=1) <= budget.time * (1 + 1e-9)
            for index in _nondominated(noise, np.flatnonzero(feasible)):
                value = float(member_values(form, rounds, steps, plans[index]).min())
                best = value if best is None else min(best, value)
    return best


def _nondominated(noise: np.ndarray, indices: np.ndarray) -> list[int]:
    """Plans whose two noise terms no other plan matches: only they can be optimal for some member."""
    order = indices[np.lexsort((noise[indices, 1], noise[indices, 0]))]
    kept, least = [], np.inf
    for index in order.tolist():
        if noise[index, 1] < least:
            kept.append(index)
            least = noise[index, 1]
    return kept
