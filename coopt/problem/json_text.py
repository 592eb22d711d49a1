"""JSON text, read from anywhere so that whatever is wrong with it is one kind of error, and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coopt.errors import InvalidProblemError
from coopt.problem.validation import LARGEST, shown

# An exponent of three digits, or more digits than the largest number has.
PERHAPS_INFINITE = re.compile(r"[eE]\+?\d{3}|\d{300}", re.ASCII)


def finite_float(digits: str) -> float:
    """Read the digits of a number; raises ValueError where they are too large to compute with.

    Infinity is a value where it is written as such, and a mistake where digits make it.
    """
    value = float(digits)
    if math.isinf(value) and any(each.isdigit() for each in digits):
        raise ValueError(f"{shown(digits)} is beyond the largest number, {LARGEST:.2g}")
    return value


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
        If it is no text or no JSON, holds something else than an object, is nested too deeply, has an integer
        of more digits than Python reads, or a number such as 1e400 that is written with digits and is
        infinite.
    """
    try:
        value = json.loads(text)
        # To look at each number takes longer than to read it: only where one can be that large.
        if PERHAPS_INFINITE.search(text):
            value = json.loads(text, parse_float=finite_float)
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
    text = _laid_out(content, 0)
    if path is not None:
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidProblemError(f"{path}: cannot be written: {error.strerror}") from error
    return text


def _laid_out(content: Mapping[str, Any], depth: int) -> str:
    """An object with a line an entry; lists, which may be long, each on one line, at the speed of C."""
    if not content:
        return "{}"
    inner, outer = " " * (depth + 1), " " * depth
    lines = (
        f"{inner}{json.dumps(str(name))}: "
        + (_laid_out(value, depth + 1) if isinstance(value, Mapping) else json.dumps(value))
        for name, value in content.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
