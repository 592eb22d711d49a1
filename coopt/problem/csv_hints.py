"""Why a line of a CSV file is no header or no device, where one of the usual causes shows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
WITH_COMMAS = "save the file with commas, and decimal points"
UNREAD_COMMENT = "is a comment, which is not read: delete the line"
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*", re.ASCII)


def header_hint(cells: Sequence[str], columns: Collection[str]) -> str:
    """What is wrong with a first line, with the remedy; empty where none of the usual causes shows."""
    first = cells[0].strip() if cells else ""
    if not any(cell.strip() for cell in cells):
        return "is blank: the first line must name the columns"
    if is_comment(cells):
        return UNREAD_COMMENT
    if first.startswith("["):
        return "is a table of TOML: the CSV file of the fleet comes first, then the job"
    if first.startswith("{"):
        return "is JSON: a fleet is a CSV file, and its first line names the columns"
    if first.startswith("sep="):
        return "says what separates the cells: delete the line; commas must"
    for separator, name in SEPARATORS.items():
        parts = [part.strip() for part in first.split(separator)]
        if len(parts) > 1 and (len(cells) == 1 or any(part in columns for part in parts)):
            return f"is separated by {name}: {WITH_COMMAS}"
    if not cells[-1].strip():
        return "ends in a comma: delete it, here and in the other lines"
    if not first:
        return "has no name for the first column: delete the column, if it only counts the rows"
    named = any(cell.strip().lower() in columns for cell in cells)
    if not named and any(_is_number(cell) for cell in cells):
        return "holds numbers: a header that names the columns must come first"
    return ""


def row_hint(cells: Sequence[str], width: int) -> str:
    """What is wrong with a line that has another number of cells than the header, or is a comment."""
    if not any(cell.strip() for cell in cells):
        return "is blank: delete the blanks in it" if len(cells) == 1 else "has no values: delete it"
    if is_comment(cells):
        return UNREAD_COMMENT
    for separator, name in SEPARATORS.items():
        if len(cells) < width <= cells[0].count(separator) + 1:
            return f"is separated by {name}: {WITH_COMMAS}"
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return f"ends in a comma after its {width} cells: delete it"
    return ""


def cell_hint(cell: str) -> str:
    """Why a cell is no number, with the remedy; empty where none of the usual causes shows."""
    if "#" in cell:
        return "; comments are not read: delete it"
    if DECIMAL_COMMA.fullmatch(cell):
        return "; write a decimal point, and nothing between thousands"
    for separator, name in list(SEPARATORS.items())[:-1]:
        if separator in cell.strip():
            return f"; the line is separated by {name}: {WITH_COMMAS}"
    return ""


def is_comment(cells: Sequence[str]) -> bool:
    """Whether a line begins as comments do."""
    return cells[0].lstrip().startswith(("#", "//", "%"))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
