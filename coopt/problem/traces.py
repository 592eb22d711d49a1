"""Speeds and links drawn from measured tables, for fleets of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.validation import float_array, generator, numeric_array, real

BITS = 8.0


def drawn(
    latency: ArrayLike,
    links: ArrayLike,
    model_bytes: float,
    devices: int,
    seed: int | np.random.Generator,
) -> dict[str, Any]:
    """Throughput and round time of `devices` devices; see :meth:`coopt.Fleet.from_traces`."""
    rng = generator("seed", seed)
    size = real("model_bytes", model_bytes, minimum=0.0)
    measured, table = _positive("latency", latency), _positive("links", links)
    seconds = measured[rng.integers(len(measured), size=devices)]
    speeds = table[rng.integers(len(table), size=devices)]
    down, up = (speeds, speeds) if speeds.ndim == 1 else speeds.T
    return {"throughput": 1.0 / seconds, "round_time": size * BITS * (1.0 / down + 1.0 / up)}


def _positive(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        table = np.asarray(numeric_array(name, values), dtype=np.float64)
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.size == 0 or not (table.ndim == 1 or (name == "links" and table.shape[1:] == (2,))):
        shape = "(n,), or (n, 2) for download and upload" if name == "links" else "(n,)"
        raise InvalidProblemError(f"{name}: must be measured numbers of shape {shape}, at least one")
    flat = float_array(name, table.ravel(), table.size, minimum=0.0, strict=True)
    return flat.reshape(table.shape)
