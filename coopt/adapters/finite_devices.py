"""A measurement within a run, without the devices that have no finite loss or gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from coopt.measuring.device_gradients import NotFiniteError
from coopt.measuring.measurement import Measurement

Ints = npt.NDArray[np.int64]
Measure = Callable[[Ints], Measurement]


def measure_finite(measure: Measure, rows: Ints) -> tuple[Measurement | None, list[int]]:
    """Measure, again without whoever is not finite: one such device must not keep the others from it.

    Parameters
    ----------
    measure : callable
        Measures with so many rows of each device, shape (N,); 0 leaves a device out.
    rows : numpy.ndarray of int, shape (N,)

    Returns
    -------
    Measurement or None
        None if nobody is left.
    list of int
        The devices that were left out.
    """
    rows, left_out = rows.copy(), list[int]()
    while rows.any():
        try:
            return measure(rows), left_out
        except NotFiniteError as error:
            left_out.append(error.device)
            rows[error.device] = 0
    return None, left_out
