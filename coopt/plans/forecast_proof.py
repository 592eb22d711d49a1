"""A second proof that no plan has a smaller forecast: every (K, tau) within the limits, one after the other.

For given local steps the map of a round is composed once and then iterated: where the mean is after every
round, and what the noise of one round adds to the loss so many rounds later, which makes the weights of
1 / s_i. At each (K, tau) the smallest value of whole batches is bounded at prices of the limits, and
enumerated where these prove too little. Nothing is pruned over ranges, so nothing has to be believed of how
forecasts change with K or tau; it shares no code with the solvers. The ranges must be small.

Plans that may diverge by what was measured do not count, unless there are no others: which these are is a
definition, :mod:`coopt.objectives.forecast.stability`, that solver and proof share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.errors import CertificateError
from coopt.objectives.forecast.forecast import Forecast
from coopt.plans.enumeration import smallest_value
from coopt.plans.forecast_certificate import Averaging, Parabola
from coopt.plans.outer_limits import OuterLimits
from coopt.problem.exact_sum import exact_sum
from coopt.problem.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Pairs (K, tau) that are tried at most.
MOST_PAIRS = 20_000
# Relative agreement of two evaluations of a forecast, and of what cancels in it, over the gap at the start.
AGREEMENT, CANCELLATION = 1e-9, 1e-13
# How two limits share one price, and halvings of that price.
SHARES, HALVINGS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0), 60


@dataclass(frozen=True)
class Enumerated:
    """No stable plan within the limits has a forecast below `target`: so many pairs K, tau were tried."""

    target: float
    pairs: int


def prove_forecast(
    problem: Problem,
    forecast: Forecast,
    target: float,
    rounds: int | None = None,
    local_steps: int | None = None,
) -> Enumerated:
    """Prove that no stable plan within the limits has a forecast below `target`.

    Parameters
    ----------
    problem : Problem
        Its learning rate is the one that the claim is about.
    forecast : Forecast
    target : float
    rounds, local_steps : int, optional
        K and tau where the claim is about plans with these.

    Raises
    ------
    CertificateError
        If a plan with a smaller forecast is found, more than MOST_PAIRS pairs would have to be tried, or some
        devices are drawn for each round, since their draws change the noise from round to round.
    """
    if problem.budget.participants is not None:
        raise CertificateError(
            "deep: a forecast with devices drawn for each round is proved by the solver alone: the draws "
            "change the noise from round to round"
        )
    within, stability = OuterLimits(problem), forecast.stability(problem)
    pairs = list(_pairs(within, rounds, local_steps))
    slack = AGREEMENT * abs(target) + CANCELLATION * forecast.initial_gap
    floors = {tau: stability.smallest(tau, within.lower, within.upper) for tau, _ in pairs}
    if not any(
        floor is not None and within.admits(k, tau, floor) for tau, (k, _) in pairs for floor in [floors[tau]]
    ):
        floors = dict.fromkeys(floors, within.lower)
    for tau, (first, last) in pairs:
        floor = floors[tau]
        if floor is None:
            continue
        for k, offset, weights in _rounds(forecast, problem, tau, first, last):
            if not within.admits(k, tau, floor):
                break
            if not (math.isfinite(offset) and np.isfinite(weights).all()):
                raise CertificateError(f"deep: the forecast at K = {k}, tau = {tau} is no finite number")
            found = _smallest(within, (k, tau, floor), offset, weights, target)
            if found < target - slack:
                raise CertificateError(
                    f"deep: a plan with K = {k}, tau = {tau} may have a forecast of {found!r}, below the "
                    f"claimed {target!r}"
                )
    return Enumerated(target, sum(last - first + 1 for _, (first, last) in pairs))


def _pairs(
    within: OuterLimits, rounds: int | None, local_steps: int | None
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Every tau that some plan may have, and its range of K."""
    budget, left = within.budget, MOST_PAIRS
    first = 1 if rounds is None else rounds
    tau = 1 if local_steps is None else local_steps
    while tau <= (budget.max_local_steps or math.inf) and within.feasible(first, tau):
        last = first
        most = first if rounds is not None else budget.max_rounds or math.inf
        while last < most and last - first < left and within.feasible(last + 1, tau):
            last += 1
        left -= last - first + 1
        if left < 0:
            raise CertificateError(
                f"deep: more than {MOST_PAIRS:,} pairs of rounds and local steps would have to be tried; fix "
                "one of them, or lower Budget(max_rounds=..., max_local_steps=...)"
            )
        yield tau, (first, last)
        if local_steps is not None:
            return
        tau += 1


