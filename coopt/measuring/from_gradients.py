"""Measure a federation through gradients alone, for any framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.assemble import Circumstances, assemble
from coopt.measuring.basis import Basis
from coopt.measuring.device_gradients import DeviceGradients, Findings, Gradient, precision_of
from coopt.measuring.differences import KIND, Start, explore
from coopt.measuring.measurement import Measurement
from coopt.measuring.prepare import Options, prepare
from coopt.measuring.progress_bar import progress_bar
from coopt.problem.validation import numeric_array, shown

Vector = NDArray[np.float64]


def measure(
    gradient: Gradient,
    parameters: ArrayLike,
    clients: Sequence[Any],
    *,
    rows: ArrayLike = 16,
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
    rows : int, or array_like of int, shape (N,), default 16
        :term:`Rows <row>` of each device for gradient and curvature; the noise is taken on up to twice as
        many more.
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
        Samples that all devices together are to process in training. Measuring then takes at most a twentieth
        of it, with fewer directions and then fewer rows where that must be, and warns.
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
    if not callable(gradient):
        raise InvalidProblemError(f"gradient = {shown(gradient)}: must be a function")
    model = flat_model(parameters)
    if not hasattr(clients, "__len__"):
        raise InvalidProblemError(f"clients = {shown(clients)}: must be a sequence, one object a device")
    if not len(clients):
        raise InvalidProblemError("clients is empty: give one object a device")
    data = [Client(client, i) for i, client in enumerate(clients)]
    options = Options(rows, directions, seed, weights, names, samples, devices, strata, left_out)
    survey = prepare([len(client) for client in data], model.size, 1, options)
    with progress_bar("measuring", len(survey.rows) * (survey.directions + 3), progress) as advance:
        measured = [
            DeviceGradients(gradient, model, data[device].take, drawn, device, survey.name(i), advance)
            for i, (device, drawn) in enumerate(
                zip(survey.shares.measured.tolist(), survey.rows, strict=True)
            )
        ]
        found = explore(_Here(measured, survey.shares.counts), model, survey.directions)
    used = sum(device.samples_used for device in measured)
    how = Circumstances(used, model.size, KIND, found.reason, found.point, found.cut_off)
    return assemble(found.parts, survey, how)


class Client:
    """The rows of one device."""

    def __init__(self, data: Any, device: int) -> None:
        self.data = data
        if isinstance(data, list | dict | str | bytes) or not hasattr(data, "__len__"):
            raise InvalidProblemError(
                f"clients: device {device} is a {type(data).__name__}: give an array, a tuple of arrays, or "
                "a data set with len() and indexing by an array of integers"
            )
        sizes = {len(part) for part in data} if isinstance(data, tuple) else {len(data)}
        if len(sizes) != 1:
            raise InvalidProblemError(f"clients: the arrays of device {device} have lengths {sorted(sizes)}")
        self._size = sizes.pop()
        if self._size == 0:
            raise InvalidProblemError(f"clients: device {device} holds no rows: give every device a sample")

    def __len__(self) -> int:
        return self._size

    def take(self, rows: NDArray[np.int64]) -> Any:
        """What the gradient takes for these rows."""
        if isinstance(self.data, tuple):
            return tuple(part[rows] for part in self.data)
        return self.data[rows]


class _Here:
    """The devices of one process, asked one after the other."""

    def __init__(self, devices: list[DeviceGradients], counts: Vector) -> None:
        self._devices, self._counts = devices, counts
        self._mean = np.zeros(0)

    def start(self) -> Start:
        """Take the gradient at the model."""
        mix = np.random.default_rng(0).normal(size=len(self._devices))
        mean, spare, single = 0.0, 0.0, True
        squares = np.empty(len(self._devices))
        for i, device in enumerate(self._devices):
            _, value, each = device.start()
            squares[i], single = float(value @ value), single and each
            mean = mean + self._counts[i] * value
            spare = spare + self._counts[i] * mix[i] * value
        self._devices[0].check_repeats(precision_of(single))
        self._mean = np.asarray(mean)
        return Start(self._mean, np.asarray(spare), squares, self._counts, single)

    def difference(self, basis: Basis, step: float) -> Vector:
        """Average of the change of the gradients along the last direction, divided by the step."""
        total = np.zeros_like(self._mean)
        for share, device in zip(self._counts, self._devices, strict=True):
            total += share * device.move(basis.vectors, step)
        return (total - self._mean) / step

    def finish(self, basis: Vector, steps: Sequence[float], single: bool) -> tuple[list[Findings], Vector]:
        """What each device has found, and their weights."""
        precision = precision_of(single)
        return [device.finish(basis, steps, precision) for device in self._devices], self._counts


def flat_model(parameters: ArrayLike) -> NDArray[Any]:
    """The parameters, checked; float32 stays float32."""
    given = numeric_array("parameters", parameters)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iuf":
        raise InvalidProblemError(
            f"parameters has shape {given.shape} and type {given.dtype}: must be a flat array of numbers"
        )
    # A copy: training may go on in place while a device is measured at this model.
    model: NDArray[Any] = np.array(given, dtype=np.float32 if given.dtype == np.float32 else np.float64)
    if not np.isfinite(model).all():
        raise InvalidProblemError("parameters holds numbers that are not finite: the model has diverged")
    return model
