"""One convex program by several backends: the next where one stumbles or is far from its own proof."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.errors import SolverError
from coopt.solvers.proposers.backend import run, settings
from coopt.solvers.proposers.joint_program import JointProgram

Floats = NDArray[np.float64]

# Solves in a row in which no setting came near its own proof, after which one that gives a point is enough.
PATIENCE = 3


@dataclass(frozen=True)
class Solved:
    """One solve: what it found and what it proved, in the units of the program."""

    value: float
    proved: float
    batch_sizes: Floats
    z1: float
    z2: float


class Backends:
    """The settings of backends to try, and how they have done so far.

    Parameters
    ----------
    backend : str or None
        Name of an installed cvxpy solver that is to be tried alone.

    Attributes
    ----------
    solves : int
    tries : Counter
        How often each setting was tried.
    found : bool
        Whether there was ever a point.

    Raises
    ------
    SolverError
        If the backend is missing.
    """

    def __init__(self, backend: str | None) -> None:
        self._settings = settings(backend)
        self.solves = 0
        self.tries: Counter[str] = Counter()
        self.found = False
        self._errors: dict[str, str] = {}
        self._in_vain = 0

    @property
    def only_one(self) -> bool:
        """Whether there is no other setting to fall back on."""
        return len(self._settings) == 1

    def solve(self, program: JointProgram, weights: Floats, lines: tuple[Floats, Floats]) -> Solved | None:
        """The best that the settings give, tried until one is near its own proof; None if infeasible.

        Raises
        ------
        SolverError
            If none gives a point.
        """
        program.ask(weights, lines)
        self.solves += 1
        best: Solved | None = None
        infeasible = False
        for setting in self._settings:
            self.tries[setting.name] += 1
            try:
                value = run(program.compiled, setting.backend, **setting.options)
            except SolverError as error:
                self._errors[setting.name] = str(error)
                continue
            if value is None:
                infeasible = True
                if self.found:
                    break
                # Before there was any point, that there is none takes more than one verdict.
                continue
            solved = Solved(value, program.proved(value), program.batch_sizes, *program.place_found)
            if best is None or solved.proved > best.proved:
                best = solved
            if best.value - best.proved <= setting.accuracy:
                self._in_vain = 0
                break
            if self._in_vain >= PATIENCE:
                # What is left out of the proof, not the backend, keeps the two apart.
                break
        else:
            self._in_vain += best is not None
        if best is None and not infeasible:
            tried = "; ".join(f"{name}: {error}" for name, error in self._errors.items())
            raise SolverError(f"solver 'cvxpy' found no batch sizes. Tried {tried}")
        self.found |= best is not None
        return best
