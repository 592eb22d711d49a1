"""Why a line of a CSV file is no header or no device, where one of the usual causes shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def header_hint(cells: Sequence[str], columns: Collection[str]) -> str:
    """What is wrong with a first line, with the remedy; empty where none of the usual causes shows."""
    if not any(cell.strip() for cell in cells):
        return "is blank: the first line must name the columns"
    if is_comment(cells):
        return "is a comment, which is not read: delete the line"
    if cells[0].strip().startswith("["):
        return "is a table of TOML: the CSV file of the fleet comes first, then the job"
    for separator, name in SEPARATORS.items():
        parts = [part.strip() for part in cells[0].split(separator)]
        if len(parts) > 1 and (len(cells) == 1 or any(part in columns for part in parts)):
            return f"is separated by {name}: save the file with commas, and decimal points"
    if not cells[-1].strip():
        return "ends in a comma: delete it, here and in the other lines"
    if all(_is_number(cell) for cell in cells):
        return "holds numbers: a header that names the columns must come first"
    return ""


def row_hint(cells: Sequence[str], width: int) -> str:
    """What is wrong with a line that has another number of cells than the header, or is a comment."""
    if not any(cell.strip() for cell in cells):
        return "is blank: delete the blanks in it"
    if is_comment(cells):
        return "is a comment, which is not read: delete the line"
    for separator, name in SEPARATORS.items():
        if len(cells) < width <= cells[0].count(separator) + 1:
            return f"is separated by {name}: save the file with commas, and decimal points"
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return f"ends in a comma after its {width} cells: delete it"
    return ""


def is_comment(cells: Sequence[str]) -> bool:
    """Whether a line begins as comments do."""
    return cells[0].lstrip().startswith("#")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
