"""The trade-off bound: tighter than the certified one, from the same constants.

Curvature does harm twice. It lets devices drift apart, and it turns their drift into an error of the averaged
gradient. The certified bound counts all of it both times. But the curvature of one device along one
direction can do only one of the two in full: what is spent on the first is missing for the second. Counting
it once gives this bound.

The theorem and its proof are in ``coopt_bounds.tradeoff``. For fixed parameters (gamma, ratio) the bound is
an offset plus a weighted sum of 1/s_i. It has no monotone form, so the exact solver tries every (K, tau).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from coopt.errors import InvalidProblemError
from coopt.objectives.cautions import exploding_drift, said
from coopt.objectives.curvature import curvature, log_contraction, required
from coopt.objectives.monotone import inverse_batches, scaled
from coopt.objectives.participation import refuse_absence
from coopt.objectives.protocol import LOSS, Bound, Floats, Objective, Parts
from coopt.problem.constants import Constants
from coopt.problem.problem import Problem
from coopt.problem.readable import readable
from coopt.problem.validation import count, float_array, is_auto, real

# In gamma a bound is the more sensitive the larger gamma is, by what contraction a little of it takes away;
# an even grid of its square root costs 0.8 % as long as the bound is above 1e-9 of the initial gap.
GAMMAS = tuple(float(f"{(k / 32) ** 2:.3g}") for k in range(32, 0, -1))
RATIOS = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-10, 11))
LARGEST_RATIO = 1e200
SWEEPS = 4


@readable
@dataclass(frozen=True)
class TradeOff(Objective):
    """The trade-off bound: tighter than :class:`Certified`, from the same constants.

    :class:`Certified` assumes that the devices' curvature lets them drift apart as fast as possible, and that
    the same curvature turns all of that drift into an error of the averaged gradient. With
    rho = (beta - ell)/2 the two share one budget: if a fraction t of it feeds drift, at most sqrt(1 - t^2)
    couples. For any gamma in (0, 1] and zeta_j > 0, with q as in :class:`Certified`,
    q_0 = 1 - eta c (2 - eta beta_F), Q = q_0 q^(tau-1) and
    lambda_j = (eta/2) [eta beta_F + (1 - eta beta_F)/gamma] q^(tau-1-j)::

        B = Q^K D0 + (1 - Q^K)/(1 - Q) [(eta^2 beta_F sigma^2/2) sum_{j<tau} q^j
            + eta^2 d_h^2 (P_1 + sum_{0<j<tau} (1 + 1/zeta_j) P_{j+1}) + eta^2 nu^2 sum_{0<j<=tau} P_j]

    where P_tau = 0 and P_j is the largest (1 + zeta_j) P_{j+1} (1 - eta m + eta rho t)^2
    + lambda_j rho^2 (1 - t^2) over t in [0, 1], m = (beta + ell)/2. Needs ``pl_constant`` and
    eta <= min(1/beta_F, 2/(beta + ell)); ``curvature_floor``, ``mean_smoothness`` and ``coupling``
    tighten it.

    Parameters
    ----------
    gamma : float in (0, 1] or "auto"
        Trades contraction for drift.
    ratio : float in [0, inf] or "auto"
        The nu^2/d_h^2 for which the zeta_j are chosen. Every ratio gives a valid bound; infinity says
        something only where d_h = 0, or up to two local steps.

    Notes
    -----
    "auto" judges a plan by the smallest of the gammas in :data:`GAMMAS`, at the plan's own ratio. It is a
    bound because each of them is. It has no coefficients: solvers take numbers, such as those of one of
    :meth:`members`. There is no monotone form, so they try every (K, tau): limit K and tau.

    For the same gamma it is at most :class:`Certified` with any z. The proof is in
    ``coopt_bounds.tradeoff``.

    Examples
    --------
    >>> from coopt import Budget, Certified, Constants, Fleet, Problem, TradeOff
    >>> problem = Problem(
    ...     Fleet(samples=[60, 20], gradient_noise=4.0, divergence=0.1),
    ...     Constants(
    ...         learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.5
    ...     ),
    ...     Budget(),
    ... )
    >>> for bound in (Certified(), TradeOff()):
    ...     print(bound.name, round(bound.value(problem, 50, 8, [16, 8]), 5))
    certified 0.03637
    tradeoff 0.02976
    >>> offset, weights = TradeOff(gamma=0.5, ratio=10).coefficients(problem, rounds=50, local_steps=8)
    """

    __module__ = "coopt"

    gamma: float | Literal["auto"] = "auto"
    ratio: float | Literal["auto"] = "auto"

    unit = LOSS
    needs_numbers = True

    def __post_init__(self) -> None:
        if not is_auto(self.gamma):
            gamma = real("gamma", self.gamma, minimum=0.0, strict=True)
            if gamma > 1.0:
                raise InvalidProblemError(f"gamma = {gamma!r}: must lie in (0, 1], or be 'auto'")
            object.__setattr__(self, "gamma", gamma)
        if not is_auto(self.ratio):
            object.__setattr__(self, "ratio", real("ratio", self.ratio, minimum=0.0, infinite=True))

    @property
    def name(self) -> str:
        """The kind of bound, with its numbers where it has them."""
        if self.gamma == "auto" and self.ratio == "auto":
            return "tradeoff"
        return f"tradeoff(gamma={self.gamma}, ratio={self.ratio})"

    def members(self) -> tuple[Bound, ...]:
        """Bounds with numbers for solvers; where the ratio is "auto", on the grid :data:`RATIOS`."""
        ratios = RATIOS if isinstance(self.ratio, str) else (self.ratio,)
        return tuple(TradeOff(gamma, ratio) for gamma in self._gammas() for ratio in ratios)

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        """(offset, weights), weights of shape (N,), of B = offset + sum(weights / batch_sizes).

        Raises
        ------
        InvalidProblemError
            If ``pl_constant`` is missing, the learning rate is above its limit, or a parameter is "auto".
        """
        if isinstance(self.gamma, str) or isinstance(self.ratio, str):
            raise InvalidProblemError(
                f"bound {self.name!r} chooses its parameters for each plan and has no single set of "
                "coefficients: use numbers, TradeOff(gamma=..., ratio=...), or one of its members()"
            )
        refuse_absence(problem.budget.participants, problem.constants.gradient_bias, self.name)
        effect = _round_effect(
            problem.constants, count("local_steps", local_steps), (self.gamma,), self.ratio
        )
        left, repeated = (float(part[0]) for part in effect.after(count("rounds", rounds)))
        fleet, p = problem.fleet, problem.fleet.weights
        divergence = scaled(effect.divergence, float(p @ fleet.divergence**2))
        offset = left * problem.constants.initial_gap + repeated * float(divergence[0])
        spread = p * (1.0 - p) * fleet.gradient_noise
        drift = np.multiply(effect.spread, spread, out=np.zeros_like(spread), where=spread > 0.0)
        weights: Floats = repeated * (effect.noise * p * p * fleet.gradient_noise + drift)
        averaged, drifting = fleet.step_noise_terms.tolist()
        offset += repeated * float(effect.noise[0] * averaged + scaled(effect.spread, drifting)[0])
        if not fleet.replacement:
            offset -= float(np.sum(weights / fleet.samples))
        return offset, weights

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """The bound for one plan, in the unit of the loss.

        Parameters
        ----------
        problem : Problem
        rounds, local_steps : int
        batch_sizes : array_like, shape (N,)

        Raises
        ------
        InvalidProblemError
            If ``pl_constant`` is missing, or the learning rate is above its limit.
        """
        return self.best_member(problem, rounds, local_steps, batch_sizes)[0]

    def best_member(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike
    ) -> tuple[float, TradeOff]:
        """The value for one plan, and the bound with numbers that has it."""
        refuse_absence(problem.budget.participants, problem.constants.gradient_bias, self.name)
        sums = _sums(problem, batch_sizes)
        gammas, ratio = self._gammas(), sums.ratio if isinstance(self.ratio, str) else self.ratio
        effect = _round_effect(problem.constants, count("local_steps", local_steps), gammas, ratio)
        transient, noise, drift = effect.split(problem, count("rounds", rounds), sums)
        values = transient + noise + drift
        best = int(np.argmin(values))
        return float(values[best]), TradeOff(gammas[best], ratio)

    def parts(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> Parts:
        """The value split into transient, noise and drift."""
        _, best = self.best_member(problem, rounds, local_steps, batch_sizes)
        effect = _round_effect(problem.constants, local_steps, best._gammas(), float(best.ratio))
        split = effect.split(problem, rounds, _sums(problem, batch_sizes))
        return Parts(*(float(part[0]) for part in split))

    def cautions(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats, value: float
    ) -> tuple[str, ...]:
        """Warn of so many local steps that the drift terms say nothing."""
        return said(exploding_drift(problem.constants, local_steps))

    def _gammas(self) -> tuple[float, ...]:
        return GAMMAS if isinstance(self.gamma, str) else (self.gamma,)


@dataclass(frozen=True)
class _Sums:
    """sigma^2, d_h^2 and nu^2 of a plan."""

    sigma2: float
    divergence2: float
    nu2: float

    @property
    def ratio(self) -> float:
        """nu^2/d_h^2, infinite only where nothing diverges."""
        return min(max(self.nu2, 0.0) / self.divergence2, LARGEST_RATIO) if self.divergence2 else math.inf


def _sums(problem: Problem, batch_sizes: ArrayLike) -> _Sums:
    fleet, p = problem.fleet, problem.fleet.weights
    batches = float_array("batch_sizes", batch_sizes, len(fleet), minimum=0.0, strict=True)
    variance = fleet.gradient_noise * inverse_batches(batches, None if fleet.replacement else fleet.samples)
    variance += fleet.step_noise
    return _Sums(float(p * p @ variance), float(p @ fleet.divergence**2), float(p * (1.0 - p) @ variance))


@dataclass(frozen=True)
class _Round:
    """What one round does to the expected gap, for each of a family of gammas; arrays of shape (m,).

    E_{k+1} <= exp(log_contraction) E_k + noise sigma^2 + divergence d_h^2 + spread nu^2.
    """

    log_contraction: Floats
    noise: Floats
    divergence: Floats
    spread: Floats

    def after(self, rounds: int) -> tuple[Floats, Floats]:
        """What is left of the initial gap, and how often the floor of one round adds up; shapes (m,)."""
        log = self.log_contraction
        repeated = np.full_like(log, rounds)
        np.divide(np.expm1(rounds * log), np.expm1(log), out=repeated, where=log < 0.0)
        return np.exp(rounds * log), repeated

    def split(self, problem: Problem, rounds: int, sums: _Sums) -> tuple[Floats, Floats, Floats]:
        """Transient, noise and drift after `rounds` rounds, each of shape (m,)."""
        left, repeated = self.after(rounds)
        drift = scaled(self.divergence, sums.divergence2) + scaled(self.spread, sums.nu2)
        return left * problem.constants.initial_gap, repeated * self.noise * sums.sigma2, repeated * drift


# A search asks for the same round at every number of rounds.
@lru_cache(maxsize=4096)
def _round_effect(constants: Constants, local_steps: int, gammas: tuple[float, ...], ratio: float) -> _Round:
    """Evaluate the theorem for one round of `local_steps` local steps."""
    known = curvature(constants, "trade-off")
    eta, x = constants.learning_rate, known.mean_step
    pace = Fraction(eta) * Fraction(required(constants, "pl_constant", "trade-off"))
    # Exact: where eta c is nearly one, rounding here would be all that is left of 1 - eta c.
    slack = max(1 - Fraction(eta) * Fraction(known.mean_smoothness), Fraction(0))
    rates = [pace * (1 + slack * (1 - Fraction(gamma))) for gamma in gammas]
    # No drift in the first step of a round: gamma = 0 is free there.
    log_contraction_ = np.full(len(gammas), log_contraction(pace * (1 + slack)))
    if local_steps > 1:
        log_contraction_ += (local_steps - 1) * np.array([log_contraction(rate) for rate in rates])
    q = np.array([float(max(1 - rate, Fraction(0))) for rate in rates])
    powers = q ** np.arange(local_steps - 1, -1, -1)[:, None]
    factor = eta / 2.0 * (x + (1.0 - x) / np.array(gammas))
    divergence, spread = drift_costs(
        factor * powers,
        step=eta,
        low=known.floor,
        high=constants.smoothness,
        coupling=known.coupling,
        ratio=ratio,
    )
    return _Round(log_contraction_, eta * x / 2.0 * powers.sum(axis=0), divergence, spread)


def drift_costs(
    weights: Floats, *, step: float, low: float, high: float, coupling: float, ratio: float
) -> tuple[Floats, Floats]:
    """Coefficients (of d_h^2, of nu^2) that bound sum_j weights[j] E||x_j||^2, each of shape (m,).

    Parameters
    ----------
    weights : ndarray, shape (tau, m)
        lambda_j >= 0 for m weightings at once; lambda_0 plays no part, since x_0 = 0.
    step : float
        eta <= 2/(low + high).
    low, high : float
        Curvature range [ell, beta] of every device.
    coupling : float
        beta_d, where more is known than (beta - ell)/2, which always holds.
    ratio : float
        nu^2/d_h^2 that Young's parameters are chosen for.

    Notes
    -----
    x_j is the change that drift makes in the averaged gradient. A backward sweep finds storage weights P_j
    with P_{j+1} e_{j+1}^2 + lambda_j x_j^2 <= P_j e_j^2 + (noise and divergence); Young's parameters come
    from the worst trajectory under the previous sweep. Every sweep is valid; the best one counts. Where
    every sweep leaves the range of float64, the costs are infinite.
    """
    steps, members = weights.shape
    middle, radius = max(1.0 - step * (low + high) / 2.0, 0.0), step * (high - low) / 2.0
    known = 2.0 * coupling / (high - low) if high > low else 1.0
    least = math.sqrt(max(1.0 - known**2, 0.0))
    # Products, since a power that exceeds floats is an exception.
    half_range, step2 = (high - low) / 2.0, step * step
    diverging, nu2 = (0.0, 1.0) if math.isinf(ratio) else (1.0, ratio)
    growth = np.full((steps, members), middle + radius)
    best = np.full(members, np.inf)
    costs = np.full((2, members), np.inf)
    # `growth` is how fast drift grows at each step on the worst trajectory that the last sweep found. Forward
    # it says how much drift there is, which decides zeta. Backward the storage weights follow from zeta, and
    # with them a new growth.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(SWEEPS):
            drift = np.zeros((steps, members))
            for j in range(1, steps):
                drift[j] = np.sqrt((growth[j - 1] * drift[j - 1] + step * diverging) ** 2 + step * step * nu2)
            storage, found = np.zeros(members), np.zeros((2, members))
            for j in range(steps - 1, 0, -1):
                # zeta splits (drift + divergence)^2 by Young's inequality; any positive one will do.
                zeta = diverging * step / np.maximum(growth[j] * drift[j], 1e-9 * step)
                found[0] += np.where(storage > 0.0, storage * step2 * (1.0 + 1.0 / zeta), 0.0)
                found[1] += storage * step2
                carried = (1.0 + zeta) * storage
                lost = weights[j] * (half_range * half_range)
                # The worst share t of the curvature that feeds drift maximises
                # carried (middle + radius t)^2 + lost (1 - t^2): a parabola in t, open below if excess > 0.
                excess = lost - carried * (radius * radius)
                inner = carried * middle * radius
                share = np.where(inner < excess, inner / np.where(excess > 0.0, excess, 1.0), 1.0)
                # Not from `least`, in which a small known coupling is lost to rounding.
                coupled = np.where(share > least, 1.0 - share**2, min(known**2, 1.0))
                share = np.maximum(share, least)
                growth[j] = middle + radius * share
                storage = carried * growth[j] ** 2 + lost * coupled
            found += storage * step2  # no drift before the first step: nothing to split
            total = found[0] * diverging + found[1] * nu2 if diverging else found[1]
            better = total < best
            best = np.where(better, total, best)
            costs = np.where(better, found, costs)
    return costs[0], costs[1]
