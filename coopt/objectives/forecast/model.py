"""What a forecast knows of every device: its gradient, curvature and noise in a few directions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.readable import readable
from coopt.problem.validation import (
    count,
    float_array,
    integer_array,
    numeric_array,
    optional_real,
    same_value,
)

Floats = NDArray[np.float64]

# Curvatures below this share of the largest one do not count for the lowest loss: in a small basis they are
# known too badly to say how far the loss would fall along them.
RITZ_FLOOR = 1e-4
# Parts of a vector and of a spectrum below this share of the whole are what eigenvalue routines leave behind,
# other numbers on every processor: they count as zero.
ROUNDED = 1e-12
# Matrices that differ from their transpose by more than this share of their largest entry are refused.
SYMMETRY = 1e-6


@readable
@dataclass(frozen=True, init=False, eq=False, repr=False)
class LocalModel:
    """A quadratic model of every device's loss around one point, in m orthonormal directions.

    With z the coordinates of a step away from that point, device i has the gradient g_i + H_i z, and one of
    its samples a gradient with the covariance C_i. Negative curvature counts as none.

    Parameters
    ----------
    weights : array_like, shape (N,)
        p_i >= 0 of the loss that counts, which sum to one.
    gradients : array_like, shape (N, m)
        g_i [gradient].
    curvatures : array_like, shape (N, m, m)
        H_i, symmetric [curvature].
    covariances : array_like, shape (N, m, m)
        C_i, symmetric, without bias (divided by the rows minus one) [gradient^2 * samples].
    samples : array_like of int, shape (N,)
        d_i.
    sample_curvature : float, optional
        E[c^2] / E[c] of the largest curvatures c of the loss of single samples [curvature]; what a small
        batch may meet. Default: the trace of the mean curvature, which it is at least on average.
    parameters : int, optional
        Parameters of the whole model, n >= m: over so many directions the noise spreads that no batch removes
        (``Fleet.step_noise``). Needed only where a fleet has it.
    point : array_like, shape (m,), optional
        The model measured, Q'w_0, which weight decay pulls to zero [parameter]. Needed only where weights
        decay in the steps of devices and not in their losses.
    sample_curvatures : array_like, shape (N,), optional
        The same as `sample_curvature`, of the samples of each device [curvature]. Default: as much of it as
        the device has of the trace of the mean curvature.

    Raises
    ------
    InvalidProblemError
        If a value is not a finite number, a matrix is not symmetric, or shapes do not agree.

    Notes
    -----
    Models compare by value and do not hash.
    """

    __module__ = "coopt"

    weights: Floats
    gradients: Floats
    curvatures: Floats
    covariances: Floats
    samples: NDArray[np.int64]
    sample_curvature: float | None
    parameters: int | None
    point: Floats | None
    sample_curvatures: Floats | None

    def __init__(
        self,
        weights: ArrayLike,
        gradients: ArrayLike,
        curvatures: ArrayLike,
        covariances: ArrayLike,
        samples: ArrayLike,
        sample_curvature: float | None = None,
        parameters: int | None = None,
        point: ArrayLike | None = None,
        sample_curvatures: ArrayLike | None = None,
    ) -> None:
        held = integer_array("samples", samples, None, minimum=1)
        devices = held.size
        slopes = _finite("gradients", gradients, (devices, None))
        m = slopes.shape[1]
        values: dict[str, Any] = {
            "weights": float_array("weights", weights, devices, minimum=0.0),
            "gradients": slopes,
            "curvatures": _symmetric("curvatures", curvatures, devices, m),
            "covariances": _symmetric("covariances", covariances, devices, m),
            "samples": held,
            "sample_curvature": optional_real("sample_curvature", sample_curvature, minimum=0.0),
            "parameters": None if parameters is None else count("parameters", parameters, minimum=m),
            "point": None if point is None else _finite("point", point, (None,)),
            "sample_curvatures": None,
        }
        if sample_curvatures is not None:
            given = float_array("sample_curvatures", sample_curvatures, devices, minimum=0.0)
            values["sample_curvatures"] = given
        if point is not None and values["point"].size != m:
            raise InvalidProblemError(
                f"point has shape {values['point'].shape}: must have shape ({m},), one number a direction"
            )
        total = float(values["weights"].sum())
        if abs(total - 1.0) > 1e-9:
            raise InvalidProblemError(f"weights sum to {total!r}: they must sum to 1")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.samples.size

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    def _shown(self) -> list[str]:
        return [f"{len(self)} devices", f"{self.gradients.shape[1]} directions"]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all numbers: it tells one measurement from another."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "sample_curvatures" and value is None:
                continue  # as it was before there were any
            digest.update(repr(value).encode() if value is None else np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    @cached_property
    def single(self) -> Floats:
        """E[c^2] / E[c] of the curvatures c of single samples of each device, (N,) [curvature]."""
        if self.sample_curvatures is not None:
            return self.sample_curvatures
        traces: Floats = self.devices.curvatures.sum(axis=1)
        if self.sample_curvature is None or self.loss.trace == 0.0:
            return traces
        found: Floats = traces * (self.sample_curvature / self.loss.trace)
        return found

    @cached_property
    def loss(self) -> Loss:
        """The loss that counts: the average over all devices."""
        return Loss.of(self)

    @cached_property
    def devices(self) -> Devices:
        """Every device in the eigenbasis of its own curvature."""
        values, vectors = np.linalg.eigh(self.curvatures)
        turned = vectors.transpose(0, 2, 1) @ self.covariances @ vectors
        return Devices(np.maximum(values, 0.0), vectors, turned)


@dataclass(frozen=True)
class Devices:
    """Curvatures of shape (N, m), their eigenvectors as columns, and the noise in that basis, (N, m, m)."""

    curvatures: Floats
    vectors: Floats
    covariances: Floats

    @cached_property
    def columns(self) -> Floats:
        """The eigenvectors of all devices side by side, shape (m, N m)."""
        m = self.curvatures.shape[1]
        return np.ascontiguousarray(self.vectors.transpose(1, 0, 2)).reshape(m, -1)

    def take(self, devices: tuple[int, ...]) -> Devices:
        """Some of the devices."""
        index = list(devices)
        return Devices(self.curvatures[index], self.vectors[index], self.covariances[index])


@dataclass(frozen=True)
class Loss:
    """The average loss F, and the model z* that is its lowest over the directions that count.

    Attributes
    ----------
    curvature : ndarray, shape (m, m)
        H = sum p_i H_i.
    best : ndarray, shape (m,)
        z*: the minimiser over the directions of more curvature than `floor`, and zero along the others.
    slope : ndarray, shape (m,)
        The gradient at z*: what is left of it along the others.
    floor : float
        The curvature from which on a direction counts [curvature].
    curvatures : ndarray, shape (m,)
        Those of F along its own axes, ascending [curvature].
    """

    curvature: Floats
    best: Floats
    slope: Floats
    floor: float
    curvatures: Floats

    @classmethod
    def of(cls, model: LocalModel) -> Loss:
        """The loss of all devices of a model."""
        known = model.devices
        m = known.curvatures.shape[1]
        scaled = known.vectors * (model.weights[:, None] * known.curvatures)[:, None, :]
        curvature = _gram(scaled, known.vectors, m)
        gradient = model.weights @ model.gradients
        values, vectors = np.linalg.eigh(curvature)
        values = np.maximum(values, 0.0)
        floor = RITZ_FLOOR * float(values[-1])
        counts = values > floor
        along = _without_rounding(vectors.T @ gradient)
        best = vectors[:, counts] @ (-along[counts] / values[counts])
        slope = vectors[:, ~counts] @ along[~counts]
        return cls(curvature, best, slope, floor, values)

    @property
    def largest(self) -> float:
        """The largest curvature of F."""
        return float(self.curvatures[-1])

    @property
    def trace(self) -> float:
        """The sum of all curvatures of F."""
        return float(self.curvatures.sum())

    @property
    def initial_gap(self) -> float:
        """F - F* at the model that was measured [loss]."""
        return 0.5 * float(self.best @ self.curvature @ self.best)

    @property
    def lowest(self) -> float:
        """No model has a smaller F - F*: zero, but for directions that do not count [loss]."""
        if not self.slope.any():
            return 0.0
        values, vectors = np.linalg.eigh(self.curvature)
        values = _without_rounding(np.maximum(values, 0.0))
        along = _without_rounding(vectors.T @ self.slope)
        with np.errstate(divide="ignore", invalid="ignore"):
            falls = np.where(along == 0.0, 0.0, along**2 / values)
        return -0.5 * float(falls.sum())

    def at(self, away: Floats) -> Floats:
        """F - F* at models z* + away, of shape (k, m), one of them a row [loss]."""
        gap: Floats = 0.5 * np.einsum("ka,ka->k", away @ self.curvature, away) + away @ self.slope
        return gap


def _without_rounding(values: Floats) -> Floats:
    return np.where(np.abs(values) > ROUNDED * float(np.linalg.norm(values)), values, 0.0)


def _gram(left: Floats, right: Floats, m: int) -> Floats:
    """sum_i left_i right_i' of stacks of matrices, symmetrised."""
    flat = left.transpose(1, 0, 2).reshape(m, -1) @ right.transpose(1, 0, 2).reshape(m, -1).T
    gram: Floats = (flat + flat.T) / 2.0
    return gram


