"""A few orthonormal directions in which a federation is described.

The directions span a Krylov space: the averaged gradient g first, then H g, H^2 g, ..., with H the averaged
curvature. What gradient descent on a quadratic loss does in its first m steps lies in the first m of them.
Every product H q is needed anyway, to describe the curvature, so the next direction is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Basis:
    """Orthonormal vectors, added one by one.

    Parameters
    ----------
    size : int
        Length of a vector, n: the parameters of the model.
    most : int
        Vectors that there will be at most, m; memory is m n numbers.
    precision : float
        Relative error of the vectors that are added: what is left of one after projection is rounding
        where it is not larger.

    Examples
    --------
    >>> basis = Basis(3, 3, precision=1e-12)
    >>> basis.add(np.array([3.0, 0.0, 4.0])), basis.add(np.array([0.0, 2.0, 0.0]))
    (True, True)
    >>> basis.add(np.array([6.0, 1.0, 8.0]))
    False
    >>> basis.vectors
    array([[0.6, 0. , 0.8],
           [0. , 1. , 0. ]])
    """

    def __init__(self, size: int, most: int, *, precision: float) -> None:
        self._vectors = np.empty((min(most, size), size))
        self._count = 0
        self.precision = precision

    @property
    def vectors(self) -> Vector:
        """The vectors so far, shape (k, n), as a view."""
        return self._vectors[: self._count]

    @property
    def last(self) -> Vector:
        """The vector added last, shape (n,)."""
        vector: Vector = self._vectors[self._count - 1]
        return vector

    @property
    def full(self) -> bool:
        """Whether there is no room for another vector."""
        return self._count == len(self._vectors)

    def add(self, vector: Vector) -> bool:
        """Add the direction of what the present vectors do not span; False where that is nothing."""
        rest = None if self.full else self.outside(vector)
        if rest is None:
            return False
        self._vectors[self._count] = rest
        self._count += 1
        return True

    def outside(self, vector: Vector) -> Vector | None:
        """The unit vector of what the present vectors do not span; None where that is nothing."""
        length = float(np.linalg.norm(vector))
        if not length > 0.0:
            return None
        rest = vector / length
        # Once leaves rounding errors along the basis that grow from vector to vector; twice is enough
        # (Giraud, Langou & Rozloznik 2005).
        for _ in range(2):
            rest = rest - self.vectors.T @ (self.vectors @ rest)
        left = float(np.linalg.norm(rest))
        return rest / left if left > self.precision else None


@dataclass(frozen=True)
class Seeds:
    """Where to start, and where to go on when the space of the first start is exhausted.

    Attributes
    ----------
    gradient : numpy.ndarray, shape (n,)
        The averaged gradient.
    spare : numpy.ndarray, shape (n,)
        Another direction that matters: devices drift along their own gradients where these cancel.
    """

    gradient: Vector
    spare: Vector


def krylov(seeds: Seeds, product: Callable[[Basis], Vector], basis: Basis) -> bool:
    """Fill a basis with the Krylov space of the averaged curvature; tell if that of the gradient goes on.

    Parameters
    ----------
    seeds : Seeds
    product : callable
        ``product(basis)``: the averaged curvature times the last vector of the basis; called once for each
        vector, in order.
    basis : Basis
        Empty; filled as far as the space goes.

    Examples
    --------
    Two distinct eigenvalues: two vectors tell all that gradient descent does.

    >>> curvature = np.diag([3.0, 1.0, 1.0])
    >>> basis = Basis(3, 3, precision=1e-12)
    >>> krylov(Seeds(np.ones(3), np.zeros(3)), lambda b: curvature @ b.last, basis)
    False
    >>> np.round(np.linalg.eigvalsh(basis.vectors @ curvature @ basis.vectors.T), 9)
    array([1., 3.])
    """
    ended = not basis.add(seeds.gradient)  # the space of the gradient itself
    grown = not ended or basis.add(seeds.spare)
    while grown:
        # Also the last vector's product is needed: it completes the projected curvature.
        image = product(basis)
        ended = ended or basis.outside(image) is None
        grown = basis.add(image) or basis.add(seeds.spare)
    return not ended
