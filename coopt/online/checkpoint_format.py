"""Turn the state of a run into bytes that prove to be whole, and back.

A checkpoint is a NumPy archive that `numpy.load` opens. One member holds everything but the arrays, as JSON;
the arrays are members of their own. The archive ends with a comment, and that with the SHA-256 of every byte
before: one that is flipped, missing or added anywhere is found.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem.json_text import json_object
from coopt.problem.stored_arrays import stored_arrays
from coopt.problem.validation import shown

VERSION = 1
_STATE = "state"
_ARRAY = "array of this archive"
_COMMENT = b"coopt checkpoint, SHA-256 of all before: "
_DIGITS = 64
# Kinds of numbers whose arrays are plain memory.
_KINDS = "biufc"
Arrays = dict[str, npt.NDArray[Any]]


class DamagedError(Exception):
    """The bytes are not those that were written."""


def encode(state: Mapping[str, Any]) -> bytes:
    """Return the bytes of a state of numbers, strings, lists, dictionaries with string keys, and arrays."""
    arrays: Arrays = {}
    text = json.dumps({"version": VERSION, "state": _without_arrays(state, arrays)})
    members = {_STATE: np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **members)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.comment = _COMMENT + b"0" * _DIGITS
    content = archive.getvalue()[:-_DIGITS]
    return content + hashlib.sha256(content).hexdigest().encode()


def digest_of(content: bytes) -> str:
    """Give the checksum at the end of what `encode` returned."""
    return content[-_DIGITS:].decode()


def decode(content: bytes) -> dict[str, Any]:
    """Return the state that `encode` was given; tuples come back as lists.

    Raises
    ------
    DamagedError
        If the bytes are not all those that `encode` returned, or none of its own.
    InvalidProblemError
        If they are, by another version of coopt, or were made to mislead.
    """
    body, digest = content[:-_DIGITS], content[-_DIGITS:]
    if not body.endswith(_COMMENT):
        raise DamagedError("it does not end as a checkpoint does")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise DamagedError("its checksum does not agree with its content")
    try:
        arrays = stored_arrays(content, most=len(content))
        text = arrays.pop(_STATE).tobytes().decode()
    except (ValueError, KeyError) as error:
        raise InvalidProblemError(f"the archive cannot be read: {error}") from error
    whole = json_object(text, "the archive holds no state")
    if whole.get("version") != VERSION:
        raise InvalidProblemError(
            f"version = {shown(whole.get('version'))}: this version of coopt reads {VERSION}"
        )
    state = _with_arrays(whole.get("state"), arrays)
    if not isinstance(state, dict):
        raise InvalidProblemError("the archive holds no state")
    return state


def _without_arrays(value: Any, arrays: Arrays) -> Any:
    """Put a reference in the place of every array; what JSON cannot hold is refused by json.dumps."""
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        name = f"array{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _without_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, arrays) for item in value]
    return value


def _with_arrays(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            found = arrays.get(str(value[_ARRAY]))
            if found is None:
                raise InvalidProblemError(f"the archive lacks the array {shown(value[_ARRAY])}")
            return found
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    return value
