"""Published bounds for local SGD whose constants are explicit, in the notation of coopt.

N devices of equal weight, tau local steps, T = K tau steps, step size eta, smoothness beta, strong convexity
mu; sigma2 is the variance of one device's stochastic gradient. Every function checks the step size that its
theorem asks for and returns None where it does not hold.

Not here, because their theorems hide the constants in O(.) or in an unnamed "universal constant", so that no
number can be computed from them: Woodworth, Patel & Srebro (NeurIPS 2020, arXiv 2006.04735), Theorem 3 and
Koloskova et al. (ICML 2020, arXiv 2003.10422), Theorem 2 (a number of steps sufficient for accuracy eps,
inside O(.), with the step size tuned to unknown constants).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt import Bound, InvalidProblemError, Problem

Floats = NDArray[np.float64]
SLACK = 1.0 + 1e-12


def stich(
    *,
    steps: int,
    tau: int,
    devices: int,
    beta: float,
    mu: float,
    distance2: float,
    sigma2: float,
    square: float,
) -> float:
    """Stich (ICLR 2019, arXiv 1805.09767), Theorem 2.2: identical data, strongly convex.

    For eta_t = 4/(mu (a + t)) with a > max(16 beta/mu, tau), bounds E f - f* of the average of all iterates
    of all devices, weighted by (a + t)^2. `square` is G^2, a bound on E||g||^2 along the run.
    """
    a = stich_shift(beta=beta, mu=mu, tau=tau)
    weight = float(np.sum((a + np.arange(steps)) ** 2))
    return (
        mu * a**3 / (2.0 * weight) * distance2
        + 4.0 * steps * (steps + 2.0 * a) / (mu * devices * weight) * sigma2
        + 256.0 * steps / (mu**2 * weight) * square * tau**2 * beta
    )


def stich_shift(*, beta: float, mu: float, tau: int) -> float:
    """The smallest admissible a, a hair above its limit."""
    return max(16.0 * beta / mu, float(tau)) * (1.0 + 1e-9)


def khaled_identical_distance(
    *, eta: float, steps: int, tau: int, devices: int, beta: float, mu: float, distance2: float, sigma2: float
) -> float | None:
    """Khaled, Mishchenko & Richtarik (AISTATS 2020, arXiv 1909.04746), Theorem 1: identical data, mu > 0.

    Bounds E||w_T - w*||^2 of the averaged model; eta <= 1/(4 beta).
    """
    if eta * 4.0 * beta > SLACK:
        return None
    contraction = (1.0 - eta * mu) ** steps
    noise = eta * sigma2 / (mu * devices) + 2.0 * eta**2 * beta * (tau - 1) * sigma2 / mu
    return contraction * distance2 + noise


def khaled_identical_loss(
    *, eta: float, steps: int, tau: int, devices: int, beta: float, distance2: float, sigma2: float
) -> float | None:
    """Same paper, Theorem 2: identical data, convex; E f - f* of the mean over t of the averaged models."""
    if eta * 4.0 * beta > SLACK:
        return None
    noise = 2.0 * eta * sigma2 / devices + 4.0 * eta**2 * beta * sigma2 * (tau - 1)
    return 2.0 * distance2 / (eta * steps) + noise


def khaled_heterogeneous(
    *, eta: float, steps: int, tau: int, devices: int, beta: float, distance2: float, sigma2_opt: float
) -> float | None:
    """Same paper, Theorem 5: heterogeneous data, convex; E f - f* of the mean over t of the averaged models.

    sigma2_opt = (1/N) sum_i E||g_i(w*)||^2, gradients at the optimum of the average, noise included;
    eta <= min(1/(4 beta), 1/(8 beta (tau - 1))).
    """
    if eta * beta * max(4.0, 8.0 * (tau - 1)) > SLACK:
        return None
    noise = 20.0 * eta * sigma2_opt / devices + 16.0 * eta**2 * beta * (tau - 1) ** 2 * sigma2_opt
    return 4.0 * distance2 / (eta * steps) + noise


def yu(
    *, eta: float, steps: int, tau: int, devices: int, beta: float, gap: float, sigma2: float, square: float
) -> float | None:
    """Yu, Yang & Zhu (AAAI 2019, arXiv 1807.06629), Theorem 1: non-convex, bounded gradients.

    Bounds (1/T) sum_t E||grad F(w_t)||^2; `square` is G^2 >= E||g_i||^2; eta <= 1/beta.
    """
    if eta * beta > SLACK:
        return None
    drift = 4.0 * eta**2 * tau**2 * square * beta**2
    return 2.0 * gap / (eta * steps) + drift + beta * eta * sigma2 / devices


@dataclass(frozen=True)
class ConvexAverage:
    """Khaled et al. 2020, Theorem 5, as a coopt.Bound: affine in 1/s_i, and no strong convexity needed.

    It speaks of the mean of the averaged models over all steps, not of the last one. `distance` is
    ||w_0 - w*||. Equal weights; delta_i stands in for ||grad F_i(w*)||, which it bounds.
    """

    distance: float

    @property
    def name(self) -> str:
        return "khaled2020-theorem5"

    def members(self) -> tuple[Bound, ...]:
        return (self,)

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        fleet, devices = problem.fleet, len(problem.fleet)
        eta, beta = problem.constants.learning_rate, problem.constants.smoothness
        if not np.allclose(fleet.weights, 1.0 / devices):
            raise InvalidProblemError(f"weights = {fleet.weights!r}: {self.name} needs equal weights")

        def at(sigma2_opt: float) -> float:
            value = khaled_heterogeneous(
                eta=eta,
                steps=rounds * local_steps,
                tau=local_steps,
                devices=devices,
                beta=beta,
                distance2=self.distance**2,
                sigma2_opt=sigma2_opt,
            )
            # Above its step-size limit the theorem promises nothing.
            return np.inf if value is None else value

        offset = at(float(np.mean(fleet.divergence**2)))
        if np.isinf(offset):
            return np.inf, np.zeros(devices)
        share = at(1.0) - at(0.0)
        return offset, share * fleet.gradient_noise / devices

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        offset, weights = self.coefficients(problem, rounds, local_steps)
        return float(offset + np.sum(weights / np.asarray(batch_sizes, dtype=np.float64)))
