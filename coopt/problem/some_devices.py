"""The fleet of some of the devices."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.problem.fleet import Fleet


def some_devices(
    fleet: Fleet, places: NDArray[np.integer], *, weights: ArrayLike | None, **others: Any
) -> Fleet:
    """The fleet of the devices at some places.

    Parameters
    ----------
    fleet : Fleet
    places : ndarray of int, shape (m,)
    weights : array_like, shape (m,), or None
        Their weights, which sum to one; None: by their samples.
    **others
        Fields that are others than in the fleet.

    Examples
    --------
    >>> fleet = Fleet([60, 30, 10], gradient_noise=1.0, divergence=0.1, names=["a", "b", "c"])
    >>> some = some_devices(fleet, np.array([0, 1]), weights=None, throughput=5.0)
    >>> some.names, some.weights.round(2), some.throughput
    (('a', 'b'), array([0.67, 0.33]), array([5., 5.]))
    """
    values: dict[str, Any] = {}
    for field in fields(Fleet):
        value = getattr(fleet, field.name)
        if isinstance(value, np.ndarray):
            value = value[places]
        elif isinstance(value, tuple):
            value = tuple(value[i] for i in places.tolist())
        values[field.name] = value
    return Fleet(**(values | others | {"weights": weights}))
