"""What the tables share: how scripts are called, and the mean of ratios."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def spread(values: Iterable[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.mean(np.log(list(values)))))


def command_line(run: Callable[[bool, Path, list[str] | None], Any], about: str | None) -> None:
    """--quick for a smoke run, --out for another folder than results/, and names of federations."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="seconds, on digits, for a smoke test")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the tables and pictures")
    parser.add_argument("names", nargs="*", help="federations, default all")
    given = parser.parse_args()
    run(given.quick, given.out, given.names)
