"""Measure devices that are far away, in a few exchanges between the rounds of a training.

An exchange is one message to every device and one back, each with a vector as long as the model: the
gradient first, a product with the curvature for each direction, and last what the device has found in the
directions, some m^2 numbers. Vectors are averaged like models.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError, MeasurementWarning
from coopt.measuring.answers import (
    FAR,
    First,
    Form,
    contradiction,
    far_findings,
    far_gradients,
    far_vectors,
    findings_form,
    gradient_form,
    product_form,
    request_fault,
)
from coopt.measuring.assemble import Circumstances, assemble
from coopt.measuring.basis import Basis
from coopt.measuring.device_gradients import Begun, DeviceGradients, Findings, Gradient, precision_of
from coopt.measuring.differences import KIND, Start, explore
from coopt.measuring.from_gradients import Client, flat_model
from coopt.measuring.measurement import Measurement
from coopt.measuring.parts import draw_rows_of
from coopt.measuring.prepare import Options, Survey, prepare
from coopt.measuring.progress_bar import progress_bar
from coopt.problem.stored_arrays import stored_arrays
from coopt.problem.validation import count, instance, integer_array, shown

Vector = NDArray[np.float64]


# The longest message that is read, unless the reader says otherwise, and the most arrays in one.
MOST_BYTES, MOST_VALUES = 2**30, 32


@dataclass(frozen=True, eq=False)
class Message:
    """What server and device send each other while they measure.

    Attributes
    ----------
    kind : {"gradient", "product", "finish"}
        What is asked for, or answered.
    values : dict of numpy.ndarray

    Examples
    --------
    >>> message = Message("product", {"direction": np.ones(3), "step": np.array(0.5)})
    >>> Message.from_bytes(message.to_bytes()).values["direction"]
    array([1., 1., 1.])
    """

    kind: str
    values: Mapping[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """Write as a numpy archive, without pickled objects."""
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, kind=np.array(self.kind), **self.values)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, *, most_bytes: int = MOST_BYTES) -> Self:
        """Read what `to_bytes` wrote, and whoever else: no code in it is run.

        Parameters
        ----------
        content : bytes
            Reading takes no more than a few times its memory.
        most_bytes : int, default 2**30
            Longer messages are not read. The longest hold two vectors as long as the model.

        Raises
        ------
        InvalidProblemError
            If it is no message, or longer.
        """
        instance("content", content, bytes)
        if len(content) > count("most_bytes", most_bytes):
            raise InvalidProblemError(
                f"a message of {len(content)} bytes: {most_bytes} at most are read; raise most_bytes where "
                "models are larger"
            )
        try:
            values = stored_arrays(content, MOST_VALUES)
        except ValueError as error:
            raise InvalidProblemError(
                f"{len(content)} bytes are no message of a measurement: {shown(str(error))}"
            ) from error
        kind = values.pop("kind", None)
        if kind is None or kind.ndim or kind.dtype.kind != "U":
            raise InvalidProblemError(f"{len(content)} bytes are no message of a measurement: no kind")
        for name, value in values.items():
            if value.dtype.kind not in "biuf":
                raise InvalidProblemError(
                    f"{shown(name)} of a message holds {value.dtype}: must hold numbers"
                )
        return cls(str(kind), values)


Values = Mapping[str, NDArray[Any]]
Ask = Callable[[Message, Sequence[int]], Iterable[tuple[int, Message]]]


class ClientMeasure:
    """Answers a server that measures, on the device that holds the data.

    Parameters
    ----------
    client : int
        Index of the device in the fleet.
    gradient : callable
        As :func:`coopt.measure` takes it.
    data : object
        The device's rows, with ``len()`` and indexing by an array of integers, or a tuple of arrays.

    Notes
    -----
    Memory: a vector of the length of the model for each direction. No row and no gradient of a single row
    leaves the device.
    """

    def __init__(self, client: int, gradient: Gradient, data: Any) -> None:
        self.client = client
        self._gradient, self._data = gradient, Client(data, client)
        self._device: DeviceGradients | None = None
        self._basis: list[Vector] = []
        self._steps: list[float] = []
        self._first: Vector = np.zeros(0)
        self._model: NDArray[Any] = np.zeros(0)
        self._drawn = (0, 0)  # how many rows, and the seed

    def answer(self, message: Message) -> Message:
        """Do what a message asks for.

        Raises
        ------
        InvalidProblemError
            If the loss or gradient is not finite, or the message comes out of order or is none.
        """
        instance("message", message, Message)
        values = message.values
        if why := request_fault(message.kind, values, len(self._first), len(self._basis)):
            raise InvalidProblemError(f"client {self.client} cannot answer a message: {why}")
        if message.kind == "gradient":
            return self._start(values)
        device = self._device
        if device is None:
            raise InvalidProblemError(
                f"client {self.client} is asked for a {message.kind} before its gradient: it has no "
                "measurement under way"
            )
        if message.kind == "product":
            place, step = int(values["place"]), float(values["step"])
            self._basis[place:] = [values["direction"].astype(np.float64)]
            self._steps[place:] = [step]
            moved = device.move(np.array(self._basis), step)
            return Message("product", {"product": ((moved - self._first) / step).astype(self._model.dtype)})
        precision = precision_of(bool(values["single"]))
        found = device.finish(np.array(self._basis), self._steps, precision)
        told = {field.name: np.asarray(getattr(found, field.name)) for field in fields(Findings)}
        told["fresh"] = told["fresh"].astype(self._model.dtype)
        self._device, self._basis = None, []
        return Message("finish", told | {"used": np.array(device.samples_used)})

    def _rows(self, told: NDArray[Any]) -> int:
        """How many rows, from one number for all devices or from a number for each."""
        if told.ndim == 0:
            return int(told)
        if not (0 <= self.client < told.size and told[self.client] > 0):
            raise InvalidProblemError(f"client {self.client} is asked to measure on no rows")
        return int(told[self.client])

    def _start(self, values: Mapping[str, NDArray[Any]]) -> Message:
        self._drawn = self._rows(values["rows"]), int(values["seed"])
        device = self._begin(flat_model(values["parameters"]))
        loss, value, single = device.start()
        device.check_repeats(precision_of(single))
        self._basis, self._steps, self._first = [], [], value
        told = {"held": len(self._data), "loss": loss, "single": single}
        sent = {name: np.asarray(part) for name, part in told.items()}
        return Message("gradient", sent | {"gradient": value.astype(self._model.dtype)})

    def _begin(self, model: NDArray[Any]) -> DeviceGradients:
        rows = draw_rows_of(len(self._data), *self._drawn, self.client)
        self._model = model
        self._device = DeviceGradients(
            self._gradient, model, self._data.take, rows, self.client, str(self.client)
        )
        return self._device

    def state(self) -> dict[str, NDArray[Any]]:
        """What `resume` needs, in a process of its own for each message; empty between measurements."""
        if self._device is None:
            return {}
        begun = self._device.begun()
        return {
            "parameters": self._model,
            "drawn": np.array(self._drawn, dtype=np.int64),
            "basis": np.array(self._basis, dtype=self._model.dtype).reshape(-1, self._model.size),
            "steps": np.array(self._steps, dtype=np.float64),
            "first": self._first,
            "moved": np.concatenate([np.zeros(0), *begun.moved]),
            "found": np.array([begun.loss, begun.square]),
            "used": np.array(begun.samples_used),
        }

    def resume(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `state`; from an empty one, anew."""
        if not state:
            return
        rows, seed = state["drawn"].tolist()
        self._drawn = (rows, seed)
        device = self._begin(state["parameters"])
        self._basis = list(state["basis"].astype(np.float64))
        self._steps, self._first = state["steps"].tolist(), state["first"]
        # The k-th direction was seen in a basis of k.
        ends = np.cumsum(np.arange(1, len(self._basis)))
        loss, square = state["found"].tolist()
        moved = np.split(state["moved"], ends) if self._basis else []
        device.go_on(Begun(moved, loss, square, int(state["used"])))


