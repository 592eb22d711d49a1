"""What a Flower client needs to be measured: gradients of its own, and a place to keep what it has found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Context
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from coopt.adapters.flower.records import ARRAYS, MEASURE, pack_message, read_arrays, unpack_message
from coopt.errors import InvalidProblemError
from coopt.measuring.client_measure import ClientMeasure

Model = dict[str, npt.NDArray[Any]]
# ``gradient(model, rows) -> (loss, gradient)``: the mean over the rows, and its derivative by array.
ModelGradient = Callable[[Model, Any], tuple[Any, Mapping[str, npt.ArrayLike]]]

# Where a node keeps a measurement from one message to the next.
UNDER_WAY = "coopt-measuring"


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the arrays of a model lie in one vector: those of floating-point numbers, one after the other.

    Attributes
    ----------
    model : dict of numpy.ndarray
        The model that the vector is a part of.
    names : tuple of str
    dtype : numpy.dtype
        Of the vector: double precision where any array has it.
    """

    model: Model
    names: tuple[str, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, model: Model) -> Self:
        """The layout of a model.

        Raises
        ------
        InvalidProblemError
            If it has no array of float32 or float64.
        """
        kinds = (np.float32, np.float64)
        names = tuple(name for name, array in model.items() if array.dtype in kinds)
        if not names:
            raise InvalidProblemError("the model has no array of float32 or float64: nothing can be measured")
        return cls(model, names, np.result_type(*(model[name].dtype for name in names)))

    def flat(self, arrays: Mapping[str, npt.ArrayLike]) -> npt.NDArray[Any]:
        """The arrays in one vector; zeros for those that are missing."""
        parts = []
        for name in self.names:
            here = self.model[name]
            part = np.zeros(here.shape, self.dtype) if name not in arrays else np.asarray(arrays[name])
            if part.shape != here.shape:
                raise InvalidProblemError(
                    f"the gradient of array {name!r} has shape {part.shape}: must have {here.shape}"
                )
            parts.append(part.astype(self.dtype).ravel())
        return np.concatenate(parts)

    def unflat(self, vector: npt.NDArray[Any]) -> Model:
        """The model with the arrays that a vector holds."""
        sizes = [self.model[name].size for name in self.names]
        pieces = np.split(vector, np.cumsum(sizes)[:-1])
        held = {
            name: piece.reshape(self.model[name].shape).astype(self.model[name].dtype)
            for name, piece in zip(self.names, pieces, strict=True)
        }
        return self.model | held


def answer_measurements(
    app: ClientApp,
    gradient: ModelGradient,
    data: Callable[[Context], Any],
    device: Callable[[Context], int],
) -> None:
    """Let an app answer the exchanges of a measurement.

    Flower starts a process for every message, so what has been found so far lies in the node's own state
    (``context.state``) until the last exchange: a vector as long as the model for each direction.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
    gradient : callable
        ``gradient(model, rows) -> (loss, gradient)``: the mean loss over some rows at a dictionary of numpy
        arrays, and its derivative as such a dictionary; arrays that it leaves out are not trained. The same
        for the same arguments: without dropout, and with batch normalisation in evaluation mode.
    data : callable
        ``data(context)``: this device's rows, with ``len()`` and indexing by an array of integers, or a tuple
        of arrays.
    device : callable
        ``device(context) -> int``: index of this device in the fleet.
    """

    def answer(message: FlowerMessage, context: Context) -> FlowerMessage:
        asked = unpack_message(message.content)
        kept = context.state.array_records.get(UNDER_WAY, ArrayRecord())
        begun = read_arrays(kept)
        record = message.content.array_records.get(ARRAYS)
        if record is not None:
            model, begun = read_arrays(record), {}
        else:
            held = context.state.array_records.get(f"{UNDER_WAY}-model", ArrayRecord())
            model = read_arrays(held)
        if not model:
            raise InvalidProblemError(f"a {asked.kind} is asked for, and no measurement is under way")
        layout = Layout.of(model)

        def flat_gradient(vector: npt.NDArray[Any], rows: Any) -> tuple[Any, npt.NDArray[Any]]:
            loss, parts = gradient(layout.unflat(vector), rows)
            return loss, layout.flat(parts)

        measure = ClientMeasure(device(context), flat_gradient, data(context))
        measure.resume(begun)
        if record is not None:
            asked = type(asked)(asked.kind, {**asked.values, "parameters": layout.flat(model)})
        found = measure.answer(asked)
        state = measure.state()
        for name, arrays in ((UNDER_WAY, state), (f"{UNDER_WAY}-model", model if state else {})):
            context.state[name] = ArrayRecord({key: Array(np.asarray(part)) for key, part in arrays.items()})
        return FlowerMessage(pack_message(found), reply_to=message)

    app.query(MEASURE.partition(".")[2])(answer)
