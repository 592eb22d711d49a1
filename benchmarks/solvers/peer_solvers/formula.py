"""The problem that every peer gets: the published bound, whose formula fits every modelling language."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coopt import Budget, Constants, Fleet, Problem

# Seconds that a peer may take, by its own limit.
LIMIT = 60.0
MOST_ROUNDS, MOST_STEPS = 600, 40


def instance(size: int, seed: int) -> Problem:
    """Heterogeneous devices; costs of rounds and a deadline that both matter."""
    rng = np.random.default_rng([size, seed])
    fleet = Fleet(
        samples=rng.integers(200, 4000, size),
        gradient_noise=rng.lognormal(1.0, 0.7, size),
        divergence=rng.uniform(0.02, 0.1, size),
        throughput=rng.lognormal(5.0, 0.8, size),
        round_time=rng.uniform(0.1, 1.0, size),
    )
    constants = Constants(
        learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
    )
    budget = Budget(
        cost=8000.0 * size,
        time=400.0,
        round_cost=10.0 * size,
        max_rounds=MOST_ROUNDS,
        max_local_steps=MOST_STEPS,
    )
    return Problem(fleet, constants, budget)


@dataclass(frozen=True)
class Answer:
    """A peer's plan, real or whole, and what it says of it."""

    rounds: float
    local_steps: float
    batch_sizes: np.ndarray
    claim: str


class Formula:
    """The published bound for real K, tau and s.

    Attributes
    ----------
    weights : ndarray, shape (N,)
        Of 1/s_i.
    rate : float
        -ln q.
    growth : float
        ln(1 + eta beta): h(tau) = delta/beta (e^(growth tau) - 1) - eta delta tau.
    """

    def __init__(self, problem: Problem) -> None:
        fleet, constants = problem.fleet, problem.constants
        self.eta, self.beta, self.gap = constants.learning_rate, constants.smoothness, constants.initial_gap
        self.rate = -math.log1p(-self.eta * constants.pl_constant)
        self.growth = math.log1p(self.eta * self.beta)
        self.weights = (
            self.eta * self.beta / (2.0 * constants.pl_constant) * fleet.weights**2 * fleet.gradient_noise
        )
        self.delta = float(np.sum(fleet.weights * fleet.divergence))

    def drift(self, tau: float) -> float:
        h = self.delta / self.beta * math.expm1(tau * self.growth) - self.eta * self.delta * tau
        return h * h / (self.eta * tau) / -math.expm1(-self.rate * tau)

    def value(self, rounds: float, tau: float, batches: np.ndarray) -> float:
        left = math.exp(-self.rate * rounds * tau)
        return left * self.gap + (1.0 - left) * (float(np.sum(self.weights / batches)) + self.drift(tau))
