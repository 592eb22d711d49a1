"""Amounts that are all whole multiples of one: of a limit on their sum, a part of one buys nothing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Amounts that are whole multiples of no more than this part of the largest have no measure in common.
COARSEST = 1e-6
# Multiples are whole to the first; by the second, which is more, a limit on their sum is raised.
WHOLE, RAISED = 1e-14, 1e-13


def common_measure(amounts: NDArray[np.float64]) -> float | None:
    """The largest number of which all amounts are whole multiples, as prices in cents are of a cent.

    None where there is none, or none above a millionth of the largest. Zeros are multiples of anything.
    """
    distinct = np.unique(amounts[amounts > 0.0])
    if distinct.size == 0:
        return None
    measure, largest = float(distinct[0]), float(distinct[-1])
    for amount in distinct.tolist():
        # Euclid's algorithm; what is left of an exact division is rounding.
        rest = amount
        while rest > COARSEST * largest:
            measure, rest = rest, abs(measure - round(measure / rest) * rest)
        if measure <= COARSEST * largest:
            return None
    measure = largest / round(largest / measure)
    multiples = distinct / measure
    whole = np.abs(multiples - np.rint(multiples)) <= WHOLE * multiples
    return measure if bool(whole.all()) else None


def whole_multiple(limit: float, measure: float | None) -> float:
    """The part of a limit that can be used up where all uses are whole multiples of a measure."""
    if measure is None or math.isinf(limit / measure):
        return limit
    return min(limit, math.floor(limit / measure) * measure * (1.0 + RAISED))
