"""Data frames in and out, of pandas, polars and pyarrow, all by way of narwhals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from coopt.errors import InvalidProblemError, MissingDependencyError
from coopt.problem.files import FLEET_COLUMNS, FLEET_FIELDS
from coopt.problem.known_names import refuse_unknown
from coopt.problem.validation import choice, shown

BACKENDS = ("pandas", "polars", "pyarrow")
# Lists of sizes fit into a cell of a data frame, not into one of a CSV file.
FRAME_COLUMNS = (*FLEET_COLUMNS, "batch_choices")


def fleet_fields(frame: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a fleet from a data frame, joined with those `given` beside it and aligned by name."""
    nw = _narwhals()
    table = _table(nw, frame)
    _check_columns(table.columns, given)
    fields = {name: table[name].to_list() for name in table.columns}
    if "names" not in fields and "names" not in given:
        index = _index(nw, frame)
        if index is not None:
            fields["names"] = index
    names = fields.get("names", given.get("names"))
    for name, values in fields.items():
        if None in values:
            place = values.index(None)
            device = f" ({names[place]})" if names is not None and name != "names" else ""
            raise InvalidProblemError(f"{name}[{place}]{device} is missing in the frame: must have a value")
    return {**fields, **{name: _aligned(nw, name, values, names) for name, values in given.items()}}


def _table(nw: Any, frame: Any) -> Any:
    """The frame as narwhals sees it, computed if it is a lazy one."""
    try:
        table = nw.from_native(frame)
    except TypeError as error:
        raise InvalidProblemError(
            f"frame = {shown(frame)}: must be a data frame of pandas, polars, pyarrow or another library "
            f"that narwhals knows, not {type(frame).__name__}"
        ) from error
    return table.collect() if isinstance(table, nw.LazyFrame) else table


def _check_columns(columns: Sequence[Any], given: Mapping[str, Any]) -> None:
    where = "columns of the frame"
    refuse_unknown(given, FLEET_FIELDS, "a fleet that is read from a data frame")
    refuse_unknown(columns, FRAME_COLUMNS, where)
    for name in given:
        if name in columns:
            raise InvalidProblemError(f"{name}: given both as a column of the frame and beside it")
    for name in ("samples", "gradient_noise", "divergence"):
        if name not in columns and name not in given:
            raise InvalidProblemError(f"{where}: {shown(name)} is missing")


def _index(nw: Any, native: Any) -> list[str] | None:
    """The index of a pandas object where it holds names; other libraries have none."""
    index = getattr(native, "index", None) if nw.dependencies.is_pandas_like_dataframe(native) else None
    listed = [] if index is None else index.tolist()
    return listed if listed and all(isinstance(name, str) for name in listed) else None


def _aligned(nw: Any, name: str, values: Any, names: Sequence[str] | None) -> Any:
    """Values in the order of the devices, where they come with names of their own."""
    if nw.dependencies.is_pandas_series(values):
        index = values.index.tolist()
        if not index or not all(isinstance(each, str) for each in index):
            return values.to_numpy()
        if len(set(index)) < len(index):
            twice = next(each for each in index if index.count(each) > 1)
            raise InvalidProblemError(f"{name}: the index has {shown(twice)} twice")
        values = dict(zip(index, values.tolist(), strict=True))
    if not isinstance(values, Mapping):
        return values
    if names is None:
        raise InvalidProblemError(f"{name} is by name, and the frame names no devices: add a column 'names'")
    missing = [each for each in names if each not in values]
    unknown = [each for each in values if each not in names]
    if missing or unknown:
        why = (
            f"{shown(missing[0])} is missing" if missing else f"{shown(unknown[0])} is no device of the frame"
        )
        raise InvalidProblemError(f"{name}: {why}")
    return [values[each] for each in names]


def make_frame(columns: Mapping[str, Any], backend: str) -> Any:
    """A data frame of one of the libraries, from columns of equal length."""
    choice("backend", backend, BACKENDS)
    nw = _narwhals()
    if find_spec(backend) is None:
        raise MissingDependencyError(
            f"to_dataframe({backend!r}) needs {backend}, which is not installed: pip install {backend}, or "
            "use to_rows()"
        )
    plain = {name: _uniform(values) for name, values in columns.items()}
    return nw.from_dict(plain, backend=backend).to_native()


def _uniform(values: Iterable[Any]) -> Any:
    """Whole numbers among fractions become fractions: a column has one type."""
    if isinstance(values, np.ndarray):
        return values
    listed = list(values)
    kinds = {type(value) for value in listed} - {type(None)}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in listed]
    return listed


def _narwhals() -> Any:
    if find_spec("narwhals") is None:
        raise MissingDependencyError(
            'data frames need narwhals, which is not installed: pip install "coopt[dataframe]"'
        )
    import narwhals

    return narwhals
