"""Error bounds in numbers: for given (K, tau) each is an offset plus a weighted sum of 1 / s_i.

The package ``coopt_bounds`` states and proves each bound symbolically; the numbers here agree with it to
1e-12. The structure that they share is in :mod:`coopt.objectives.monotone`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives import tradeoff
from coopt.objectives.curvature import Curvature, check_step_size, curvature, log_contraction, required
from coopt.objectives.drift import sums_on_grid
from coopt.objectives.monotone import (
    Bound,
    Floats,
    Floor,
    Ints,
    MonotoneBase,
    MonotoneForm,
    SeveralFloors,
)
from coopt.objectives.one_round import Contraction, Fleetwide, round_effect, round_effects
from coopt.objectives.participation import refuse_absence, variance_share
from coopt.problem.problem import Problem
from coopt.problem.validation import real

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
class Exponential:
    """a(T) = q^T D0, b(T) = 1 - q^T: geometric convergence to the floor."""

    log_q: Floats
    gap: float

    def __call__(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(a, b) of the active members at T = steps."""
        if active.size == 1:
            exponent = self.log_q[active, None] * steps
            return self.gap * np.exp(exponent), -np.expm1(exponent)
        # Members share few contraction factors: exponentials are evaluated once for each.
        log_q, place = np.unique(self.log_q[active], return_inverse=True)
        exponent = log_q[:, None] * steps
        return (self.gap * np.exp(exponent))[place], -np.expm1(exponent)[place]


