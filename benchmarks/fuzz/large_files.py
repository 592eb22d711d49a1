"""Seconds and memory of large files: a fleet of 100 MB in CSV, and a plan for a million devices in JSON.

python -m benchmarks.fuzz.large_files      # about a minute on one core, each file in a process of its own
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import Allocation, Budget, Constants, Fleet, Problem, evaluate

TABLE = Path(__file__).parent / "results" / "large_files.csv"
ROWS, DEVICES = 2_550_000, 1_000_000


def timed(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def read_csv(path: Path) -> tuple[float, float]:
    with path.open("w", encoding="utf-8") as stream:
        stream.write("names,samples,gradient_noise,divergence,throughput,round_time,sample_cost\n")
        for i in range(ROWS):
            stream.write(f"device-{i:07d},{600 + i % 500},{3.8 + i % 7 / 10:.2f},0.11,{310 + i % 90},4.2,1\n")
    return timed(lambda: Fleet.from_csv(path)), path.stat().st_size


def plan() -> Allocation:
    fleet = Fleet(np.full(DEVICES, 600), 4.0, 0.1, throughput=np.linspace(10, 20, DEVICES))
    constants = Constants(0.1, 1.0, 2.0, pl_constant=0.1)
    return evaluate(Problem(fleet, constants, Budget(cost=500.0 * DEVICES, max_local_steps=4)), 3, 2, 5)


def write_json(path: Path) -> tuple[float, float]:
    made = plan()
    return timed(lambda: made.to_json(path)), path.stat().st_size


def read_json(path: Path) -> tuple[float, float]:
    text = plan().to_json()
    return timed(lambda: Allocation.from_json(text)), len(text)


def measured(action: Callable[[Path], tuple[float, float]]) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        seconds, size = action(Path(folder) / "file")
    # Linux counts in kilobytes.
    return seconds, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    rows = []
    for what, action in (
        (f"read a fleet of {ROWS:,} devices from CSV", read_csv),
        (f"write a plan for {DEVICES:,} devices to JSON", write_json),
        ("read it", read_json),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, size, memory = pool.apply(measured, (action,))
        rows.append(
            {
                "what": what,
                "file_MB": f"{size / 1e6:.0f}",
                "seconds": f"{seconds:.1f}",
                "memory_of_the_process_MB": f"{memory / 1e6:.0f}",
            }
        )
        print(rows[-1])
    tables.write(TABLE, rows)


if __name__ == "__main__":
    main()
