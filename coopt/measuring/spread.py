"""Mean and covariance of the gradients of single samples, in a basis and in full, one chunk at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Spread:
    """Sums over the gradients of single samples of one device.

    Deviations from a reference near their mean are summed, so that a spread that is small against the
    gradient itself is not lost by rounding.

    Parameters
    ----------
    reference : numpy.ndarray, shape (n,)
        Gradient near the mean, such as that of a mini-batch.
    basis : numpy.ndarray, shape (m, n)
        Orthonormal rows.

    Examples
    --------
    >>> samples = np.array([[1.0, 0.0], [3.0, 4.0]])
    >>> spread = Spread(np.array([2.0, 2.0]), np.eye(2)[:1])
    >>> spread.add(samples)
    >>> spread.trace, spread.covariance
    (10.0, array([[2.]]))
    """

    def __init__(self, reference: Floats, basis: Floats) -> None:
        self.reference, self._basis = reference, basis
        self.count = 0
        self._sum = np.zeros_like(reference)
        self._squares = 0.0
        self._inside = np.zeros((len(basis), len(basis)))

    def add(self, gradients: Floats) -> None:
        """Take in the gradients of more samples, shape (k, n)."""
        deviations = gradients - self.reference
        squares = float(np.einsum("rn,rn->", deviations, deviations))
        self.add_deviations(deviations @ self._basis.T, deviations.sum(axis=0), squares)

    def add_deviations(self, inside: Floats, total: Floats, squares: float) -> None:
        """Take in more samples by what their deviations from the reference amount to.

        Parameters
        ----------
        inside : numpy.ndarray, shape (k, m)
            In the basis.
        total : numpy.ndarray, shape (n,)
            Their sum.
        squares : float
            Sum of their squares.
        """
        self.count += len(inside)
        self._sum += total
        self._squares += squares
        self._inside += inside.T @ inside

    @property
    def mean(self) -> Floats:
        """Mean gradient, shape (n,)."""
        return self.reference + self._sum / self.count

    @property
    def trace(self) -> float:
        """Trace of the unbiased covariance of one sample's gradient; 0 for a single sample."""
        if self.count < 2:
            return 0.0
        rest = self._squares - float(self._sum @ self._sum) / self.count
        return max(rest, 0.0) / (self.count - 1)

    @property
    def covariance(self) -> Floats:
        """Unbiased covariance of one sample's gradient in the basis, shape (m, m)."""
        if self.count < 2:
            return np.zeros_like(self._inside)
        shift = self._basis @ self._sum
        covariance: Floats = (self._inside - np.outer(shift, shift) / self.count) / (self.count - 1)
        return covariance
