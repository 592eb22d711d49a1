"""Write the numbers of the README's table of claims from the files that the measurements left.

    python -m benchmarks.readme_claims

A row is known by its question. The tests fail where a row and its files differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def rows(path: str) -> list[dict[str, str]]:
    return tables.read(ROOT / "benchmarks" / path)


def points(row: dict[str, str], column: str) -> float:
    """The mean of a cell that holds a mean and its interval."""
    return float(row[column].split()[0])


def headline() -> str:
    table = rows("federated/results/headline_summary.csv")
    lead = {
        limits: [points(row, "free rates: lead over it") for row in table if row["limits"] == limits]
        for limits in ("1x", "1/4")
    }
    return (
        f"On {len(lead['1x'])} federations, nothing of coopt tuned, its rates free, beside the best tuned "
        f"baseline: {span(lead['1x'])} at full limits, {span(lead['1/4'])} at a quarter of them "
        "([at a glance](benchmarks/federated/results/headline_summary.md), "
        "[table](benchmarks/federated/results/headline.md), "
        "[what it means](docs/explanation/federated-results.md))"
    )


def span(leads: list[float]) -> str:
    """Points of accuracy from the worst to the best, in words."""
    low, high = min(leads), max(leads)
    if low >= 0:
        return f"{low:.1f} to {high:.1f} points more accurate"
    if high > 0:
        return f"from {-low:.1f} points behind to {high:.1f} ahead"
    return f"{-high:.1f} to {-low:.1f} points behind"


def trainer() -> str:
    table = rows("federated/results/trainer_speed.csv")
    speeds = {row["contender"]: int(row["median"]) for row in table if row["clients"] == "100"}
    ours = speeds["coopt, vectorised, measuring"]
    return (
        f"[{ours:,} clients' rounds a second](benchmarks/federated/results/trainer_speed.md) of a small "
        f"model, where a plain loop does {speeds['plain torch loop']:,} and pfl-research "
        f"{speeds['pfl-research 0.6']:,}, on one core"
    )


def validity() -> str:
    table = rows("theory/results/validity.csv")
    ours = [row for row in table if not row["bound"].startswith(("published", "AdaCoOpt"))]
    violated = sum(int(row["violations"]) for row in ours)
    said = "no violation of ours" if not violated else f"{violated} violations of ours"
    return (
        f"[Table](benchmarks/theory/results/validity.md) over {int(table[0]['instances']):,} problems: {said}"
    )


def closed_loop() -> str:
    text = (ROOT / "benchmarks/online/results/closed_loop.md").read_text(encoding="utf-8")
    median = re.search(r"^\| horizon \| default \| ([\d.]+) ", text, re.MULTILINE)
    assert median is not None
    return (
        f"Median error {median[1]} times that of the best fixed plan in hindsight, [on simulated "
        "training](benchmarks/online/results/closed_loop.md)"
    )


def counterexample() -> str:
    ratios = [float(row["true / published"]) for row in rows("theory/results/counterexample.csv")]
    return f"By a factor of up to {max(ratios):.0f} on a constructed case, where the certified bound holds"


def soak() -> str:
    text = (ROOT / "benchmarks/online/results/soak.md").read_text(encoding="utf-8")
    rounds = re.search(r"^(\d+) rounds with (\d+) devices", text, re.MULTILINE)
    assert rounds is not None and "No crash, nothing overspent" in text
    return (
        f"{int(rounds[1]):,} rounds with {rounds[2]} devices that leave, come back, hang, answer NaN and do "
        "half: [no crash, nothing overspent](benchmarks/online/results/soak.md)"
    )


ANSWERS: dict[str, Callable[[], str]] = {
    "And on real data, in torch?": headline,
    "How fast does the torch trainer simulate clients?": trainer,
    "How valid and how tight are the bounds?": validity,
    "Does planning anew each round pay?": closed_loop,
    "Does the controller bear what devices do?": soak,
    "Can a published bound lie below the true error?": counterexample,
}


def written(text: str) -> str:
    """The README with every row that is known as its files have it."""
    lines = text.split("\n")
    for place, line in enumerate(lines):
        cells = line.split(" | ")
        if len(cells) == 3 and (answer := ANSWERS.get(cells[0].removeprefix("| "))):
            lines[place] = " | ".join([cells[0], answer(), cells[2]])
    start = json.loads((ROOT / "benchmarks/startup/results/startup.json").read_text(encoding="utf-8"))
    import_seconds = start["differences"]["import coopt, beyond python"]
    return re.sub(r"\[\d+ ms\]", f"[{1000 * import_seconds:.0f} ms]", "\n".join(lines))


def main() -> None:
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
