"""Fleets as CSV and problems as TOML, read strictly and written so that they read back equal."""

from __future__ import annotations

import csv
import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.csv_hints import UNREAD_COMMENT, cell_hint, header_hint, is_comment, row_hint
from coopt.problem.fleet import Fleet
from coopt.problem.json_text import finite_float
from coopt.problem.known_names import refuse_unknown
from coopt.problem.problem import Problem
from coopt.problem.units import with_units
from coopt.problem.validation import LARGEST, shown

FLEET_FIELDS = tuple(field.name for field in fields(Fleet))
FLEET_COLUMNS = tuple(name for name in FLEET_FIELDS if name not in ("replacement", "batch_choices"))
# What nobody knows by heart.
MEASURED = dict.fromkeys(
    ("gradient_noise", "divergence"),
    ": coopt.measure finds it on your model and data, and `coopt measure` in recorded client reports",
)
ROWS_AT_ONCE = 1 << 15
# Cells of plain numbers side by side; what it takes and float or int refuse is read cell by cell.
PLAIN = re.compile(r"[0-9.eE+\- ]*")
LONGEST_PLAIN = 18
NUMBER = re.compile(
    r"\s*[+-]?((?P<digits>\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)\s*", re.ASCII | re.IGNORECASE
)
# Strings and comments of TOML that end in their line, and keys of more than a hundred words in the rest.
QUOTED = re.compile(r"""\"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?|\#[^\n]*+""")
DOTTED = re.compile(r"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){101}")
SECTIONS = {"constants": Constants, "budget": Budget}


def fleet_columns(file: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a fleet from a CSV file, joined with the fields `given` beside it."""
    path = _path(file)
    refuse_unknown(given, FLEET_FIELDS, f"a fleet that is read from {path.name}")
    # Names may hold line breaks: the reader, not the text, says where a row ends.
    try:
        with _opened(path) as stream:
            rows = csv.reader(stream)
            first = next(rows, None)
            if first is None:
                raise InvalidProblemError(f"{path}: is empty: the first line must name the columns")
            header = _header(first, path, given)
            columns = _read_rows(rows, header, path)
    except csv.Error as error:
        raise InvalidProblemError(f"{path.name}: is not valid CSV: {error}") from error
    if not len(columns[header[0]]):
        raise InvalidProblemError(
            f"{path.name}: holds its header alone: must have at least one device, a line each"
        )
    _require_own_names(columns.get("names", []), path)
    return {**columns, **given}


def _require_own_names(names: list[str], path: Path) -> None:
    """Raise InvalidProblemError at a name that two devices have."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if first.setdefault(name, place) != place:
            raise InvalidProblemError(
                f"{path.name}: names = {shown(name)}: is the name of devices {first[name]} and {place}: "
                "each must have its own"
            )


def _read_rows(rows: Iterator[list[str]], header: list[str], path: Path) -> dict[str, Any]:
    """The columns below a header, in blocks: a table of a million devices takes little more than its text."""
    parts: dict[str, list[Any]] = {name: [] for name in header}
    line = 2
    while block := list(islice(rows, ROWS_AT_ONCE)):
        read = _plain_block(block, header) or _any_block(block, header, path, line)
        for name, values in read.items():
            parts[name].append(values)
        line += len(block)
    return {name: _joined(each) for name, each in parts.items()}


def _plain_block(block: list[list[str]], header: list[str]) -> dict[str, Any] | None:
    """The columns of rows whose numbers are written plainly, or None: as fast as the cells can be scanned."""
    if set(map(len, block)) != {len(header)}:
        return None
    columns: dict[str, Any] = {}
    for name, cells in zip(header, zip(*block, strict=True), strict=True):
        if name == "names":
            columns[name] = list(cells)
            continue
        joined = " ".join(cells)
        # What is longer may be a whole number that no machine word holds.
        if PLAIN.fullmatch(joined) is None or max(map(len, cells)) > LONGEST_PLAIN:
            return None
        try:
            kind = float if set(joined) & set(".eE") else int
            columns[name] = np.array(list(map(kind, cells)))
        except ValueError:
            return None
        if not np.isfinite(columns[name]).all():
            return None
    return columns


def _any_block(
    block: list[list[str]], header: list[str], path: Path, first: int
) -> dict[str, list[str] | list[float]]:
    """The columns of rows, cell by cell, with the line of what is wrong; empty lines are left out."""
    columns: dict[str, list[Any]] = {name: [] for name in header}
    for line, row in enumerate(block, start=first):
        if not row:
            continue
        # A device may be named "#1", and be the first cell.
        comment = is_comment(row) and header[0] != "names"
        if len(row) != len(header) or comment or not any(cell.strip() for cell in row):
            why = row_hint(row, len(header)) or f"{len(row)} cells: must be {len(header)}, as the header has"
            raise InvalidProblemError(f"{path.name}, line {line}: {why}")
        for name, cell in zip(header, row, strict=True):
            number = cell if name == "names" else _number(cell)
            if number is None:
                wrong = f"{name} = {shown(cell)}: must be a number{cell_hint(cell)}"
                why = UNREAD_COMMENT if is_comment(row) else wrong
                raise InvalidProblemError(f"{path.name}, line {line}: {why}")
            columns[name].append(number)
    return columns


def _joined(parts: list[Any]) -> Any:
    """One column from its blocks; a list where one of them is."""
    if parts and all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]


