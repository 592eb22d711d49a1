"""What one device computes to be measured through its gradients, wherever it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.parts import Projected, Rows
from coopt.measuring.spread import Spread

Vector = NDArray[np.float64]
Gradient = Callable[[NDArray[Any], Any], tuple[Any, ArrayLike]]

# Units in the last place by which two calls with the same arguments may differ, where sums run in parallel.
REPEATABLE = 100.0
# Relative difference of two gradients that rounding cannot explain, as a power of the precision.
DISAGREEMENT = 0.4


@dataclass(frozen=True, eq=False)
class Findings:
    """What a device has found in the whole basis.

    Attributes
    ----------
    loss, square : float
        Mean loss and squared norm of the gradient, on the first rows.
    gradient : numpy.ndarray, shape (m,)
    curvature, covariance : numpy.ndarray, shape (m, m)
        On the first rows; of the gradient of one row, on all.
    noise : float
        Trace of the whole covariance.
    sharpness : numpy.ndarray, shape (2,)
        Mean and mean square of the curvature of the loss of single rows.
    fresh : numpy.ndarray, shape (n,)
        Mean gradient on rows that had no part in the basis; where there are none, on the first.
    """

    loss: float
    square: float
    gradient: Vector
    curvature: Vector
    covariance: Vector
    noise: float
    sharpness: Vector
    fresh: Vector


@dataclass(frozen=True, eq=False)
class Begun:
    """What a device has computed so far, enough to go on in another process.

    Attributes
    ----------
    moved : list of numpy.ndarray
        The gradient along each direction, in the basis of its time.
    loss, square : float
        Mean loss and squared norm of the gradient, on the first rows.
    samples_used : int
    """

    moved: list[Vector]
    loss: float
    square: float
    samples_used: int


class NotFiniteError(InvalidProblemError):
    """The loss or the gradient of a device is not finite; `device` is its number."""

    def __init__(self, message: str, device: int) -> None:
        super().__init__(message)
        self.device = device


def check_finite(device: int, name: str, loss: float, gradient: bool, rows: int) -> None:
    """Raise NotFiniteError, with the device's name, where its loss or its gradient is not finite."""
    if not (math.isfinite(loss) and gradient):
        what = f"loss = {float(loss)!r}" if not math.isfinite(loss) else "a gradient that is not finite"
        raise NotFiniteError(
            f"device {name} has {what} on {rows} of its rows: measure a model whose loss is finite on every "
            "device, or name the device in left_out",
            device,
        )


def precision_of(single: bool) -> float:
    """Relative precision of gradients."""
    return float(np.finfo(np.float32 if single else np.float64).eps)


