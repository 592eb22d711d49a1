"""What a base strategy remembers from round to round, FedAdam's moments for instance.

Flower's strategies have no way to save their state. They keep it in attributes: numbers, arrays, and lists
and dictionaries of arrays. Those are read and written here; what has not changed since the strategy was made
is configuration and is left alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

Arrays = dict[str, npt.NDArray[Any]]
_SCALARS = (bool, int, float, str, type(None))


def dump(strategy: Strategy, initial: dict[str, Any], arrays: Arrays, path: str = "base") -> dict[str, Any]:
    """Describe a strategy's attributes, those of a strategy that it wraps included.

    Parameters
    ----------
    strategy : Strategy
        The base strategy.
    initial : dict
        What `dump` returned when the strategy was made, or an empty dictionary.
    arrays : dict
        Takes the arrays, by path.
    path : str
        Where in `arrays` to begin.

    Returns
    -------
    dict
        Attributes as JSON has them, arrays by their path; without those that are as in `initial`.
    """
    described: dict[str, Any] = {}
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            inner = initial.get(name, {}).get("strategy", {})
            described[name] = {"strategy": dump(value, inner, arrays, f"{path}/{name}")}
            continue
        held: Arrays = {}
        try:
            description = _describe(value, held, f"{path}/{name}")
        except TypeError:  # functions and the like are configuration
            continue
        if held or description != initial.get(name):
            described[name] = description
            arrays |= held
    return described


def load(strategy: Strategy, described: dict[str, Any], arrays: Arrays) -> None:
    """Set the attributes that `dump` described."""
    for name, description in described.items():
        if "strategy" in description:
            load(getattr(strategy, name), description["strategy"], arrays)
        else:
            setattr(strategy, name, _rebuild(description, arrays))


def _describe(value: Any, arrays: Arrays, path: str) -> dict[str, Any]:
    if isinstance(value, _SCALARS):
        return {"scalar": value}
    if isinstance(value, (np.ndarray, np.generic)):
        arrays[path] = np.asarray(value)
        return {"array": path}
    if isinstance(value, ArrayRecord):
        record = {key: array.numpy() for key, array in value.items()}
        return {"record": _describe(record, arrays, path)["dict"]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _describe(item, arrays, f"{path}/{key}") for key, item in value.items()}}
    if isinstance(value, list):
        return {"list": [_describe(item, arrays, f"{path}/{k}") for k, item in enumerate(value)]}
    raise TypeError(f"{path} holds a {type(value).__name__}")


def _rebuild(description: dict[str, Any], arrays: Arrays) -> Any:
    ((kind, value),) = description.items()
    if kind == "scalar":
        return value
    if kind == "array":
        return arrays[value]
    if kind == "list":
        return [_rebuild(item, arrays) for item in value]
    items = {key: _rebuild(item, arrays) for key, item in value.items()}
    return ArrayRecord({key: Array(item) for key, item in items.items()}) if kind == "record" else items
