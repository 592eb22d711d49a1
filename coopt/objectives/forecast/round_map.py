"""One round of local steps and averaging on a quadratic model, and any number of such rounds.

With e = z - z* the distance to the best model, J_i = I - eta H_i and r_i = g_i + H_i z* what device i still
pulls there, tau local steps on every device and averaging with the weights q_i are

    e <- M e - v + noise,    M = sum q_i J_i^tau,    v = eta sum q_i S_i r_i,    S_i = sum_{j<tau} J_i^j,

and the covariance of the noise is sum P_i / s_i with P_i = eta^2 q_i^2 sum_{j<tau} J_i^j C_i J_i^j. After K
rounds the mean is M^K e_0 - sum_{k<K} M^k v, and batches add sum_i <G_K, P_i> / s_i to the expected loss,
with G_K = 1/2 sum_{k<K} M^k H M^k. M is symmetric, so in its eigenbasis sums over rounds are geometric.

Drift and variance need no further constants: devices that pull apart show in v, those that contract at
different speeds in M.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.forecast.geometric import decay, joint, power, ratio, total
from coopt.objectives.forecast.model import Devices, Floats, Loss

Ints = NDArray[np.int64]

# Rounds that are looked at together: some matrices of m x m for each have to fit.
CHUNK = 256


def packed_places(m: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Rows and columns of the upper triangle, and how often each entry is in a symmetric matrix."""
    rows, columns = np.triu_indices(m)
    return rows, columns, np.where(rows == columns, 1.0, 2.0)


def second_moments(mean: Floats, spread: Floats) -> Floats:
    """Those of (e, 1), one row and column more, where e has this mean and this covariance."""
    known = np.append(mean, 1.0)
    moments = np.outer(known, known)
    moments[:-1, :-1] += spread
    return moments


@dataclass(frozen=True)
class Steps:
    """tau local steps on every device, in the eigenbasis of its curvature; arrays of shape (N, m).

    Attributes
    ----------
    step : ndarray
        eta times the curvatures: one step leaves 1 - step of a component.
    local_steps : int or ndarray of shape (N, 1)
        tau, or that of each device.
    decayed : ndarray
        1 - (1 - step)^tau.
    summed : ndarray
        sum_{j<tau} (1 - step)^j.
    """

    step: Floats
    decayed: Floats
    summed: Floats
    local_steps: int | Ints

    @classmethod
    def of(cls, step: Floats, local_steps: int | Ints) -> Steps:
        """So many steps, of all devices or, with shape (N, 1), of each."""
        times = np.asarray(local_steps, dtype=np.float64)
        decayed = decay(step, times)
        return cls(step, decayed, ratio(decayed, step, times), local_steps)

    def contraction(self, devices: Devices, shares: Floats) -> Floats:
        """I - M, shape (m, m)."""
        roots = devices.columns * np.sqrt(shares[:, None] * self.decayed).ravel()
        # numpy knows a matrix times its transpose, and computes one half of it.
        product: Floats = roots @ roots.T
        return product

    def noise(self, devices: Devices, rates: Floats) -> Floats:
        """P_i of every device for a batch of one, packed, shape (N, m (m + 1) / 2).

        `rates` are the covariances in the eigenbasis of the device, scaled, and divided by 1 - j_a j_b, the
        share by which one step shrinks an entry, where that is not zero.
        """
        sums = joint(self.decayed[:, :, None], self.decayed[:, None, :])
        still = self.step == 0.0
        if still.any():
            # Along directions without curvature the noise of every step stays.
            both = still[:, :, None] & still[:, None, :]
            np.copyto(sums, np.reshape(self.local_steps, (-1, 1, 1)), where=both)
        sums *= rates
        matrices = devices.vectors @ sums @ devices.vectors.transpose(0, 2, 1)
        m = self.step.shape[1]
        rows, columns, _ = packed_places(m)
        packed: Floats = np.take(matrices.reshape(-1, m * m), rows * m + columns, axis=1)
        return packed


