"""One line and one HTML table for every public object, however many devices it is about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from html import escape
from typing import Any, TypeVar

import numpy as np

from coopt.problem.validation import same_value

Class = TypeVar("Class", bound=type)
# What is shown of an object: a pair of a name and a value, or words that need no name.
Fact = tuple[str, object] | str
# Numbers of an array up to which each is shown, and characters of a text.
LISTED, LONGEST = 6, 60
# Rows of a table in a notebook; what lies beyond is counted.
MOST_ROWS = 20


def readable(cls: Class) -> Class:
    """Give a class a short repr, and the table that notebooks show.

    Both show the fields of a dataclass that differ from their defaults, arrays by their range; or what the
    method ``_shown`` of the class yields, pairs of a name and a value, and words that need no name.
    A class that is a table also shows its first rows.
    """
    for name, method in (("__repr__", text_of), ("_repr_html_", html_of)):
        setattr(cls, name, method)
    return cls


def text_of(thing: Any) -> str:
    """The repr: one line, with numbers to six digits."""
    facts = [fact if isinstance(fact, str) else f"{fact[0]}={short(fact[1])}" for fact in _facts(thing)]
    return f"{type(thing).__name__}({', '.join(facts)})"


def html_of(thing: Any) -> str:
    """The same facts as an HTML table, and the first rows of what is a table."""
    lines = []
    for fact in _facts(thing):
        name, value = (fact, "") if isinstance(fact, str) else (fact[0], short(fact[1]))
        lines.append(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>")
    facts = f"<table><caption>{type(thing).__name__}</caption>{''.join(lines)}</table>"
    first_rows = getattr(thing, "_first_rows", None)
    return facts if first_rows is None else facts + rows_as_html(*first_rows(MOST_ROWS))


def rows_as_html(rows: Sequence[Mapping[str, Any]], total: int) -> str:
    """Some rows as an HTML table that says how many more there are; empty without any."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_cell(value))}</td>' for value in row.values())}</tr>" for row in rows
    )
    more = f"<caption>{len(rows)} of {total:,} rows</caption>" if total > len(rows) else ""
    return f"<table>{more}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def short(value: object) -> str:
    """A value in a few characters."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool | np.bool_ | int | np.integer) or value is None:
        return str(value)
    if isinstance(value, float | np.floating):
        return _number(float(value))
    if isinstance(value, str):
        return repr(value if len(value) <= LONGEST else f"{value[: LONGEST - 3]}...")
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        pairs = (f"{key}: {short(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}" if len(value) <= LISTED else f"{len(value)} entries"
    if isinstance(value, Sequence | AbstractSet):
        listed = len(value) <= LISTED and all(isinstance(each, str | int | float) for each in value)
        return f"({', '.join(map(short, value))})" if listed else f"{len(value)} entries"
    text = repr(value)
    return text if len(text) <= 2 * LONGEST else type(value).__name__


def _facts(thing: Any) -> Iterable[Fact]:
    shown = getattr(thing, "_shown", None)
    if shown is not None:
        return list(shown())
    if not is_dataclass(thing):
        return []
    return [
        (field.name, value)
        for field in fields(thing)
        if field.repr and not _is(value := getattr(thing, field.name), _default(field))
    ]


def _default(field: Any) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is(value: object, default: object) -> bool:
    if isinstance(value, np.ndarray) or default is MISSING:
        return False
    return value is default or value == default or same_value(value, default)


def _number(value: float) -> str:
    return f"{value:.6g}" if not math.isfinite(value) or value != round(value) else f"{value:.10g}"


def _array(values: np.ndarray[Any, Any]) -> str:
    if values.ndim == 0:
        return short(values.item())
    if values.ndim > 1 or values.dtype.kind not in "iufb":
        return f"array of shape {values.shape}"
    if values.size <= LISTED:
        return f"[{', '.join(short(each) for each in values.tolist())}]"
    low, high = short(values.min()), short(values.max())
    return f"{values.size:,} values, " + (f"all {low}" if low == high else f"{low} to {high}")


def _cell(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else short(value)
