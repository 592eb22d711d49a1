"""Coverage-guided fuzzing of every reader, in chunks, until each has had its share of executions.

    make fuzz      # an environment with atheris, then this script: goes on until 10 million executions
    python -m benchmarks.fuzz.fuzz --minutes 10 --only csv toml      # and beyond, where readers have changed

`results/executions.csv` has one line a reader. An input that ends in anything but a CooptError is kept in
`build/fuzz/crashes` and ends the script: mend it, and make it a test.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import tables

HERE = Path(__file__).parent
TABLE = HERE / "results" / "executions.csv"
WORK = HERE.parents[1] / "build" / "fuzz"
COLUMNS = ("reader", "executions", "seconds", "crashes", "inputs_kept")
# Executions that each reader is to have: cheap ones more.
GOALS = {
    "csv": 2_000_000,
    "toml": 1_500_000,
    "json": 2_000_000,
    "schedule": 1_000_000,
    "report": 2_000_000,
    "checkpoint": 1_500_000,
}
CHUNK = 50_000
LONGEST_INPUT = 4096


def load() -> dict[str, dict[str, str]]:
    if not TABLE.exists():
        return {name: dict.fromkeys(COLUMNS, "0") | {"reader": name} for name in GOALS}
    return {row["reader"]: row for row in tables.read(TABLE)}


def chunk(name: str, seed: int) -> tuple[int, str | None]:
    """Run one process; the executions that it made, and the path of an input that crashed."""
    grown, crashes = WORK / name, WORK / "crashes"
    for folder in (grown, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "benchmarks.fuzz.worker", name, f"-runs={CHUNK}", f"-seed={seed}"),
        *(f"-max_len={LONGEST_INPUT}", "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1"),
        *(f"-dict={HERE / 'words.dict'}", f"-artifact_prefix={crashes}/{name}-", "-verbosity=1"),
        *(str(grown), str(HERE / "corpus" / name)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    told = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    made = int(told[1]) if told else 0
    if done.returncode == 0:
        return made, None
    path = re.search(r"Test unit written to (\S+)", done.stderr)
    print(done.stderr[-3000:], done.stdout[-3000:])
    return made, path[1] if path else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--only", choices=GOALS, nargs="+", default=list(GOALS))
    options = parser.parse_args()
    rows, ends = load(), time.monotonic() + 60 * options.minutes
    while time.monotonic() < ends:
        # The one that is farthest from its goal, or least beyond it.
        name = min(options.only, key=lambda name: int(rows[name]["executions"]) / GOALS[name])
        if int(rows[name]["executions"]) >= GOALS[name] and math.isinf(options.minutes):
            break
        row, began = rows[name], time.monotonic()
        made, crash = chunk(name, seed=int(row["executions"]) // CHUNK + 1)
        row["executions"] = str(int(row["executions"]) + made)
        row["seconds"] = f"{float(row['seconds']) + time.monotonic() - began:.0f}"
        row["inputs_kept"] = str(sum(1 for _ in (WORK / name).iterdir()))
        if crash is not None:
            row["crashes"] = str(int(row["crashes"]) + 1)
        tables.write(TABLE, rows.values())
        print(name, row["executions"], f"{CHUNK / (time.monotonic() - began):.0f}/s", flush=True)
        if crash is not None:
            sys.exit(f"{name}: crashed on {crash}")


if __name__ == "__main__":
    main()
