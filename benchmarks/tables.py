"""Tables of results as CSV and markdown, and their pictures, side by side in a folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def text(value: Any) -> str:
    """Format a number to three significant digits, anything else as it is."""
    if value is None:
        return "-"
    if isinstance(value, float):
        if value != value:
            return "-"
        return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"
    return str(value).replace("|", r"\|")


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a markdown table; the keys of the first are the columns."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(text(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(path: Path, rows: Iterable[Row], *, digits: int | None = None) -> None:
    """Write rows as CSV; the keys of the first are the columns. `digits`: significant ones of every float."""
    found = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(found[0]), lineterminator="\n")
        writer.writeheader()
        for row in found:
            writer.writerow(row if digits is None else {key: rounded(row[key], digits) for key in row})


def rounded(value: Any, digits: int) -> Any:
    """A float as text of so many digits, anything else as it is."""
    return f"{value:.{digits}g}" if isinstance(value, float) else value


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, as text."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@contextmanager
def growing(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """A function that adds a row: each is on disk before the next is measured, so that a run can go on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        if not begun:
            writer.writeheader()

        def add(row: Row) -> None:
            writer.writerow(row)
            stream.flush()

        yield add


def save(name: str, rows: Sequence[Row], folder: Path) -> None:
    """Write NAME.csv and NAME.md, and print the table."""
    write(folder / f"{name}.csv", rows, digits=6)
    (folder / f"{name}.md").write_text(markdown(rows), encoding="utf-8")
    print(f"{name}\n{markdown(rows)}")


def picture(name: str, draw: Callable[[Any], None], folder: Path, *, height: float = 4.0) -> None:
    """Write NAME.png: `draw` gets the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.subplots())
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
