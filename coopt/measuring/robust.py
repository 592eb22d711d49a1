"""Middle, spread and limits that a fifth of the values, whatever they are, cannot move far.

Of n values with at most a fifth arbitrary, the median lies between the 3/8 and the 5/8 quantile of the honest
ones, and the median distance from it is at most what the honest values are apart: both keep within the range
of the honest values, which is what all bounds on the influence of a report rest on.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MEDIAN_TO_DEVIATION = 1.4826  # standard deviation of a Gaussian over its median absolute deviation
# With fewer values there is nothing to compare with, and nobody is a fifth.
LEAST_TO_JUDGE = 5
# Robust deviations from the median that count as usual, and what is added to that for n values: the deviation
# of a few is itself a rough estimate.
USUAL, FEW = 3.0, 8.0
# Spread of logarithms that is reckoned with at least.
LEAST_SPREAD = 0.1
STEPS = 30
TINY = 1e-300  # distance of points that agree to the last digit


def deviation(values: Floats) -> float:
    """Robust standard deviation: the median distance from the median, scaled for a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> round(deviation(np.array([1.0, 2.0, 3.0, 4.0, 1e9])), 4)
    1.4826
    """
    if not len(values):
        return math.nan
    return MEDIAN_TO_DEVIATION * float(np.median(np.abs(values - np.median(values))))


def reach(values: Floats, least: float = LEAST_SPREAD) -> float:
    """How far from their median values are usual: three robust deviations, and more where they are few.

    `least` is the spread that is reckoned with at least. Infinite for fewer than five values.
    """
    if len(values) < LEAST_TO_JUDGE:
        return math.inf
    return USUAL * (1.0 + FEW / len(values)) * max(deviation(values), least)


def far_sizes(sizes: Floats, ratio: float) -> npt.NDArray[np.bool_]:
    """Mark sizes above the median by more than a ratio and by more than three robust deviations.

    Both are judged by logarithms. Sizes of 0 and NaN are not judged, and nobody is where there are too few.

    Examples
    --------
    >>> far_sizes(np.array([1.0, 1.2, 0.9, 1.1, 8.0, np.nan]), 5.0).tolist()
    [False, False, False, False, True, False]
    """
    some = sizes > 0.0
    if np.count_nonzero(some) < LEAST_TO_JUDGE:
        return np.zeros(len(sizes), dtype=bool)
    logs = np.log(np.where(some, sizes, 1.0))
    middle = float(np.median(logs[some]))
    return np.asarray(some & (logs - middle > max(USUAL * deviation(logs[some]), math.log(ratio))))


def geometric_median(points: Floats) -> Floats:
    """Shares by which points are averaged to their geometric median, shape (n,), by Weiszfeld's iteration.

    It has the smallest sum of distances to all points. Fewer than half of them, wherever they are, move it by
    no more than a multiple of the spread of the others.

    Parameters
    ----------
    points : numpy.ndarray, shape (n, d)

    References
    ----------
    Weiszfeld, Sur le point pour lequel la somme des distances de n points donnes est minimum, Tohoku
    Mathematical Journal 43, 1937.

    Examples
    --------
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [1.0, 1.0], [1e9, 0.0]])
    >>> bool(np.abs(geometric_median(corners) @ corners - 1.0).max() < 0.3)
    True
    """
    middle = np.median(points, axis=0)
    shares = np.zeros(len(points))
    for _ in range(STEPS):
        distance = np.linalg.norm(points - middle, axis=1)
        # A point on the middle pulls like one at a small distance.
        pull = 1.0 / np.maximum(distance, 1e-9 * float(np.median(distance)) + TINY)
        shares = pull / pull.sum()
        middle = shares @ points
    return shares
