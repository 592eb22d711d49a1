"""Run the situations of the page "What real fleets do", and write its figures.

    COOPT_DATA=... python -m benchmarks.online.real_fleets            # two minutes of one core
    python -m benchmarks.online.real_fleets --only hangs liars        # these again, the rest is kept
    python -m benchmarks.online.real_fleets --page                    # the page from the committed CSV

A row of the page is known by its situation, and the tests fail where it and the results differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import defaultdict
from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "what-real-fleets-do.md"
RESULT = Path(__file__).parent / "results" / "real_fleets.csv"
VALUE = 2  # the column of the page with the figures


def measured() -> dict[str, dict[str, float]]:
    """The figures of every situation, as they were measured last."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in tables.read(RESULT) if RESULT.exists() else ():
        found[row["situation"]][row["figure"]] = float(row["value"])
    return dict(found)


def written(text: str, says: dict[str, str], figures: dict[str, dict[str, float]]) -> str:
    """The page with the figures of every situation in its row."""
    lines = text.split("\n")
    for place, line in enumerate(lines):
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        if cells[0] in figures:
            cells[VALUE] = says[cells[0]].format_map(figures[cells[0]])
            lines[place] = f"| {' | '.join(cells)} |"
    return "\n".join(lines)


def main() -> None:
    from benchmarks.online.situations import SITUATIONS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="store_true", help="write the page from the committed CSV")
    parser.add_argument("--only", nargs="+", default=[], help="functions of the situations to run")
    options = parser.parse_args()
    if not options.page:
        if "COOPT_DATA" not in os.environ:
            sys.exit("COOPT_DATA is not set: it must name the folder that holds devices/phone_latency.csv")
        warnings.simplefilter("ignore")
        found = {}
        for each in SITUATIONS:
            if not options.only or each.run.__name__ in options.only:
                found[each.name] = {name: float(value) for name, value in each.run().items()}
                print(f"{each.name}: {each.says.format_map(found[each.name])}", flush=True)
        if options.only:
            found = measured() | found
        rows = [
            {"situation": each.name, "figure": name, "value": value}
            for each in SITUATIONS
            for name, value in found.get(each.name, {}).items()
        ]
        tables.write(RESULT, rows, digits=6)
    says = {each.name: each.says for each in SITUATIONS}
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), says, measured()), encoding="utf-8")


if __name__ == "__main__":
    main()