def measure_clients(
    ask: Ask,
    parameters: ArrayLike,
    samples: ArrayLike,
    *,
    rows: ArrayLike = 16,
    directions: int = 24,
    seed: int = 0,
    progress: bool | None = None,
    weights: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    budget: float | None = None,
    devices: int | None = None,
    strata: Sequence[object] | None = None,
    left_out: ArrayLike = (),
) -> Measurement:
    """Measure devices that are far away, between two rounds of their training.

    Parameters
    ----------
    ask : callable
        ``ask(message, clients) -> [(client, answer), ...]``: sends a message to some clients, each of which
        runs a :class:`ClientMeasure`, and gives the answers that came. Who does not answer, or not what can
        be, or far from all others, is not asked again, and takes over the weighted mean of the others. It may
        as well run a round of training that carries the message: devices keep the model that they are
        measured at.
    parameters : array_like, shape (n,)
        The present model.
    samples : array_like of int, shape (N,)
        Samples that each device holds.
    budget : float, optional
        Samples that all devices together are to process in training; measuring takes a twentieth at most.
    rows : int, or array_like of int, shape (N,)
        Rows of each device; 0 leaves a device out.
    directions, seed, progress, weights, names, devices, strata, left_out
        As in :func:`coopt.measure`.

    Returns
    -------
    Measurement

    Raises
    ------
    InvalidProblemError
        If no device answers, or an argument is out of range.

    Warns
    -----
    MeasurementWarning
        As :func:`coopt.measure` does, and where devices are left out, with the reason for each.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> def gradient(w, x):
    ...     return 0.5 * np.mean((w - x) ** 2), (w - x).mean(axis=0)
    >>> clients = [ClientMeasure(i, gradient, rng.normal(size=(50, 3))) for i in range(4)]
    >>> def ask(message, asked):
    ...     return [(i, clients[i].answer(message)) for i in asked]
    >>> measure_clients(ask, np.ones(3), [50] * 4)
    Measurement(4 devices, 2 directions of 3 parameters, gradient differences on 16 rows a device, ...
    """
    model = flat_model(parameters)
    held = integer_array("samples", samples, None, minimum=1)
    options = Options(rows, directions, seed, weights, names, budget, devices, strata, left_out)
    survey = prepare(held.tolist(), model.size, 1, options)
    with progress_bar("measuring", survey.directions + 2, progress) as advance:
        far = _FarAway(ask, model, survey, seed, advance)
        found = explore(far, model, survey.directions)
    failed = ~far.answering
    if failed.any():
        reasons = "; ".join(f"{survey.name(i)}: {why}" for i, why in list(far.left_out.items())[:5])
        warnings.warn(
            f"{failed.sum()} of {len(failed)} devices were left out ({reasons}): they take over the weighted "
            "mean of the others",
            MeasurementWarning,
            stacklevel=2,
        )
        kept = [each for each, lost in zip(survey.rows, failed, strict=True) if not lost]
        survey = replace(survey, shares=survey.shares.without(failed), rows=kept)
    how = Circumstances(far.samples_used, model.size, KIND, found.reason, found.point)
    return assemble(found.parts, survey, how)


