"""A bound that remembers what it was last tied to, for problems that differ in their budget alone."""

from __future__ import annotations

from numpy.typing import ArrayLike

from coopt.bound import has_name
from coopt.monotone import Bound, Floats, MonotoneBound, MonotoneForm
from coopt.problem import Constants, Fleet, Problem


class Tied:
    """One of coopt's bounds; its last monotone form is kept with the floors that were evaluated.

    The form depends on the fleet and the constants, not on the budget.

    Parameters
    ----------
    bound : MonotoneBound
    """

    def __init__(self, bound: MonotoneBound) -> None:
        self._bound = bound
        self._last: tuple[Fleet, Constants, MonotoneForm] | None = None

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
        """Form of the bound, the last one where fleet and constants are the same."""
        if self._last is not None and self._last[0] is problem.fleet and self._last[1] == problem.constants:
            return self._last[2]
        form = self._bound.monotone_form(problem)
        self._last = (problem.fleet, problem.constants, form)
        return form


def tied(bound: Bound) -> Bound:
    """A bound that remembers its form, where it is one of coopt's own with one; else the bound itself."""
    return Tied(bound) if has_name(bound) and isinstance(bound, MonotoneBound) else bound
