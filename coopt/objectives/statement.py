"""What a certificate evaluates at 50 digits: the theorem behind a bound, with numbers for its symbols.

This is a second way from a problem to the value of a bound, on purpose. It shares nothing with the code that
computes values for the solvers: defaults are filled in and shares computed once more, so that a mistake in
one place does not confirm itself in the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from coopt.problem.constants import Constants
from coopt.problem.problem import Problem

if TYPE_CHECKING:
    from coopt_bounds.theorem import Theorem

Number = float | int | str | Fraction

# Stand-ins for the limits z -> 0 and z -> inf, beyond any digit that is compared.
VANISHING, UNBOUNDED = "1e-300", "1e300"


@dataclass(frozen=True)
class Statement:
    """A theorem of ``coopt_bounds``, and numbers for the symbols that do not depend on the plan.

    Attributes
    ----------
    theorem : Theorem
    values : mapping of str to number
        By the names of the symbols. The certificate adds K, tau, and the sums over devices sigma2, nu2,
        deltabar and d_h.
    """

    theorem: Theorem
    values: Mapping[str, Number]


def constants_values(constants: Constants, rho: float | None = None) -> dict[str, Number]:
    """The symbols that all statements share; a constant that is not given has no value."""
    values: dict[str, Number | None] = {
        "eta": constants.learning_rate,
        "beta": constants.smoothness,
        "c": constants.pl_constant,
        "D_0": constants.initial_gap,
        "rho": rho,
    }
    return {name: value for name, value in values.items() if value is not None}


def young_values(problem: Problem, gamma: float, z: float, local_steps: int) -> dict[str, Number]:
    """The symbols of the statements with Young's parameters."""
    constants = problem.constants
    beta = constants.smoothness
    ell = -beta if constants.curvature_floor is None else constants.curvature_floor
    coupling = (beta - ell) / 2.0 if constants.coupling is None else constants.coupling
    return constants_values(constants) | {
        "beta_F": beta if constants.mean_smoothness is None else constants.mean_smoothness,
        "ell": ell,
        # One local step leaves no drift, whatever couples: that is the case in which gamma may vanish.
        "beta_d": 0.0 if local_steps == 1 else coupling,
        "gamma": gamma or VANISHING,
        "z": VANISHING if z == 0.0 else UNBOUNDED if z == math.inf else z,
    }


def absence_values(problem: Problem) -> dict[str, Number]:
    """The symbols of what absent devices add to the error: a draw of participants, a biased gradient."""
    devices, m = len(problem.fleet), problem.budget.participants
    bias = problem.constants.gradient_bias
    if m is None:
        kappa = Fraction(0)
    elif not problem.budget.distinct_participants:
        kappa = Fraction(1, m)
    else:
        kappa = Fraction(devices - m, m * (devices - 1)) if devices > 1 else Fraction(0)
    values: dict[str, Number] = {"kappa": kappa}
    if bias is not None:
        values["epsilon"] = bias
    return values
