"""One process of coverage-guided fuzzing: python -m benchmarks.fuzz.worker TARGET [OPTIONS] CORPUS."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["coopt"]):
    from benchmarks.fuzz import targets


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: targets.run(name, data))
    atheris.Fuzz()


main()
