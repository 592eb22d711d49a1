"""The non-convex bound: on the mean squared gradient, for smooth losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coopt.objectives.curvature import curvature
from coopt.objectives.monotone import MonotoneForm
from coopt.objectives.one_round import Contraction
from coopt.objectives.progress import SublinearProgress
from coopt.objectives.protocol import SQUARED_GRADIENT, Floats
from coopt.objectives.young import YoungFamily, young_form
from coopt.problem.problem import Problem
from coopt.problem.readable import readable

if TYPE_CHECKING:
    from coopt_bounds.theorem import Theorem


@readable
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

    __module__ = "coopt"

    _kind = "nonconvex"
    quantity = "Bound on the mean squared gradient"
    unit = SQUARED_GRADIENT

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

        def progress(_log_q: Floats) -> SublinearProgress:
            return SublinearProgress(noise_shares / (x / 2.0) * problem.constants.initial_gap / eta)

        gammas = [gamma for gamma, _ in self._pairs_for(problem, x)]
        shares = {gamma: at(gamma).noise_share for gamma in dict.fromkeys(gammas)}
        noise_shares = np.array([shares[gamma] for gamma in gammas])
        return young_form(
            self, problem, known, at, progress=progress, length=lambda log_q, tau: np.zeros_like(log_q) + tau
        )

    def theorem(self, problem: Problem) -> Theorem:
        """(N), or its extension to a draw of participants, or to biased gradients."""
        from coopt_bounds import cohort, nonconvex, participants

        if problem.constants.gradient_bias:
            return cohort.nonconvex_theorem
        if problem.budget.participants is not None:
            return participants.nonconvex_theorem
        return nonconvex.theorem
