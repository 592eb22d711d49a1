"""What the bounds take from the constants: defaults filled in, step sizes checked, exact contraction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from coopt.errors import InvalidProblemError
from coopt.problem.constants import Constants

# Step sizes such as 1 / beta round to one unit in the last place above the limit.
STEP_SIZE_SLACK = 1e-12


@dataclass(frozen=True)
class Curvature:
    """Curvature constants with their defaults filled in, and eta beta_F, at most one."""

    floor: float
    mean_smoothness: float
    coupling: float
    mean_step: float

    def coupling_factor(self, gamma: float) -> float:
        """(eta beta_F + (1 - eta beta_F)/gamma) beta_d^2, infinite at gamma = 0 unless nothing couples."""
        return self.young_factor(gamma) * self.coupling * self.coupling if self.coupling else 0.0

    def young_factor(self, gamma: float) -> float:
        """Eta beta_F + (1 - eta beta_F)/gamma, infinite at gamma = 0 unless eta beta_F = 1."""
        slack = 1.0 - self.mean_step
        return self.mean_step if slack == 0.0 else self.mean_step + (slack / gamma if gamma else math.inf)


def filled_in(constants: Constants) -> tuple[float, float, float]:
    """The curvature floor ell, beta_F and beta_d: as given, or what always holds."""
    beta = constants.smoothness
    floor = -beta if constants.curvature_floor is None else constants.curvature_floor
    mean = beta if constants.mean_smoothness is None else constants.mean_smoothness
    # Midpoint lemma: deviations that average to zero only see curvature relative to its midpoint.
    coupling = (beta - floor) / 2.0 if constants.coupling is None else constants.coupling
    return floor, mean, coupling


def curvature(constants: Constants, bound: str) -> Curvature:
    """Fill in the curvature constants; raises InvalidProblemError where the step is too long for `bound`."""
    beta, (floor, mean, coupling) = constants.smoothness, filled_in(constants)
    check_step_size(constants, 1.0 / mean, "1 / mean_smoothness", bound)
    if beta + floor > 0.0:
        check_step_size(constants, 2.0 / (beta + floor), "2 / (smoothness + curvature_floor)", bound)
    return Curvature(floor, mean, coupling, min(constants.learning_rate * mean, 1.0))


def required(constants: Constants, name: str, bound: str) -> float:
    """Return a constant that `bound` cannot do without; raises InvalidProblemError where it is missing."""
    value: float | None = getattr(constants, name)
    if value is None:
        raise InvalidProblemError(
            f"{name} is missing: the {bound} bound needs it among the constants; without it there are the "
            "nonconvex bound, and the forecast of a measurement"
        )
    return value


def check_step_size(constants: Constants, limit: float, formula: str, bound: str) -> None:
    """Raise InvalidProblemError where the learning rate exceeds `limit`."""
    if constants.learning_rate > limit * (1.0 + STEP_SIZE_SLACK):
        raise InvalidProblemError(
            f"learning_rate = {constants.learning_rate!r}: the {bound} bound needs learning_rate <= "
            f"{formula} = {limit:.12g}"
        )


def log_contraction(rate: Fraction) -> float:
    """log(1 - rate), to full accuracy also where the rate is nearly one; it exceeds one by rounding only."""
    if rate >= 1:
        return -math.inf
    return math.log1p(-float(rate)) if 2 * rate < 1 else math.log(float(1 - rate))
