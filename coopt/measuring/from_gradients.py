"""Measure a federation through gradients alone, for any framework.

The curvature times a direction q is the change of the gradient along it,
(grad F_i(w + e q) - grad F_i(w)) / e on the same rows; it costs one gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError, MeasurementWarning
from coopt.measuring.assemble import Circumstances, assemble
from coopt.measuring.basis import Basis, Seeds, krylov
from coopt.measuring.measurement import Measurement
from coopt.measuring.parts import Parts
from coopt.measuring.prepare import Options, Survey, prepare
from coopt.measuring.progress_bar import progress_bar
from coopt.measuring.spread import Spread

Vector = NDArray[np.float64]
Gradient = Callable[[NDArray[Any], Any], tuple[Any, ArrayLike]]

KIND = "gradient differences"
# How far a step may be from the best one before the first difference is taken again.
NEAR = 30.0
# The step is never shorter than this share of what the parameters' own rounding asks for.
ROUNDING_SHARE = 0.1
# Units in the last place by which two calls with the same arguments may differ, where sums run in parallel.
REPEATABLE = 100.0
# Share of the curvature that products with it may contradict each other by.
CONTRADICTION = 0.05
# Relative difference of two gradients that rounding cannot explain, as a power of the precision.
DISAGREEMENT = 0.4


def measure(
    gradient: Gradient,
    parameters: ArrayLike,
    clients: Sequence[Any],
    *,
    rows: int = 16,
    directions: int = 24,
    seed: int = 0,
    progress: bool | None = None,
    weights: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    samples: float | None = None,
    devices: int | None = None,
    strata: Sequence[object] | None = None,
    left_out: ArrayLike = (),
) -> Measurement:
    """Measure the gradient, curvature and noise of every device in a few directions.

    Parameters
    ----------
    gradient : callable
        ``gradient(parameters, clients[i][rows]) -> (loss, gradient)``: mean loss and mean gradient, shape
        ``(n,)``, over these rows. The same arguments must give the same values: dropout off, batch
        normalisation in evaluation mode.
    parameters : array_like, shape (n,)
        The model, flat; float32 stays float32. A model after a few rounds of training tells more than one at
        its start, where gradients are noisier than they will be.
    clients : sequence
        One object a device with ``len()`` and indexing by an array of integers: an array, a tuple of arrays
        of one length (each is indexed), or a data set.
    rows : int, default 16
        Rows of each device for gradient and curvature; the noise is taken on up to twice as many more.
    directions : int, default 24
        Directions, m. They end earlier where there are no more.
    seed : int, default 0
        Source of the rows.
    progress : bool, optional
        Whether to show a progress bar; default: where standard error is a terminal.
    weights : array_like, shape (N,), optional
        Aggregation weights that sum to one; default: samples / samples.sum().
    names : sequence of str, optional
        Names of the devices, for messages and tables.
    samples : float, optional
        Samples that all devices together are to process in training. Measuring then takes at most a tenth of
        it, with fewer rows and directions where that must be, and warns.
    devices : int, optional
        Devices to measure at most, for fleets of thousands: drawn within strata, each speaking for others of
        its stratum, which take over its values.
    strata : sequence, optional
        A label for each device; default: eight groups by samples held. Used with `devices` only.
    left_out : sequence of int, optional
        Devices too slow to measure: they take over the weighted mean of the others.

    Returns
    -------
    Measurement
        What it cost is in ``samples_used``.

    Raises
    ------
    InvalidProblemError
        If a loss or gradient is not finite (the device is named), is no mean over rows, changes from call
        to call, or is zero on all devices; or an argument is out of range.

    Warns
    -----
    MeasurementWarning
        If much of the gradient lies outside the directions, the loss curves downwards, or the budget asks
        for less.

    Notes
    -----
    Samples processed: r (m + 2) a device for r rows and m directions, and 4 r for gradients of single rows,
    which are asked for row by row. Memory: m + 6 vectors of the length of the model.

    The step e of the differences is sqrt(u) times the root mean square of the devices' gradients over the
    curvature along the averaged gradient, with u the precision of the gradients: where the error by rounding
    equals the error by the change of the curvature, in whatever unit the parameters are. Gradients whose
    entries are all numbers of float32 are taken to be computed in it. Central differences would cost twice
    as much and remove an error (3e-4 in float32) far below that of measuring on a few rows.

    Examples
    --------
    Two devices with least-squares losses:

    >>> import numpy as np
    >>> import coopt
    >>> rng = np.random.default_rng(0)
    >>> def device(size):
    ...     x = rng.normal(size=(size, 5)) * [4, 2, 1, 1, 0.5]
    ...     return x, x @ np.arange(5.0) + rng.normal(size=size)
    >>> def gradient(w, batch):
    ...     x, y = batch
    ...     error = x @ w - y
    ...     return 0.5 * np.mean(error**2), x.T @ error / len(y)
    >>> measurement = coopt.measure(gradient, np.zeros(5), [device(300), device(100)])
    >>> measurement
    Measurement(2 devices, 5 directions of 5 parameters, gradient differences on 16 rows a device, ...
    """
    model = _model(parameters)
    if not len(clients):
        raise InvalidProblemError("clients is empty: give one object a device")
    data = [_Client(client, i) for i, client in enumerate(clients)]
    options = Options(rows, directions, seed, weights, names, samples, devices, strata, left_out)
    survey = prepare([len(client) for client in data], model.size, 1, options)
    chosen = [data[i] for i in survey.shares.measured]
    with progress_bar("measuring", len(chosen) * (survey.directions + 3), progress) as advance:
        found = _Differences(gradient, model, chosen, survey, advance)
        basis = found.explore()
        parts = found.finish(basis.vectors)
    step = f"step {found.step:.3g} in {'float32' if found.single else 'float64'}"
    how = Circumstances(
        samples_used=found.samples_used,
        parameters=model.size,
        kind=KIND,
        reason=f"forward differences of the gradient on the same rows, {step}",
    )
    return assemble(parts, survey, how)


class _Client:
    """The rows of one device."""

    def __init__(self, data: Any, device: int) -> None:
        self.data = data
        sizes = {len(part) for part in data} if isinstance(data, tuple) else {len(data)}
        if len(sizes) != 1:
            raise InvalidProblemError(f"clients: the arrays of device {device} have lengths {sorted(sizes)}")
        self._size = sizes.pop()
        if self._size == 0:
            raise InvalidProblemError(f"clients: device {device} holds no rows: give every device a sample")

    def __len__(self) -> int:
        return self._size

    def take(self, rows: NDArray[np.int64]) -> Any:
        if isinstance(self.data, tuple):
            return tuple(part[rows] for part in self.data)
        return self.data[rows]


class _Differences:
    """The devices, asked for gradients one after the other."""

    def __init__(
        self,
        gradient: Gradient,
        model: NDArray[Any],
        clients: Sequence[_Client],
        survey: Survey,
        advance: Callable[[int], object],
    ) -> None:
        self._gradient, self._model, self._clients, self._advance = gradient, model, clients, advance
        self._survey, self._rows, self._counts = survey, survey.rows, survey.shares.counts
        self.samples_used = 0
        self.single = False
        self.step = 0.0
        self._steps: list[float] = []
        self._moved: list[Vector] = []  # gradients along each direction, in the basis so far
        self._losses = np.zeros(len(clients))
        self._squares = np.zeros(len(clients))
        self._mean = np.zeros(model.size)

    @property
    def _precision(self) -> float:
        return float(np.finfo(np.float32 if self.single else np.float64).eps)

    def explore(self) -> Basis:
        """Take gradients, then products with the curvature, until the basis is full."""
        seeds = self._seeds()
        self.step = math.sqrt(self._precision) * max(float(np.linalg.norm(self._model)), 1.0)
        # What forward differences leave of a vector that depends on the others.
        basis = Basis(self._model.size, self._survey.directions, precision=10.0 * math.sqrt(self._precision))
        krylov(seeds, self._product, basis)
        if not len(basis.vectors):
            raise InvalidProblemError(
                "the gradient is zero on the rows of every device: the model has nothing to learn from them; "
                "measure another model or more rows"
            )
        return basis

    def _seeds(self) -> Seeds:
        spare = np.zeros_like(self._mean)
        signs = np.random.default_rng(len(self._clients)).choice([-1.0, 1.0], len(self._clients))
        singles = []
        for i, share in enumerate(self._counts):
            loss, value, single = self._evaluate(self._model, i, self._rows[i].first)
            self._losses[i], self._squares[i] = loss, float(value @ value)
            self._mean += share * value
            spare += share * signs[i] * value
            singles.append(single)
        self.single = all(singles)
        self._check_repeats()
        # What rounding leaves of gradients that cancel is no direction.
        if np.linalg.norm(self._mean) <= 10.0 * self._precision * math.sqrt(self._squares.max()):
            return Seeds(np.zeros_like(spare), spare)
        return Seeds(self._mean, spare)

    def _product(self, basis: Basis) -> Vector:
        mean, inside = self._difference(basis)
        if not self._steps:
            step = self._best_step(float(np.linalg.norm(mean)))
            if not 1.0 / NEAR <= step / self.step <= NEAR:
                self.step = step
                mean, inside = self._difference(basis)
        self._steps.append(self.step)
        self._moved.append(inside)
        return mean

    def _best_step(self, curvature: float) -> float:
        typical = math.sqrt(float(self._counts @ self._squares))
        length = typical / curvature if curvature > 0.0 else 0.0
        floor = ROUNDING_SHARE * float(np.linalg.norm(self._model))
        return math.sqrt(self._precision) * (max(length, floor) or 1.0)

    def _difference(self, basis: Basis) -> tuple[Vector, Vector]:
        """Averaged curvature times the last direction, and each device's moved gradient in the basis."""
        moved = (self._model + self.step * basis.last).astype(self._model.dtype)
        total = np.zeros_like(self._mean)
        inside = np.empty((len(self._clients), len(basis.vectors)))
        for i, share in enumerate(self._counts):
            _, value, _ = self._evaluate(moved, i, self._rows[i].first)
            total += share * value
            inside[i] = basis.vectors @ value
        return (total - self._mean) / self.step, inside

    def finish(self, basis: Vector) -> Parts:
        """Take the gradients again, now in the whole basis, and those of single samples."""
        devices, size = len(self._clients), len(basis)
        gradients = np.empty((devices, size))
        curvatures, covariances = np.empty((2, devices, size, size))
        noise = np.empty(devices)
        sharpness = np.empty((devices, 2))
        fresh = np.zeros_like(self._mean)
        for i, (share, rows) in enumerate(zip(self._counts, self._rows, strict=True)):
            # The same call as before gives the same rounding, which differences divide by a small step.
            _, value, _ = self._evaluate(self._model, i, rows.first)
            gradients[i] = basis @ value
            for k, (step, moved) in enumerate(zip(self._steps, self._moved, strict=True)):
                column = (moved[i] - gradients[i, : k + 1]) / step
                curvatures[i, : k + 1, k] = curvatures[i, k, : k + 1] = column
            spread, other, sharpness[i] = self._spread(i, value, basis)
            covariances[i], noise[i] = spread.covariance, spread.trace
            fresh += share * (value if other is None else other)
        inside = basis @ fresh
        return Parts(
            losses=self._losses,
            squares=self._squares,
            gradients=gradients,
            curvatures=curvatures,
            covariances=covariances,
            noise=noise,
            sharpness=self._believed(curvatures, sharpness),
            fresh=(float(fresh @ fresh), float(inside @ inside)),
        )

    def _believed(self, curvatures: Vector, sharpness: Vector) -> Vector | None:
        """Curvatures of single rows, unless the products contradict each other.

        The product with a direction lies in the directions up to the next. If products with later ones see
        more of it than that, gradients jump within a step, and those of single rows do so most.
        """
        mean = np.tensordot(self._counts, curvatures, axes=1)
        skew = float(np.linalg.norm(np.triu(mean, 2)))
        if skew <= CONTRADICTION * float(np.linalg.norm(mean)):
            return sharpness
        warnings.warn(
            f"products with the curvature contradict each other by {skew / np.linalg.norm(mean):.0%}: the "
            f"gradient jumps within the step of {self.step:.2g}, as that of networks with ReLU does in "
            "float32; compute it in float64, or measure with coopt.adapters.torch.measure",
            MeasurementWarning,
            stacklevel=4,
        )
        return None

    def _spread(self, i: int, value: Vector, basis: Vector) -> tuple[Spread, Vector | None, Vector]:
        """Gradients of the single rows, the mean over those that had no part in the basis, and curvatures."""
        rows = self._rows[i]
        spread = Spread(value, basis)
        steep = np.zeros(len(rows.first))
        for k, row in enumerate(rows.first):
            each = self._evaluate(self._model, i, np.array([row]), done=0)[1]
            spread.add(each[None])
            steep[k] = self._row_curvature(i, row, each)
        first = spread.mean
        typical = math.sqrt(spread.trace + float(value @ value))
        if np.linalg.norm(first - value) > self._precision**DISAGREEMENT * typical:
            raise InvalidProblemError(
                f"gradient on the rows of device {self._survey.name(i)} is not the mean of the gradients on "
                "its single rows: return means, not sums, and evaluate batch normalisation in evaluation mode"
            )
        other = np.zeros_like(value)
        for row in rows.fresh:
            each = self._evaluate(self._model, i, np.array([row]), done=0)[1]
            spread.add(each[None])
            other += each / len(rows.fresh)
        self._advance(1)
        return spread, other if len(rows.fresh) else None, np.array([steep.mean(), np.mean(steep**2)])

    def _row_curvature(self, i: int, row: np.int64, value: Vector) -> float:
        """Curvature of the loss of one row along its own gradient, near its largest."""
        length = float(np.linalg.norm(value))
        if not length > 0.0:
            return 0.0
        moved = (self._model + self.step / length * value).astype(self._model.dtype)
        other = self._evaluate(moved, i, np.array([row]), done=0)[1]
        return float(np.linalg.norm(other - value)) / self.step

    def _check_repeats(self) -> None:
        (_, value, _), (_, again, _) = (
            self._evaluate(self._model, 0, self._rows[0].first, done=0) for _ in range(2)
        )
        if np.abs(again - value).max() > REPEATABLE * self._precision * np.abs(value).max():
            raise InvalidProblemError(
                f"gradient of device {self._survey.name(0)} differs between two calls with the same "
                "parameters and rows: switch off dropout and other randomness"
            )

    def _evaluate(
        self, model: NDArray[Any], i: int, rows: NDArray[np.int64], *, done: int = 1
    ) -> tuple[float, Vector, bool]:
        """Loss, gradient in double precision, and whether all its entries are numbers of float32."""
        try:
            loss, value = self._gradient(model, self._clients[i].take(rows))
            given = np.asarray(value)
            vector = given.astype(np.float64)
            mean = float(loss)
        except Exception as error:
            error.add_note(f"while coopt measured device {self._survey.name(i)} on {len(rows)} of its rows")
            raise
        if vector.shape != self._mean.shape:
            raise InvalidProblemError(
                f"gradient of device {self._survey.name(i)} has shape {vector.shape}: must have "
                f"{self._mean.shape}, as parameters has"
            )
        self._survey.check_finite(i, mean, bool(np.isfinite(vector).all()), len(rows))
        self.samples_used += len(rows)
        self._advance(done)
        with np.errstate(over="ignore"):
            single = bool((vector.astype(np.float32) == vector).all())
        return mean, vector, single


def _model(parameters: ArrayLike) -> NDArray[Any]:
    given = np.asarray(parameters)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iuf":
        raise InvalidProblemError(
            f"parameters has shape {given.shape} and type {given.dtype}: must be a flat array of numbers"
        )
    model = given if given.dtype == np.float32 else given.astype(np.float64)
    if not np.isfinite(model).all():
        raise InvalidProblemError("parameters holds numbers that are not finite: the model has diverged")
    return model
