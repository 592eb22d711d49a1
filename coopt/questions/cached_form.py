"""A bound that remembers what it was last tied to, for problems that differ in their limits alone."""

from __future__ import annotations

import math
from dataclasses import replace

from numpy.typing import ArrayLike

from coopt.objectives.bound import has_name
from coopt.objectives.monotone import Bound, Floats, MonotoneBound, MonotoneForm
from coopt.problem.problem import Budget, Constants, Fleet, Problem


class Tied:
    """One of coopt's bounds; its last monotone form is kept with the floors that were evaluated.

    The form depends on the fleet, the constants, and who takes part; not on limits and the price of a round.

    Parameters
    ----------
    bound : MonotoneBound
    """

    def __init__(self, bound: MonotoneBound) -> None:
        self._bound = bound
        self._last: tuple[Fleet, tuple[Constants, Budget], MonotoneForm] | None = None

    @property
    def name(self) -> str:
        """Name of the bound."""
        return self._bound.name

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        """Offset and weights of the bound."""
        return self._bound.coefficients(problem, rounds, local_steps)

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Value of the bound."""
        return self._bound.value(problem, rounds, local_steps, batch_sizes)

    def members(self) -> tuple[Bound, ...]:
        """Members of the bound."""
        return self._bound.members()

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Form of the bound, the last one where it is the same."""
        rest = replace(
            problem.budget,
            cost=math.inf,
            time=math.inf,
            round_cost=0.0,
            max_rounds=None,
            max_local_steps=None,
        )
        key = problem.constants, rest
        if self._last is not None and self._last[0] is problem.fleet and self._last[1] == key:
            return self._last[2]
        form = self._bound.monotone_form(problem)
        self._last = (problem.fleet, key, form)
        return form


def tied(bound: Bound) -> Bound:
    """A bound that remembers its form, where it is one of coopt's own with one; else the bound itself."""
    return Tied(bound) if has_name(bound) and isinstance(bound, MonotoneBound) else bound
