"""One array of a measurement, checked: of the right shape, finite, and never written again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError


def checked_array(name: str, values: Any, kind: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """The values as a read-only array of a shape, all finite."""
    try:
        array: NDArray[Any] = np.array(values, dtype=kind)
    except (TypeError, ValueError) as error:
        raise InvalidProblemError(f"{name} of a measurement holds no numbers: {error}") from error
    if array.shape != shape:
        raise InvalidProblemError(f"{name} of a measurement has shape {array.shape}: must have {shape}")
    if not np.isfinite(array).all():
        device = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InvalidProblemError(f"{name} of a measurement is not finite at device {device}")
    array.flags.writeable = False
    return array
