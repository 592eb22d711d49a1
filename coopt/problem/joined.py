"""Two fleets as one: devices that join later."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.problem.fleet import Fleet
from coopt.problem.fleet_fields import device_name
from coopt.problem.some_devices import some_devices
from coopt.problem.validation import real


def joined(fleet: Fleet, newcomers: Fleet, share: float | None = None) -> Fleet:
    """Append the devices of one fleet to those of another.

    Parameters
    ----------
    fleet, newcomers : Fleet
        The first keep their places.
    share : float, optional
        Weight of all newcomers together, between 0 and 1; default: their share of all samples.

    Raises
    ------
    InvalidProblemError
        If one of them draws batches with replacement and the other does not, or only one has a list of
        allowed batches, or `share` is out of range.
    """
    both = fleet, newcomers
    held = [float(each.samples.sum()) for each in both]
    part = held[1] / sum(held) if share is None else real("share", share, minimum=0.0)
    if part > 1:
        raise InvalidProblemError(f"share = {part!r}: must be <= 1, the weight of all newcomers together")
    values: dict[str, Any] = {}
    for field in fields(Fleet):
        one, other = getattr(fleet, field.name), getattr(newcomers, field.name)
        if field.name == "weights":
            shares = np.concatenate([(1 - part) * one, part * other])
            values[field.name] = None if share is None and all(map(_by_samples, both)) else shares
        elif one is None and other is None:
            values[field.name] = None
        elif field.name == "names":
            first, more = len(fleet), len(newcomers)
            values[field.name] = (
                *(device_name(one, i) for i in range(first)),
                *(other or (device_name(None, first + i) for i in range(more))),
            )
        elif field.name == "micro_batch":
            # None holds any batch at once.
            sizes = [each.max_batch if each.micro_batch is None else each.micro_batch for each in both]
            values[field.name] = np.concatenate(sizes)
        elif one is None or other is None or isinstance(one, bool):
            if one is not other:
                raise InvalidProblemError(
                    f"{field.name} of the newcomers is {other!r}, the fleet has {one!r}"
                )
            values[field.name] = one
        elif isinstance(one, tuple):
            values[field.name] = one + other
        else:
            values[field.name] = np.concatenate([one, other])
    return Fleet(**values)


def parted(fleet: Fleet, first: int) -> tuple[Fleet, Fleet]:
    """The first devices of a fleet, and the others, as `joined` puts them together.

    Raises
    ------
    InvalidProblemError
        If one of the two has no weight.
    """
    parts = []
    for places in np.split(np.arange(len(fleet)), [first]):
        weights = fleet.weights[places]
        total = float(weights.sum())
        if total == 0:
            raise InvalidProblemError(f"weights are 0 up to device {first}, or from it on")
        parts.append(some_devices(fleet, places, weights=None if _by_samples(fleet) else weights / total))
    return parts[0], parts[1]


def _by_samples(fleet: Fleet) -> bool:
    return bool(np.array_equal(fleet.weights, fleet.samples / float(fleet.samples.sum())))
