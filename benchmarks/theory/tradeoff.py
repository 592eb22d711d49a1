"""A tighter certified bound: curvature that couples drift to the average cannot at the same time feed drift.

Statement and proof are in docs/explanation/tighter-bound.md. For fixed parameters (gamma, ratio) the bound
is an offset plus a weighted sum of 1/s_i, so every solver that takes a coopt.Bound takes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt import Bound, Constants, InvalidProblemError, Problem, bound

Floats = NDArray[np.float64]
GAMMAS = tuple(gamma for gamma in bound.GAMMAS if gamma > 0.0)
RATIOS = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-10, 11))
SWEEPS = 4


@dataclass(frozen=True)
class Round:
    """What one round does to the expected gap, for each of a family of gammas; arrays of shape (m,).

    E_{k+1} <= contraction E_k + noise sigma^2 + divergence d_h^2 + spread nu^2.
    """

    contraction: Floats
    noise: Floats
    divergence: Floats
    spread: Floats

    def after(self, rounds: int) -> tuple[Floats, Floats]:
        """What is left of the initial gap, and how often the floor of one round adds up; shapes (m,)."""
        left = self.contraction**rounds
        return left, (1.0 - left) / (1.0 - self.contraction)

    def bound(self, rounds: int, gap: float, sigma2: float, divergence2: float, nu2: float) -> Floats:
        """The bound after `rounds` rounds, shape (m,)."""
        left, repeated = self.after(rounds)
        floor = self.noise * sigma2 + self.divergence * divergence2 + self.spread * nu2
        return left * gap + repeated * floor


def drift_costs(
    weights: Floats, *, step: float, low: float, high: float, coupling: float, ratio: float
) -> tuple[Floats, Floats]:
    """Coefficients (of d_h^2, of nu^2) that bound sum_j weights[j] E||x_j||^2, each of shape (m,).

    Parameters
    ----------
    weights : ndarray, shape (tau, m)
        lambda_j >= 0 for m weightings at once; lambda_0 plays no part, since x_0 = 0.
    step : float
        eta <= 2/(low + high).
    low, high : float
        Curvature range [ell, beta] of every device.
    coupling : float
        beta_d, where more is known than (beta - ell)/2, which always holds.
    ratio : float
        nu^2/d_h^2 that Young's parameters are chosen for; infinite if d_h = 0. Any value is valid.

    Notes
    -----
    x_j is the change that drift makes in the averaged gradient. A backward sweep finds storage weights P_j
    with P_{j+1} e_{j+1}^2 + lambda_j x_j^2 <= P_j e_j^2 + (noise and divergence); Young's parameters come
    from the worst trajectory under the previous sweep. Every sweep is valid; the best one counts.
    """
    steps, members = weights.shape
    middle, radius = 1.0 - step * (low + high) / 2.0, step * (high - low) / 2.0
    known = 2.0 * coupling / (high - low) if high > low else 1.0
    least = math.sqrt(max(1.0 - known**2, 0.0))
    diverging, nu2 = (0.0, 1.0) if math.isinf(ratio) else (1.0, ratio)
    growth = np.full((steps, members), middle + radius)
    best = np.full(members, np.inf)
    costs = np.zeros((2, members))
    for _ in range(SWEEPS):
        drift = np.zeros((steps, members))
        for j in range(1, steps):
            drift[j] = np.sqrt((growth[j - 1] * drift[j - 1] + step * diverging) ** 2 + step * step * nu2)
        storage, found = np.zeros(members), np.zeros((2, members))
        for j in range(steps - 1, 0, -1):
            # zeta splits (drift + divergence)^2 by Young's inequality; any positive one will do.
            zeta = step / np.maximum(growth[j] * drift[j], 1e-9 * step) if diverging else 0.0
            found[0] += storage * step**2 * (1.0 + 1.0 / zeta) if diverging else 0.0
            found[1] += storage * step**2
            carried = (1.0 + zeta) * storage
            lost = weights[j] * (high - low) ** 2 / 4.0
            excess = lost - carried * radius**2
            inner = carried * middle * radius
            share = np.where(inner < excess, inner / np.where(excess > 0.0, excess, 1.0), 1.0)
            share = np.maximum(share, least)
            growth[j] = middle + radius * share
            storage = carried * growth[j] ** 2 + lost * (1.0 - share**2)
        found += storage * step**2  # no drift before the first step: nothing to split
        total = diverging * found[0] + nu2 * found[1]
        better = total < best
        best = np.where(better, total, best)
        costs = np.where(better, found, costs)
    return costs[0], costs[1]


def drift_costs_of(constants: Constants, weights: Floats, ratio: float) -> tuple[Floats, Floats]:
    eta, beta = constants.learning_rate, constants.smoothness
    low = -beta if constants.curvature_floor is None else constants.curvature_floor
    if eta * (beta + low) > 2.0 * (1.0 + bound.STEP_SIZE_SLACK):
        raise InvalidProblemError(
            f"learning_rate = {eta!r}: must not exceed 2 / (smoothness + curvature_floor)"
        )
    coupling = beta if constants.coupling is None else constants.coupling
    return drift_costs(weights, step=eta, low=low, high=beta, coupling=coupling, ratio=ratio)


def mean_step(constants: Constants) -> float:
    """eta beta_F."""
    mean = constants.smoothness if constants.mean_smoothness is None else constants.mean_smoothness
    if constants.learning_rate * mean > 1.0 + bound.STEP_SIZE_SLACK:
        raise InvalidProblemError(
            f"learning_rate = {constants.learning_rate!r}: must not exceed 1 / mean_smoothness = {1 / mean!r}"
        )
    return min(constants.learning_rate * mean, 1.0)


@lru_cache(maxsize=4096)
def round_effect(constants: Constants, local_steps: int, gammas: tuple[float, ...], ratio: float) -> Round:
    """Evaluate the theorem for one round of `local_steps` local steps."""
    eta, c, x = constants.learning_rate, constants.pl_constant, mean_step(constants)
    if c is None:
        raise InvalidProblemError("pl_constant is missing: the trade-off bound needs it")
    young = np.array(gammas)
    q = 1.0 - eta * c * (2.0 - x - (1.0 - x) * young)
    first = 1.0 - eta * c * (2.0 - x)  # no drift in the first step: gamma = 0 is free there
    factor = eta / 2.0 * (x + (1.0 - x) / young)
    powers = q ** np.arange(local_steps - 1, -1, -1)[:, None]
    divergence, spread = drift_costs_of(constants, factor * powers, ratio)
    return Round(first * powers[0], eta * x / 2.0 * powers.sum(axis=0), divergence, spread)


def _sums(problem: Problem, batch_sizes: ArrayLike) -> tuple[float, float, float]:
    """(sigma^2, d_h^2, nu^2)."""
    fleet, p = problem.fleet, problem.fleet.weights
    variance = fleet.gradient_noise / np.asarray(batch_sizes, dtype=np.float64)
    if not fleet.replacement:
        variance -= fleet.gradient_noise / fleet.samples
    return float(p**2 @ variance), float(p @ fleet.divergence**2), float(p * (1.0 - p) @ variance)


@dataclass(frozen=True)
class TradeOff:
    """The bound with numbers: a coopt.Bound, affine in 1/s_i."""

    gamma: float
    ratio: float

    @property
    def name(self) -> str:
        return f"tradeoff(gamma={self.gamma}, ratio={self.ratio})"

    def members(self) -> tuple[Bound, ...]:
        return (self,)

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        effect = self._effect(problem, local_steps)
        left, repeated = effect.after(rounds)
        fleet, p = problem.fleet, problem.fleet.weights
        offset = left * problem.constants.initial_gap + repeated * effect.divergence * (
            p @ fleet.divergence**2
        )
        weights = repeated * (effect.noise * p**2 + effect.spread * p * (1.0 - p)) * fleet.gradient_noise
        if not fleet.replacement:
            offset = offset - np.sum(weights / fleet.samples)
        return float(offset[0]), weights

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        effect = self._effect(problem, local_steps)
        return float(effect.bound(rounds, problem.constants.initial_gap, *_sums(problem, batch_sizes))[0])

    def _effect(self, problem: Problem, local_steps: int) -> Round:
        return round_effect(problem.constants, local_steps, (self.gamma,), self.ratio)


def best_value(problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
    """The smallest member for one plan: all gammas, and the plan's own ratio of noise to divergence."""
    sums = _sums(problem, batch_sizes)
    effect = round_effect(problem.constants, local_steps, GAMMAS, _ratio(sums))
    return float(effect.bound(rounds, problem.constants.initial_gap, *sums).min())


