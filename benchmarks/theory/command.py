"""How the scripts of this folder are called."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def command_line(run: Callable[[bool, Path], Any], about: str | None) -> None:
    """--quick for a smoke run, --out for another folder than results/."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a smoke test")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the tables and pictures")
    arguments = parser.parse_args()
    run(arguments.quick, arguments.out)
