"""Bounds with Young's parameters gamma and z, and the finite families that "auto" stands for."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives import tradeoff
from coopt.objectives.cautions import exploding_drift, said
from coopt.objectives.curvature import Curvature, filled_in, log_contraction
from coopt.objectives.monotone import MonotoneBase, MonotoneForm
from coopt.objectives.noise_and_drift import NoiseAndDriftForm, population
from coopt.objectives.one_round import Contraction, Fleetwide, round_effect, round_effects
from coopt.objectives.participation import variance_share
from coopt.objectives.protocol import Bound, Floats, Ints
from coopt.objectives.rates import Rates
from coopt.objectives.statement import Statement, absence_values, young_values
from coopt.problem.problem import Problem
from coopt.problem.validation import is_auto, real

if TYPE_CHECKING:
    from coopt_bounds.theorem import Theorem

Auto = Literal["auto"]

# The family of Young parameters that "auto" stands for. With z = tan(t)^2 the drift lies a fraction
# (2 dt)^2 above its minimum at most when t is off by dt: an even grid of 21 angles costs 0.6 %. gamma = 0 is
# exact where there is no drift (one local step); z = 0 and z = inf are exact where there is no noise and no
# divergence. Plain values come first: where several members tie, the first is reported.
GAMMAS = (*tradeoff.GAMMAS, 0.0)
ZS = (
    *(float(f"{math.tan((10.5 + k) * math.pi / 42) ** 2:.3g}") for k in sorted(range(-10, 11), key=abs)),
    math.inf,
    0.0,
)


@dataclass(frozen=True)
class YoungFamily(MonotoneBase):
    """Parameters gamma and z of Young's inequality, as numbers or as the family "auto"."""

    gamma: float | Auto = "auto"
    z: float | Auto = "auto"

    _kind = ""

    @abstractmethod
    def theorem(self, problem: Problem) -> Theorem:
        """The theorem of this kind, for who takes part in the problem."""

    def __post_init__(self) -> None:
        if not is_auto(self.gamma):
            gamma = real("gamma", self.gamma, minimum=0.0)
            if gamma > 1.0:
                raise InvalidProblemError(f"gamma = {gamma!r}: must lie in [0, 1], or be 'auto'")
            object.__setattr__(self, "gamma", gamma)
        if not is_auto(self.z):
            object.__setattr__(self, "z", real("z", self.z, minimum=0.0, infinite=True))

    @property
    def name(self) -> str:
        """The kind of bound, with its numbers where it has them."""
        if self.gamma == "auto" and self.z == "auto":
            return self._kind
        return f"{self._kind}(gamma={self.gamma}, z={self.z})"

    def zs(self) -> tuple[float, ...]:
        """The z of the members."""
        return ZS if isinstance(self.z, str) else (self.z,)

    def pairs(self) -> list[tuple[float, float]]:
        """The (gamma, z) of the members."""
        gammas = GAMMAS if isinstance(self.gamma, str) else (self.gamma,)
        return [(gamma, z) for gamma in gammas for z in self.zs()]

    def members(self) -> tuple[Bound, ...]:
        """The bounds with numbers of the family, of which the smallest counts."""
        return tuple(type(self)(gamma, z) for gamma, z in self.pairs())

    def with_numbers(self, gamma: float | Auto, z: float | Auto) -> Self:
        """The bound of the same kind with other parameters."""
        return type(self)(gamma, z)

    @property
    def young(self) -> YoungFamily:
        """The bound itself."""
        return self

    def rates(self, problem: Problem) -> Rates:
        """How the bound depends on the learning rate."""
        beta, (floor, mean, _) = problem.constants.smoothness, filled_in(problem.constants)
        largest = 1.0 / mean if beta + floor <= 0.0 else min(1.0 / mean, 2.0 / (beta + floor))

        def drift_factors(form: MonotoneForm, rate: float) -> Floats:
            slack = max(1.0 - rate * mean, 0.0)
            gammas = np.array([member.gamma for member in form.members if isinstance(member, YoungFamily)])
            # gamma = 0 makes any drift infinite: what multiplies it is of no account.
            factor: Floats = 1.0 - slack + slack / np.where(gammas > 0.0, gammas, 1.0)
            return factor / (1.0 + slack * (1.0 - gammas))

        return Rates(self, problem, largest, drift_factors)

    def cautions(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats, value: float
    ) -> tuple[str, ...]:
        """Warn of so many local steps that the drift terms say nothing."""
        return said(exploding_drift(problem.constants, local_steps))

    def statement(self, problem: Problem, local_steps: int) -> Statement:
        """The theorem of this kind, with gamma and z."""
        values = young_values(problem, float(self.gamma), float(self.z), local_steps)
        if problem.constants.gradient_bias or problem.budget.participants is not None:
            values |= absence_values(problem)
        return Statement(self.theorem(problem), values)

    def _pairs_for(self, problem: Problem, mean_step: float) -> list[tuple[float, float]]:
        """The pairs that can be the best for some plan of this problem; the others would only cost time."""
        fleet = problem.fleet
        gammas = {gamma for gamma, _ in self.pairs()}
        zs = {z for _, z in self.pairs()}
        # Where eta beta_F = 1 gamma multiplies nothing: 1 - eta beta_F = 0 stands before it everywhere.
        if self.gamma == "auto" and mean_step == 1.0:
            gammas = {1.0}
        if self.z == "auto":
            # z moves drift between its two causes. With one cause alone an end of the range is best, where
            # that cause is charged once and the other, which is not there, is charged without limit.
            if not fleet.divergence.any() and not problem.constants.gradient_bias:
                zs = {math.inf}
            elif not (fleet.noise_terms[1].any() or fleet.step_noise_terms[1]):
                zs = {0.0}
            else:
                zs -= {math.inf}
                # A bias, and devices that are not drawn, count in a single step too, without noise.
                # Nor have full batches that are drawn without replacement.
                alike = fleet.replacement and problem.budget.participants is None
                if alike and not problem.constants.gradient_bias:
                    zs -= {0.0}
        return [(gamma, z) for gamma, z in self.pairs() if gamma in gammas and z in zs]


