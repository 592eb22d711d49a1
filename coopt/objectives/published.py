"""The bounds of DYNAMITE and of AdaCoOpt, as published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.cautions import floor_above_gap, impossible_continuity, said
from coopt.objectives.curvature import check_step_size, log_contraction, required
from coopt.objectives.drift import sums_on_grid
from coopt.objectives.monotone import MonotoneBase, MonotoneForm, scaled
from coopt.objectives.noise_and_drift import NoiseAndDriftForm, population
from coopt.objectives.participation import refuse_absence
from coopt.objectives.progress import ExponentialProgress
from coopt.objectives.protocol import LOSS, Floats, Ints
from coopt.objectives.rates import Rates
from coopt.objectives.statement import Statement, constants_values
from coopt.problem.problem import Problem
from coopt.problem.readable import readable


class _Published(MonotoneBase):
    """What the two published bounds have in common."""

    unit = LOSS

    def rates(self, problem: Problem) -> Rates:
        """How the bound depends on the learning rate, which is at most 1/beta."""
        return Rates(self, problem, largest=1.0 / problem.constants.smoothness)

    def cautions(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats, value: float
    ) -> tuple[str, ...]:
        """Warn of an error floor above the initial gap."""
        # The bound lies between the initial gap and the floor.
        if value <= problem.constants.initial_gap:
            return ()
        return said(floor_above_gap(problem.constants, self.floor_value(problem, local_steps, batch_sizes)))


@readable
@dataclass(frozen=True)
class Dynamite(_Published):
    """Equation (11) of DYNAMITE, as published: drift enters as rho h(tau)^2.

    B = q^(K tau) D0 + (1 - q^(K tau)) [eta beta/(2c) sum p_i^2 v_i + rho h(tau)^2/(1 - q^tau)],
    with v_i = M_i/s_i + V_i (V_i = 0 as published), q = 1 - eta c, delta = sum p_i delta_i and
    h(tau) = (delta/beta) ((1 + eta beta)^tau - 1) - eta delta tau. Needs ``pl_constant`` and
    eta <= 1/beta. The constant rho is ``quadratic_continuity``; where the user gives none, it is
    1/(eta tau), the smallest value that can hold at a fixed point of federated averaging. It is not a
    certified bound: see the documentation.

    References
    ----------
    Liu et al., "DYNAMITE: Dynamic Interplay of Mini-Batch Size and Aggregation Frequency for Federated
    Learning with Static and Streaming Dataset", IEEE TMC 2024, arXiv:2310.14906, eq. (11).
    """

    __module__ = "coopt"

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        return "dynamite"

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        eta, rho = problem.constants.learning_rate, problem.constants.quadratic_continuity

        def penalty(h: Floats, tau: Ints) -> Floats:
            # With rho = 1/(eta tau), in an order in which nothing overflows before the result does.
            return h / tau * (h / eta) if rho is None else scaled(h * h, rho)

        return _published_form(self, problem, penalty)

    def cautions(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats, value: float
    ) -> tuple[str, ...]:
        """Warn of a rho that cannot hold, and of an error floor above the initial gap."""
        return (
            *said(impossible_continuity(problem.constants, local_steps)),
            *super().cautions(problem, rounds, local_steps, batch_sizes, value),
        )

    def statement(self, problem: Problem, local_steps: int) -> Statement:
        """Equation (11), with its rho."""
        from coopt_bounds import dynamite

        constants = problem.constants
        rho = constants.quadratic_continuity
        smallest = 1.0 / (constants.learning_rate * local_steps)
        return Statement(dynamite.theorem, constants_values(constants, smallest if rho is None else rho))


@readable
@dataclass(frozen=True)
class AdaCoOpt(_Published):
    """The precursor of the DYNAMITE bound: drift enters as rho h(tau), rho a Lipschitz constant.

    Like :class:`Dynamite` with ``lipschitz`` * h(tau) in place of rho h(tau)^2. Needs ``pl_constant``
    and ``lipschitz``.

    References
    ----------
    Liu et al., "AdaCoOpt: Leverage the Interplay of Batch Size and Aggregation Frequency for Federated
    Learning", IEEE/ACM IWQoS 2023.
    """

    __module__ = "coopt"

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        return "adacoopt"

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        rho = required(problem.constants, "lipschitz", self.name)
        return _published_form(self, problem, lambda h, _tau: scaled(h, rho))

    def statement(self, problem: Problem, local_steps: int) -> Statement:
        """The published statement, with its Lipschitz constant."""
        from coopt_bounds import adacoopt

        constants = problem.constants
        return Statement(adacoopt.theorem, constants_values(constants, constants.lipschitz))


def _published_form(
    bound: _Published, problem: Problem, penalty: Callable[[Floats, Ints], Floats]
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

    return NoiseAndDriftForm(
        members=(bound,),
        basis=problem.fleet.noise_terms[:1],
        remaining=problem.fleet.step_noise_terms,
        population=population(problem),
        noise_share=np.array([x / (2.0 * c)]),
        progress=ExponentialProgress(np.array([log_q]), constants.initial_gap),
        drift=drift,
    )