def _rounds(
    forecast: Forecast, problem: Problem, local_steps: int, first: int, last: int
) -> Iterator[tuple[int, float, Floats]]:
    """After each number of rounds, F - F* with full batches, and what a batch of one of each device adds."""
    average, rate = Averaging.of(forecast, problem), problem.constants.learning_rate
    local = average.local(rate, local_steps, average.of_batches(np.ones(len(problem.fleet))))
    # What no batch removes, of all devices together.
    lasting = average.change(average.local(rate, local_steps, average.of_steps), local_steps).noise
    whole, enter, loss = (
        average.round(average.change(local, local_steps)),
        average.enter,
        Parabola.of(forecast.model),
    )
    size, m = enter.shape
    noise = average.counted[:, None, None] * (enter @ local.noise @ enter.T)
    if problem.fleet.replacement:
        # The variance among the samples held is smaller than that of what they are drawn from.
        noise *= ((problem.fleet.samples - 1.0) / problem.fleet.samples)[:, None, None]
    bends = np.zeros((size, size))
    bends[:m, :m] = loss.curvature
    state, later = np.zeros(size), np.zeros((size, size))
    for k in range(1, last + 1):
        state = whole.matrix @ state + whole.shift
        later = bends + whole.matrix.T @ later @ whole.matrix
        if k >= first:
            left = 0.5 * float(np.sum((enter @ lasting @ enter.T) * later))
            yield k, loss.gap(state[:m]) + left, 0.5 * np.einsum("nab,ab->n", noise, later)


def _smallest(
    within: OuterLimits, place: tuple[int, int, Ints], offset: float, weights: Floats, target: float
) -> float:
    """The smallest forecast of whole batches at (K, tau, least), or a number that is not below the target."""
    (rounds, local_steps, floor), fleet = place, within.fleet
    gains = np.maximum(weights, 0.0) / within.multiple
    reference = 0.0 if fleet.replacement else exact_sum(weights / fleet.samples)
    least: Ints = -(-floor // within.multiple)
    most: Ints = within.largest_batches(rounds, local_steps) // within.multiple
    free = offset - reference + exact_sum(gains / most)
    budgets = within.step_limits(float(rounds * local_steps), float(local_steps))
    limited = np.isfinite(budgets)
    if free >= target or not limited.any():
        return free
    used: Floats = np.array([fleet.sample_cost, fleet.sample_energy])
    costs: Floats = used[limited] * within.multiple.astype(np.float64)
    prices = _prices(gains, costs, budgets[limited], least, most)
    level = target - offset + reference
    return (
        offset
        - reference
        + smallest_value(gains, costs, budgets[limited], least, most, prices, level, within.sizes)
    )


def _prices(gains: Floats, costs: Floats, budgets: Floats, least: Ints, most: Ints) -> Floats:
    """Prices at which what devices take comes close to the limits; any are right, these prove much."""
    uses, best = costs / np.maximum(budgets, 1e-300)[:, None], (-math.inf, np.zeros(len(budgets)))
    for share in SHARES if len(budgets) == 2 else (1.0,):
        mixture = np.array([share, 1.0 - share])[: len(budgets)]
        mixed = mixture @ uses
        low, high = 0.0, 1.0

        def taken(price: float, mixed: Floats = mixed) -> Floats:
            with np.errstate(divide="ignore", invalid="ignore"):
                wanted = np.floor(0.5 + np.sqrt(0.25 + gains / (price * mixed)))
            return np.clip(np.where(np.isnan(wanted), 0.0, wanted), least, most)

        while float(mixed @ taken(high)) > 1.0 and high < 1e300:
            high *= 16.0
        for _ in range(HALVINGS):
            middle = math.sqrt(low * high) if low > 0.0 else high * 2.0**-40
            low, high = (middle, high) if float(mixed @ taken(middle)) > 1.0 else (low, middle)
            if high <= low * (1.0 + 1e-13):
                break
        units = taken(high)
        dual = float(np.sum(gains / units)) + high * (float(mixed @ units) - 1.0)
        best = max(best, (dual, high * mixture / np.maximum(budgets, 1e-300)), key=lambda each: each[0])
    return best[1]
