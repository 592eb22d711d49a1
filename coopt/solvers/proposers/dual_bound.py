"""What the multipliers of a relaxed problem prove, computed here and not taken from a solver's word.

The problem is: minimise sum w_i / x_i + e(z1) over batches x in a box and (z1, z2) in a trapezium, subject to
limits, where e is the largest of zero and of some lines. For any multipliers that are not negative, adding
the limits times their multipliers gives a problem that falls apart into single batches and (z1, z2), each
with a minimum in closed form. Their sum is below the optimum (weak duality), and a convex limit is above its
linearisation at any point. So whatever multipliers a backend hands over prove something, and those at its
optimum nearly all there is to prove.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.roundoff import LOST_IN_SUMS

Floats = NDArray[np.float64]

# By how much the multipliers of the limits on (z1, z2) may be scaled together: z1 ranges far, so that their
# last digits matter.
STRETCH = 1e-3
# A bound this near what the backend claims, relative to it, is not improved.
NEAR = 1e-7


@dataclass(frozen=True)
class Priced:
    """Limits batches @ x + steps z1 + rest z2 + constant <= 0, times their multipliers and added up.

    Attributes
    ----------
    batches : ndarray, shape (N,)
    steps, rest, constant : float
    size : float
        Magnitude of what was added up for the constant.
    """

    batches: Floats
    steps: float = 0.0
    rest: float = 0.0
    constant: float = 0.0
    size: float = 0.0


@dataclass(frozen=True)
class Box:
    """x in [lower, upper], z2 in `ends`, z1 in [slopes[0] z2, slopes[1] z2]."""

    lower: Floats
    upper: Floats
    ends: Floats
    slopes: Floats

    def least(self, intercepts: Floats, slopes: Floats, along: float, across: float) -> float:
        """The smallest e(z1) + along z1 + across z2, where e is the largest of zero and of lines in z1.

        The function is linear between the kinks of e and the corners of the trapezium, so it is smallest at
        one of those.
        """
        corners = np.outer(self.slopes, self.ends).ravel()
        lines, rises = np.append(intercepts, 0.0), np.append(slopes, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            kinks = np.subtract.outer(lines, lines).ravel() / np.subtract.outer(-rises, -rises).ravel()
        z1 = np.concatenate((corners, kinks[(kinks > corners.min()) & (kinks < corners.max())]))
        excess = (lines[:, None] + rises[:, None] * z1).max(axis=0)
        low, high = np.clip(z1 / self.slopes[1], *self.ends), np.clip(z1 / self.slopes[0], *self.ends)
        return float(np.min(excess + along * z1 + np.minimum(across * low, across * high)))


def proved(
    weights: Floats, lines: tuple[Floats, Floats], box: Box, limits: Priced, own: Priced, claimed: float
) -> float:
    """A lower bound on the optimum.

    Parameters
    ----------
    weights : ndarray, shape (N,)
        w_i >= 0.
    lines : tuple of ndarray
        Intercepts and slopes of the lines of e.
    box : Box
    limits, own : Priced
        The limits, the user's constraints.
    claimed : float
        What the backend says the optimum is: a bound that is near enough is not improved.

    Returns
    -------
    float
        -inf where multipliers are no numbers.
    """
    from scipy.optimize import minimize_scalar

    def bound(stretch: float) -> float:
        slopes = stretch * limits.batches + own.batches
        with np.errstate(divide="ignore", invalid="ignore"):
            stationary = np.where(slopes > 0.0, np.sqrt(weights / slopes), np.inf)
        best = np.clip(stationary, box.lower, box.upper)
        noise, work = weights / best, slopes * best
        rest = box.least(*lines, stretch * limits.steps + own.steps, stretch * limits.rest + own.rest)
        size = float(np.sum(noise) + np.sum(np.abs(work))) + abs(rest) + stretch * limits.size + own.size
        constant = stretch * limits.constant + own.constant
        found = float(np.sum(noise + work)) + rest + constant - LOST_IN_SUMS * weights.size * size
        return found if math.isfinite(found) else -math.inf

    plain = bound(1.0)
    if plain == -math.inf or plain >= claimed - NEAR * abs(claimed):
        return plain
    best = minimize_scalar(
        lambda stretch: -bound(stretch),
        bounds=(1.0 - STRETCH, 1.0 + STRETCH),
        method="bounded",
        options={"xatol": 1e-10, "maxiter": 40},
    )
    return max(plain, -float(best.fun))
