"""The certified bound: on the loss, under a Polyak-Lojasiewicz condition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from coopt.objectives.cautions import floor_above_gap, said
from coopt.objectives.curvature import curvature, log_contraction, required
from coopt.objectives.monotone import MonotoneForm
from coopt.objectives.one_round import Contraction
from coopt.objectives.progress import ExponentialProgress
from coopt.objectives.protocol import LOSS, Floats
from coopt.objectives.rates import Rates
from coopt.objectives.young import YoungFamily, young_form
from coopt.problem.problem import Problem
from coopt.problem.readable import readable

if TYPE_CHECKING:
    from coopt_bounds.theorem import Theorem


@readable
@dataclass(frozen=True)
class Certified(YoungFamily):
    """The certified bound: proved for smooth losses under a Polyak-Lojasiewicz condition, no rho.

    For any gamma in (0, 1] and z > 0, with q = 1 - eta c [2 - eta beta_F - (1 - eta beta_F) gamma],
    C = (eta/2) [eta beta_F + (1 - eta beta_F)/gamma] beta_d^2 and r = 1 - eta ell::

        B = q^(K tau) D0 + (1 - q^(K tau)) [eta^2 beta_F sigma^2 / (2 (1 - q))
            + C/(1 - q^tau) sum_{j<tau} q^(tau-1-j) ((1+z) a_j^2 + (1+1/z) b_j^2)]

    where a_j = eta d_h (r^j - 1)/(r - 1), b_j^2 = eta^2 nu^2 (r^(2j) - 1)/(r^2 - 1),
    d_h^2 = sum p_i delta_i^2, sigma^2 = sum p_i^2 v_i and nu^2 = sum p_i (1 - p_i) v_i with
    v_i = M_i/s_i + V_i.
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

    __module__ = "coopt"

    _kind = "certified"
    unit = LOSS

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        known = curvature(problem.constants, self._kind)
        eta, x = problem.constants.learning_rate, known.mean_step
        c = required(problem.constants, "pl_constant", self._kind)
        # Exact: where eta c is nearly one, rounding here would be all that is left of 1 - eta c.
        pace = Fraction(eta) * Fraction(c)
        slack = max(1 - Fraction(eta) * Fraction(known.mean_smoothness), Fraction(0))

        def at(gamma: float) -> Contraction:
            bracket = 1 + slack * (1 - Fraction(gamma))
            return Contraction(
                log_q=log_contraction(pace * bracket),
                noise_share=x / (2.0 * c * float(bracket)),
                drift_factor=eta / 2.0 * known.coupling_factor(gamma),
                error_factor=eta / 2.0 * known.young_factor(gamma),
                sampling_factor=known.mean_smoothness / 2.0,
            )

        return young_form(
            self,
            problem,
            known,
            at,
            progress=lambda log_q: ExponentialProgress(log_q, problem.constants.initial_gap),
            length=lambda log_q, tau: -np.expm1(log_q * tau),
        )

    def rates(self, problem: Problem) -> Rates:
        """How the bound depends on the learning rate, and on the convexity where participants are drawn."""
        convexity = max(problem.constants.curvature_floor or 0.0, 0.0)
        return replace(super().rates(problem), convexity=convexity)

    def cautions(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats, value: float
    ) -> tuple[str, ...]:
        """Warn of drift terms that say nothing, and of an error floor above the initial gap."""
        found = super().cautions(problem, rounds, local_steps, batch_sizes, value)
        # The bound lies between the initial gap and the floor.
        if value > problem.constants.initial_gap:
            floor = self.floor_value(problem, local_steps, batch_sizes)
            found += said(floor_above_gap(problem.constants, floor))
        return found

    def theorem(self, problem: Problem) -> Theorem:
        """(C), or (CM) where participants are drawn, or its extension to biased gradients."""
        from coopt_bounds import certified, cohort, participants

        if problem.constants.gradient_bias:
            return cohort.theorem
        return certified.theorem if problem.budget.participants is None else participants.theorem
