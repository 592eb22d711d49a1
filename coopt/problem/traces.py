"""Speeds and links of devices from measured tables, in the units of such tables.

Logs of phones and the tables that are made of them hold milliseconds a sample and kbit/s; everything else in
coopt is in samples a second and seconds. The two are joined here alone.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError, MeasurementWarning
from coopt.problem.validation import count, float_array, numeric_array, real

Floats = NDArray[np.float64]

BITS = 8.0  # in a byte
# Where more than half of the devices compute a sample in less than a millisecond and more than half of the
# links carry more than 1 Gbit/s, seconds and bit/s were given more likely than a data centre.
SHORT_MS, FAST_KBITS = 1.0, 1e6


def speeds_and_round_times(
    latency: ArrayLike,
    links: ArrayLike,
    model_bytes: float,
    devices: int | None,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Throughput [samples / s] and round time [s] of each device; see :meth:`coopt.Fleet.from_traces`."""
    size = real("model_bytes", model_bytes, minimum=0.0)
    milliseconds = _positive("latency", latency, "(n,), in milliseconds a sample")
    speeds = _positive("links", links, "(n,), or (n, 2) for download and upload, in kbit/s", (2,))
    if np.median(milliseconds) < SHORT_MS and np.median(speeds) > FAST_KBITS:
        warnings.warn(
            "latency is read as milliseconds a sample and links as kbit/s: half of the devices would compute "
            f"{1000 / np.median(milliseconds):,.0f} samples a second and more, and half of the links carry "
            f"{np.median(speeds) / 1e6:,.3g} Gbit/s and more; multiply seconds by 1000, divide bit/s by 1000",
            MeasurementWarning,
            stacklevel=3,
        )
    if devices is not None:
        number = count("devices", devices)
        milliseconds = milliseconds[rng.integers(len(milliseconds), size=number)]
        speeds = speeds[rng.integers(len(speeds), size=number)]
    elif len(milliseconds) != len(speeds):
        raise InvalidProblemError(
            f"latency has {len(milliseconds)} entries and links {len(speeds)}: give one of each a device, or "
            "the number of devices to draw"
        )
    down, up = (speeds, speeds) if speeds.ndim == 1 else speeds.T
    bits = BITS * size
    return 1000.0 / milliseconds, bits / (1000.0 * down) + bits / (1000.0 * up)


def _positive(name: str, values: ArrayLike, valid: str, columns: tuple[int, ...] = ()) -> Floats:
    """Positive numbers in one dimension, or in so many columns as well."""
    try:
        table = np.asarray(numeric_array(name, values), dtype=np.float64)
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.size == 0 or table.ndim == 0 or table.shape[1:] not in {(), columns}:
        raise InvalidProblemError(f"{name}: must be measured numbers of shape {valid}, at least one")
    flat = float_array(name, table.ravel(), table.size, minimum=0.0, strict=True)
    return flat.reshape(table.shape)
