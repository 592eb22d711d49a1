"""What the measured devices found, before it becomes a measurement of the whole fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Fresh rows for the noise, as a multiple of the rows that gradient and curvature are taken on.
FRESH = 2


@dataclass(frozen=True, eq=False)
class Shares:
    """Who is measured, and whom each measured device speaks for.

    Attributes
    ----------
    measured : numpy.ndarray of int64, shape (n,)
        Devices that are measured, increasing.
    fill : numpy.ndarray, shape (N, n)
        Each device's values as a weighted mean of those measured; rows sum to one.
    weights : numpy.ndarray, shape (N,)
        Aggregation weights of all devices.
    """

    measured: Ints
    fill: Floats
    weights: Floats

    def without(self, failed: NDArray[np.bool_]) -> Shares:
        """The same where some of the measured devices, shape (n,), told nothing: the others speak for them.

        Raises
        ------
        ValueError
            If none is left.
        """
        fill = self.fill[:, ~failed]
        if not failed.any():
            return self
        counts = self.weights @ fill
        if not counts.sum() > 0.0:
            raise ValueError("no measured device is left")
        total = fill.sum(axis=1, keepdims=True)
        fill = np.where(total > 0.0, fill / np.where(total > 0.0, total, 1.0), counts / counts.sum())
        return Shares(self.measured[~failed], fill, self.weights)

    @property
    def counts(self) -> Floats:
        """Weight of each measured device with all that it speaks for, shape (n,); they sum to one."""
        counts: Floats = self.weights @ self.fill
        return counts


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one device: gradient and curvature on the first, the noise on both.

    Attributes
    ----------
    held : int
        Rows that the device holds.
    first, fresh : numpy.ndarray of int64
    """

    held: int
    first: Ints
    fresh: Ints


def draw_rows(held: Sequence[int], rows: Sequence[int], seed: int) -> list[Rows]:
    """Draw the rows of each device without replacement, from a stream of its own.

    Parameters
    ----------
    held : sequence of int
        Rows that each device holds.
    rows : sequence of int
        Rows of each for gradient and curvature; devices that hold fewer give all of theirs.
    seed : int

    Examples
    --------
    >>> [(len(r.first), len(r.fresh)) for r in draw_rows([100, 20, 3], [8, 8, 8], seed=0)]
    [(8, 16), (8, 12), (3, 0)]
    """
    pairs = enumerate(zip(held, rows, strict=True))
    return [draw_rows_of(size, each, seed, position) for position, (size, each) in pairs]


def draw_rows_of(size: int, rows: int, seed: int, position: int) -> Rows:
    """Draw the rows of the device at one position, as `draw_rows` does."""
    stream = np.random.SeedSequence(seed, spawn_key=(position,))
    chosen = np.random.default_rng(stream).choice(size, min(size, rows * (1 + FRESH)), replace=False)
    return Rows(size, chosen[:rows], chosen[rows:])


@dataclass(frozen=True, eq=False)
class Projected:
    """Values of the measured devices in the basis.

    Attributes
    ----------
    losses, squares : numpy.ndarray, shape (n,)
        Mean loss and squared norm of the gradient, on the first rows.
    gradients : numpy.ndarray, shape (n, m)
    curvatures, covariances : numpy.ndarray, shape (n, m, m)
        Projected curvature on the first rows; covariance of one sample's gradient on all rows, unbiased.
    noise : numpy.ndarray, shape (n,)
        Trace of the covariance, outside the basis too.
    sharpness : numpy.ndarray, shape (n, 2), or None
        Mean and mean square of the largest curvature of the loss of single rows; None where not known.
    fresh : numpy.ndarray, shape (m,)
        Averaged gradient on fresh rows, in the basis.
    fresh_square : float
        Squared norm of all of it.
    """

    losses: Floats
    squares: Floats
    gradients: Floats
    curvatures: Floats
    covariances: Floats
    noise: Floats
    sharpness: Floats | None
    fresh: Floats
    fresh_square: float


def sampling_variance(noise: Floats, rows: Ints, held: Ints) -> Floats:
    """Variance of the mean of a sample drawn without replacement: noise (1 / rows - 1 / held)."""
    variance: Floats = noise * (1.0 / rows - 1.0 / held)
    return variance