@cache
def _members(kind: type[YoungFamily], pairs: tuple[tuple[float, float], ...]) -> tuple[Bound, ...]:
    return tuple(kind(gamma, z) for gamma, z in pairs)


def young_form(
    bound: YoungFamily,
    problem: Problem,
    constants: Curvature,
    at: Callable[[float], Contraction],
    progress: Callable[[Floats], Callable[[Floats, NDArray[np.intp]], tuple[Floats, Floats]]],
    length: Callable[[Floats, Ints | int], Floats],
) -> MonotoneForm:
    """The monotone form of a bound with Young's parameters.

    Parameters
    ----------
    bound : YoungFamily
    problem : Problem
    constants : Curvature
    at : callable
        gamma -> what it decides.
    progress : callable
        Logarithms of the contraction factors, shape (m,) -> the progress of the members.
    length : callable
        (logarithms of contraction factors, tau) -> the length of a round, over which its drift is spread.
    """
    fleet, eta = problem.fleet, problem.constants.learning_rate
    divergence = fleet.root_divergence
    pairs = bound._pairs_for(problem, constants.mean_step)
    contractions = {gamma: at(gamma) for gamma in dict.fromkeys(gamma for gamma, _ in pairs)}
    budget = problem.budget
    fleetwide = Fleetwide(
        learning_rate=eta,
        log_r=log_contraction(Fraction(eta) * Fraction(constants.floor)),
        divergence=divergence,
        bias=problem.constants.gradient_bias or 0.0,
        sampled=float(variance_share(len(fleet), budget.participants, budget.distinct_participants)),
    )
    # The search asks for single tau again and again; what a round adds depends on gamma and tau alone, not on
    # z, so a family of 700 members needs 33 evaluations of it.
    known: dict[tuple[float, int], tuple[float, float, float]] = {}

    def at_once(gamma: float, tau: int) -> tuple[float, float, float]:
        if (gamma, tau) not in known:
            point = contractions[gamma]
            known[gamma, tau] = round_effect(point, fleetwide, tau, float(length(np.array(point.log_q), tau)))
        return known[gamma, tau]

    gammas, place = np.unique([gamma for gamma, _ in pairs], return_inverse=True)
    zs = np.array([z for _, z in pairs])
    with np.errstate(divide="ignore"):
        young = np.column_stack([1.0 + zs, 1.0 + 1.0 / zs])

    def drift(tau: Ints, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        if active.size == place.size:
            used, back = np.arange(gammas.size), place[active]
        else:
            # Once for each gamma among the active members, then spread over them.
            used, back = np.unique(place[active], return_inverse=True)
        if tau.size == 1:
            found = np.array([[at_once(gamma, int(tau[0])) for gamma in gammas[used].tolist()]])
        else:
            points = [contractions[gamma] for gamma in gammas[used].tolist()]
            lengths = length(np.array([point.log_q for point in points]), tau[:, None])
            found = round_effects(points, fleetwide, tau, lengths)
        found = found[:, back]
        amounts = found[..., :2]
        # An infinite share of nothing is nothing; what is beyond the largest number is infinite.
        with np.errstate(over="ignore"):
            terms = np.multiply(young[active], amounts, out=np.zeros_like(amounts), where=amounts > 0.0)
        return terms[..., 0], terms[..., 1] + found[..., 2]

    return NoiseAndDriftForm(
        members=_members(type(bound), tuple(pairs)),
        basis=fleet.noise_terms,
        remaining=fleet.step_noise_terms,
        population=population(problem),
        noise_share=np.array([contractions[gamma].noise_share for gamma in gammas.tolist()])[place],
        progress=progress(np.array([contractions[gamma].log_q for gamma in gammas.tolist()])[place]),
        drift=drift,
    )