def best_gradient_value(problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
    """The same for (1/T) sum_t E||grad F||^2, without convexity or PL condition."""
    sums = sigma2, divergence2, nu2 = _sums(problem, batch_sizes)
    eta, x = problem.constants.learning_rate, mean_step(problem.constants)
    if local_steps == 1:  # no drift: gamma = 0 is free
        gammas, factor = np.zeros(1), np.zeros(1)
    else:
        gammas = np.array(GAMMAS)
        factor = (x + (1.0 - x) / gammas) / 2.0
    divergence, spread = drift_costs_of(problem.constants, np.tile(factor, (local_steps, 1)), _ratio(sums))
    start = problem.constants.initial_gap / (eta * rounds * local_steps) + x * sigma2 / 2.0
    values = start + (divergence * divergence2 + spread * nu2) / local_steps
    return float(np.min(values / (1.0 - x / 2.0 - (1.0 - x) * gammas / 2.0)))


def _ratio(sums: tuple[float, float, float]) -> float:
    _, divergence2, nu2 = sums
    return nu2 / divergence2 if divergence2 else math.inf


def family() -> tuple[TradeOff, ...]:
    """A finite family whose minimum is a bound that solvers can use member by member."""
    return tuple(TradeOff(gamma, ratio) for gamma in GAMMAS for ratio in RATIOS)