def _finite(name: str, values: ArrayLike, shape: tuple[int | None, ...]) -> Floats:
    array = np.array(numeric_array(name, values), dtype=np.float64)
    if array.ndim != len(shape) or any(
        want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
    ):
        wanted = ", ".join("m" if want is None else str(want) for want in shape)
        raise InvalidProblemError(f"{name} has shape {array.shape}: must have shape ({wanted})")
    bad = ~np.isfinite(array)
    if bad.any():
        place = np.unravel_index(int(bad.argmax()), array.shape)
        where = ", ".join(str(int(i)) for i in place)
        raise InvalidProblemError(f"{name}[{where}] = {array[place]!r}: must be a finite number")
    array.flags.writeable = False
    return array


def _symmetric(name: str, values: ArrayLike, devices: int, m: int) -> Floats:
    array = _finite(name, values, (devices, m, m))
    skew = np.abs(array - array.transpose(0, 2, 1)).max(axis=(1, 2))
    bad = skew > SYMMETRY * np.abs(array).max(axis=(1, 2))
    if bad.any():
        i = int(bad.argmax())
        raise InvalidProblemError(
            f"{name}[{i}] differs from its transpose by {skew[i]:.3g}: must be symmetric"
        )
    even = (array + array.transpose(0, 2, 1)) / 2.0
    even.flags.writeable = False
    return even
