"""The non-convex form of the trade-off bound: the mean squared gradient, without convexity or PL condition.

Statement and proof are in docs/explanation/tighter-bound.md; the bound on the error is coopt.TradeOff.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt import Constants, Problem
from coopt.objectives.curvature import curvature
from coopt.objectives.tradeoff import GAMMAS, drift_costs

Floats = NDArray[np.float64]


def drift_costs_of(constants: Constants, weights: Floats, ratio: float) -> tuple[Floats, Floats]:
    known, high = curvature(constants, "trade-off"), constants.smoothness
    return drift_costs(
        weights,
        step=constants.learning_rate,
        low=known.floor,
        high=high,
        coupling=known.coupling,
        ratio=ratio,
    )


def best_gradient_value(problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
    """The bound on (1/T) sum_t E||grad F||^2: all gammas, and the plan's own ratio of noise to divergence."""
    fleet, p = problem.fleet, problem.fleet.weights
    variance = fleet.gradient_noise / np.asarray(batch_sizes, dtype=np.float64)
    if not fleet.replacement:
        variance -= fleet.gradient_noise / fleet.samples
    sigma2, divergence2 = float(p**2 @ variance), float(p @ fleet.divergence**2)
    nu2 = float(p * (1.0 - p) @ variance)
    ratio = nu2 / divergence2 if divergence2 else math.inf
    eta, x = problem.constants.learning_rate, curvature(problem.constants, "trade-off").mean_step
    if local_steps == 1:  # no drift: gamma = 0 is free
        gammas, factor = np.zeros(1), np.zeros(1)
    else:
        gammas = np.array(GAMMAS)
        factor = (x + (1.0 - x) / gammas) / 2.0
    divergence, spread = drift_costs_of(problem.constants, np.tile(factor, (local_steps, 1)), ratio)
    drift = spread * nu2 + (divergence * divergence2 if divergence2 else 0.0)
    values = problem.constants.initial_gap / (eta * rounds * local_steps) + x * sigma2 / 2.0
    values = values + drift / local_steps
    return float(np.min(values / (1.0 - x / 2.0 - (1.0 - x) * gammas / 2.0)))