@dataclass(frozen=True)
class Reciprocal:
    """a(T) = rate / T, b(T) = 1: sublinear convergence to the floor."""

    rate: Floats

    def __call__(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(a, b) of the active members at T = steps."""
        start = self.rate[active, None] / steps
        return start, np.ones_like(start)


Progress = Exponential | Reciprocal


@dataclass(frozen=True)
class _Form(SeveralFloors):
    """The monotone form of the bounds below: noise of the average, noise that drives drift."""

    members: tuple[Bound, ...]
    basis: tuple[Floats, ...]
    population: NDArray[np.int64] | None
    noise_share: Floats
    progress: Callable[[Floats, NDArray[np.intp]], tuple[Floats, Floats]]
    # (tau, members) -> their offsets, and their shares of the noise that drives drift, of shape (n, m)
    drift: Callable[[Ints, NDArray[np.intp]], tuple[Floats, Floats]]

    def floor(self, local_steps: int, active: NDArray[np.intp]) -> Floor:
        offsets, shares = self.floors(np.array([local_steps]), active)
        return Floor(offsets[0], shares[0], self.basis)

    def floors(self, local_steps: Ints, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Offsets, of shape (n, m), and shares, of shape (n, m, k), of the floors at several tau."""
        offsets, drift_shares = self.drift(local_steps, active)
        noise = np.broadcast_to(self.noise_share[active], drift_shares.shape)
        return offsets, np.stack([noise, drift_shares][: len(self.basis)], axis=-1)


def _population(problem: Problem) -> NDArray[np.int64] | None:
    return None if problem.fleet.replacement else problem.fleet.samples


@dataclass(frozen=True)
class Dynamite(MonotoneBase):
    """Equation (11) of DYNAMITE, as published: drift enters as rho h(tau)^2.

    B = q^(K tau) D0 + (1 - q^(K tau)) [eta beta/(2c) sum p_i^2 M_i/s_i + rho h(tau)^2/(1 - q^tau)],
    with q = 1 - eta c, h(tau) = (delta/beta) ((1 + eta beta)^tau - 1) - eta delta tau and
    delta = sum p_i delta_i. Needs ``pl_constant`` and eta <= 1/beta. The constant rho is
    ``quadratic_continuity``; where the user gives none, it is 1/(eta tau), the smallest value that can
    hold at a fixed point of federated averaging. It is not a certified bound: see the documentation.

    References
    ----------
    Liu et al., "DYNAMITE: Dynamic Interplay of Mini-Batch Size and Aggregation Frequency for Federated
    Learning with Static and Streaming Dataset", IEEE TMC 2024, arXiv:2310.14906, eq. (11).
    """

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        return "dynamite"

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        eta, rho = problem.constants.learning_rate, problem.constants.quadratic_continuity

        def penalty(h: Floats, tau: Ints) -> Floats:
            return h / tau * (h / eta) if rho is None else rho * h * h

        return _published_form(self, problem, penalty)


@dataclass(frozen=True)
class AdaCoOpt(MonotoneBase):
    """The precursor of the DYNAMITE bound: drift enters as rho h(tau), rho a Lipschitz constant.

    Like :class:`Dynamite` with ``lipschitz`` * h(tau) in place of rho h(tau)^2. Needs ``pl_constant``
    and ``lipschitz``.

    References
    ----------
    Liu et al., "AdaCoOpt: Leverage the Interplay of Batch Size and Aggregation Frequency for Federated
    Learning", IEEE/ACM IWQoS 2023.
    """

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        return "adacoopt"

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        rho = required(problem.constants, "lipschitz", self.name)
        return _published_form(self, problem, lambda h, _tau: rho * h)


def _published_form(
    bound: Dynamite | AdaCoOpt, problem: Problem, penalty: Callable[[Floats, Ints], Floats]
) -> MonotoneForm:
    constants = problem.constants
    eta, beta = constants.learning_rate, constants.smoothness
    c = required(constants, "pl_constant", bound.name)
    check_step_size(constants, 1.0 / beta, "1 / smoothness", bound.name)
    refuse_absence(problem.budget.participants, constants.gradient_bias, bound.name)
    divergence = problem.fleet.mean_divergence
    log_q = log_contraction(Fraction(eta) * Fraction(c))
    x = eta * beta

    def drift(tau: Ints, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        # h(tau) = eta delta sum_{j<tau} ((1 + x)^j - 1): a sum of positive terms.
        scales = np.full((tau.size, 1), eta * divergence * x)
        h = sums_on_grid(np.zeros(1), math.log1p(x), tau, scales, scales)[0]
        with np.errstate(over="ignore"):
            offsets = penalty(h, tau[:, None]) / -np.expm1(log_q * tau[:, None])
        return np.repeat(offsets, active.size, axis=1), np.zeros((tau.size, active.size))

    return _Form(
        members=(bound,),
        basis=problem.fleet.noise_terms[:1],
        population=_population(problem),
        noise_share=np.array([x / (2.0 * c)]),
        progress=Exponential(np.array([log_q]), constants.initial_gap),
        drift=drift,
    )


@dataclass(frozen=True)
class YoungFamily(MonotoneBase):
    """Parameters gamma and z of Young's inequality, as numbers or as the family "auto"."""

    gamma: float | Auto = "auto"
    z: float | Auto = "auto"

    _kind = ""

    def __post_init__(self) -> None:
        if self.gamma != "auto":
            object.__setattr__(self, "gamma", real("gamma", self.gamma, minimum=0.0))
            if self.gamma > 1.0:
                raise InvalidProblemError(f"gamma = {self.gamma!r}: must lie in [0, 1], or be 'auto'")
        if self.z != "auto":
            object.__setattr__(self, "z", real("z", self.z, minimum=0.0, infinite=True))

    @property
    def name(self) -> str:
        """The kind of bound, with its numbers where it has them."""
        if self.gamma == "auto" and self.z == "auto":
            return self._kind
        return f"{self._kind}(gamma={self.gamma}, z={self.z})"

    def pairs(self) -> list[tuple[float, float]]:
        """The (gamma, z) of the members."""
        gammas = GAMMAS if isinstance(self.gamma, str) else (self.gamma,)
        zs = ZS if isinstance(self.z, str) else (self.z,)
        return [(gamma, z) for gamma in gammas for z in zs]

    def members(self) -> tuple[Bound, ...]:
        """Bounds with numbers whose minimum this one is."""
        return tuple(type(self)(gamma, z) for gamma, z in self.pairs())

    def _pairs_for(self, problem: Problem, mean_step: float) -> list[tuple[float, float]]:
        """The pairs without those that another one matches or beats for every plan of this problem."""
        fleet = problem.fleet
        gammas = {gamma for gamma, _ in self.pairs()}
        zs = {z for _, z in self.pairs()}
        if self.gamma == "auto" and mean_step == 1.0:
            gammas = {1.0}
        if self.z == "auto":
            if not fleet.divergence.any() and not problem.constants.gradient_bias:
                zs = {math.inf}
            elif not fleet.gradient_noise.any():
                zs = {0.0}
            else:
                zs -= {0.0, math.inf}
        return [(gamma, z) for gamma, z in self.pairs() if gamma in gammas and z in zs]


@dataclass(frozen=True)
class Certified(YoungFamily):
    """The certified bound: proved for smooth losses under a Polyak-Lojasiewicz condition, no rho.

    For any gamma in (0, 1] and z > 0, with q = 1 - eta c [2 - eta beta_F - (1 - eta beta_F) gamma],
    C = (eta/2) [eta beta_F + (1 - eta beta_F)/gamma] beta_d^2 and r = 1 - eta ell::

        B = q^(K tau) D0 + (1 - q^(K tau)) [eta^2 beta_F sigma^2 / (2 (1 - q))
            + C/(1 - q^tau) sum_{j<tau} q^(tau-1-j) ((1+z) a_j^2 + (1+1/z) b_j^2)]

    where a_j = eta d_h (r^j - 1)/(r - 1), b_j^2 = eta^2 nu^2 (r^(2j) - 1)/(r^2 - 1),
    d_h^2 = sum p_i delta_i^2, sigma^2 = sum p_i^2 M_i/s_i, nu^2 = sum p_i (1 - p_i) M_i/s_i.
    Where the budget names ``participants``, the variance of drawing them is added: theorem (CM) of
    ``coopt_bounds.participants``. Needs ``pl_constant`` and eta <= min(1/beta_F, 2/(beta + ell)).

    Parameters
    ----------
    gamma : float in [0, 1] or "auto"
        Trades contraction for drift; 0 only says something at tau = 1.
    z : float in [0, inf] or "auto"
        Trades the part of drift due to divergence for that due to noise.

    Notes
    -----
    "auto" is the minimum over a finite family of pairs (:data:`GAMMAS` x :data:`ZS`), each an ordinary
    bound of this form; it lies within 1 % of the minimum over all pairs as long as it exceeds 1e-9 of the
    initial gap. The proof is in ``coopt_bounds.certified``.

    Examples
    --------
    >>> from coopt import Budget, Certified, Constants, Fleet, Problem
    >>> problem = Problem(
    ...     Fleet(samples=[60, 20], gradient_noise=4.0, divergence=0.1),
    ...     Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5),
    ...     Budget(),
    ... )
    >>> offset, weights = Certified(gamma=1, z=1).coefficients(problem, rounds=50, local_steps=4)
    >>> round(offset, 6), weights.round(6)
    (0.01655, array([0.568536, 0.171065]))
    """

    _kind = "certified"

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        known = curvature(problem.constants, self._kind)
        eta, x = problem.constants.learning_rate, known.mean_step
        c = required(problem.constants, "pl_constant", self._kind)
        # Exact: where eta c is nearly one, rounding here would be all that is left of 1 - eta c.
        slack = max(1 - Fraction(eta) * Fraction(known.mean_smoothness), Fraction(0))

        def at(gamma: float) -> Contraction:
            bracket = 1 + slack * (1 - Fraction(gamma))
            return Contraction(
                log_q=log_contraction(Fraction(eta) * Fraction(c) * bracket),
                noise_share=x / (2.0 * c * float(bracket)),
                drift_factor=eta / 2.0 * known.coupling_factor(gamma),
                error_factor=eta / 2.0 * known.young_factor(gamma),
                sampling_factor=known.mean_smoothness / 2.0,
            )

        return _young_form(
            self,
            problem,
            known,
            at,
            progress=lambda log_q: Exponential(log_q, problem.constants.initial_gap),
            length=lambda log_q, tau: -np.expm1(log_q * tau),
        )


@dataclass(frozen=True)
class NonConvex(YoungFamily):
    """The bound on the mean squared gradient of smooth losses, without convexity or PL condition.

    With the drift D_j = (1+z) a_j^2 + (1+1/z) b_j^2 of :class:`Certified` and
    m = 1 - eta beta_F/2 - (1 - eta beta_F) gamma/2::

        (1/T) sum_t E||grad F(w_t)||^2 <= (1/m) [D0/(eta T) + eta beta_F sigma^2/2
            + (1/2)(eta beta_F + (1 - eta beta_F)/gamma)(beta_d^2/tau) sum_{j<tau} D_j]

    D0 is F(w_0) - inf F; for a nonnegative loss F(w_0) itself is valid. Needs
    eta <= min(1/beta_F, 2/(beta + ell)) and no ``pl_constant``. The value is a squared gradient.

    Parameters
    ----------
    gamma, z : float or "auto"
        As in :class:`Certified`.
    """

    _kind = "nonconvex"

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        known = curvature(problem.constants, self._kind)
        eta, x = problem.constants.learning_rate, known.mean_step

        def at(gamma: float) -> Contraction:
            inverse = 2.0 / (1.0 + (1.0 - x) * (1.0 - gamma))
            return Contraction(
                log_q=0.0,
                noise_share=inverse * x / 2.0,
                drift_factor=inverse / 2.0 * known.coupling_factor(gamma),
                error_factor=inverse / 2.0 * known.young_factor(gamma),
                sampling_factor=inverse * known.mean_smoothness / (2.0 * eta),
            )

        def progress(_log_q: Floats) -> Reciprocal:
            return Reciprocal(noise_shares / (x / 2.0) * problem.constants.initial_gap / eta)

        gammas = [gamma for gamma, _ in self._pairs_for(problem, x)]
        shares = {gamma: at(gamma).noise_share for gamma in dict.fromkeys(gammas)}
        noise_shares = np.array([shares[gamma] for gamma in gammas])
        return _young_form(
            self, problem, known, at, progress=progress, length=lambda log_q, tau: np.zeros_like(log_q) + tau
        )


@cache
def _members(kind: type[YoungFamily], pairs: tuple[tuple[float, float], ...]) -> tuple[Bound, ...]:
    return tuple(kind(gamma, z) for gamma, z in pairs)


def _young_form(
    bound: YoungFamily,
    problem: Problem,
    constants: Curvature,
    at: Callable[[float], Contraction],
    progress: Callable[[Floats], Callable[[Floats, NDArray[np.intp]], tuple[Floats, Floats]]],
    length: Callable[[Floats, Ints | int], Floats],
) -> MonotoneForm:
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
        used, back = np.unique(place[active], return_inverse=True)
        if tau.size == 1:
            found = np.array([[at_once(gamma, int(tau[0])) for gamma in gammas[used].tolist()]])
        else:
            points = [contractions[gamma] for gamma in gammas[used].tolist()]
            lengths = length(np.array([point.log_q for point in points]), tau[:, None])
            found = round_effects(points, fleetwide, tau, lengths)
        found = found[:, back]
        amounts = found[..., :2]
        # An infinite share of nothing is nothing.
        terms = np.multiply(young[active], amounts, out=np.zeros_like(amounts), where=amounts > 0.0)
        return terms[..., 0], terms[..., 1] + found[..., 2]

    return _Form(
        members=_members(type(bound), tuple(pairs)),
        basis=fleet.noise_terms,
        population=_population(problem),
        noise_share=np.array([contractions[gamma].noise_share for gamma, _ in pairs]),
        progress=progress(np.array([contractions[gamma].log_q for gamma, _ in pairs])),
        drift=drift,
    )


KINDS: dict[str, Callable[..., Bound]] = {
    "certified": Certified,
    "dynamite": Dynamite,
    "adacoopt": AdaCoOpt,
    "nonconvex": NonConvex,
    "tradeoff": tradeoff.TradeOff,
}
_NUMBERED = re.compile(
    r"(certified|nonconvex)\(gamma=([^,]+), z=([^)]+)\)|(tradeoff)\(gamma=([^,]+), ratio=([^)]+)\)"
)


def has_name(bound: Bound) -> bool:
    """Whether the bound can be read back from its name; one of the user's own cannot."""
    return type(bound) in KINDS.values()


def resolve_bound(bound: str | Bound) -> Bound:
    """Return the bound that a name stands for, or the bound itself.

    Raises
    ------
    InvalidProblemError
        If the name is unknown or the object is no bound.
    """
    if not isinstance(bound, str):
        if isinstance(bound, Bound):
            return bound
        raise InvalidProblemError(
            f"bound = {bound!r}: must be a name or an object with the methods of coopt.Bound"
        )
    match = _NUMBERED.fullmatch(bound)
    if match:
        kind, *numbers = filter(None, match.groups())
        return KINDS[kind](*(text if text == "auto" else float(text) for text in numbers))
    if bound not in KINDS:
        raise InvalidProblemError(
            f"bound = {bound!r}: must be one of {', '.join(map(repr, KINDS))}, or a coopt.Bound"
        )
    return KINDS[bound]()


def __getattr__(name: str) -> object:
    """Find ``from_sympy`` here as well, beside the bounds that it adds to; sympy is loaded on first use."""
    if name == "from_sympy":
        from coopt.objectives.symbolic import from_sympy

        return from_sympy
    raise AttributeError(f"module 'coopt.objectives.bound' has no attribute {name!r}")
