"""Rules that fix the local steps: federated averaging, and a batch that grows with the measured noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coopt.policies.situation import Choice, Ints, Situation, clip_batches, rounds_left


@dataclass(frozen=True)
class FedAvg:
    """The same local steps and the same batch size for every device and every round.

    Parameters
    ----------
    local_steps : int
        tau.
    batch_size : int
        s, cut to each device's admissible range.

    References
    ----------
    McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017.
    """

    local_steps: int
    batch_size: int
    name: str = "fedavg"
    needs_estimates: bool = False
    measures_curvature: bool = False

    def choose(self, situation: Situation) -> Choice:
        """Choose what was fixed."""
        problem = situation.problem
        batches = clip_batches(problem, np.full(len(problem.fleet), self.batch_size))
        return Choice(self.local_steps, batches, rounds_left(problem, self.local_steps, batches))

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """Nothing is expected."""
        return math.nan


@dataclass(frozen=True)
class DynamicBatch:
    """Fixed local steps; the batch grows as soon as noise outweighs the gradient, and never shrinks.

    Parameters
    ----------
    local_steps : int
        tau.
    first_batch : int
        s to start with.
    noise_ratio : float, default 1
        Tolerated variance of the averaged gradient over the squared gradient norm.

    References
    ----------
    Byrd et al., Sample size selection in optimization methods for machine learning, Mathematical Programming
    134, 2012 (the norm test); McCandlish et al., arXiv 1812.06162, 2018 (noise scale).
    """

    local_steps: int
    first_batch: int
    noise_ratio: float = 1.0
    name: str = "dynamic-batch"
    needs_estimates: bool = True
    measures_curvature: bool = False

    def choose(self, situation: Situation) -> Choice:
        """Choose the common batch at which the norm test holds."""
        problem, fleet = situation.problem, situation.problem.fleet
        batch = float(self.first_batch)
        if situation.previous is not None:
            batch = max(batch, float(situation.previous.batch_sizes.max()))
        noise = float(fleet.weights**2 @ fleet.gradient_noise)
        if situation.squared_gradient > 0:
            batch = max(batch, math.ceil(noise / (self.noise_ratio * situation.squared_gradient)))
        batches = clip_batches(problem, np.full(len(fleet), batch))
        return Choice(self.local_steps, batches, rounds_left(problem, self.local_steps, batches))

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """Nothing is expected."""
        return math.nan
