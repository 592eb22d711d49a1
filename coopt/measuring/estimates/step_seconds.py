"""What a local step takes: a part of its own, and a part for every sample, from logged rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Samples a gradient must have differed by this factor for the two parts to be told apart.
RANGE = 1.5
# Relative deviation beyond which a round counts as an outlier: a phone that was doing something else.
USUAL = 0.1
MEDIAN_TO_DEVIATION = 1.4826  # standard deviation of a Gaussian over its median absolute deviation


@dataclass(frozen=True)
class StepSeconds:
    """How long a device computes.

    Attributes
    ----------
    step_time : float
        Seconds of a gradient, however small its batch [s].
    throughput : float
        Samples a second beyond that; infinite where samples take no time.
    step_error, sample_error : float
        Standard errors of `step_time`, and of 1 / `throughput` [s].
    told_apart : bool
        Whether batches differed enough to tell the two parts apart; if not, all time is the samples'.
    """

    step_time: float
    throughput: float
    step_error: float
    sample_error: float
    told_apart: bool


def fit_step_seconds(gradients: Floats, samples: Floats, seconds: Floats) -> StepSeconds:
    """Fit seconds = gradients * step_time + samples / throughput.

    Parameters
    ----------
    gradients, samples, seconds : numpy.ndarray, shape (k,)
        Of each logged round: gradients evaluated, the samples in them, and the seconds that it took.

    Returns
    -------
    StepSeconds

    Notes
    -----
    Relative deviations are fitted, since a slow round is slower in all its parts, and those beyond a tenth
    count by their size rather than its square (the loss sqrt(1 + r^2)), so that some rounds on a busy device
    decide nothing.

    Examples
    --------
    >>> steps, sizes = np.array([5.0, 5, 10, 20]), np.array([4, 16, 8, 32])
    >>> fit = fit_step_seconds(steps, steps * sizes, steps * (0.05 + sizes / 200))
    >>> round(fit.step_time, 6), round(fit.throughput, 6)
    (0.05, 200.0)
    """
    used = (gradients > 0) & (samples > 0) & (seconds > 0)
    if not used.any():
        return StepSeconds(0.0, math.inf, math.inf, math.inf, told_apart=False)
    n, x, t = gradients[used], samples[used], seconds[used]
    batch = x / n
    if len(t) < 3 or batch.max() < RANGE * batch.min():
        each = np.log(t / x)
        slope = math.exp(float(np.median(each)))
        error = _deviation(each) / math.sqrt(len(t)) if len(t) > 1 else math.inf
        return StepSeconds(0.0, 1.0 / slope, math.inf, slope * error, told_apart=False)
    from scipy.optimize import least_squares

    # In units that make both parts about one.
    unit = np.array([float(np.median(t / n)), float(np.median(t / x))])
    design = np.column_stack([n, x]) * unit
    least = 1e-9

    def deviations(parts: Floats) -> Floats:
        values: Floats = np.log(design @ parts / t)
        return values

    fit = least_squares(
        deviations, [0.5, 0.5], bounds=(least, np.inf), loss="soft_l1", f_scale=USUAL, x_scale=1.0
    )
    parts = np.where(fit.x > 10.0 * least, fit.x, 0.0)
    scale = _deviation(deviations(np.maximum(parts, least)))
    slopes = design / (design @ np.maximum(parts, least))[:, None]
    errors = scale * np.sqrt(np.diag(np.linalg.pinv(slopes.T @ slopes))) * unit
    step, sample = parts * unit
    throughput = 1.0 / float(sample) if sample > 0.0 else math.inf
    return StepSeconds(float(step), throughput, float(errors[0]), float(errors[1]), told_apart=True)


def _deviation(values: Floats) -> float:
    return MEDIAN_TO_DEVIATION * float(np.median(np.abs(values - np.median(values))))
