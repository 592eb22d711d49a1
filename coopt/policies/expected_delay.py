"""How much longer a round takes than its slowest device does on average, since somebody is always late."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Points of the integral, the standard deviations that it spans, and devices so fast that they decide nothing.
POINTS, REACH, FAST = 200, 4.0, 0.2


def expected_delay(seconds: Floats, spread: float) -> float:
    """Expected maximum over devices of times that vary, over the maximum of their medians.

    Parameters
    ----------
    seconds : numpy.ndarray, shape (N,)
        What each device usually takes: the median.
    spread : float
        Standard deviation of the logarithm of its times, which are lognormal and independent.

    Examples
    --------
    >>> round(expected_delay(np.array([5.0, 1.0]), 0.2), 2)
    1.02
    >>> round(expected_delay(np.full(40, 5.0), 0.2), 2)
    1.55
    """
    from scipy.special import ndtr

    slowest = float(seconds.max(initial=0.0))
    if not (spread > 0.0 and 0.0 < slowest < np.inf):
        return 1.0
    usual = np.sort(seconds[seconds > FAST * slowest]) / slowest
    top = np.exp(REACH * spread + spread**2)
    grid = (np.arange(POINTS) + 0.5) * (top / POINTS)
    # The share of rounds in which every device is done by then.
    scores = (np.log(grid)[:, None] - np.log(usual)) / spread
    done = np.exp(np.sum(np.log(np.maximum(ndtr(scores), 1e-300)), axis=1))
    return max(float(top - np.sum(done) * (top / POINTS)), 1.0)