class DeviceGradients:
    """The gradients of one device at one model and near it, in a basis that grows.

    Parameters
    ----------
    gradient : callable
        As :func:`coopt.measure` takes it.
    model : numpy.ndarray, shape (n,)
    take : callable
        ``take(rows)``: what `gradient` takes for these rows.
    rows : Rows
    device : int
    name : str
        For messages.
    advance : callable
        Told of every batch that is done.
    """

    def __init__(
        self,
        gradient: Gradient,
        model: NDArray[Any],
        take: Callable[[NDArray[np.int64]], Any],
        rows: Rows,
        device: int,
        name: str,
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._gradient, self._model, self._take, self._rows = gradient, model, take, rows
        self._device, self._name, self._advance = device, name, advance
        self._moved: list[Vector] = []  # the gradient along each direction, in the basis so far
        self._loss = self._square = math.nan
        self.samples_used = 0

    def start(self) -> tuple[float, Vector, bool]:
        """Loss and gradient on the first rows, and whether it is in single precision."""
        loss, value, single = self._evaluate(self._model, self._rows.first)
        self._loss, self._square = loss, float(value @ value)
        return loss, value, single

    def move(self, basis: Vector, step: float) -> Vector:
        """Gradient on the first rows, a step along the last direction; taken again it replaces the first."""
        moved = (self._model + step * basis[-1]).astype(self._model.dtype)
        value = self._evaluate(moved, self._rows.first)[1]
        del self._moved[len(basis) - 1 :]
        self._moved.append(basis @ value)
        return value

    def begun(self) -> Begun:
        """What it has computed so far."""
        return Begun(self._moved, self._loss, self._square, self.samples_used)

    def go_on(self, begun: Begun) -> None:
        """Go on from what was computed at the same model, on the same rows."""
        self._moved, self._loss, self._square = list(begun.moved), begun.loss, begun.square
        self.samples_used = begun.samples_used

    def check_repeats(self, precision: float) -> None:
        """Raise InvalidProblemError where two calls with the same arguments differ."""
        (_, value, _), (_, again, _) = (
            self._evaluate(self._model, self._rows.first, done=0) for _ in range(2)
        )
        if np.abs(again - value).max() > REPEATABLE * precision * np.abs(value).max():
            raise InvalidProblemError(
                f"gradient of device {self._name} differs between two calls with the same parameters and "
                "rows: switch off dropout and other randomness"
            )

    def finish(self, basis: Vector, steps: Sequence[float], precision: float) -> Findings:
        """Take the gradient again, now in the whole basis, and those of single rows."""
        # The same call as before gives the same rounding, which differences divide by a small step.
        value = self._evaluate(self._model, self._rows.first)[1]
        gradient, curvature = basis @ value, np.empty((len(basis), len(basis)))
        for k, (step, moved) in enumerate(zip(steps, self._moved, strict=True)):
            column = (moved - gradient[: k + 1]) / step
            curvature[: k + 1, k] = curvature[k, : k + 1] = column
        spread, fresh, sharpness = self._spread(value, basis, steps[-1], precision)
        return Findings(
            loss=self._loss,
            square=self._square,
            gradient=gradient,
            curvature=curvature,
            covariance=spread.covariance,
            noise=spread.trace,
            sharpness=sharpness,
            fresh=fresh,
        )

    def _spread(
        self, value: Vector, basis: Vector, step: float, precision: float
    ) -> tuple[Spread, Vector, Vector]:
        spread = Spread(value, basis)
        steep = np.zeros(len(self._rows.first))
        for k, row in enumerate(self._rows.first):
            each = self._evaluate(self._model, np.array([row]), done=0)[1]
            spread.add(each[None])
            steep[k] = self._row_curvature(row, each, step)
        typical = math.sqrt(spread.trace + float(value @ value))
        if np.linalg.norm(spread.mean - value) > precision**DISAGREEMENT * typical:
            raise InvalidProblemError(
                f"gradient on the rows of device {self._name} is not the mean of the gradients on its single "
                "rows: return means, not sums, and evaluate batch normalisation in evaluation mode"
            )
        fresh = np.zeros_like(value)
        for row in self._rows.fresh:
            each = self._evaluate(self._model, np.array([row]), done=0)[1]
            spread.add(each[None])
            fresh += each / len(self._rows.fresh)
        self._advance(1)
        sharpness = np.array([steep.mean(), np.mean(steep**2)])
        return spread, fresh if len(self._rows.fresh) else value, sharpness

    def _row_curvature(self, row: np.int64, value: Vector, step: float) -> float:
        """Curvature of the loss of one row along its own gradient, near its largest."""
        length = float(np.linalg.norm(value))
        if not length > 0.0:
            return 0.0
        moved = (self._model + step / length * value).astype(self._model.dtype)
        other = self._evaluate(moved, np.array([row]), done=0)[1]
        return float(np.linalg.norm(other - value)) / step

    def _evaluate(
        self, model: NDArray[Any], rows: NDArray[np.int64], *, done: int = 1
    ) -> tuple[float, Vector, bool]:
        """Loss, gradient in double precision, and whether all its entries are numbers of float32."""
        try:
            answer: Any = self._gradient(model, self._take(rows))
            if not isinstance(answer, tuple | list) or len(answer) != 2:
                raise InvalidProblemError(
                    f"gradient of device {self._name} gives {type(answer).__name__}: must be a tuple "
                    "(loss, gradient)"
                )
            loss, value = answer
            vector = np.asarray(value).astype(np.float64)
            mean = float(loss)
        except Exception as error:
            error.add_note(f"while coopt measured device {self._name} on {len(rows)} of its rows")
            raise
        if vector.shape != self._model.shape:
            raise InvalidProblemError(
                f"gradient of device {self._name} has shape {vector.shape}: must have {self._model.shape}, "
                "as parameters has"
            )
        check_finite(self._device, self._name, mean, bool(np.isfinite(vector).all()), len(rows))
        self.samples_used += len(rows)
        self._advance(done)
        with np.errstate(over="ignore"):
            single = bool((vector.astype(np.float32) == vector).all())
        return mean, vector, single


def parts_of(findings: Sequence[Findings], counts: Vector, basis: Vector, believed: bool) -> Projected:
    """What several devices have found, together.

    Parameters
    ----------
    findings : sequence of Findings
    counts : numpy.ndarray, shape (n,)
        Their weights.
    basis : numpy.ndarray, shape (m, n)
    believed : bool
        Whether curvatures of single rows count.
    """
    fresh = sum((c * f.fresh for c, f in zip(counts, findings, strict=True)), np.zeros(basis.shape[1]))
    return Projected(
        losses=np.array([f.loss for f in findings]),
        squares=np.array([f.square for f in findings]),
        gradients=np.array([f.gradient for f in findings]),
        curvatures=np.array([f.curvature for f in findings]),
        covariances=np.array([f.covariance for f in findings]),
        noise=np.array([f.noise for f in findings]),
        sharpness=np.array([f.sharpness for f in findings]) if believed else None,
        fresh=basis @ fresh,
        fresh_square=float(fresh @ fresh),
    )