@dataclass(frozen=True)
class FullRounds:
    """Rounds in which every device takes part, in the eigenbasis of M.

    Attributes
    ----------
    loss : Loss
    step : ndarray, shape (m,)
        Eigenvalues of I - M.
    vectors : ndarray, shape (m, m)
        Eigenvectors, as columns.
    start, drift : ndarray, shape (m,)
        e_0 and v in that basis.
    """

    loss: Loss
    step: Floats
    vectors: Floats
    start: Floats
    drift: Floats

    @classmethod
    def of(cls, loss: Loss, contraction: Floats, drift: Floats) -> FullRounds:
        """Rounds with I - M = `contraction` and v = `drift`."""
        step, vectors = np.linalg.eigh(contraction)
        # Averages of contractions, but for rounding.
        step = np.clip(step, 0.0, 2.0 - 1e-12)
        return cls(loss, step, vectors, -(loss.best @ vectors), drift @ vectors)

    @property
    def origin(self) -> Floats:
        """E before the first round, shape (m,)."""
        return -self.loss.best

    @property
    def form(self) -> Floats:
        """The loss as a form of e, shape (m, m)."""
        return self.loss.curvature / 2.0

    @property
    def moments(self) -> Floats:
        """Second moments of (e, 1) before the first round."""
        m = self.loss.best.size
        return second_moments(self.origin, np.zeros((m, m)))

    def mean(self, rounds: Ints) -> Floats:
        """F - F* after these numbers of rounds, but for mini-batch noise."""
        return self.loss.at(self._away(rounds) @ self.vectors.T)

    def least(self, first: Ints, last: Ints) -> Floats:
        """A lower bound on the mean over ranges of rounds.

        Each component of e moves in one direction, or closes in on its limit from both sides where 1 - step
        is negative: so it stays in a box, and a convex loss lies above its tangent in the middle.
        """
        one, other = self._away(first), self._away(last)
        low, high = np.minimum(one, other), np.maximum(one, other)
        swings = self.step > 1.0
        if swings.any():
            limit = -self.drift[swings] / self.step[swings]
            reach = np.abs(one[:, swings] - limit)
            low[:, swings], high[:, swings] = limit - reach, limit + reach
        middle, half = (low + high) / 2.0, (high - low) / 2.0
        models = middle @ self.vectors.T
        slopes = (models @ self.loss.curvature + self.loss.slope) @ self.vectors
        bound: Floats = self.loss.at(models) - np.einsum("ka,ka->k", np.abs(slopes), half)
        return bound

    def _away(self, rounds: Ints) -> Floats:
        """E after these numbers of rounds, in the eigenbasis of M."""
        counts = rounds.astype(np.float64)[:, None]
        away: Floats = self.start * power(self.step, counts) - self.drift * total(self.step, counts)
        return away

    def onward(self, away: Floats, rounds: int) -> Floats:
        """E after so many rounds that start from `away`, shape (m,)."""
        moved = (away @ self.vectors) * power(self.step, rounds) - self.drift * total(self.step, rounds)
        end: Floats = self.vectors @ moved
        return end

    def backward(self, form: Floats, rounds: int) -> tuple[Floats, Floats]:
        """What e'Ae at the end of so many rounds is to the noise of these rounds, and to e at their start.

        The first is the sum of M^k A M^k over the rounds, packed as a column, the second M^K A M^K.
        """
        decayed = decay(self.step, rounds)
        turned = self.vectors.T @ form @ self.vectors
        pairs = joint(self.step[:, None], self.step[None, :])
        sums = turned * ratio(joint(decayed[:, None], decayed[None, :]), pairs, float(rounds))
        left = power(self.step, rounds)
        both = self.vectors @ np.stack([sums, turned * np.outer(left, left)]) @ self.vectors.T
        rows, columns, often = packed_places(self.step.size)
        return both[0][rows, columns] * often, both[1]

    def follow(self, moments: Floats, noise: Floats, rounds: int) -> tuple[Floats, Floats]:
        """F - F* after each of so many rounds, and the second moments of (e, 1) after the last.

        `noise` is the covariance of an averaged change.
        """
        mean = self.vectors.T @ moments[:-1, -1]
        spread = self.vectors.T @ (moments[:-1, :-1] - np.outer(moments[:-1, -1], moments[:-1, -1]))
        spread = spread @ self.vectors
        added = self.vectors.T @ noise @ self.vectors
        curvature = self.vectors.T @ self.loss.curvature @ self.vectors / 2.0
        left = 1.0 - self.step
        both = np.outer(left, left)
        means, noises = np.empty((rounds, mean.size)), np.empty(rounds)
        for k in range(rounds):
            mean = left * mean - self.drift
            spread = both * spread + added
            means[k], noises[k] = mean, np.sum(curvature * spread)
        moments = second_moments(self.vectors @ mean, self.vectors @ spread @ self.vectors.T)
        return self.loss.at(means @ self.vectors.T) + noises, moments

    def sensitivity(self, rounds: Ints) -> Floats:
        """G_K of these numbers of rounds, packed as columns."""
        curvature = self.vectors.T @ self.loss.curvature @ self.vectors / 2.0
        rows, columns, often = packed_places(self.step.size)
        pairs = joint(self.step[:, None], self.step[None, :])
        found = np.empty((rows.size, rounds.size))
        for begin in range(0, rounds.size, CHUNK):
            counts = rounds[begin : begin + CHUNK].astype(np.float64)
            decayed = decay(self.step, counts[:, None])
            sums = ratio(joint(decayed[:, :, None], decayed[:, None, :]), pairs, counts[:, None, None])
            sums *= curvature
            matrices = self.vectors @ sums @ self.vectors.T
            found[:, begin : begin + CHUNK] = (matrices[:, rows, columns] * often).T
        return found
