"""A bound that keeps the form it was last tied to, for problems that differ in their limits alone."""

from __future__ import annotations

import math
from dataclasses import replace

from coopt.objectives.monotone import MonotoneBase, MonotoneForm
from coopt.objectives.protocol import Bound, Objective
from coopt.objectives.rates import Rates
from coopt.objectives.registry import has_name
from coopt.objectives.young import YoungFamily
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem


class KeptForm(MonotoneBase):
    """One of coopt's own bounds with its last monotone form, and the floors that were evaluated of it.

    A form depends on the fleet, the constants, and who takes part in a round. It does not depend on the
    limits, nor on the price of a round.

    Parameters
    ----------
    bound : MonotoneBase
    """

    def __init__(self, bound: MonotoneBase) -> None:
        self._bound = bound
        self._last: tuple[Fleet, tuple[Constants, Budget], MonotoneForm] | None = None

    @property
    def name(self) -> str:
        """Name of the bound."""
        return self._bound.name

    @property
    def original(self) -> Bound:
        """The bound that keeps no form."""
        return self._bound

    @property
    def young(self) -> YoungFamily | None:
        """What the bound says."""
        return self._bound.young

    def members(self) -> tuple[Bound, ...]:
        """Members of the bound."""
        return self._bound.members()

    def rates(self, problem: Problem) -> Rates | None:
        """What the bound says; it has another form at each rate, so none is kept."""
        return self._bound.rates(problem)

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


def keeping_form(bound: Objective) -> Objective:
    """A bound that keeps its form, where it is one of coopt's own that has one; else the bound itself."""
    prunable = bound.prunable
    return bound if prunable is None or not has_name(bound) else KeptForm(prunable)
