"""How training progresses under a bound: what is left of the initial gap, and how far the floor is reached.

With T = K tau local steps in all, a bound is a(T) + b(T) G, where G is the error floor that it tends to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.protocol import Floats


@dataclass(frozen=True)
class ExponentialProgress:
    """a(T) = q^T D0, b(T) = 1 - q^T: geometric convergence to the floor."""

    log_q: Floats
    gap: float

    def __call__(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(a, b) of the active members at T = steps."""
        if active.size == 1 or active.size <= self._factors[0].size:
            exponent = self.log_q[active, None] * steps
            return self.gap * np.exp(exponent), -np.expm1(exponent)
        # Members share few contraction factors: exponentials are evaluated once for each.
        factors, place = self._factors
        exponent, rows = factors[:, None] * steps, place[active]
        return (self.gap * np.exp(exponent))[rows], -np.expm1(exponent)[rows]

    @cached_property
    def _factors(self) -> tuple[Floats, NDArray[np.intp]]:
        """The different log q, and which of them each member has."""
        return np.unique(self.log_q, return_inverse=True)


@dataclass(frozen=True)
class SublinearProgress:
    """a(T) = rate / T, b(T) = 1: convergence to the floor like 1/T."""

    rate: Floats

    def __call__(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(a, b) of the active members at T = steps."""
        start = self.rate[active, None] / steps
        return start, np.ones_like(start)
