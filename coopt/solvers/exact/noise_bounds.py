"""Lower bounds on the smallest noise that batches can have, for every mixture of the two noise terms.

Floors of a family differ in two numbers, the shares of the two noise terms. Let v(t) be the smallest
noise with the shares (1 - t, t), each term normalised. v is a minimum of functions linear in t, hence
concave, so values at a few directions t give by interpolation a lower bound for every member; towards
directions outside the computed range v falls to zero at worst.

With y1 = 1/(K tau) and y2 = 1/tau every limit is linear, so the multipliers of one continuous solve bound
v from below for every other (K, tau): v(t) >= c0 - c1 y1 + c2 y2. That is a :class:`Cut`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Directions:
    """The floors of some members as offset + size * v(direction), arrays of shape (m,)."""

    offsets: Floats
    sizes: Floats
    angles: Floats

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | tuple[slice, None]) -> Directions:
        """The same for some of the members."""
        return Directions(self.offsets[index], self.sizes[index], self.angles[index])

    def cutoff(self, angle: float, start: Floats, slope: Floats, value: float) -> float:
        """From this v(angle) on no member in that direction is below a value, given the progress of each."""
        same = self.angles == angle
        with np.errstate(divide="ignore", invalid="ignore"):
            levels = (value - start[same]) / slope[same]
            found = float(np.max((levels - self.offsets[same]) / self.sizes[same]))
        return math.inf if math.isnan(found) else found


@dataclass(frozen=True)
class Values:
    """Lower bounds v >= levels at some directions, arrays of shape (d,), directions ascending."""

    angles: Floats
    levels: Floats

    def at(self, angles: Floats) -> Floats:
        """Lower bounds on v at other directions."""
        bounds: Floats = _hats(angles, self.angles) @ self.levels
        return bounds


@dataclass(frozen=True)
class Cut:
    """v >= constant - slope / (K tau) + rise / tau at some directions, arrays of shape (d,)."""

    angles: Floats
    constant: Floats
    slope: Floats
    rise: Floats

    def at(self, angles: Floats, inverse_product: Floats, inverse_steps: Floats) -> Floats:
        """Lower bounds on v at other directions, for given 1/(K tau) and 1/tau."""
        hats = _hats(angles, self.angles)
        bounds: Floats = (
            hats @ self.constant - hats @ self.slope * inverse_product + hats @ self.rise * inverse_steps
        )
        return bounds


@dataclass(frozen=True)
class Curve:
    """v >= levels[:, n - first] for every plan with at most n units a step; levels of shape (d, width)."""

    angles: Floats
    first: int
    levels: Floats

    def at(self, angles: Floats, units: Floats) -> Floats:
        """Lower bounds on v at other directions; `units` are the most that a plan can use."""
        place = np.clip(units - self.first, 0, self.levels.shape[1] - 1).astype(np.intp)
        bounds: Floats = np.sum(_hats(angles, self.angles) * self.levels[:, place].T, axis=-1)
        return bounds


def _hats(where: Floats, angles: Floats) -> Floats:
    """Weights of shape (*where.shape, d) that combine the directions `angles` into those asked for.

    Between two directions v is at least its chord; beyond the last it is at least a chord to zero.
    """
    last = angles.size - 1
    hats = np.zeros((*where.shape, angles.size))
    right = np.clip(np.searchsorted(angles, where), 1, max(last, 1))
    if last > 0:
        low, high = angles[right - 1], angles[right]
        share = np.clip((where - low) / (high - low), 0.0, 1.0)
        np.put_along_axis(hats, (right - 1)[..., None], (1.0 - share)[..., None], axis=-1)
        np.put_along_axis(hats, right[..., None], share[..., None], axis=-1)
    else:
        hats[...] = 1.0
    below, above = where < angles[0], where > angles[last]
    if below.any():
        hats[below] *= (where[below] / angles[0])[:, None]
    if above.any():
        hats[above] *= ((1.0 - where[above]) / (1.0 - angles[last]))[:, None]
    return hats
