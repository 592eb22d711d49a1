"""Fields of a fleet that are more than an array of numbers: weights, names, lists of batch sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.exact_sum import exact_sum
from coopt.problem.validation import float_array, integer_array, shown

WEIGHT_SUM_TOLERANCE = 1e-9


def allowed_sizes(choices: object, size: int) -> tuple[tuple[int, ...], ...]:
    """One ascending tuple of sizes a device, else raise InvalidProblemError."""
    name = "batch_choices"
    if not isinstance(choices, Sequence | np.ndarray) or isinstance(choices, str) or len(choices) == 0:
        raise InvalidProblemError(f"{name} = {choices!r}: must be sizes, or one list of sizes a device")
    nested = [isinstance(each, Sequence | np.ndarray) for each in choices]
    if any(nested) and (not all(nested) or len(choices) != size):
        raise InvalidProblemError(
            f"{name} has {len(choices)} entries: must be sizes, or {size} lists of sizes, one a device"
        )
    if not any(nested):
        found = integer_array(name, np.asarray(choices), None, minimum=1)
        return (tuple(sorted(set(found.tolist()))),) * size
    return tuple(
        tuple(sorted(set(integer_array(f"{name}[{i}]", np.asarray(each), None, minimum=1).tolist())))
        for i, each in enumerate(choices)
    )


def aggregation_weights(weights: ArrayLike | None, samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weights given if they sum to one, else raise InvalidProblemError; default: samples' shares."""
    if weights is None:
        shares: NDArray[np.float64] = samples / float(samples.sum())
        shares.flags.writeable = False
        return shares
    shares = float_array("weights", weights, samples.size, minimum=0.0)
    total = exact_sum(shares)
    if abs(total - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise InvalidProblemError(
            f"weights sum to {total!r}: they must sum to 1 within {WEIGHT_SUM_TOLERANCE:g}; "
            "divide them by their sum, or leave them out for samples / samples.sum()"
        )
    return shares


def device_names(names: object, size: int) -> tuple[str, ...] | None:
    """The names if there is one for each device, else raise InvalidProblemError; None stays None."""
    if names is None:
        return None
    listed = [] if isinstance(names, str | Mapping) or not isinstance(names, Iterable) else list(names)
    if not listed or not all(isinstance(name, str) for name in listed):
        raise InvalidProblemError(f"names = {shown(names)}: must be a sequence of {size} strings")
    if len(listed) != size:
        raise InvalidProblemError(f"names has {len(listed)} entries: must have {size}, as samples has")
    return tuple(map(str, listed))


def device_name(names: Sequence[str] | None, device: int) -> str:
    """What a device is called: its name, or "device 3" where a fleet has no names."""
    return f"device {device}" if names is None else names[device]


def naming_device(message: str, names: object) -> str:
    """A message about ``field[i]``, with the name of that device where it has one."""
    found = re.match(r"\w+\[(\d+)\]", message)
    if found is None or not isinstance(names, Sequence) or isinstance(names, str):
        return message
    place = int(found[1])
    return f"{found[0]} ({names[place]}){message[found.end() :]}" if place < len(names) else message
