"""What one round of local steps adds to the error floor: drift, bias, and the draw of participants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coopt.objectives.drift import Floats, Ints, drift_sums, geometric, sums_on_grid
from coopt.objectives.monotone import product
from coopt.objectives.participation import end_sums


@dataclass(frozen=True)
class Contraction:
    """What one gamma decides.

    Attributes
    ----------
    log_q : float
        Of the contraction of one step.
    noise_share : float
        Of the noise of the averaged gradient in the floor.
    drift_factor, error_factor : float
        On the squared drift, and on the squared error of the mean direction: the latter times beta_d^2.
    sampling_factor : float
        On the variance of drawing participants.
    """

    log_q: float
    noise_share: float
    drift_factor: float
    error_factor: float
    sampling_factor: float


@dataclass(frozen=True)
class Fleetwide:
    """What decides the drift of a fleet, besides its noise."""

    learning_rate: float
    log_r: float
    divergence: float
    bias: float
    sampled: float  # kappa, the share of the drift that the draw adds


def round_effect(
    point: Contraction, fleet: Fleetwide, local_steps: int, length: float
) -> tuple[float, float, float]:
    """What a round adds, over its `length`: (known, noise / nu^2, last / nu^2).

    The floor is (1+z) known + ((1+1/z) noise + last) nu^2.
    """
    square, noise = _error_of(point, fleet, local_steps, length)
    if fleet.sampled == 0.0:
        return square, noise, 0.0
    ends = end_sums(point.log_q, fleet.log_r, local_steps)
    scale = point.sampling_factor * fleet.sampled / length * fleet.learning_rate * fleet.learning_rate
    # Not powers: Python's raise where the product is just infinite.
    drawn = product(ends.divergence, math.sqrt(scale) * fleet.divergence)
    square += drawn * drawn
    return square, noise + product(scale, ends.noise), scale


def round_effects(points: list[Contraction], fleet: Fleetwide, local_steps: Ints, lengths: Floats) -> Floats:
    """The same for several points at several numbers of local steps: shape (n, g, 3) for lengths (n, g)."""
    if fleet.sampled or fleet.bias:
        return np.array(
            [
                [round_effect(point, fleet, tau, length) for point, length in zip(points, row, strict=True)]
                for tau, row in zip(local_steps.tolist(), lengths.tolist(), strict=True)
            ]
        )
    factors = np.array([point.drift_factor for point in points])
    with np.errstate(over="ignore"):  # what is beyond floats is infinite, and no plan is taken for it
        scales = np.sqrt(np.where(np.isinf(factors), 0.0, factors) / lengths) * fleet.learning_rate
    log_q = np.array([point.log_q for point in points])
    _, square, noise = sums_on_grid(
        log_q, fleet.log_r, local_steps, scales * fleet.divergence, scales * scales
    )
    found = np.stack([square, noise, np.zeros_like(square)], axis=-1)
    found[:, np.isinf(factors), :2] = math.inf if fleet.divergence else 0.0, math.inf
    found[:, factors == 0.0] = 0.0
    found[local_steps == 1] = 0.0
    return found


def _error_of(point: Contraction, fleet: Fleetwide, local_steps: int, length: float) -> tuple[float, float]:
    """C0 sum q^(tau-1-j) (beta_d a_j + epsilon)^2 and C sum q^(tau-1-j) b_j^2 / nu^2."""
    bias = product(math.sqrt(point.error_factor / length), fleet.bias)
    square = bias * bias * geometric(point.log_q, local_steps)
    # E||drift + bias||^2 is at most (sqrt(drift^2) + bias)^2: the square of the bias, twice the product, and
    # the square of the drift. The first step of a round has no drift yet.
    factor = point.drift_factor
    if local_steps == 1 or factor == 0.0:
        return square, 0.0
    if math.isinf(factor):
        return (math.inf if fleet.divergence or fleet.bias else 0.0), math.inf
    # The scale goes into the sums and not before them: alone they may leave the range of float64.
    scale = math.sqrt(factor / length) * fleet.learning_rate
    sums = drift_sums(point.log_q, fleet.log_r, local_steps, scale * fleet.divergence, scale * scale)
    return square + 2.0 * product(sums.linear, bias) + sums.square, sums.variance
