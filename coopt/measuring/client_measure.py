"""The side of the device in a measurement by messages: it holds the data, and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.answers import request_fault
from coopt.measuring.device_gradients import Begun, DeviceGradients, Findings, Gradient, precision_of
from coopt.measuring.from_gradients import Client, flat_model
from coopt.measuring.message import Message
from coopt.measuring.parts import draw_rows_of
from coopt.problem.validation import instance

Vector = NDArray[np.float64]


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