def _header(cells: list[str], path: Path, given: Mapping[str, Any]) -> list[str]:
    """The columns that the first line names, if they and the fields given make a fleet."""
    if hint := header_hint(cells, FLEET_COLUMNS):
        raise InvalidProblemError(f"{path.name}, line 1: {hint}")
    header = [name.strip() for name in cells]
    refuse_unknown(header, FLEET_COLUMNS, f"{path.name}, line 1")
    for name in header:
        if header.count(name) > 1:
            raise InvalidProblemError(f"{path.name}, line 1: column {shown(name)} stands there twice")
        if name in given:
            raise InvalidProblemError(f"{name}: given both as a column of {path.name} and beside it")
    for name in ("samples", "gradient_noise", "divergence"):
        if name not in header and name not in given:
            raise InvalidProblemError(
                f"{path.name}, line 1: column {shown(name)} is missing{MEASURED.get(name, '')}"
            )
    return header


def write_fleet_csv(fleet: Fleet, path: Path) -> None:
    """Write every column of a fleet; see :meth:`Fleet.to_csv`."""
    if fleet.batch_choices is not None:
        raise InvalidProblemError(
            "batch_choices is not a column: write the whole problem with Problem.to_toml instead"
        )
    table = frame_columns(fleet)
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(",".join(table) + "\n")
        # Strings are quoted always: the default leaves a lone carriage return unquoted.
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerows(zip(*table.values(), strict=True))


def frame_columns(fleet: Fleet) -> dict[str, Any]:
    """The columns of a table with one row a device."""
    if not fleet.replacement:
        raise InvalidProblemError(
            "replacement = false is not a column: write the whole problem with Problem.to_toml instead"
        )
    table = _fleet_table(fleet)
    del table["replacement"]
    return table


