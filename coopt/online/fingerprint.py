"""What makes a run the run that it is, so that no run goes on from the file of another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem.validation import shown

Fingerprint = dict[str, Any]
# So many hexadecimal digits of a SHA-256 tell arrays apart.
DIGITS = 16


def fingerprint(**parts: Any) -> Fingerprint:
    """Describe values by entries that JSON holds: fields of data classes by their names, arrays by a digest.

    Functions, models and the like count by what they are called.

    Examples
    --------
    >>> from coopt import Budget
    >>> fingerprint(budget=Budget(cost=10))["budget.cost"]
    10.0
    """
    entries: Fingerprint = {}
    for name, value in parts.items():
        _describe(name, value, entries)
    return entries


def digest(array: npt.NDArray[Any]) -> str:
    """Tell an array from others by its type, its shape and a digest of its content."""
    content = np.ascontiguousarray(array)
    code = hashlib.sha256(content.view(np.uint8).data if content.size else b"").hexdigest()[:DIGITS]
    return f"{array.dtype} {array.shape} {code}"


def differences(
    saved: object, present: Fingerprint, *, what: str, may_differ: Collection[str] = ()
) -> list[str]:
    """Compare a run with the one that was saved.

    Parameters
    ----------
    saved : object
        The fingerprint in the file.
    present : dict
        That of the run that wants to go on from it.
    what : str
        How a message names the file.
    may_differ : collection of str
        Entries that may be others without making it another run.

    Returns
    -------
    list of str
        A sentence on each entry that does differ and may.

    Raises
    ------
    InvalidProblemError
        If another one differs: the message names it.
    """
    if not isinstance(saved, Mapping):
        raise InvalidProblemError(f"{what} has no fingerprint: it does not say which run it is of")
    allowed = []
    for name in [*present, *(name for name in saved if name not in present)]:
        before, now = saved.get(name, "nothing"), present.get(name, "nothing")
        if _alike(before, now):
            continue
        if name not in may_differ:
            raise InvalidProblemError(
                f"{what} is of another run, with {shown(name)} = {shown(before)} instead of {shown(now)}: "
                "delete it, or give another path"
            )
        allowed.append(f"{name} was {shown(before)}, and is {shown(now)} from here on")
    return allowed


def same_run(
    state: object, version: int, present: Fingerprint, *, may_differ: Collection[str] = ()
) -> list[str]:
    """Check that a planner's state is of this version and run; see `differences`."""
    if not isinstance(state, Mapping):
        raise InvalidProblemError(f"state = {shown(state)}: must be what state_dict returned")
    if state.get("version") != version:
        raise InvalidProblemError(
            f"state.version = {shown(state.get('version'))}: this version of coopt reads {version}"
        )
    return differences(state.get("fingerprint"), present, what="state", may_differ=may_differ)


def _describe(name: str, value: Any, entries: Fingerprint) -> None:
    if value is None or isinstance(value, bool | int | float | str):
        entries[name] = value
    elif isinstance(value, np.generic):
        entries[name] = value.item()
    elif isinstance(value, np.ndarray):
        entries[name] = digest(value)
    elif is_dataclass(value) and not isinstance(value, type):
        entries[name] = type(value).__name__
        for field in fields(value):
            _describe(f"{name}.{field.name}", getattr(value, field.name), entries)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _describe(f"{name}.{key}", item, entries)
    elif isinstance(value, list | tuple) and value and all(map(is_dataclass, value)):
        for place, item in enumerate(value):
            _describe(f"{name}[{place}]", item, entries)
    elif isinstance(value, list | tuple):
        parts: Fingerprint = {}
        for place, item in enumerate(value):
            _describe(str(place), item, parts)
        text = repr(sorted(parts.items())).encode()
        entries[name] = f"{len(value)} entries {hashlib.sha256(text).hexdigest()[:DIGITS]}"
    else:
        kind = value if hasattr(value, "__qualname__") else type(value)
        entries[name] = f"{kind.__module__}.{kind.__qualname__}"


def _alike(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and bool(left == right)
