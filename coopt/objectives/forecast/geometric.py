"""Powers and geometric sums of 1 - x that keep their digits where x is tiny."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def decay(x: Floats, n: Floats | float) -> Floats:
    """Return 1 - (1 - x)^n for 0 <= x < 2 and whole n."""
    with np.errstate(divide="ignore", invalid="ignore"):
        small = -np.expm1(n * np.log1p(-np.minimum(x, 1.0)))
    if float(x.max(initial=0.0)) <= 1.0:
        return small
    # Past one, where 1 - x is negative, nothing cancels but the last of small powers.
    return np.where(x <= 1.0, small, 1.0 - (1.0 - x) ** n)


def power(x: Floats, n: Floats | float) -> Floats:
    """Return (1 - x)^n for 0 <= x < 2 and whole n."""
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        small = np.exp(n * np.log1p(-np.minimum(x, 1.0)))
    if float(x.max(initial=0.0)) <= 1.0:
        return small
    return np.where(x <= 1.0, small, (1.0 - x) ** n)


def total(x: Floats, n: Floats | float) -> Floats:
    """Return sum_{k<n} (1 - x)^k; n where x is zero."""
    return ratio(decay(x, n), x, n)


def ratio(decayed: Floats, x: Floats, n: Floats | float) -> Floats:
    """Return decayed / x, and its limit n where x is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0.0, decayed / x, n)


def joint(x: Floats, y: Floats) -> Floats:
    """Return 1 - (1 - x)(1 - y) for 0 <= x, y < 2."""
    both: Floats = x + y - x * y
    return both
