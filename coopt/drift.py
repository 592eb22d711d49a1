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
    if scale == 0.0 and log_r * local_steps > LARGEST_EXPONENT:
        # Zero times an overflowing power is zero here: without divergence alpha plays no part.
        return DriftSums(0.0, 0.0, math.inf)
    # Invariant: weight, alpha, beta, linear, square, variance belong to `steps` local steps.
    steps, weight, alpha, beta = 1, 1.0, scale, noise_scale
    linear = square = variance = 0.0
    for bit in bin(local_steps)[3:]:
        q, r = _power(log_q, steps), _power(log_r, steps)
        r2 = r * r
        square = q * square + alpha * alpha * weight + 2.0 * alpha * (r * linear) + r2 * square
        linear = q * linear + alpha * weight + r * linear
        variance = q * variance + beta * weight + r2 * variance
        alpha, beta, weight = alpha + r * alpha, beta + r2 * beta, q * weight + weight
        steps *= 2
        if bit == "1":
            q, r = _power(log_q, 1), _power(log_r, steps)
            square = q * square + alpha * alpha
            linear = q * linear + alpha
            variance = q * variance + beta
            alpha, beta, weight = alpha + r * scale, beta + r * r * noise_scale, q * weight + 1.0
            steps += 1
    return DriftSums(*(math.inf if math.isnan(value) else value for value in (linear, square, variance)))


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


def _power(log_base: float, exponent: int) -> float:
    product = log_base * exponent
    return math.exp(product) if product <= LARGEST_EXPONENT else math.inf
