"""The limits on cost and on energy: what samples, steps and rounds use up, in one form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.problem import limits
from coopt.problem.problem import Problem


@dataclass(frozen=True)
class WorkLimit:
    """K (tau (sample @ s + step) + round) <= total.

    Attributes
    ----------
    name : {"cost", "energy"}
    sample : ndarray, shape (N,)
        What a sample uses on each device.
    step, round : float
        What a local step, and a round, uses on all devices together, whatever the batches.
    total : float
    """

    name: str
    sample: NDArray[np.float64]
    step: float
    round: float
    total: float

    @property
    def met_up_to(self) -> float:
        """What may be used in all and still meets the limit, which has a tolerance."""
        return self.total * (1.0 + limits.TOLERANCE)

    def of_a_step(self, rounds: float, local_steps: float) -> float:
        """What sample @ s may be at (K, tau), without the tolerance."""
        return (self.total / rounds - self.round) / local_steps - self.step


def work_limits(problem: Problem) -> list[WorkLimit]:
    """The limits on cost and on energy that a problem has."""
    fleet, budget = problem.plain.fleet, problem.plain.budget
    both = (
        WorkLimit("cost", fleet.sample_cost, fleet.whole_step_cost, budget.round_cost, budget.cost),
        WorkLimit(
            "energy", fleet.sample_energy, fleet.whole_step_energy, fleet.whole_round_energy, budget.energy
        ),
    )
    return [limit for limit in both if limit.total < math.inf]
