"""Geometric sums that describe how far devices drift apart during local steps, without cancellation.

With alpha_j = 1 + r + ... + r^(j-1) and beta_j = 1 + r^2 + ... + r^(2(j-1)) every bound needs some of

    linear   = sum_{j<tau} q^(tau-1-j) alpha_j
    square   = sum_{j<tau} q^(tau-1-j) alpha_j^2
    variance = sum_{j<tau} q^(tau-1-j) beta_j.

Their closed forms divide differences of nearly equal numbers by (r-1)^2 and lose every digit when
eta beta is small. But the sums over n + m steps follow from those over n and over m steps by sums and
products of positive numbers alone, so doubling gives them in O(log tau) operations to full accuracy,
with no special case at q = r, q = r^2, q = 1 or r = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LARGEST_EXPONENT = 709.0


@dataclass(frozen=True, slots=True)
class DriftSums:
    """The three sums; +inf where they exceed the range of float64."""

    linear: float
    square: float
    variance: float


def drift_sums(
    log_q: float, log_r: float, local_steps: int, scale: float, noise_scale: float = 1.0
) -> DriftSums:
    """Evaluate the sums for tau = `local_steps`, with alpha_j times `scale`, beta_j times `noise_scale`.

    Parameters
    ----------
    log_q, log_r : float
        Natural logarithms of q <= 1 and r >= 0 (-inf for zero). Logarithms, because log1p(-eta c)
        keeps the digits that q = 1 - eta c has lost.
    local_steps : int
        tau >= 1.
    scale, noise_scale : float
        Factors on alpha and beta, so that sums whose product with small constants is representable do
        not overflow on the way there.

    Returns
    -------
    DriftSums

    Examples
    --------
    >>> drift_sums(log_q=0.0, log_r=0.0, local_steps=4, scale=1.0)  # alpha_j = beta_j = j
    DriftSums(linear=6.0, square=14.0, variance=6.0)
    """
    return DriftSums(*sums_of(log_q, log_r, local_steps, scale, noise_scale))


def sums_of(
    log_q: float, log_r: float, local_steps: int, scale: float, noise_scale: float
) -> tuple[float, float, float]:
    """The sums as plain numbers."""
    if scale == 0.0 and log_r * local_steps > LARGEST_EXPONENT:
        # Zero times an overflowing power is zero here: without divergence alpha plays no part.
        return 0.0, 0.0, math.inf
    bit = 1
    while 2 * bit <= local_steps:
        bit *= 2
    # Invariant: weight, alpha, beta, linear, square, variance belong to `steps` local steps.
    steps, weight, alpha, beta = 1, 1.0, scale, noise_scale
    linear = square = variance = 0.0
    while bit > 1:
        bit //= 2
        q, r = (
            math.exp(log_q * steps),
            math.exp(log_r * steps) if log_r * steps <= LARGEST_EXPONENT else math.inf,
        )
        r2 = r * r
        # The second half of the doubled round starts where the first one ended, at alpha: there
        # alpha_(steps+j) = alpha + r^steps alpha_j, and the first half's terms have lost a factor q^steps.
        # Squaring that sum gives the three new terms. Nothing is ever subtracted, so no digit is lost.
        square = q * square + alpha * alpha * weight + 2.0 * alpha * (r * linear) + r2 * square
        linear = q * linear + alpha * weight + r * linear
        variance = q * variance + beta * weight + r2 * variance
        alpha, beta, weight = alpha + r * alpha, beta + r2 * beta, q * weight + weight
        steps *= 2
        # The binary digits of tau, from the highest: doubling appends a 0, one more step makes it a 1.
        if local_steps & bit:
            q, r = math.exp(log_q), math.exp(log_r * steps) if log_r * steps <= LARGEST_EXPONENT else math.inf
            square = q * square + alpha * alpha
            linear = q * linear + alpha
            variance = q * variance + beta
            alpha, beta, weight = alpha + r * scale, beta + r * r * noise_scale, q * weight + 1.0
            steps += 1
    return (
        math.inf if math.isnan(linear) else linear,
        math.inf if math.isnan(square) else square,
        math.inf if math.isnan(variance) else variance,
    )


def sums_on_grid(
    log_q: Floats, log_r: float, local_steps: Ints, scales: Floats, noise_scales: Floats
) -> Floats:
    """The three sums for several q, shape (g,), at several tau, shape (n,): an array of shape (3, n, g).

    The scales have shape (n, g).
    """
    found = np.empty((3, *scales.shape))
    for i, tau in enumerate(local_steps.tolist()):
        for j, each in enumerate(log_q.tolist()):
            found[:, i, j] = sums_of(each, log_r, tau, float(scales[i, j]), float(noise_scales[i, j]))
    return found


def geometric(log_ratio: float, count: int) -> float:
    """Sum of ratio^j for j < count; +inf where it exceeds the range of float64."""
    if log_ratio == -math.inf:
        return 1.0
    if log_ratio == 0.0:
        return float(count)
    try:
        return math.expm1(count * log_ratio) / math.expm1(log_ratio)
    except OverflowError:
        return math.inf
