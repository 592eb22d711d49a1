"""Checks of single values and arrays, each with a message that names the field, device and value."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError

T = TypeVar("T")
# Whole numbers beyond this are not all representable as float64, in which costs are computed.
LARGEST_COUNT = 2**53
LARGEST = float(np.finfo(np.float64).max)
# A message shows this many characters of a value at most, and of a longer one its beginning and its end.
SHOWN_CHARACTERS = 160


class _Shortened(reprlib.Repr):
    """Writes a few entries of a collection, and never all digits of a huge integer, which Python refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlong = 4, 40
        self.maxstring = self.maxother = 100

    def repr_int(self, x: int, level: int) -> str:
        digits = int(x.bit_length() * math.log10(2)) + 1
        return repr(x) if digits <= self.maxlong else f"an integer of some {digits} digits"


_SHORTENED = _Shortened()


def shown(value: object) -> str:
    """A value as messages show it: its repr, shortened, whatever was given."""
    text = _SHORTENED.repr(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    half = SHOWN_CHARACTERS // 2 - 2
    return f"{text[:half]}...{text[-half:]}"


def real(
    name: str, value: object, *, minimum: float = -math.inf, strict: bool = False, infinite: bool = False
) -> float:
    """Return `value` as a float if it is a number in the range, else raise InvalidProblemError."""
    valid = _range(minimum, strict, infinite)
    if not _is_number(value):
        raise InvalidProblemError(f"{name} = {shown(value)}: must be {valid}")
    number = _float(value)
    if infinite and math.isinf(number) and value != number:
        raise InvalidProblemError(f"{name} = {shown(value)}: must be {valid}, at most {LARGEST:.2g}")
    admissible = math.isfinite(number) or (infinite and number == math.inf)
    if not admissible or number < minimum or (strict and number == minimum):
        raise InvalidProblemError(f"{name} = {number!r}: must be {valid}")
    return number


def optional_real(
    name: str, value: object, *, minimum: float = -math.inf, strict: bool = False
) -> float | None:
    """Like :func:`real`, and None stays None."""
    return None if value is None else real(name, value, minimum=minimum, strict=strict)


def any_real(name: str, value: object) -> Any:
    """Return `value` if it is a number, which may be infinite or NaN; what float64 holds only so, as that."""
    if type(value) is float or (type(value) is int and -LARGEST_COUNT <= value <= LARGEST_COUNT):
        return value
    if not _is_number(value):
        raise InvalidProblemError(f"{name} = {shown(value)}: must be a number")
    number = _float(value)
    return value if isinstance(value, int | np.integer) and abs(number) <= LARGEST_COUNT else number


def count(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` as an int if it is a whole number of at least `minimum`."""
    number = _float(value) if _is_number(value) else math.nan
    if not number.is_integer() or not minimum <= number <= LARGEST_COUNT:
        raise InvalidProblemError(f"{name} = {shown(value)}: must be {_whole(minimum, number)}")
    return int(number)


def optional_count(name: str, value: object) -> int | None:
    """Like :func:`count`, and None stays None."""
    return None if value is None else count(name, value)


def choice(name: str, value: object, valid: tuple[str, ...]) -> None:
    """Raise InvalidProblemError unless `value` is one of the valid ones."""
    if not isinstance(value, str) or value not in valid:
        raise InvalidProblemError(f"{name} = {shown(value)}: must be one of {', '.join(map(repr, valid))}")


def instance(name: str, value: object, kind: type) -> None:
    """Raise InvalidProblemError unless `value` is an instance of a class of coopt."""
    if not isinstance(value, kind):
        raise InvalidProblemError(
            f"{name} = {shown(value)}: must be a coopt.{kind.__name__}, not {type(value).__name__}"
        )


def is_auto(value: object) -> bool:
    """Whether a value is the word that leaves the choice to coopt; arrays compare entry by entry."""
    return isinstance(value, str) and value == "auto"


def generator(name: str, seed: object) -> np.random.Generator:
    """Return a generator as it is, and a new one for a seed, which is a whole number."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(count(name, seed, minimum=0))


def flag(name: str, value: object) -> bool:
    """Return `value` as a bool if it is one: what is true of any other value is a guess."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidProblemError(f"{name} = {shown(value)}: must be true or false")
    return bool(value)


def entries(name: str, values: Iterable[T]) -> tuple[T, ...]:
    """Return what an iterable yields."""
    if not isinstance(values, Iterable):
        raise InvalidProblemError(f"{name} = {shown(values)}: must be an iterable")
    return tuple(values)


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
    raw = numeric_array(name, values)
    with np.errstate(over="ignore"):
        array = raw.astype(np.float64)
    if raw.dtype.itemsize > array.dtype.itemsize:
        _reject_overflow(name, array, raw)
    # The ends of large arrays take half the time of a mask; what is no number is both ends.
    low, high = array.min(initial=math.inf), array.max(initial=-math.inf)
    within = low > minimum if strict else low >= minimum
    if not (within and low > -math.inf and (infinite or high < math.inf)):
        bad = np.isnan(array) | np.isneginf(array) | ((array <= minimum) if strict else (array < minimum))
        if not infinite:
            bad |= np.isposinf(array)
        _reject_first(name, array, bad, _range(minimum, strict, infinite))
    return _shaped(name, array, size)


def integer_array(name: str, values: ArrayLike, size: int | None, *, minimum: int) -> NDArray[np.int64]:
    """Return a read-only int64 array of shape (size,); with size None the array sets the size."""
    raw = numeric_array(name, values)
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
    return type(left) is type(right) and same_fields(left, right)


def same_fields(left: object, right: object) -> bool:
    """The same, whether or not one is of a class of its own."""
    return is_dataclass(left) and all(
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
    least = f" >= {minimum}" if minimum > -LARGEST_COUNT else ""
    join = " and" if least else ""
    return f"an integer{least}" + (f"{join} <= {LARGEST_COUNT}" if refused > LARGEST_COUNT else "")


def _is_number(value: object) -> bool:
    """Whether a value is a real number; numpy says so of its booleans and spans of time too."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_ | np.timedelta64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def numeric_array(name: str, values: object) -> NDArray[Any]:
    """Return an array of the numbers given, of any shape, and as numpy keeps them."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        # What stands under a mask is no value; numpy would drop the mask and keep it.
        place = ", ".join(str(int(i)) for i in np.argwhere(np.ma.getmaskarray(values))[0])
        raise InvalidProblemError(f"{name}[{place}] is masked: must be a number")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidProblemError(f"{name} is not an array of numbers: {error}") from error
    if array.dtype.kind in "mM":
        raise InvalidProblemError(f"{name} holds {array.dtype}: must hold numbers")
    if array.dtype.kind not in "iuf":
        flat = array.ravel().tolist()
        for i, item in enumerate(flat):
            if isinstance(item, bool) or not isinstance(item, int | float):
                place = name if array.ndim == 0 else f"{name}[{i}]"
                raise InvalidProblemError(f"{place} = {shown(item)}: must be a number")
        # Whole numbers too large for int64 make an array of objects.
        whole = np.array([_float(item) for item in flat]).reshape(array.shape)
        _reject_overflow(name, whole, array)
        return whole
    return array


def _reject_overflow(name: str, array: NDArray[np.float64], raw: NDArray[Any]) -> None:
    """Refuse numbers that are finite, and infinite as float64."""
    beyond = np.isinf(array) & (raw != array)
    if beyond.any():
        _reject_first(name, raw, beyond, f"a number of at most {LARGEST:.2g} in size")


def _reject_first(name: str, array: NDArray[Any], bad: NDArray[np.bool_], valid: str) -> None:
    if array.ndim == 0:
        raise InvalidProblemError(f"{name} = {shown(array.item())}: must be {valid}")
    index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
    place = ", ".join(map(str, index))
    raise InvalidProblemError(f"{name}[{place}] = {shown(array.item(*index))}: must be {valid}")


def _shaped(name: str, array: NDArray[Any], size: int) -> NDArray[Any]:
    if array.ndim == 0:
        return np.broadcast_to(array, (size,))
    if array.shape != (size,):
        raise InvalidProblemError(
            f"{name} has shape {array.shape}: must be a scalar or have shape ({size},), one entry a device"
        )
    array.flags.writeable = False
    return array
