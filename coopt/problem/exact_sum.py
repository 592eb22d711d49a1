"""Sums that are correctly rounded, at any order of their terms."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def exact_sum(terms: Iterable[float]) -> float:
    """The sum of the terms, correctly rounded; infinite, with their sign, where a sum exceeds float64.

    ``math.fsum`` raises an exception there, although a plan that costs more than floats hold is just one
    that no budget allows.

    Examples
    --------
    >>> from coopt.problem.exact_sum import exact_sum
    >>> exact_sum([1e16, 1.0, -1e16]), exact_sum([1.7e308, 1.7e308])
    (1.0, inf)
    """
    listed = terms.tolist() if isinstance(terms, np.ndarray) else list(terms)
    try:
        return math.fsum(listed)
    except OverflowError:
        # A partial sum did. A power of two takes no digits from terms that count beside such large ones.
        scale = 2.0 ** -len(listed).bit_length()
        return math.fsum(term * scale for term in listed) / scale
