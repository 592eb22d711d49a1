"""Checks of single values and arrays, each with a message that names the field, device and value."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError

# Whole numbers beyond this are not all representable as float64, in which costs are computed.
LARGEST_COUNT = 2**53


def real(
    name: str, value: object, *, minimum: float = -math.inf, strict: bool = False, infinite: bool = False
) -> float:
    """Return `value` as a float if it is a number in the range, else raise InvalidProblemError."""
    valid = _range(minimum, strict, infinite)
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise InvalidProblemError(f"{name} = {value!r}: must be {valid}")
    number = _float(value)
    admissible = math.isfinite(number) or (infinite and number == math.inf)
    if not admissible or number < minimum or (strict and number == minimum):
        raise InvalidProblemError(f"{name} = {number!r}: must be {valid}")
    return number


def optional_real(
    name: str, value: object, *, minimum: float = -math.inf, strict: bool = False
) -> float | None:
    """Like :func:`real`, and None stays None."""
    return None if value is None else real(name, value, minimum=minimum, strict=strict)


def count(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` as an int if it is a whole number of at least `minimum`."""
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else _float(value)
    if not number.is_integer() or not minimum <= number <= LARGEST_COUNT:
        raise InvalidProblemError(f"{name} = {value!r}: must be {_whole(minimum, number)}")
    return int(number)


def optional_count(name: str, value: object) -> int | None:
    """Like :func:`count`, and None stays None."""
    return None if value is None else count(name, value)


def choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise InvalidProblemError unless `value` is one of the valid ones."""
    if value not in valid:
        raise InvalidProblemError(f"{name} = {value!r}: must be one of {', '.join(map(repr, valid))}")


def float_array(
    name: str,
    values: ArrayLike,
    size: int,
    *,
    minimum: float,
    strict: bool = False,
    infinite: bool = False,
) -> NDArray[np.float64]:
    """Return a read-only float64 array of shape (size,), copied once; a scalar is broadcast."""
    array = _numeric(name, values).astype(np.float64)
    # The ends of large arrays take half the time of a mask; what is no number is both ends.
    low, high = array.min(initial=math.inf), array.max(initial=-math.inf)
    if not ((low > minimum if strict else low >= minimum) and (infinite or high < math.inf)):
        bad = np.isnan(array) | ((array <= minimum) if strict else (array < minimum))
        if not infinite:
            bad |= np.isposinf(array)
        _reject_first(name, array, bad, _range(minimum, strict, infinite))
    return _shaped(name, array, size)


def integer_array(name: str, values: ArrayLike, size: int | None, *, minimum: int) -> NDArray[np.int64]:
    """Return a read-only int64 array of shape (size,); with size None the array sets the size."""
    raw = _numeric(name, values)
    fractional = raw.dtype.kind == "f"
    low, high = (raw.min(), raw.max()) if raw.size else (minimum, minimum)
    if not (low >= minimum and high <= LARGEST_COUNT) or (fractional and (raw != np.floor(raw)).any()):
        bad = ~((raw >= minimum) & (raw <= LARGEST_COUNT))
        if fractional:
            bad |= raw != np.floor(raw)
        _reject_first(name, raw, bad, _whole(minimum, float(raw.flat[int(bad.argmax())])))
    array = raw.astype(np.int64)
    if size is None:
        if array.ndim != 1 or array.size == 0:
            raise InvalidProblemError(
                f"{name} has shape {array.shape}: must be one-dimensional with one entry a device, "
                "and at least one device"
            )
        size = array.size
    return _shaped(name, array, size)


def same_value(left: object, right: object) -> bool:
    """Equality of two dataclass instances field by field, arrays included."""
    if type(left) is not type(right) or not is_dataclass(left):
        return False
    return all(
        _equal(getattr(left, field.name), getattr(right, field.name))
        for field in fields(left)
        if field.compare
    )


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return bool(np.array_equal(left, right))
    return bool(left == right)


def _range(minimum: float, strict: bool, infinite: bool) -> str:
    kind = "a number" if infinite else "a finite number"
    if minimum == -math.inf:
        return kind
    return f"{kind} {'>' if strict else '>='} {minimum:g}"


def _whole(minimum: int, refused: float) -> str:
    """What whole numbers are valid; the largest is named where the refused one is beyond it."""
    return f"an integer >= {minimum}" + (f" and <= {LARGEST_COUNT}" if refused > LARGEST_COUNT else "")


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _numeric(name: str, values: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InvalidProblemError(f"{name} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "iuf":
        flat = array.ravel()
        for i, item in enumerate(flat.tolist()):
            if isinstance(item, bool) or not isinstance(item, int | float):
                place = name if array.ndim == 0 else f"{name}[{i}]"
                raise InvalidProblemError(f"{place} = {item!r}: must be a number")
        # Whole numbers too large for int64 make an array of objects.
        return np.array([_float(item) for item in flat.tolist()]).reshape(array.shape)
    return array


def _reject_first(name: str, array: NDArray[Any], bad: NDArray[np.bool_], valid: str) -> None:
    if array.ndim == 0:
        raise InvalidProblemError(f"{name} = {array.item()!r}: must be {valid}")
    index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
    place = ", ".join(map(str, index))
    raise InvalidProblemError(f"{name}[{place}] = {array[index].item()!r}: must be {valid}")


def _shaped(name: str, array: NDArray[Any], size: int) -> NDArray[Any]:
    if array.ndim == 0:
        return np.broadcast_to(array, (size,))
    if array.shape != (size,):
        raise InvalidProblemError(
            f"{name} has shape {array.shape}: must be a scalar or have shape ({size},), one entry a device"
        )
    array.flags.writeable = False
    return array
