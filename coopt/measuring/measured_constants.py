"""Constants of the loss as a measurement finds them: guides, which prove nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.model import Loss
from coopt.problem.constants import Constants

Floats = NDArray[np.float64]

# Downward curvature below this share of the largest is rounding.
ROUNDING = 1e-6


def measured_constants(loss: Loss, mean: Floats, devices: Floats, learning_rate: float) -> Constants:
    """What :meth:`coopt.Measurement.constants` says.

    Parameters
    ----------
    loss : Loss
        The quadratic model of the loss that counts.
    mean : ndarray, shape (m,)
        Ritz values of the averaged curvature, largest first.
    devices : ndarray, shape (N, m)
        Those of the curvature of each device, largest first.
    learning_rate : float

    Raises
    ------
    InvalidProblemError
        If the loss does not curve upwards in any direction measured, or its gradient is zero.
    """
    gap = loss.initial_gap
    if not gap > 0.0:
        raise InvalidProblemError(
            "no constants follow from this measurement: "
            + ("its gradient is zero" if loss.largest > 0.0 else "the loss rises in no direction")
        )
    smoothness = float(devices[:, 0].max())
    mean_smoothness = min(max(float(mean[0]), np.finfo(float).tiny), smoothness)
    slope = loss.curvature @ loss.best
    lowest = float(devices[:, -1].min())
    return Constants(
        learning_rate=learning_rate,
        smoothness=smoothness,
        initial_gap=gap,
        pl_constant=min(float(slope @ slope) / (2.0 * gap), mean_smoothness),
        curvature_floor=max(lowest, -smoothness) if -lowest > ROUNDING * smoothness else 0.0,
        mean_smoothness=mean_smoothness,
    )
