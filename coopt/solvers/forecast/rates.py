"""The learning rate together with the plan: a grid of stable rates, refined, each with the best plan for it.

A larger rate is faster and noisier. A forecast has no multiplicative noise, so it would take a rate next to
the largest stable one with batches so small that training diverges in truth: each rate has a smallest batch
(:mod:`coopt.objectives.forecast.batch_floor` and, for given rates too,
:mod:`coopt.objectives.forecast.stability`), which is a limit like that of the fleet. Where the loss is not
convex that is not enough: curvature and noise were met on the way that the first rounds took at their rate,
and a network's grow at larger ones. There :attr:`Forecast.rate_growth` keeps rates at or below the one that
was tried. What is proved is proved for the rate that was chosen; no other rates are excluded.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.batch_floor import smallest_batch
from coopt.objectives.forecast.forecast import Forecast
from coopt.problem.problem import Problem
from coopt.solvers.contract import Found
from coopt.solvers.forecast.search import search
from coopt.solvers.forecast.smallest import Smallest, stable
from coopt.solvers.ranges import Ranges
from coopt.solvers.whole_units.batches import Ints

# The grid goes down from the largest stable rate by this factor, so often; then between the best and its
# neighbours, so often.
RATIO, RATES, REFINEMENTS = math.sqrt(2.0), 16, 3


def best_rate(
    problem: Problem, forecast: Forecast, ranges: Ranges, tolerance: float, time_limit: float | None
) -> Found:
    """The rate whose best plan has the smallest forecast.

    Parameters
    ----------
    problem : Problem
        Its own learning rate plays a part only where the forecast's `rate_growth` is finite.
    forecast : Forecast
    ranges : Ranges
    tolerance : float
        Relative gap at which the proof for the rate that is chosen may stop.
    time_limit : float or None
        Seconds after which that proof stops where it is.

    Returns
    -------
    Found
        Its plan names the rate. The lower bound holds for all rates, and says little; that for the rate of
        the plan is in the trace.

    Raises
    ------
    InvalidProblemError
        If no curvature was measured: then no rate is too large.
    """
    if forecast.largest_rate == math.inf:
        raise InvalidProblemError(
            "learning_rate = 'auto': the forecast has no curvature along any direction, so that it has no "
            "largest stable rate; give one in numbers"
        )
    begun = time.perf_counter()
    values: dict[float, float] = {}

    def attempt(rate: float, tolerance: float, seconds: float | None) -> Found:
        at_rate = at(problem, rate)
        own = forecast.with_learning_rate(rate)
        return search(at_rate, own, ranges, tolerance, seconds, smallest=floors(at_rate, own))

    def value(rate: float) -> float:
        if rate not in values:
            values[rate] = attempt(rate, tolerance, 0.0).best.value
        return values[rate]

    largest = forecast.largest_choice(problem)
    grid = [largest / RATIO**j for j in range(RATES)]
    best = min(grid, key=value)
    width = RATIO
    for _ in range(REFINEMENTS):
        width = math.sqrt(width)
        best = min((min(best * width, largest), best, best / width), key=value)
    seconds = None if time_limit is None else max(time_limit - (time.perf_counter() - begun), 0.0)
    if values[best] < math.inf:
        found = attempt(best, tolerance, seconds)
    else:
        # No rate that was tried has batches within the limits: the smallest one, with a warning.
        best = grid[-1]
        own = forecast.with_learning_rate(best)
        found = search(at(problem, best), own, ranges, tolerance, seconds)
    return replace(
        found,
        best=replace(found.best, learning_rate=best),
        # All that is known of plans at other rates.
        lower_bound=min(forecast.model.loss.lowest, found.best.value),
        trace=found.trace | {"rates": len(values), "lower_bound_at_rate": found.lower_bound},
    )


def at(problem: Problem, rate: float) -> Problem:
    """The same problem at another learning rate."""
    return replace(problem, constants=replace(problem.constants, learning_rate=rate))


def floors(problem: Problem, forecast: Forecast) -> Smallest:
    """The smallest batches at the problem's rate: those that keep training stable, and what it asks for.

    A device whose largest batch is below what the rate asks for processes its largest one.
    """
    fleet, rate = problem.fleet, problem.constants.learning_rate
    how = forecast.optimiser.linear
    known: dict[int, Ints] = {}
    own = stable(problem, forecast.with_learning_rate(rate))

    def smallest(local_steps: int) -> Ints | None:
        needed = own(local_steps)
        if needed is not None and local_steps not in known:
            floor = smallest_batch(forecast.model, fleet.weights, rate, local_steps, how)
            known[local_steps] = np.maximum(fleet.rounded_up(floor), needed)
        return None if needed is None else known[local_steps]

    return smallest
