"""Middle and spread that a fifth of the values, whatever they are, cannot move far."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MEDIAN_TO_DEVIATION = 1.4826  # standard deviation of a Gaussian over its median absolute deviation


def deviation(values: Floats) -> float:
    """Robust standard deviation: the median distance from the median, scaled for a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> round(deviation(np.array([1.0, 2.0, 3.0, 4.0, 1e9])), 4)
    1.4826
    """
    return (
        MEDIAN_TO_DEVIATION * float(np.median(np.abs(values - np.median(values))))
        if len(values)
        else math.nan
    )
