"""Read what is known of a training: the constants, with their standard errors."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.average import Average
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.trend import Estimate
from coopt.measuring.robust import LEAST_TO_JUDGE, reach

Floats = npt.NDArray[np.float64]

# Noise of a device is held to this share of the deviations that are usual.
NOISE_SHARE = 0.4
# Share of the devices that may lie, and how far from the middle gradients are held, in units of the usual
# distance: three deviations of the logarithms of distances, which spread by a third.
LIARS, HELD_DISTANCE = 0.2, 1.0


def mean_of(average: Average) -> Estimate:
    """Read a scalar average."""
    if not average.known:
        return Estimate(math.nan, math.inf)
    return Estimate(float(average.mean), float(average.standard_error))


def root_of(estimate: Estimate) -> Estimate:
    """Square root of an estimate that may have come out negative by noise."""
    value, error = max(estimate.value, 0.0), estimate.standard_error
    root = math.sqrt(value) if not math.isnan(estimate.value) else math.nan
    # Near zero the root of a quantity uncertain by e is uncertain by sqrt(e).
    return Estimate(root, min(error / (2 * root), math.sqrt(error)) if root > 0 else math.sqrt(error))


def ratio_of(numerator: Average, denominator: Average) -> Estimate:
    """Ratio of two averages, which has less bias than an average of ratios."""
    top, bottom = mean_of(numerator), mean_of(denominator)
    if not bottom.value > 0:
        return Estimate(math.nan, math.inf)
    value = top.value / bottom.value
    error = math.hypot(top.standard_error, value * bottom.standard_error) / bottom.value
    return Estimate(value, error)


def divergence(state: Estimates) -> Estimate:
    """Gradient divergence d_h, in units of the gradient."""
    return root_of(state.divergence.now)


def smoothness(state: Estimates) -> Estimate:
    """Curvature beta along the clients' steps: root mean square gradient change per distance."""
    return root_of(ratio_of(state.pair_change, state.pair_step))


def coupling(state: Estimates) -> Estimate:
    """How strongly drift moves the averaged gradient, beta_d, in units of curvature."""
    return root_of(ratio_of(state.coupling_change, state.coupling_step))


def squared_gradient(state: Estimates) -> Estimate:
    """Squared norm of the global gradient; missing devices make it uncertain, however long one averages."""
    now = state.gradient.now
    return Estimate(now.value, math.hypot(now.standard_error, float(state.partial.mean)))


def certain_share(state: Estimates) -> float:
    """Share of the squared gradient that is there whatever a fifth of the devices reports.

    Liars move the mean of the gradients by no more than their weight times the distance from the middle to
    which gradients are held, some times the gradient divergence.
    """
    length = math.sqrt(max(state.gradient.now.value, 0.0)) if state.gradient.known else 0.0
    if not length > 0.0 or not state.divergence.known:
        return 1.0
    liars = math.floor(LIARS * len(state.samples)) / len(state.samples)
    moved = liars * HELD_DISTANCE * root_of(state.divergence.now).value
    return max(1.0 - moved / length, 0.0) ** 2


def contraction(
    state: Estimates,
    learning_rate: float,
    *,
    lowest_loss: float = 0.0,
    caution: float = 1.0,
    extrapolate: bool = True,
) -> Estimate:
    """Polyak-Lojasiewicz constant c near the current model, guarded from below.

    Parameters
    ----------
    state : Estimates
        What is known.
    learning_rate : float
        eta.
    lowest_loss : float, default 0
        A value that the loss cannot fall below.
    caution : float, default 1
        Standard errors that a measured value is lowered by: too large a c promises progress that does not
        come.
    extrapolate : bool, default True
        Whether to infer from loss and gradient so far how far the loss can fall. Without convexity they tell
        nothing about that: a network that starts on a plateau looks as if it had arrived.

    Returns
    -------
    Estimate
        The largest of three values that are low on purpose: half the slope of ||grad F||^2 over F, and the
        rate at which ||grad F||^2 falls per local step over 2 eta, both lowered by `caution` standard
        errors; and ||grad F||^2 / (2 (F - lowest_loss)), which the true one exceeds as long as F* >
        lowest_loss.

    Notes
    -----
    Where 2c(F - F*) = ||grad F||^2 holds with equality, the slope of ||grad F||^2 over F is 2c whatever F*
    may be, and both sides fall by a factor of about exp(-2 eta c) a step.
    """
    loss, square = state.loss.now, squared_gradient(state)
    height = loss.value - lowest_loss
    least = 0.0
    if height > 0 and not math.isnan(square.value):
        # On a plateau the gradient drowns in its noise, and without extrapolation nothing else shows the way.
        unseen = square.standard_error if not extrapolate and math.isfinite(square.standard_error) else 0.0
        least = (max(square.value, 0.0) + unseen) / (2 * height)
    best = Estimate(least, math.inf)
    lines = ((state.line, 0.5), (state.decay, -0.5 / learning_rate)) if extrapolate else ()
    for line, scale in lines:
        value, error = scale * line.slope, abs(scale) * line.slope_error
        if math.isfinite(value) and math.isfinite(error):
            best = max(best, Estimate(value - caution * error, error))
    return best


def gap(state: Estimates, pl_constant: float, *, lowest_loss: float = 0.0) -> Estimate:
    """Distance F - F* of the loss from its minimum: ||grad F||^2 / (2c), at most F - lowest_loss.

    Parameters
    ----------
    state : Estimates
        What is known.
    pl_constant : float
        c.
    lowest_loss : float, default 0
        A value that the loss cannot fall below.

    Returns
    -------
    Estimate
        NaN while neither loss nor gradient were observed.
    """
    loss, square = state.loss.now, squared_gradient(state)
    height = Estimate(max(loss.value - lowest_loss, 0.0), loss.standard_error)
    if math.isnan(loss.value):
        height = Estimate(math.nan, math.inf)
    if not pl_constant > 0 or math.isnan(square.value) or not math.isfinite(square.standard_error):
        return height
    value = Estimate(max(square.value, 0.0) / (2 * pl_constant), square.standard_error / (2 * pl_constant))
    # A loss below its lowest possible value is noise and limits nothing.
    return height if 0 < height.value < value.value else value


def device_noise(state: Estimates, caution: float = 0.0) -> Floats:
    """Gradient noise M_i of every device, the fleet's mean for a device that never reported, shape (N,).

    Held to 1.2 robust deviations from the median, and more in small fleets, in logarithms.

    Parameters
    ----------
    state : Estimates
        What is known.
    caution : float, default 0
        Standard errors to add.
    """
    fallback = float(state.fleet_noise.mean)
    error = np.where(np.isfinite(state.noise.standard_error), state.noise.standard_error, 0.0)
    return np.where(state.noise.known, _held(state.noise.mean + caution * error, state.noise.known), fallback)


def _held(noise: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """Hold noise to the range of most devices: batches grow with its root."""
    logs = np.log(noise[known & (noise > 0)])
    if len(logs) < LEAST_TO_JUDGE:
        return noise
    middle, far = float(np.median(logs)), NOISE_SHARE * reach(logs)
    return np.clip(noise, math.exp(middle - far), math.exp(middle + far))
