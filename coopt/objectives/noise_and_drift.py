"""The monotone form of coopt's own bounds: noise of the averaged gradient, and noise that drives drift.

A mini-batch gradient of device i has variance M_i / s_i + V_i. What depends on the batch goes into the
weights; what no batch removes, V_i, goes into the offset, by the same shares. These never fall with tau, so
neither does the offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import Floor, SeveralFloors, scaled
from coopt.objectives.protocol import Bound, Floats, Ints
from coopt.problem.problem import Problem


@dataclass(frozen=True)
class NoiseAndDriftForm(SeveralFloors):
    """A monotone form with one basis, p_i^2 M_i, or two, the second of them p_i (1 - p_i) M_i.

    Attributes
    ----------
    members : tuple of m bounds
    basis : tuple of one or two ndarrays, shape (N,)
        What the noise of device i weighs in the average, and in the drift.
    remaining : ndarray, shape (2,)
        Sum p_i^2 V_i and sum p_i (1 - p_i) V_i: what is left of either noise with the largest batches.
    population : ndarray, shape (N,), or None
        The samples held, where batches are drawn without replacement.
    noise_share : ndarray, shape (m,)
        The share of the first basis, which no number of local steps changes.
    progress : callable
        (steps, members) -> (a, b).
    drift : callable
        (several tau, members) -> their offsets, and their shares of the second basis, each of shape (n, m).
    """

    members: tuple[Bound, ...]
    basis: tuple[Floats, ...]
    remaining: Floats
    population: NDArray[np.int64] | None
    noise_share: Floats
    progress: Callable[[Floats, NDArray[np.intp]], tuple[Floats, Floats]]
    drift: Callable[[Ints, NDArray[np.intp]], tuple[Floats, Floats]]

    def floor(self, local_steps: int, active: NDArray[np.intp]) -> Floor:
        """Floors of the active members at one tau."""
        offsets, shares = self.floors(np.array([local_steps]), active)
        reference = scaled(self.noise_share[active], float(self.remaining[0]))
        return Floor(offsets[0], shares[0], self.basis, reference)

    def floors(self, local_steps: Ints, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Offsets, of shape (n, m), and shares, of shape (n, m, k), of the floors at several tau."""
        offsets, drift_shares = self.drift(local_steps, active)
        shares = np.empty((*drift_shares.shape, len(self.basis)))
        shares[..., 0] = self.noise_share[active]
        if len(self.basis) > 1:
            shares[..., 1] = drift_shares
        for k, amount in enumerate(self.remaining[: len(self.basis)].tolist()):
            offsets = offsets + scaled(shares[..., k], amount)
        return offsets, shares


def population(problem: Problem) -> NDArray[np.int64] | None:
    """The samples held by each device, where batches are drawn from them without replacement."""
    return None if problem.fleet.replacement else problem.fleet.samples
