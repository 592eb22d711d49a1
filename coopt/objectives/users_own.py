"""What a user handed over, completed to an objective: what it does not say has the default."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from coopt.objectives.monotone import MonotoneBase, MonotoneBound, MonotoneForm
from coopt.objectives.protocol import Bound, Floats, Objective, Parts
from coopt.problem.problem import Problem


def completed(bound: Bound) -> Objective:
    """The bound itself where it is an objective; else one that asks it, with defaults for the rest."""
    if isinstance(bound, Objective):
        return bound
    return _WithForm(bound) if isinstance(bound, MonotoneBound) else _UsersOwn(bound)


@dataclass(frozen=True)
class _UsersOwn(Objective):
    """An object with a name and coefficients; its own value and parts are used where it has them."""

    bound: Bound

    @property
    def name(self) -> str:
        return self.bound.name

    @property
    def original(self) -> Bound:
        return self.bound

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        return self.bound.coefficients(problem, rounds, local_steps)

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        own = getattr(self.bound, "value", super().value)
        return float(own(problem, rounds, local_steps, batch_sizes))

    def parts(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> Parts | None:
        own = getattr(self.bound, "parts", None)
        found: Parts | None = own and own(problem, rounds, local_steps, batch_sizes)
        return found


@dataclass(frozen=True)
class _WithForm(_UsersOwn, MonotoneBase):
    """An object that has a monotone form as well."""

    bound: MonotoneBound

    def parts(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> Parts:
        own = super().parts(problem, rounds, local_steps, batch_sizes)
        return MonotoneBase.parts(self, problem, rounds, local_steps, batch_sizes) if own is None else own

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        return self.bound.monotone_form(problem)
