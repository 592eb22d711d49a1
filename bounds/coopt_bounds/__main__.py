"""Command line: re-prove every lemma, or print a theorem as LaTeX.

Usage: ``python -m coopt_bounds check`` and ``python -m coopt_bounds latex NAME``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from coopt_bounds import LEMMAS, THEOREMS, Lemma, ProofError, Theorem


def check() -> int:
    """Print one line per lemma and theorem; return the number that failed."""
    failures = 0
    proofs: dict[str, Lemma | Theorem] = {**LEMMAS, **THEOREMS}
    for name, proof in proofs.items():
        start = time.perf_counter()
        try:
            proof.check()
            verdict = "proved"
        except ProofError as error:
            failures += 1
            verdict = f"FAILED: {error}"
        sys.stdout.write(f"{time.perf_counter() - start:7.2f} s  {name}: {verdict}\n")
    sys.stdout.write(f"{len(LEMMAS)} lemmas, {len(THEOREMS)} theorems, {failures} failed\n")
    return failures


def latex(name: str) -> None:
    """Print a theorem with its lemmas as LaTeX."""
    theorem = THEOREMS[name]
    parts = [theorem.to_latex(), *(lemma.to_latex() for lemma in theorem.lemmas)]
    sys.stdout.write("\n\n".join(parts) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 1 if a proof fails."""
    parser = argparse.ArgumentParser(
        prog="python -m coopt_bounds", description="Convergence bounds as checked theorems."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="re-prove every lemma and theorem")
    printer = commands.add_parser("latex", help="print a theorem and its lemmas as LaTeX")
    printer.add_argument("name", choices=sorted(THEOREMS))
    options = parser.parse_args(arguments)
    if options.command == "check":
        return 1 if check() else 0
    latex(options.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
