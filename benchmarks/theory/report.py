"""Write a table as CSV and markdown, and a picture, side by side in results/."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
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


def save(name: str, rows: Sequence[Row], folder: Path) -> None:
    """Write NAME.csv and NAME.md, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
            for row in rows
        )
    (folder / f"{name}.md").write_text(markdown(rows))
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


def command_line(run: Callable[[bool, Path], Any], about: str | None) -> None:
    """--quick for a smoke run, --out for another folder than results/."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a smoke test")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the tables and pictures")
    arguments = parser.parse_args()
    run(arguments.quick, arguments.out)