def read_problem(file: str | Path, fleet: Fleet | None = None) -> tuple[Fleet, Constants, Budget]:
    """Read the parts of a problem from TOML; with `fleet` given, the file holds the other two."""
    path = _path(file)
    text = read_text(path)
    # Time and memory of the parser grow with the square of this number.
    if DOTTED.search(QUOTED.sub("s", text)):
        raise InvalidProblemError(f"{path}: is nested too deeply: a key has more than a hundred dots")
    try:
        document = tomllib.loads(text, parse_float=finite_float)
    except ValueError as error:
        raise InvalidProblemError(f"{path}: is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InvalidProblemError(f"{path}: is nested too deeply") from error
    return _problem_parts(document, path.parent, path.name, fleet)


def write_problem(problem: Problem, path: Path) -> None:
    """Write a problem as one TOML file; see :meth:`Problem.to_toml`."""
    import tomli_w

    path.write_text(tomli_w.dumps(problem_to_dict(problem)), encoding="utf-8")


def job_text(problem: Problem) -> str:
    """The constants and the budget of a problem as TOML, for a job whose fleet is a CSV file."""
    import tomli_w

    tables = problem_to_dict(problem)
    return tomli_w.dumps({name: tables[name] for name in SECTIONS})


def problem_to_dict(problem: Problem) -> dict[str, dict[str, Any]]:
    """A problem as plain tables of numbers, lists and strings; fields that are None are left out."""
    sections = {
        name: {
            field.name: value
            for field in fields(part)
            if (value := getattr(getattr(problem, name), field.name)) is not None
        }
        for name, part in SECTIONS.items()
    }
    return {"fleet": _fleet_table(problem.fleet), **sections}


def problem_from_dict(tables: Mapping[str, Any]) -> Problem:
    """The inverse of :func:`problem_to_dict`; no file that the tables name is opened."""
    return Problem(*_problem_parts(tables, None, "problem", None))


def _fleet_table(fleet: Fleet) -> dict[str, Any]:
    table: dict[str, Any] = {}
    # Names first: a person reads the file by them.
    for name in sorted(FLEET_FIELDS, key=lambda name: name != "names"):
        value = getattr(fleet, name)
        if isinstance(value, np.ndarray):
            table[name] = value.tolist()
        elif value is not None:
            table[name] = _listed(value) if isinstance(value, tuple) else value
    return table


def _listed(value: tuple[Any, ...]) -> list[Any]:
    return [list(each) if isinstance(each, tuple) else each for each in value]


def _problem_parts(
    document: Any, folder: Path | None, source: str, fleet: Fleet | None
) -> tuple[Fleet, Constants, Budget]:
    if not isinstance(document, Mapping):
        raise InvalidProblemError(f"{source} = {shown(document)}: must be a table")
    sections = (*SECTIONS, *(("fleet",) if fleet is None else ()))
    for name, part in SECTIONS.items():
        for field in fields(part):
            if field.name in document:
                raise InvalidProblemError(
                    f"{source}: {field.name} stands above the tables: must be in [{name}]"
                )
    refuse_unknown(document, sections, source)
    for name in sections:
        if name not in document:
            hint = "; the fleet of a CSV file is Fleet.from_csv, given beside it" if name == "fleet" else ""
            raise InvalidProblemError(f"{source}: table [{name}] is missing{hint}")
    if fleet is None:
        fleet = _fleet_from(document["fleet"], folder, source)
    built = []
    for name, part in SECTIONS.items():
        table = document[name]
        if not isinstance(table, Mapping):
            raise InvalidProblemError(f"{source}: {name} = {shown(table)}: must be a table")
        refuse_unknown(table, (field.name for field in fields(part)), f"[{name}] of {source}")
        table = with_units(table, fleet) if part is Budget else table
        built.append(_build(part, table, f"[{name}] of {source}"))
    constants, budget = built
    return fleet, constants, budget


def _fleet_from(entry: Any, folder: Path | None, source: str) -> Fleet:
    """The fleet that an entry describes; it may name a CSV file only where a folder is given."""
    if isinstance(entry, str):
        entry = {"csv": entry}
    if not isinstance(entry, Mapping):
        valid = "a table" if folder is None else "a table or the path of a CSV file"
        raise InvalidProblemError(f"{source}: fleet = {shown(entry)}: must be {valid}")
    given = dict(entry)
    refuse_unknown(given, (*FLEET_FIELDS, "csv"), f"[fleet] of {source}")
    path = given.pop("csv", None)
    if path is None:
        fleet: Fleet = _build(Fleet, given, f"[fleet] of {source}")
        return fleet
    if folder is None:
        raise InvalidProblemError(
            f"[fleet] of {source}: csv = {shown(path)}: must be a table of fields: only TOML files may name "
            "other files, and none is opened here"
        )
    if not isinstance(path, str):
        raise InvalidProblemError(f"[fleet] of {source}: csv = {shown(path)}: must be the path of a CSV file")
    return Fleet.from_csv(folder / path, **given)


def _build(part: Any, table: Mapping[str, Any], where: str) -> Any:
    needed = inspect.signature(part).parameters.values()
    missing = [each.name for each in needed if each.default is each.empty and each.name not in table]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        hint = (
            ""
            if part is Fleet
            else "; `coopt measure` and coopt.measure find them, or guess them to begin with"
        )
        raise InvalidProblemError(f"{where}: {' and '.join(map(repr, missing))} {verb} missing{hint}")
    try:
        return part(**table)
    except InvalidProblemError as error:
        raise InvalidProblemError(f"{where}: {error}") from error


def _number(cell: str) -> int | float | None:
    """The number in a cell; None if it holds none."""
    # Python's int and float also read "1_000" and the digits of other scripts; tables mean neither.
    found = NUMBER.fullmatch(cell)
    for kind in (int, float):
        if found is None:
            break
        try:
            number = kind(cell)
        except ValueError:
            continue
        # Digits of more than floats hold are beyond what can be computed with.
        if not found["digits"] or abs(number) <= LARGEST:
            return number
    return None


def _path(file: object) -> Path:
    if not isinstance(file, str | Path):
        raise InvalidProblemError(f"path = {shown(file)}: must be the path of a file")
    return Path(file)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a text, whatever goes wrong with which is named."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield stream
    except InvalidProblemError:
        raise
    except OSError as error:
        raise InvalidProblemError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidProblemError(f"{path}: cannot be read: save it as UTF-8 ({error})") from error
    except ValueError as error:
        raise InvalidProblemError(f"{path}: cannot be read: {error}") from error


def read_text(path: Path) -> str:
    """The text of a file; InvalidProblemError says why there is none."""
    with _opened(path) as stream:
        return stream.read()