class _FarAway:
    """Devices that are asked by messages."""

    def __init__(
        self, ask: Ask, model: NDArray[Any], survey: Survey, seed: int, advance: Callable[[int], object]
    ) -> None:
        self._ask, self._model, self._survey, self._seed, self._advance = ask, model, survey, seed, advance
        self._counts = survey.shares.counts
        self.answering = np.ones(len(self._counts), dtype=bool)
        self.left_out: dict[int, str] = {}
        self.samples_used = 0
        self._mean, self._first = np.zeros(0), dict[int, First]()

    def start(self) -> Start:
        """Take the gradient at the model."""
        wanted = [len(rows.first) for rows in self._survey.rows]
        told = np.array(max(wanted))
        if min(wanted) < max(wanted):
            told = np.zeros(len(self._survey.samples), dtype=np.int64)
            told[self._survey.shares.measured] = wanted
        values = {"parameters": self._model, "rows": told, "seed": np.array(self._seed)}
        size = self._model.size
        answers, counts = self._send(
            Message("gradient", values),
            gradient_form(size),
            lambda found: far_gradients([each["gradient"].astype(np.float64) for each in found]),
        )
        mix = np.random.default_rng(0).normal(size=len(answers))
        gradients = [answer.values["gradient"].astype(np.float64) for answer in answers]
        self._mean = _average(counts, gradients)
        unit = self._mean / max(float(np.linalg.norm(self._mean)), np.finfo(np.float64).tiny)
        for place, answer, g in zip(np.flatnonzero(self.answering).tolist(), answers, gradients, strict=True):
            self._first[place] = First(float(answer.values["loss"]), float(g @ g), float(g @ unit))
        return Start(
            mean=self._mean,
            spare=_average(counts * mix, gradients),
            squares=np.array([float(g @ g) for g in gradients]),
            counts=counts,
            single=all(bool(answer.values["single"]) for answer in answers),
        )

    def difference(self, basis: Basis, step: float) -> Vector:
        """Average of the change of the gradients along the last direction, divided by the step."""
        values = {
            "direction": basis.last.astype(self._model.dtype),
            "place": np.array(len(basis.vectors) - 1),
            "step": np.array(step),
        }
        answers, counts = self._send(
            Message("product", values),
            product_form(self._model.size),
            lambda found: far_vectors([each["product"].astype(np.float64) for each in found], FAR),
        )
        return _average(counts, [answer.values["product"].astype(np.float64) for answer in answers])

    def finish(self, basis: Vector, steps: Sequence[float], single: bool) -> tuple[list[Findings], Vector]:
        """What each device has found, and their weights."""
        answers, counts = self._send(
            Message("finish", {"single": np.array(single)}),
            findings_form(self._model.size, len(basis)),
            far_findings,
            lambda place, told: (
                contradiction(told) or self._first[place].contradiction(told, self._mean, basis[0])
            ),
        )
        self.samples_used = sum(int(answer.values["used"]) for answer in answers)
        findings = []
        for answer in answers:
            told: dict[str, Any] = {
                field.name: answer.values[field.name].astype(np.float64) for field in fields(Findings)
            }
            told |= {name: float(told[name]) for name in ("loss", "square", "noise")}
            findings.append(Findings(**told))
        return findings, counts

    def _send(
        self,
        message: Message,
        form: Form,
        far: Callable[[Sequence[Values]], NDArray[np.bool_]],
        contradiction: Callable[[int, Values], str] = lambda *_: "",
    ) -> tuple[list[Message], Vector]:
        """Ask who still answers; the believed answers in the order of the devices, and the weights of those.

        Parameters
        ----------
        message : Message
        form : Form
            What an answer has to hold.
        far : callable
            Marks the answers that are far from all others.
        contradiction : callable, optional
            Says what in the answer of a device, by its place, cannot be.
        """
        measured = self._survey.shares.measured
        asked = np.flatnonzero(self.answering).tolist()
        came = dict(self._ask(message, measured[asked].tolist()))
        answers: dict[int, Message] = {}
        for place in asked:
            answer = came.get(int(measured[place]))
            if answer is None or answer.kind != message.kind:
                why = "it stopped answering"
            else:
                why = form.fault(answer.values) or contradiction(place, answer.values)
            if answer is None or why:
                self._leave_out(place, why)
            else:
                answers[place] = answer
        places = np.array(list(answers), dtype=np.int64)
        if answers:
            places = places[far([answer.values for answer in answers.values()])]
        for place in places.tolist():
            self._leave_out(place, f"its {message.kind} is far from those of all others")
            del answers[place]
        counts = self._counts[self.answering]
        if not counts.sum() > 0.0:
            raise InvalidProblemError(
                f"no device answered a request for a {message.kind}: nothing was measured"
            )
        self._advance(1)
        return list(answers.values()), counts / counts.sum()

    def _leave_out(self, place: int, why: str) -> None:
        self.answering[place], self.left_out[place] = False, why


def _average(counts: Vector, vectors: list[Vector]) -> Vector:
    return sum((c * v for c, v in zip(counts, vectors, strict=True)), np.zeros_like(vectors[0]))
