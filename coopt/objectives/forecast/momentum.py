"""Local steps with momentum on a quadratic model: what a round leaves, and what noise becomes by its end.

Along an eigenvector of a device's curvature, with x = eta lambda, a step with momentum beta is
u <- beta u + g + lambda z, z <- z - eta u, from u = 0. What enters as a gradient in one step has moved z by
-eta r at the end of the round, where r runs backwards through the steps: it is 1 for the last one, and less
where momentum is a running mean. The sum of
the r is what a constant gradient does, and x times it what a round takes off a component. Nothing here is a
contraction: with momentum a round may leave more than there was, with either sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coopt.objectives.forecast.model import Devices, Floats
from coopt.objectives.forecast.optimiser import LinearSteps
from coopt.objectives.forecast.round_map import Ints, packed_places


@dataclass(frozen=True)
class MomentumSteps:
    """tau local steps on every device, in the eigenbasis of its curvature.

    Attributes
    ----------
    decayed : ndarray, shape (N, m)
        What a round takes off a component, 1 - a where it leaves a.
    summed : ndarray, shape (N, m)
        The sum of the responses.
    responses : ndarray, shape (N, tau, m)
        r of the gradients of every step, the last step first.
    held : ndarray, shape (N, m)
        The sum over all steps of what the model after a step still is at the end: by eta l times it, weights
        that decay beside the momentum pull to zero.
    """

    decayed: Floats
    summed: Floats
    responses: Floats
    held: Floats

    @classmethod
    def of_each(cls, step: Floats, local_steps: Ints, how: LinearSteps, rate: float) -> MomentumSteps:
        """The same with a number of steps for every device, shape (N,)."""
        n, m = step.shape
        decayed, summed, held = np.empty((n, m)), np.empty((n, m)), np.empty((n, m))
        responses = np.zeros((n, int(local_steps.max()), m))
        for many in np.unique(local_steps).tolist():
            own = local_steps == many
            part = cls.of(step[own], many, how, rate)
            decayed[own], summed[own], responses[own, :many] = part.decayed, part.summed, part.responses
            held[own] = part.held
        return cls(decayed, summed, responses, held)

    @classmethod
    def of(cls, step: Floats, local_steps: int, how: LinearSteps, rate: float) -> MomentumSteps:
        """So many steps, where `step` is eta times the curvatures, shape (N, m), and `rate` eta."""
        beside = rate * how.decay if how.decays_beside else 0.0
        held = np.zeros_like(step)
        responses = np.empty((step.shape[0], local_steps, step.shape[1]))
        # The model and the momentum before a step, as what they still do to the model at the end.
        model, memory = np.ones_like(step), np.zeros_like(step)
        with np.errstate(over="ignore", invalid="ignore"):
            for j in range(local_steps):
                response = memory + how.factor(local_steps - j) * model
                responses[:, j] = response
                held += model
                model = model - step * response - beside * model
                memory = how.momentum * response
            summed = responses.sum(axis=1)
            return cls(step * summed + beside * held, summed, responses, held)

    def contraction(self, devices: Devices, shares: Floats) -> Floats:
        """I - M, shape (m, m)."""
        scaled = devices.columns * (shares[:, None] * self.decayed).ravel()
        product = scaled @ devices.columns.T
        even: Floats = (product + product.T) / 2.0
        return even

    def noise(self, devices: Devices, scaled: Floats) -> Floats:
        """P_i of every device for a batch of one, packed; `scaled` covariances in its eigenbasis."""
        with np.errstate(over="ignore", invalid="ignore"):
            sums = self.responses.transpose(0, 2, 1) @ self.responses * scaled
            matrices = devices.vectors @ sums @ devices.vectors.transpose(0, 2, 1)
        m = scaled.shape[1]
        rows, columns, _ = packed_places(m)
        packed: Floats = np.take(matrices.reshape(-1, m * m), rows * m + columns, axis=1)
        return packed
