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
from coopt.objectives.forecast.optimiser import FAR, LinearSteps
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
        alike = local_steps - how.settles(local_steps)
        responses = np.empty((step.shape[0], local_steps, step.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):
            models, memories = _alike(step, alike, how, beside)
            responses[:, :alike] = memories[:, :-1] + how.factor(FAR) * models[:, :-1]
            held = models[:, :-1].sum(axis=1)
            model, memory = models[:, -1], memories[:, -1]
            for j in range(alike, local_steps):
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


def _alike(step: Floats, count: int, how: LinearSteps, beside: float) -> tuple[Floats, Floats]:
    """The model and the momentum before each of some steps, the last of a round first, and after them.

    As what they still do to the model at the end, shape (N, count + 1, m) each. All of these steps go equally
    far, so that twice as many follow from those known by one power of the same matrix of two by two.
    """
    n, m = step.shape
    far = how.factor(FAR)
    models, memories = np.empty((2, n, count + 1, m))
    models[:, 0], memories[:, 0] = 1.0, 0.0
    power = np.array(
        [
            [1.0 - far * step - beside, -step],
            [np.full_like(step, how.momentum * far), np.full_like(step, how.momentum)],
        ]
    )[:, :, :, None]
    known = 1
    while known <= count:
        more = min(known, count + 1 - known)
        new = slice(known, known + more)
        model, memory = models[:, :more], memories[:, :more]
        models[:, new] = power[0, 0] * model + power[0, 1] * memory
        memories[:, new] = power[1, 0] * model + power[1, 1] * memory
        power = np.einsum("ij...,jk...->ik...", power, power)
        known += more
    return models, memories
