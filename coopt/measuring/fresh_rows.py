"""What rows that had no part in choosing the directions confirm of a gradient.

A gradient on a few rows is in part their noise, which promises a fall of the loss that training does not
find, most of all along axes of little curvature. The errors of the gradients on two sets of rows are
independent, so along each axis of the averaged curvature the product of the two estimates the square.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.forecast.model import RITZ_FLOOR

Floats = NDArray[np.float64]


def confirmed_gradient(gradient: Floats, fresh: Floats, curvature: Floats) -> Floats:
    """The gradient as far as the one on fresh rows confirms it, shape (m,).

    Along each axis of the curvature the product of the two replaces the square of the first, and is not
    allowed above it or below zero.

    Examples
    --------
    >>> confirmed_gradient(np.array([2.0, -1.0, 1.0]), np.array([0.5, -3.0, -1.0]), np.diag([3.0, 2.0, 1.0]))
    array([ 1., -1.,  0.])
    """
    axes = np.linalg.eigh(curvature)[1]
    first, second = axes.T @ gradient, axes.T @ fresh
    confirmed: Floats = axes @ (np.sign(first) * np.sqrt(np.clip(first * second, 0.0, first**2)))
    return confirmed


def confirmed_fall(gradient: Floats, fresh: Floats, curvature: Floats) -> float:
    """Share of the fall of the loss, promised by the gradient, that fresh rows confirm; from 0 to 1."""
    step = np.linalg.pinv(curvature, rcond=RITZ_FLOOR, hermitian=True) @ gradient
    promised, found = float(step @ gradient), float(step @ fresh)
    return min(max(found / promised, 0.0), 1.0) if promised > 0.0 else 1.0
