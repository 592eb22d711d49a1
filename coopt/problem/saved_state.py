"""Read saved states: every entry is checked, and what is wrong is named by its place.

A state is numbers, strings, lists and dictionaries, as JSON has them. What may stand in an entry is declared
next to the class that wrote it, as a dictionary from the entry's name to a reader; `table` applies it. A
reader takes the place of a value and the value, and returns it checked or raises InvalidProblemError, so
readers for single numbers are those of `coopt.problem.validation` with their limits filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem import validation
from coopt.problem.validation import shown

T = TypeVar("T")
# Squares of what is smaller are finite, and so are sums of a few: nothing that is measured is as large.
LARGEST_SAVED = 1e150
Reader = Callable[[str, Any], T]


def table(place: str, state: object, readers: Mapping[str, Reader[Any]]) -> dict[str, Any]:
    """Return the entries of a dictionary, each as its reader gives it.

    Parameters
    ----------
    place : str
        How messages name the dictionary.
    state : object
        What should be one.
    readers : mapping of str to callable
        One for each entry: all have to be there, and no other.

    Raises
    ------
    InvalidProblemError
        If an entry is missing, unknown or wrong.

    Examples
    --------
    >>> table("state", {"round": 3, "cost": -1.0}, {"round": whole(), "cost": number(minimum=0.0)})
    Traceback (most recent call last):
    ...
    coopt.InvalidProblemError: state.cost = -1.0: must be a finite number >= 0
    """
    if not isinstance(state, Mapping):
        raise InvalidProblemError(f"{place} = {shown(state)}: must be a dictionary, as state_dict gives it")
    for name in readers:
        if name not in state:
            raise InvalidProblemError(f"{place}.{name} is missing")
    for name in state:
        if name not in readers:
            raise InvalidProblemError(f"{place} has an unknown entry {shown(name)}")
    return {name: read(f"{place}.{name}", state[name]) for name, read in readers.items()}


def anything(place: str, value: object) -> object:
    """Read what is checked elsewhere."""
    return value


def text(place: str, value: object) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise InvalidProblemError(f"{place} = {shown(value)}: must be a string")
    return value


def number(
    *,
    minimum: float = -math.inf,
    strict: bool = False,
    infinite: bool = False,
    nan: bool = False,
    largest: float = LARGEST_SAVED,
) -> Reader[float]:
    """Make a reader of real numbers; with `nan`, of those and NaN, which stands for what is not known."""

    def read(place: str, value: object) -> float:
        if nan and isinstance(value, float) and math.isnan(value):
            return math.nan
        found = validation.real(place, value, minimum=minimum, strict=strict, infinite=infinite)
        fits = abs(found) <= largest or (infinite and math.isinf(found))
        consistent(place, fits, f"nothing that is measured is beyond {largest:g}")
        return found

    return read


def whole(minimum: int = 0, maximum: int = validation.LARGEST_COUNT) -> Reader[int]:
    """Make a reader of whole numbers."""

    def read(place: str, value: object) -> int:
        found = validation.count(place, value, minimum=minimum)
        if found > maximum:
            raise InvalidProblemError(f"{place} = {found}: must be at most {maximum}")
        return found

    return read


def optional(reader: Reader[T]) -> Reader[T | None]:
    """Make a reader that lets None stay None."""
    return lambda place, value: None if value is None else reader(place, value)


def same(expected: object) -> Reader[Any]:
    """Make a reader of one value: what else is there belongs to something made with other arguments."""

    def read(place: str, value: object) -> object:
        if type(value) is not type(expected) or value != expected:
            raise InvalidProblemError(f"{place} = {shown(value)}: this has {shown(expected)}")
        return value

    return read


def listed(reader: Reader[T], most: int | None = None) -> Reader[list[T]]:
    """Make a reader of lists of at most so many entries."""

    def read(place: str, value: object) -> list[T]:
        if not isinstance(value, list | tuple):
            raise InvalidProblemError(f"{place} = {shown(value)}: must be a list")
        if most is not None and len(value) > most:
            raise InvalidProblemError(f"{place} has {len(value)} entries: must have at most {most}")
        return [reader(f"{place}[{i}]", item) for i, item in enumerate(value)]

    return read


def vector(place: str, value: object) -> npt.NDArray[Any]:
    """Read an array of one dimension, of any numbers: what a diverging client measures is not finite."""
    array = validation.numeric_array(place, value)
    if array.ndim != 1:
        raise InvalidProblemError(f"{place} has shape {array.shape}: must have one dimension")
    return np.array(array, dtype=array.dtype if array.dtype.kind == "f" else np.float64)


def numbers(
    shape: tuple[int, ...], *, minimum: float = -math.inf, largest: float = LARGEST_SAVED
) -> Reader[npt.NDArray[np.float64]]:
    """Make a reader of arrays of finite numbers of a shape and size; they come out writeable."""

    def read(place: str, value: object) -> npt.NDArray[np.float64]:
        array = _shaped(place, value, shape)
        flat = validation.float_array(place, array.ravel(), array.size, minimum=minimum)
        consistent(place, np.abs(flat) <= largest, f"nothing that is measured is beyond {largest:g}")
        return np.array(flat).reshape(shape)

    return read


def wholes(shape: tuple[int, ...], *, minimum: int = 0) -> Reader[npt.NDArray[np.int64]]:
    """Make a reader of arrays of whole numbers of a shape; they come out writeable."""

    def read(place: str, value: object) -> npt.NDArray[np.int64]:
        array = _shaped(place, value, shape)
        flat = validation.integer_array(place, array.ravel(), array.size, minimum=minimum)
        return np.array(flat).reshape(shape)

    return read


def _shaped(place: str, value: object, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    array = validation.numeric_array(place, value)
    if array.shape != shape:
        raise InvalidProblemError(f"{place} has shape {array.shape}: must have shape {shape}")
    return array


def consistent(place: str, holds: npt.ArrayLike, law: str) -> None:
    """Raise InvalidProblemError, which names the first entry, where a law between values does not hold."""
    broken = ~np.asarray(holds, dtype=bool)
    if broken.any():
        index = ", ".join(str(int(i)) for i in np.argwhere(broken)[0])
        raise InvalidProblemError(f"{place}{f'[{index}]' if index else ''} contradicts itself: {law}")
