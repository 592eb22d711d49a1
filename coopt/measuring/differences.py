"""The curvature of a federation from differences of its gradients: the server's part.

The curvature times a direction q is the change of the gradient along it,
(grad F_i(w + e q) - grad F_i(w)) / e on the same rows; it costs one gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError, MeasurementWarning
from coopt.measuring.basis import Basis, Seeds, krylov
from coopt.measuring.device_gradients import Findings, parts_of, precision_of
from coopt.measuring.parts import Projected

Vector = NDArray[np.float64]

KIND = "gradient differences"
# How far a step may be from the best one before the first difference is taken again.
NEAR = 30.0
# The step is never shorter than this share of what the parameters' own rounding asks for.
ROUNDING_SHARE = 0.1
# Share of the curvature that products with it may contradict each other by.
CONTRADICTION = 0.05


@dataclass(frozen=True, eq=False)
class Start:
    """The gradients that all devices start from.

    Attributes
    ----------
    mean, spare : numpy.ndarray, shape (n,)
        Averaged gradient; a random combination of them all, for where they cancel.
    squares, counts : numpy.ndarray, shape (n,)
        Squared norms of the devices' gradients, and their weights.
    single : bool
        Whether gradients are in single precision.
    """

    mean: Vector
    spare: Vector
    squares: Vector
    counts: Vector
    single: bool


class MeasuredDevices(Protocol):
    """The devices, here or far away, which do the same at the same time."""

    def start(self) -> Start:
        """Take the gradient at the model."""
        ...

    def difference(self, basis: Basis, step: float) -> Vector:
        """Average of the change of the gradients along the last direction, divided by the step."""
        ...

    def finish(self, basis: Vector, steps: Sequence[float], single: bool) -> tuple[list[Findings], Vector]:
        """What each device has found, and their weights."""
        ...


@dataclass(frozen=True, eq=False)
class Explored:
    """What the server knows in the end.

    Attributes
    ----------
    parts : Projected
    reason : str
        How differences were taken.
    point : numpy.ndarray, shape (m,)
        The model in the basis.
    cut_off : bool
        Whether the curvature leads out of the basis.
    """

    parts: Projected
    reason: str
    point: Vector
    cut_off: bool


def explore(devices: MeasuredDevices, model: NDArray[Any], directions: int) -> Explored:
    """Take gradients, then products with the curvature, until the basis is full; then all there is in it.

    Raises
    ------
    InvalidProblemError
        If the gradient is zero on all devices.
    """
    start = devices.start()
    # Parameters in single precision move by no less than their own rounding.
    single = start.single or model.dtype == np.float32
    root = math.sqrt(precision_of(single))
    size = float(np.linalg.norm(model))
    step = root * max(size, 1.0)
    steps: list[float] = []

    def product(basis: Basis) -> Vector:
        nonlocal step
        mean = devices.difference(basis, step)
        if not steps:
            best = root * _length(start, float(np.linalg.norm(mean)), size)
            if not 1.0 / NEAR <= best / step <= NEAR:
                step = best
                mean = devices.difference(basis, step)
        steps.append(step)
        return mean

    # What forward differences leave of a vector that depends on the others.
    basis = Basis(len(model), directions, precision=10.0 * root)
    mean = start.mean
    # What rounding leaves of gradients that cancel is no direction.
    if np.linalg.norm(mean) <= 10.0 * root**2 * math.sqrt(start.squares.max()):
        mean = np.zeros_like(mean)
    cut_off = krylov(Seeds(mean, start.spare), product, basis)
    if not len(basis.vectors):
        raise InvalidProblemError(
            "the gradient is zero on the rows of every device: the model has nothing to learn from them; "
            "measure another model or more rows"
        )
    findings, counts = devices.finish(basis.vectors, steps, single)
    # Where devices were lost on the way, products are of different averages and need not agree.
    believed = len(counts) < len(start.counts) or _consistent(
        np.array([f.curvature for f in findings]), counts, step
    )
    kind = "float32" if single else "float64"
    return Explored(
        parts=parts_of(findings, counts, basis.vectors, believed),
        reason=f"forward differences of the gradient on the same rows, step {step:.3g} in {kind}",
        point=basis.vectors @ model.astype(np.float64),
        cut_off=cut_off,
    )


def _length(start: Start, curvature: float, size: float) -> float:
    """Distance within which the curvature changes, as far as one product tells; in any unit."""
    typical = math.sqrt(float(start.counts @ start.squares))
    length = typical / curvature if curvature > 0.0 else 0.0
    return max(length, ROUNDING_SHARE * size) or 1.0


def _consistent(curvatures: Vector, counts: Vector, step: float) -> bool:
    """Whether products agree with each other; warns where not.

    The product with a direction lies in the directions up to the next. If products with later ones see more
    of it than that, gradients jump within a step, and those of single rows do so most.
    """
    mean = np.tensordot(counts, curvatures, axes=1)
    skew = float(np.linalg.norm(np.triu(mean, 2)))
    if skew <= CONTRADICTION * float(np.linalg.norm(mean)):
        return True
    warnings.warn(
        f"products with the curvature contradict each other by {skew / np.linalg.norm(mean):.0%}: the "
        f"gradient jumps within the step of {step:.2g}, as that of networks with ReLU does in float32; "
        "compute it in float64, or measure with coopt.adapters.torch.measure",
        MeasurementWarning,
        stacklevel=4,
    )
    return False
