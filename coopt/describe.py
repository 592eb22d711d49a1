"""From a plan to an Allocation: what it uses, what binds it, what more budget would buy."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt import limits
from coopt.allocation import Allocation, Claim, Status
from coopt.bound import has_name
from coopt.cautions import cautions
from coopt.errors import BoundWarning
from coopt.monotone import Bound, MonotoneBound, member_values
from coopt.problem import Problem
from coopt.solvers.batch import cap_multipliers, relax
from coopt.solvers.energy import best_share, limit_units
from coopt.validation import LARGEST_COUNT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """A plan, and what a solver claims about it."""

    rounds: int
    local_steps: int
    batch_sizes: Ints
    value: float
    bound: Bound
    lower_bound: float
    status: Status
    solver: str
    trace: dict[str, float]
    objective: str = "error"
    target_error: float | None = None
    claim: Claim | None = None


def describe(problem: Problem, outcome: Outcome, begun: float) -> Allocation:
    """Complete an outcome; `begun` is the performance counter at the start of the call."""
    rounds, local_steps, batches = outcome.rounds, outcome.local_steps, outcome.batch_sizes
    warn_of(problem, outcome)
    used = {
        "error": outcome.value,
        "cost": problem.cost(rounds, local_steps, batches),
        "time": problem.time(rounds, local_steps, batches),
    }
    return Allocation(
        problem=problem,
        rounds=rounds,
        local_steps=local_steps,
        batch_sizes=batches,
        error_bound=outcome.value,
        objective=outcome.objective,
        objective_value=used[outcome.objective],
        lower_bound=outcome.lower_bound,
        cost=used["cost"],
        time=used["time"],
        status=outcome.status,
        binding=binding_limits(problem, rounds, local_steps, batches),
        shadow_prices=shadow_prices(problem, outcome.bound, rounds, local_steps),
        solver=outcome.solver,
        bound=outcome.bound.name,
        learning_rate=problem.constants.learning_rate,
        target_error=outcome.target_error,
        solve_seconds=time.perf_counter() - begun,
        trace=outcome.trace,
        custom_bound=None if has_name(outcome.bound) else outcome.bound,
        claim=outcome.claim,
    )


def binding_limits(problem: Problem, rounds: int, local_steps: int, batches: Ints) -> tuple[str, ...]:
    """The limits that forbid some smallest increase: one more round, local step, or unit of a batch."""
    fleet, budget = problem.fleet, problem.budget
    sizes = batches.astype(np.float64)
    found = {
        violation.limit
        for longer in ((rounds + 1, local_steps), (rounds, local_steps + 1))
        for violation in limits.violations(problem, *longer, sizes)
    }
    grown = batches + fleet.batch_multiple
    growing = fleet.gradient_noise > 0.0
    if bool((growing & (grown > fleet.max_batch)).any()):
        found.add("max_batch")
    growable = growing & (grown <= fleet.max_batch)
    unit_costs = rounds * local_steps * problem.plain.fleet.sample_cost * fleet.batch_multiple
    spent = limits.cost(problem, rounds, local_steps, batches)
    dearest = float(np.max(unit_costs, initial=0.0, where=growable))
    if not limits.within(spent + dearest, budget.cost):
        found.add("cost")
    hungriest = rounds * local_steps * problem.plain.fleet.sample_energy * fleet.batch_multiple
    burnt = limits.energy(problem, rounds, local_steps, sizes)
    if not limits.within(burnt + float(np.max(hungriest, initial=0.0, where=growable)), budget.energy):
        found.add("energy")
    times = limits.device_times(problem, rounds, local_steps, grown)
    if not limits.within(float(np.max(times, initial=0.0, where=growable)), budget.time):
        found.add("time")
    return tuple(
        name
        for name in ("cost", "time", "energy", "max_rounds", "max_local_steps", "max_batch")
        if name in found
    )


@dataclass(frozen=True)
class _Spending:
    """The one limit on the work of a step: what a sample counts, what a unit of each budget adds to it."""

    sample: Floats
    limit: float
    units: dict[str, float]


def _spending(
    problem: Problem, weights: Floats, rounds: int, local_steps: int, lower: Ints, upper: Floats | Ints
) -> _Spending:
    """The limit on cost, or the mixture of cost and energy that is as tight as both at this (K, tau)."""
    plain, steps = problem.plain, rounds * local_steps
    fleet, budget = plain.fleet, plain.budget
    spend = limits.step_budget(problem, rounds, local_steps)
    if budget.energy == math.inf:
        return _Spending(fleet.sample_cost, spend, {"cost": 1.0 / steps})
    share, _ = best_share(plain, weights, rounds, local_steps, lower, upper)
    cost, energy = limit_units(budget)
    dear, hungry = (1.0 - share) / cost, share / energy
    limit = hungry * limits.step_energy(problem, rounds, local_steps)
    return _Spending(
        dear * fleet.sample_cost + hungry * fleet.sample_energy,
        limit + dear * spend if dear else limit,
        {"cost": dear / steps, "energy": hungry / steps},
    )


def shadow_prices(problem: Problem, bound: Bound, rounds: int, local_steps: int) -> dict[str, float]:
    """Fall of the bound per unit of cost, second and joule, at this (K, tau) with continuous batches."""
    fleet, budget = problem.fleet, problem.budget
    _, weights = bound.coefficients(problem, rounds, local_steps)
    if not np.isfinite(weights).all():
        return {"cost": math.nan, "time": math.nan}
    lower, upper = fleet.batch_range()
    caps = limits.time_caps(problem, rounds, local_steps)
    timed = budget.time < math.inf
    ends = np.maximum(np.minimum(upper, caps), lower) if timed else upper
    spending = _spending(problem, weights, rounds, local_steps, lower, ends)
    best = relax(weights, spending.sample, spending.limit, lower, ends)
    seconds = 0.0
    if timed:
        held, push = cap_multipliers(weights, spending.sample, best, caps, upper)
        seconds = float(np.sum(push * fleet.throughput[held])) / (rounds * local_steps)
    return {name: best.multiplier * unit for name, unit in spending.units.items()} | {"time": seconds}


def cap_prices(problem: Problem, bound: Bound, rounds: int, local_steps: int) -> Floats:
    """Fall of the bound per sample of each ``max_batch``, at this (K, tau) with continuous batches."""
    fleet = problem.fleet
    _, weights = bound.coefficients(problem, rounds, local_steps)
    if not np.isfinite(weights).all():
        return np.full(len(fleet), math.nan)
    lower, upper = fleet.batch_range()
    caps = limits.time_caps(problem, rounds, local_steps)
    ends = np.maximum(np.minimum(upper, caps), lower)
    spending = _spending(problem, weights, rounds, local_steps, lower, ends)
    best = relax(weights, spending.sample, spending.limit, lower, ends)
    # Where the deadline is as tight, more samples could not be processed.
    held, push = cap_multipliers(weights, spending.sample, best, upper, caps)
    prices = np.zeros(len(fleet))
    prices[held] = push
    return prices


def warn_of(problem: Problem, outcome: Outcome) -> None:
    """Warn of what makes the bound say little at this plan."""
    bound = outcome.bound
    floor = -math.inf
    if isinstance(bound, MonotoneBound):
        # After so many rounds nothing of the initial gap is left.
        batches = outcome.batch_sizes.astype(np.float64)
        floor = float(
            member_values(bound.monotone_form(problem), LARGEST_COUNT, outcome.local_steps, batches)[0]
        )
    for caution in cautions(bound, problem, outcome.rounds, outcome.local_steps, floor):
        warnings.warn(caution, BoundWarning, stacklevel=4)
