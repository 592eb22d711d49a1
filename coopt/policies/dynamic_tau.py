"""Dynamic-tau: one batch size for all, local steps from measured smoothness and divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coopt.objectives.drift import drift_sums
from coopt.policies.situation import Choice, Ints, Situation, clip_batches, rounds_left
from coopt.problem import limits

SEARCH_FACTOR, LARGEST_TAU = 10, 100


@dataclass(frozen=True)
class DynamicTau:
    """The control algorithm of Wang et al., as published, with its own estimators.

    Parameters
    ----------
    batch_size : int
        s, the same on every device.
    control : float, default 0.025
        The control parameter phi.

    Notes
    -----
    Each round it takes the tau in 1 .. min(10 tau_previous, 100) that minimises

    G(tau) = (1 + sqrt(1 + 4 T'^2 phi rho eta h(tau)/tau)) / (2 T' eta phi) + rho h(tau),

    T' = R tau / (t_local tau + t_global) the local steps that the budget R allows when the last model is
    kept. A budget may be time or cost; with both limited, the one that allows fewer steps counts.

    References
    ----------
    Wang et al., Adaptive federated learning in resource constrained edge computing systems, JSAC 37(6), 2019,
    arXiv 1804.05271, eq. (18) and algorithm 2.
    """

    batch_size: int
    control: float = 0.025
    name: str = "dynamic-tau"
    needs_estimates: bool = False
    measures_curvature: bool = True

    def choose(self, situation: Situation) -> Choice:
        """Choose tau; 1 in the first round and as long as nothing was measured."""
        problem, known = situation.problem, situation.published
        batches = clip_batches(problem, np.full(len(problem.fleet), self.batch_size))
        tau = 1
        values = (known.smoothness, known.lipschitz, known.divergence)
        if situation.previous is not None:
            tau = situation.previous.local_steps
            if all(map(math.isfinite, values)):
                candidates = range(1, min(SEARCH_FACTOR * tau, LARGEST_TAU) + 1)
                tau = min(candidates, key=lambda t: self._objective(situation, batches, t))
        return Choice(tau, batches, rounds_left(problem, tau, batches))

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """Nothing is expected."""
        return math.nan

    def _objective(self, situation: Situation, batches: np.ndarray, tau: int) -> float:
        fleet, total, known = situation.problem.fleet, situation.total, situation.published
        eta, phi, rho = situation.problem.constants.learning_rate, self.control, known.lipschitz
        beta = max(known.smoothness, 1e-5)  # the authors' floor
        seconds = float(limits.device_times(situation.problem, 1, tau, batches).max())
        cost = tau * (float(fleet.sample_cost @ batches) + fleet.whole_step_cost) + total.round_cost
        steps = min(
            total.time * tau / seconds if seconds > 0 else math.inf,
            total.cost * tau / cost if cost > 0 else math.inf,
        )
        h = drift_sums(0.0, math.log1p(eta * beta), tau, eta * known.divergence * eta * beta).linear
        if not math.isfinite(steps):
            return rho * h
        root = math.sqrt(1 + 4 * steps**2 * phi * rho * eta * h / tau)
        return (1 + root) / (2 * steps * eta * phi) + rho * h
