"""What server and device send each other while they measure, and how it is read safely."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.stored_arrays import stored_arrays
from coopt.problem.validation import count, instance, shown

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
