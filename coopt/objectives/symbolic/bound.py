"""The bounds that formulas become: numbers from compiled expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.curvature import filled_in
from coopt.objectives.monotone import Floor, MonotoneBase, MonotoneForm
from coopt.objectives.protocol import Bound, Floats, Objective
from coopt.problem.problem import Problem

Compiled = Callable[[float, int, Mapping[str, float]], float]
"""(K tau, tau, constants by name) -> number."""

OPTIONAL = {"c": "pl_constant", "rho": "quadratic_continuity"}


@dataclass(frozen=True)
class Reading:
    """A formula taken apart: offset + sum_k share_k * sum_i basis_k[i] / s_i.

    Attributes
    ----------
    offset : callable
    shares : tuple of callables
        One per basis.
    basis : tuple of callables
        (columns by name) -> array of shape (N,).
    constants : frozenset of str
        Names of the scalars that the formula uses.
    sums : mapping
        Sums over devices without s_i, by stand-in name, as (columns by name) -> number.
    limit : callable, optional
        (constants) -> the largest learning rate.
    leaves_out_step_noise : bool
        Whether the formula has the noise of a batch, M, without that which no batch removes, V.
    """

    offset: Compiled
    shares: tuple[Compiled, ...]
    basis: tuple[Callable[[Mapping[str, Floats]], Floats], ...]
    constants: frozenset[str]
    sums: Mapping[str, Callable[[Mapping[str, Floats]], float]] = field(hash=False)
    limit: Callable[[Mapping[str, float]], float] | None
    leaves_out_step_noise: bool

    def constants_of(self, problem: Problem) -> dict[str, float]:
        """Numbers for the scalars of the formula; raises InvalidProblemError for what is missing."""
        given, fleet = problem.constants, problem.fleet
        if self.leaves_out_step_noise and fleet.step_noise.any():
            raise InvalidProblemError(
                "step_noise is set: the formula has M[i]/s[i] but no V[i], so it would leave that noise out; "
                "write M[i]/s[i] + V[i], or use sigma2 and nu2, which hold both"
            )
        ell, beta_f, beta_d = filled_in(given)
        known: dict[str, float | None] = {
            "eta": given.learning_rate,
            "beta": given.smoothness,
            "beta_F": beta_f,
            "ell": ell,
            "beta_d": beta_d,
            "c": given.pl_constant,
            "rho": given.quadratic_continuity,
            "D_0": given.initial_gap,
            "deltabar": float(np.sum(fleet.weights * fleet.divergence)),
            "d_h": math.sqrt(float(np.sum(fleet.weights * fleet.divergence**2))),
            "N": float(len(fleet)),
        }
        numbers: dict[str, float] = {}
        for name in self.constants:
            value = known[name]
            if value is None:
                missing = OPTIONAL[name]
                raise InvalidProblemError(
                    f"{missing} is missing: the formula uses {name}, so set Constants({missing}=...)"
                )
            numbers[name] = value
        columns = columns_of(problem)
        numbers |= {name: total(columns) for name, total in self.sums.items()}
        if self.limit is not None and given.learning_rate > self.limit(numbers) * (1.0 + 1e-12):
            raise InvalidProblemError(
                f"learning_rate = {given.learning_rate!r}: this bound needs learning_rate <= "
                f"{self.limit(numbers):.12g}"
            )
        return numbers

    def basis_of(self, problem: Problem) -> tuple[Floats, ...]:
        """What multiplies 1/s_i, one array of shape (N,) per share."""
        columns = columns_of(problem)
        return tuple(column(columns) + np.zeros(len(problem.fleet)) for column in self.basis)


def columns_of(problem: Problem) -> dict[str, Floats]:
    """The quantities of the devices by their symbols."""
    fleet = problem.fleet
    return {
        "p": fleet.weights,
        "M": fleet.gradient_noise,
        "V": fleet.step_noise,
        "delta": fleet.divergence,
        "d": fleet.samples.astype(np.float64),
    }


@dataclass(frozen=True)
class SymbolicBound(Objective):
    """A bound read from a formula whose monotonicity is not proved.

    Attributes
    ----------
    label : str
    reading : Reading
    reason : str
        Why the exact solver may not prune with this bound.
    """

    label: str
    reading: Reading = field(repr=False)
    reason: str = ""

    monotone = False

    @property
    def name(self) -> str:
        """For tables and messages."""
        return self.label

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        """(offset, weights), weights of shape (N,), of B = offset + sum(weights / batch_sizes).

        Raises
        ------
        InvalidProblemError
            If a constant is missing, the learning rate is above the limit, or a weight is negative here.
        """
        constants = self.reading.constants_of(problem)
        steps = float(rounds) * local_steps
        offset = self.reading.offset(steps, local_steps, constants)
        weights = np.zeros(len(problem.fleet))
        for share, column in zip(self.reading.shares, self.reading.basis_of(problem), strict=True):
            weights += share(steps, local_steps, constants) * column
        if bool(np.any(weights < 0.0)):
            i = int(np.argmax(weights < 0.0))
            raise InvalidProblemError(
                f"bound {self.name!r}: the weight of 1/batch_sizes[{i}] is {weights[i]:.6g} at "
                f"rounds = {rounds}, local_steps = {local_steps}; it must not be negative"
            )
        if not problem.fleet.replacement:
            offset -= float(np.sum(weights / problem.fleet.samples))
        return offset, weights


@dataclass(frozen=True)
class Monotone:
    """The monotone form of a formula: start(T) + slope(T) (floor(tau) + sum_k shares_k(tau) basis_k / s)."""

    start: Compiled
    slope: Compiled
    floor: Compiled
    shares: tuple[Compiled, ...]


@dataclass(frozen=True)
class MonotoneSymbolicBound(MonotoneBase):
    """A bound read from a formula that is proved to have the monotone form.

    Attributes
    ----------
    label : str
    reading : Reading
    form : Monotone
    """

    label: str
    reading: Reading = field(repr=False)
    form: Monotone = field(repr=False)

    monotone = True
    reason = ""

    @property
    def name(self) -> str:
        """For tables and messages."""
        return self.label

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        return FormulaForm(
            members=(self,),
            population=None if problem.fleet.replacement else problem.fleet.samples,
            basis=self.reading.basis_of(problem) or (np.zeros(len(problem.fleet)),),
            constants=self.reading.constants_of(problem),
            form=self.form,
        )


@dataclass(frozen=True)
class FormulaForm:
    """A formula tied to the numbers of a problem: every member has the same floor and progress."""

    members: tuple[Bound, ...]
    population: NDArray[np.int64] | None
    basis: tuple[Floats, ...]
    constants: Mapping[str, float]
    form: Monotone

    def floor(self, local_steps: int, active: NDArray[np.intp]) -> Floor:
        """The floor at tau, for each active member."""
        offset = self.form.floor(1.0, local_steps, self.constants)
        shares = [share(1.0, local_steps, self.constants) for share in self.form.shares] or [0.0]
        return Floor(np.full(active.size, offset), np.tile(np.array(shares), (active.size, 1)), self.basis)

    def progress(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(a, b) at T = steps, for each active member."""
        start, slope = (
            np.array([part(total, 1, self.constants) for total in steps.tolist()])
            for part in (self.form.start, self.form.slope)
        )
        return np.tile(start, (active.size, 1)), np.tile(slope, (active.size, 1))
