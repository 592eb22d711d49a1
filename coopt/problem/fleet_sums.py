"""Sums over the devices of a fleet, each taken once."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coopt.problem.admissible_batches import same_everywhere
from coopt.problem.exact_sum import exact_sum

Floats = NDArray[np.float64]


class FleetSums:
    """The part of a fleet that adds up its devices; see :class:`coopt.Fleet` for the fields."""

    samples: NDArray[np.int64]
    gradient_noise: Floats
    divergence: Floats
    weights: Floats
    sample_cost: Floats
    step_cost: Floats
    step_energy: Floats
    round_energy: Floats
    step_noise: Floats

    @cached_property
    def epoch_cost(self) -> float:
        """Sum a_i d_i: the cost of processing every sample of every device once."""
        return exact_sum(self.sample_cost * self.samples)

    @cached_property
    def whole_step_cost(self) -> float:
        """Sum f_i: the cost of one local step on all devices before its samples."""
        return _total(self.step_cost)

    @cached_property
    def whole_step_energy(self) -> float:
        """Sum h_i: the energy of one local step on all devices before its samples [J]."""
        return _total(self.step_energy)

    @cached_property
    def whole_round_energy(self) -> float:
        """Sum g_i: the energy of one round on all devices before its local steps [J]."""
        return _total(self.round_energy)

    @cached_property
    def noise_terms(self) -> tuple[Floats, Floats]:
        """p_i^2 M_i, the noise of the averaged gradient, and p_i (1 - p_i) M_i, which drives drift."""
        mean = self.weights * self.weights
        mean *= self.gradient_noise
        drift = 1.0 - self.weights
        drift *= self.weights
        drift *= self.gradient_noise
        return mean, drift

    @cached_property
    def step_noise_terms(self) -> Floats:
        """Sum p_i^2 V_i and sum p_i (1 - p_i) V_i: what no batch removes of the sums over noise_terms."""
        mean = self.weights * self.weights * self.step_noise
        drift = self.weights * (1.0 - self.weights) * self.step_noise
        return np.array([float(np.sum(mean)), float(np.sum(drift))])

    @cached_property
    def mean_divergence(self) -> float:
        """Sum p_i delta_i."""
        return float(np.sum(self.weights * self.divergence))

    @cached_property
    def root_divergence(self) -> float:
        """d_h, the root of sum p_i delta_i^2."""
        largest = float(self.divergence.max())
        # Scaled by the largest entry: its square may underflow.
        scaled = self.divergence / largest if largest else self.divergence
        return largest * math.sqrt(float(np.sum(self.weights * (scaled * scaled))))


def _total(array: NDArray[np.float64]) -> float:
    """The sum, correctly rounded, so that the order of the devices does not matter."""
    return float(array[0]) * array.size if same_everywhere(array) else exact_sum(array)
