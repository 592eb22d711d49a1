"""The trade-off bound as a family with a monotone form, so that the exact solver prunes with it.

Two changes make it fit: gamma is the same in every step, so that progress depends on K tau alone, and the
floor is the largest over all shorter rounds, coefficient by coefficient. A larger floor is still a bound.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.theory.tradeoff import Floats, drift_costs_of
from coopt import Bound, Constants, InvalidProblemError, Problem
from coopt.objectives.curvature import curvature
from coopt.objectives.monotone import Floor, MonotoneBase, MonotoneForm
from coopt.objectives.tradeoff import GAMMAS

RATIOS = (0.0, *(float(f"{10 ** (k / 2):.3g}") for k in range(-4, 9)))
LONGEST = 128  # local steps; the floor of longer rounds would take too long, so it is infinite


@dataclass(frozen=True)
class TradeOffFamily(MonotoneBase):
    """The minimum over the pairs (gamma, ratio); one pair is an ordinary bound."""

    pairs: tuple[tuple[float, float], ...] = tuple(itertools.product((*GAMMAS[::3], 0.0), RATIOS))

    @property
    def name(self) -> str:
        if len(self.pairs) == 1:
            return "tradeoff(gamma={}, ratio={})".format(*self.pairs[0])
        return f"tradeoff family of {len(self.pairs)}"

    def members(self) -> tuple[Bound, ...]:
        return tuple(TradeOffFamily((pair,)) for pair in self.pairs)

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        if problem.constants.pl_constant is None:
            raise InvalidProblemError("pl_constant is missing: the trade-off bound needs it")
        fleet, p = problem.fleet, problem.fleet.weights
        return _Form(
            constants=problem.constants,
            pairs=self.pairs,
            divergence2=float(p @ fleet.divergence**2),
            basis=(p**2 * fleet.gradient_noise, p * (1.0 - p) * fleet.gradient_noise),
            population=None if fleet.replacement else fleet.samples,
        )


@dataclass
class _Form:
    """The family tied to a problem; remembers the floors of all shorter rounds."""

    constants: Constants
    pairs: tuple[tuple[float, float], ...]
    divergence2: float
    basis: tuple[Floats, Floats]
    population: NDArray[np.int64] | None
    floors: list[Floats] = field(default_factory=list)  # floors[tau - 1]: (2, m)

    @property
    def members(self) -> tuple[Bound, ...]:
        return tuple(TradeOffFamily((pair,)) for pair in self.pairs)

    def _mean_step(self) -> float:
        """eta beta_F."""
        return curvature(self.constants, "trade-off").mean_step

    def _rate(self) -> Floats:
        """1 - q of every member."""
        gammas, x = np.array([gamma for gamma, _ in self.pairs]), self._mean_step()
        c = self.constants.pl_constant or 0.0
        return np.asarray(self.constants.learning_rate * c * (1.0 + (1.0 - x) * (1.0 - gammas)))

    def _costs(self, tau: int) -> Floats:
        """Coefficients of d_h^2 and nu^2 in the floor at tau, (2, m)."""
        gammas = np.array([gamma for gamma, _ in self.pairs])
        costs = np.zeros((2, len(gammas)))
        if tau == 1:
            return costs
        eta, x, rate = self.constants.learning_rate, self._mean_step(), self._rate()
        costs[:, gammas == 0.0] = np.inf
        for ratio in {ratio for _, ratio in self.pairs}:
            here = np.array([pair[1] == ratio and pair[0] > 0.0 for pair in self.pairs])
            if here.any():
                factor = eta / 2.0 * (x + (1.0 - x) / gammas[here])
                powers = (1.0 - rate[here]) ** np.arange(tau - 1, -1, -1)[:, None]
                costs[:, here] = drift_costs_of(self.constants, factor * powers, ratio)
        return costs / -np.expm1(tau * np.log1p(-rate))

    def floor(self, local_steps: int, active: NDArray[np.intp]) -> Floor:
        share = self._mean_step() * self.constants.learning_rate / 2.0 / self._rate()
        if local_steps > LONGEST:
            drift = np.full((2, len(self.pairs)), np.inf)
        else:
            while len(self.floors) < local_steps:
                new = self._costs(len(self.floors) + 1)
                self.floors.append(np.maximum(new, self.floors[-1]) if self.floors else new)
            drift = self.floors[local_steps - 1]
        offsets = drift[0] * self.divergence2 if self.divergence2 else np.zeros(len(self.pairs))
        return Floor(offsets[active], np.column_stack([share, drift[1]])[active], self.basis)

    def progress(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        exponent = np.log1p(-self._rate()[active])[:, None] * steps
        return self.constants.initial_gap * np.exp(exponent), -np.expm1(exponent)
