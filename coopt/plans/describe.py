"""From a plan to an Allocation: what it uses, what binds it, what more budget would buy."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import BoundWarning
from coopt.objectives.protocol import Bound
from coopt.objectives.registry import has_name
from coopt.objectives.users_own import completed
from coopt.plans.allocation import Allocation, Claim, Status
from coopt.problem import limits
from coopt.problem.device_steps import at_device_steps
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem
from coopt.solvers.contract import Found, Incumbent
from coopt.solvers.exact.cost_and_energy import best_share, limit_units
from coopt.solvers.fleet_passes import Pace, alone, optimum, parts_of
from coopt.solvers.whole_units.batches import cap_multipliers, relax

# To which the budget is spent where its price is found.
PRICE_TOLERANCE = 1e-7

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """What a solver was asked for.

    Attributes
    ----------
    solver : str
        Its name.
    proves : bool
        Whether its plans are the best there are; else they are as good as their lower bound says.
    objective : {"error", "cost", "time"}
    target_error : float or None
    gap_tolerance : float
    claim : Claim or None
        What the lower bound is about, where that can be checked.
    """

    solver: str
    proves: bool = True
    objective: str = "error"
    target_error: float | None = None
    gap_tolerance: float = 0.0
    claim: Claim | None = None


def describe(problem: Problem, found: Found, asked: Asked, begun: float) -> Allocation:
    """The result for the user; `begun` is the performance counter at the start of the call."""
    best = found.best
    rounds, local_steps, batches = best.rounds, best.local_steps, best.batch_sizes
    if best.learning_rate is not None:
        problem = replace(problem, constants=replace(problem.constants, learning_rate=best.learning_rate))
    warn_of(problem, best)
    judged = completed(best.bound)
    run = at_device_steps(problem, local_steps, best.device_steps)
    taken = limits.longest(run, rounds, local_steps, batches)[0]
    used = {
        "error": best.value,
        "cost": limits.cost(run, rounds, local_steps, batches),
        "time": taken,
    }
    return Allocation(
        problem=problem,
        rounds=rounds,
        local_steps=local_steps,
        batch_sizes=batches,
        predicted_error=best.value,
        objective=asked.objective,
        objective_value=used[asked.objective],
        lower_bound=found.lower_bound,
        cost=used["cost"],
        time=used["time"],
        status=_status(found, asked, used[asked.objective]),
        binding=binding_limits(run, rounds, local_steps, batches),
        shadow_prices=shadow_prices(_rent_paid(run, taken), best.bound, rounds, local_steps),
        solver=asked.solver,
        bound=best.bound.name,
        learning_rate=problem.constants.learning_rate,
        target_error=asked.target_error,
        solve_seconds=time.perf_counter() - begun,
        trace=found.trace,
        custom_bound=None if has_name(best.bound) else judged.original,
        claim=asked.claim,
        source=None if judged.forecast is None else judged.forecast.source,
        device_steps=best.device_steps,
    )


def _rent_paid(problem: Problem, seconds: float) -> Problem:
    """The problem with what is left of its cost when so many seconds are paid for."""
    budget = problem.budget
    if not budget.second_cost:
        return problem
    left = max(budget.cost - budget.second_cost * seconds, 0.0)
    return replace(problem, budget=replace(budget, cost=left, second_cost=0.0))


def _status(found: Found, asked: Asked, value: float) -> Status:
    gap = value - found.lower_bound if value != found.lower_bound else 0.0
    if found.lower_bound == -math.inf and found.finished:
        return Status.EVALUATED
    # Beyond the largest float nothing can be compared: inf - 1e300 is within rounding of inf.
    if not math.isfinite(value):
        return Status.HEURISTIC if found.finished else Status.TIME_LIMIT
    if gap <= found.rounding * abs(value):
        return Status.OPTIMAL
    if not asked.proves:
        return Status.HEURISTIC
    if not found.finished:
        return Status.TIME_LIMIT
    return Status.GAP_TOLERANCE if gap <= asked.gap_tolerance * abs(value) else Status.INTEGRALITY_GAP


def binding_limits(problem: Problem, rounds: int, local_steps: int, batches: Ints) -> tuple[str, ...]:
    """The limits without which one more round, one more local step, or a larger batch would fit."""
    fleet, budget, steps = problem.fleet, problem.budget, rounds * local_steps
    prices, found = problem.plain.fleet, set()
    # What one more unit adds at most where it is of use and allowed; seconds of a round as planned, with one
    # more local step, and with one more unit.
    dearest = hungriest = 0.0
    seconds = np.zeros(3)
    for begin in range(0, len(fleet), limits.BLOCK):
        block = slice(begin, begin + limits.BLOCK)
        units = _next_size(fleet, batches, block) - batches[block]
        growing = fleet.gradient_noise[block] > 0.0
        allowed = batches[block] + units <= fleet.max_batch[block]
        if bool((growing & ~allowed).any()):
            found.add("max_batch")
        growing &= allowed
        dearest = max(dearest, _most(steps * prices.sample_cost[block] * units, growing))
        if budget.energy < math.inf:
            hungriest = max(hungriest, _most(steps * prices.sample_energy[block] * units, growing))
        if budget.time < math.inf or budget.second_cost:
            step = limits.step_times(problem, batches[block], block)
            times = local_steps * step + fleet.round_time[block]
            grown = local_steps * (limits.step_times(problem, batches[block] + units, block) - step)
            step += times
            grown += times
            seconds = np.maximum(seconds, [times.max(), step.max(), _most(grown, growing)])
    longer = ((rounds + 1, local_steps), (rounds, local_steps + 1))
    used = max(limits.cost(problem, *each, batches) for each in longer)
    larger = limits.cost(problem, rounds, local_steps, batches) + dearest
    if budget.second_cost:
        larger += budget.second_cost * rounds * max(seconds[2] - seconds[0], 0.0)
    if not limits.within(max(used, larger), budget.cost):
        found.add("cost")
    if not limits.within(max((rounds + 1) * seconds[0], rounds * seconds[1:].max()), budget.time):
        found.add("time")
    if budget.energy < math.inf:
        burnt = limits.energy(problem, rounds, local_steps, batches)
        most = max(limits.energy(problem, *each, batches) for each in longer)
        if not limits.within(max(most, burnt + hungriest), budget.energy):
            found.add("energy")
    if rounds == budget.max_rounds:
        found.add("max_rounds")
    if local_steps == budget.max_local_steps:
        found.add("max_local_steps")
    return tuple(
        name
        for name in ("cost", "time", "energy", "max_rounds", "max_local_steps", "max_batch")
        if name in found
    )


def _next_size(fleet: Fleet, batches: Ints, block: slice) -> Ints:
    """The next larger size of each batch, were there no largest."""
    if fleet.choice_table is None:
        following: Ints = batches[block] + fleet.batch_multiple[block]
        return following
    sizes, now = fleet.choice_table[block], batches[block, None]
    beyond = fleet.max_batch[block, None] + 1
    larger: Ints = np.min(np.where(sizes > now, sizes, np.maximum(beyond, now + 1)), axis=1)
    return larger


def _most(values: Floats, where: NDArray[np.bool_]) -> float:
    return float(np.max(values, initial=0.0, where=where))


@dataclass(frozen=True)
class _Spending:
    """One limit on the work of a step: what a sample takes of it, and what a unit of each budget adds."""

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
    limit = hungry * limits.step_energy_budget(problem, rounds, local_steps)
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
    steps = rounds * local_steps
    pace = Pace.at(problem, rounds, local_steps)
    ends = upper if budget.energy == math.inf else _ends(problem, rounds, local_steps)
    spending = _spending(problem, weights, rounds, local_steps, lower, ends)
    timing = fleet.throughput, fleet.round_time, fleet.step_time, *parts_of(fleet)
    devices = alone(weights, spending.sample, lower, upper, *timing)
    _, price, sums = optimum(devices, spending.limit, pace, PRICE_TOLERANCE)
    return {name: price * unit for name, unit in spending.units.items()} | {"time": sums.pull / steps}


def _ends(problem: Problem, rounds: int, local_steps: int) -> Floats:
    """The largest batches within the time limit, or the smallest ones where it admits none."""
    lower, upper = problem.fleet.batch_range()
    ends: Floats = np.maximum(np.minimum(upper, limits.time_caps(problem, rounds, local_steps)), lower)
    return ends


def cap_prices(problem: Problem, bound: Bound, rounds: int, local_steps: int) -> Floats:
    """Fall of the bound per sample of each ``max_batch``, at this (K, tau) with continuous batches."""
    fleet = problem.fleet
    _, weights = bound.coefficients(problem, rounds, local_steps)
    if not np.isfinite(weights).all():
        return np.full(len(fleet), math.nan)
    lower, upper = fleet.batch_range()
    caps = limits.time_caps(problem, rounds, local_steps)
    ends = _ends(problem, rounds, local_steps)
    spending = _spending(problem, weights, rounds, local_steps, lower, ends)
    best = relax(weights, spending.sample, spending.limit, lower, ends)
    # Where the deadline is as tight, more samples could not be processed.
    held, push = cap_multipliers(weights, spending.sample, best, upper, caps)
    prices = np.zeros(len(fleet))
    prices[held] = push
    return prices


def warn_of(problem: Problem, plan: Incumbent) -> None:
    """Warn where the bound says little about this plan."""
    bound, batches = completed(plan.bound), plan.batch_sizes.astype(np.float64)
    for caution in bound.cautions(problem, plan.rounds, plan.local_steps, batches, plan.value):
        warnings.warn(caution, BoundWarning, stacklevel=4)
