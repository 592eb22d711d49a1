"""Constants of the loss as a measurement finds them: guides, which prove nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.problem.constants import Constants

if TYPE_CHECKING:
    from coopt.measuring.measurement import Measurement

# Downward curvature below this share of the largest is rounding.
ROUNDING = 1e-6


def measured_constants(measurement: Measurement, learning_rate: float) -> Constants:
    """What :meth:`coopt.Measurement.constants` says.

    Raises
    ------
    InvalidProblemError
        If the loss does not curve upwards in any direction measured, or its gradient is zero.
    """
    loss = measurement.model.loss
    gap = loss.initial_gap
    if not gap > 0.0:
        raise InvalidProblemError(
            "no constants follow from this measurement: "
            + ("its gradient is zero" if loss.largest > 0.0 else "the loss rises in no direction")
        )
    spectra = measurement.device_spectra
    smoothness = float(spectra[:, 0].max())
    mean = min(max(float(measurement.spectrum[0]), np.finfo(float).tiny), smoothness)
    slope = loss.curvature @ loss.best
    lowest = float(spectra[:, -1].min())
    return Constants(
        learning_rate=learning_rate,
        smoothness=smoothness,
        initial_gap=gap,
        pl_constant=min(float(slope @ slope) / (2.0 * gap), mean),
        curvature_floor=max(lowest, -smoothness) if -lowest > ROUNDING * smoothness else 0.0,
        mean_smoothness=mean,
    )
