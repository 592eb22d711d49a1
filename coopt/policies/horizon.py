"""Plan all that is left of the training, take the first round of that plan, and plan again.

The objective is the certified bound's formula with calibrated constants. For given batches its best z is
known in closed form, so only gamma is tried over a few values; the search over rounds and local steps starts
from the last plan and moves by shrinking ratios. For continuous batches the bound is unimodal in K and in
tau along each axis in every case tried, so the search ends at the optimum or next to it; how near is
measured, not proved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coopt import limits
from coopt.drift import drift_sums
from coopt.policies.situation import Choice, Floats, Situation
from coopt.problem import Problem
from coopt.solvers.batch import relax, round_batches

GAMMAS = (1.0, 0.3, 0.1, 0.03, 0.0)
FIRST_RATIO, LAST_RATIO = 2.0, 1.04
WARM_RATIO = 1.2
LARGEST_STEPS = 100_000


@dataclass(frozen=True, eq=False)
class _Plan:
    value: float
    rounds: int
    local_steps: int
    batches: Floats
    multiplier: float
    tilt: float  # weight of the noise that drives drift, relative to the noise of the average


class _Landscape:
    """The bound over (K, tau) with the best continuous batches at each point."""

    def __init__(self, problem: Problem, gradient_error: float, tilt: float = 0.0) -> None:
        fleet, constants = problem.fleet, problem.constants
        self.problem = problem
        self.lower, self.upper = problem.fleet.batch_range()
        self.mean_noise = fleet.weights**2 * fleet.gradient_noise
        self.drift_noise = fleet.weights * (1 - fleet.weights) * fleet.gradient_noise
        self.error = gradient_error
        self.divergence = math.sqrt(float(fleet.weights @ fleet.divergence**2)) + gradient_error
        self.eta = constants.learning_rate
        self.step = min(self.eta * constants.smoothness, 1.0)
        self.coupling = float(constants.coupling or 0.0)
        self.floor = float(constants.curvature_floor or 0.0)
        self.c = float(constants.pl_constant or 0.0)
        self.tilt = tilt
        self._seen: dict[tuple[int, int], _Plan | None] = {}

    def at(self, rounds: int, local_steps: int) -> _Plan | None:
        key = rounds, local_steps
        if key not in self._seen:
            self._seen[key] = self._solve(rounds, local_steps)
        return self._seen[key]

    def most_rounds(self, local_steps: int) -> int:
        most = limits.most_rounds(self.problem, local_steps, self.lower)
        return LARGEST_STEPS if most is None else min(most, LARGEST_STEPS)

    def _solve(self, rounds: int, local_steps: int) -> _Plan | None:
        problem, fleet = self.problem, self.problem.fleet
        upper = self.upper
        if math.isfinite(problem.budget.time):
            upper = limits.largest_batches(problem, rounds, local_steps, upper)
            if np.any(upper < self.lower):
                return None
        spend = limits.step_budget(problem, rounds, local_steps)
        if spend < limits.work(problem, self.lower):
            return None
        population = None if fleet.replacement else fleet.samples
        tilt = self.tilt if local_steps > 1 else 0.0
        weights = self.mean_noise + tilt * self.drift_noise
        found = relax(weights, fleet.sample_cost, spend, self.lower, upper, population)
        inverse = 1 / found.batch_sizes - (0 if population is None else 1 / population)
        value, tilt = self.value(
            rounds, local_steps, float(self.mean_noise @ inverse), float(self.drift_noise @ inverse)
        )
        return _Plan(value, rounds, local_steps, found.batch_sizes, found.multiplier, tilt)

    def value(self, rounds: int, local_steps: int, mean: float, drifting: float) -> tuple[float, float]:
        """Give the bound at these noise levels, and how much drift noise weighs against mean noise in it."""
        best, tilt = math.inf, self.tilt
        for gamma in GAMMAS:
            drifts = local_steps > 1 and self.coupling > 0
            if gamma == 0 and (drifts or self.error > 0):
                continue
            rate = min(self.eta * self.c * (1 + (1 - self.step) * (1 - gamma)), 1.0)
            log_q = math.log1p(-rate) if rate < 1 else -math.inf
            floor = self.eta * self.step * mean / (2 * rate)
            share = a = b = 0.0
            young = self.eta / 2 * (self.step + (1 - self.step) / gamma) if gamma else 0.0
            if drifts:
                factor = young * self.coupling**2
                length = -math.expm1(local_steps * log_q)
                sums = drift_sums(
                    log_q, math.log1p(-min(self.eta * self.floor, 1 - 1e-15)), local_steps, self.eta
                )
                a = self.divergence * math.sqrt(factor * sums.square / length)
                per_noise = factor * self.eta**2 * sums.variance / length
                b = math.sqrt(per_noise * drifting)
                share = per_noise * ((a + b) / b if b > 0 else 1.0)
            # (a + b)^2 is what the best z gives; a buffer's error adds to the drift at every step.
            floor += (a + b + self.error * math.sqrt(young / rate)) ** 2
            left = math.exp(rounds * local_steps * log_q) if log_q > -math.inf else 0.0
            value = left * self.problem.constants.initial_gap + (1 - left) * floor
            if value < best:
                best = value
                tilt = share / (self.eta * self.step / (2 * rate))
        return best, tilt


def forecast(
    problem: Problem, local_steps: int, batch_sizes: npt.NDArray[np.int64], gradient_error: float
) -> float:
    """Give the gap F - F* that the calibrated bound predicts after one round.

    Parameters
    ----------
    problem : Problem
        Devices and constants; `initial_gap` is the gap before the round.
    local_steps : int
        tau.
    batch_sizes : numpy.ndarray, shape (N,)
        s_i.
    gradient_error : float
        Error that bounded buffers add to the gradient.
    """
    landscape = _Landscape(problem, gradient_error)
    inverse = 1 / batch_sizes - (0 if problem.fleet.replacement else 1 / problem.fleet.samples)
    mean, drifting = float(landscape.mean_noise @ inverse), float(landscape.drift_noise @ inverse)
    return landscape.value(1, local_steps, mean, drifting)[0]


def _search(
    landscape: _Landscape, start: tuple[int, int], steps: tuple[int, int], ratio: float, least_rounds: int = 1
) -> _Plan | None:
    """Descend from `start` over (K, tau) by ratios that shrink to 4 %; tau stays in the range `steps`."""
    rounds, tau = start
    tau = min(max(tau, steps[0]), steps[1])
    rounds = min(max(rounds, 1), max(landscape.most_rounds(tau), 1))
    best = landscape.at(rounds, tau)
    while ratio > LAST_RATIO:
        moved = False
        k, t = (rounds, tau) if best is None else (best.rounds, best.local_steps)
        for next_k, next_t in (
            (_up(k, ratio), t),
            (_down(k, ratio), t),
            (k, _up(t, ratio)),
            (k, _down(t, ratio)),
            (_up(k, ratio), _down(t, ratio)),
            (_down(k, ratio), _up(t, ratio)),
        ):
            next_t = min(max(next_t, steps[0]), steps[1])
            next_k = min(max(next_k, least_rounds), landscape.most_rounds(next_t))
            if next_k < 1:
                continue
            plan = landscape.at(next_k, next_t)
            if plan is not None and (best is None or plan.value < best.value):
                best, moved = plan, True
        if not moved:
            ratio = math.sqrt(ratio)
    return best


def _up(value: int, ratio: float) -> int:
    return max(value + 1, round(value * ratio))


def _down(value: int, ratio: float) -> int:
    return max(1, min(value - 1, round(value / ratio)))


@dataclass(frozen=True)
class Horizon:
    """Minimise the calibrated bound over all that is left of the budget.

    Parameters
    ----------
    max_change : float, default 2
        Factor by which local steps may change from one round to the next, and by which the number of rounds
        left may fall, so that one odd estimate cannot spend everything at once.
    """

    max_change: float = 2.0
    name: str = "horizon"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def choose(self, situation: Situation) -> Choice:
        """Plan the rest; the first round of that plan is the choice."""
        problem, previous = situation.problem, situation.previous
        most = problem.budget.max_local_steps or LARGEST_STEPS
        if previous is None:
            landscape = _Landscape(problem, situation.gradient_error)
            best = self._coarse(landscape, most)
        else:
            tau = previous.local_steps
            steps = (
                max(1, math.ceil(tau / self.max_change)),
                min(most, max(tau + 1, int(tau * self.max_change))),
            )
            landscape = _Landscape(problem, situation.gradient_error)
            noise = previous.batch_sizes
            _, landscape.tilt = landscape.value(
                max(previous.rounds - 1, 1),
                max(tau, 2),
                float(landscape.mean_noise @ (1 / noise)),
                float(landscape.drift_noise @ (1 / noise)),
            )
            rest = max(previous.rounds - 1, 1)
            best = _search(landscape, (rest, tau), steps, WARM_RATIO, math.ceil(rest / self.max_change))
        if best is None:
            lower, _ = problem.fleet.batch_range()
            return Choice(1, lower)
        return Choice(best.local_steps, self._whole(landscape, best), best.rounds, best.value)

    @staticmethod
    def _coarse(landscape: _Landscape, most: int) -> _Plan | None:
        """Search from several starts, since nothing is known of where the optimum lies."""
        best: _Plan | None = None
        tau = 1
        while tau <= most and landscape.most_rounds(tau) >= 1:
            plan = _search(landscape, (max(1, landscape.most_rounds(tau) // 4), tau), (1, most), FIRST_RATIO)
            if plan is not None and (best is None or plan.value < best.value):
                best = plan
            tau *= 8
        return best

    @staticmethod
    def _whole(landscape: _Landscape, plan: _Plan) -> npt.NDArray[np.int64]:
        problem, fleet = landscape.problem, landscape.problem.fleet
        costs = fleet.sample_cost * fleet.batch_multiple
        units = None
        if costs[0] > 0 and np.all(costs == costs[0]):
            units = limits.step_units(problem, plan.rounds, plan.local_steps, float(costs[0]))
        tilt = plan.tilt if plan.local_steps > 1 else 0.0
        return round_batches(
            landscape.mean_noise + tilt * landscape.drift_noise,
            fleet.sample_cost,
            limits.step_budget(problem, plan.rounds, plan.local_steps),
            landscape.lower,
            limits.largest_batches(problem, plan.rounds, plan.local_steps, landscape.upper),
            plan.multiplier,
            units,
            None if np.all(fleet.batch_multiple == 1) else fleet.batch_multiple,
            None if fleet.replacement else fleet.samples,
        ).batch_sizes
