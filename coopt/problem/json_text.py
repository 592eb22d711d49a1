"""JSON text, read from anywhere so that whatever is wrong with it is one kind of error, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coopt.errors import InvalidProblemError


def json_object(text: str, refusal: str) -> dict[str, Any]:
    """Return the object that a JSON text holds.

    Parameters
    ----------
    text : str
    refusal : str
        How the message begins if it holds none, such as "not an allocation".

    Raises
    ------
    InvalidProblemError
        If it is no text or no JSON, holds something else than an object, is nested too deeply, or has an
        integer of more digits than Python reads.
    """
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise InvalidProblemError(f"{refusal}: {error}") from error
    except RecursionError as error:
        raise InvalidProblemError(f"{refusal}: the JSON text is nested too deeply") from error
    if not isinstance(value, dict):
        raise InvalidProblemError(f"{refusal}: the JSON text must hold an object")
    return value


def write_json(content: Mapping[str, Any], path: str | Path | None) -> str:
    """Return an object as JSON text (infinities as in Python's json), written to `path` if given.

    Raises
    ------
    InvalidProblemError
        If the file cannot be written.
    """
    text = json.dumps(content, indent=1)
    if path is not None:
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidProblemError(f"{path}: cannot be written: {error.strerror}") from error
    return text
