"""Whether training comes closer in the mean square, and the batches that it takes for that.

A forecast knows the noise of gradients at one point. A batch also sees a curvature of its own, and a device
may curve far more than the average: then small batches, or many local steps, multiply the error by more than
one. Along an eigenvector of its curvature lambda, a local step of device i with a batch of s multiplies the
expected square of an error by

    rho = (1 - eta lambda)^2 + eta^2 lambda (beta_i - lambda) / s,    beta_i = E[c^2] / E[c]

over the curvatures c of its single samples. So tau steps leave rho^tau, of which a^2tau, a = 1 - eta lambda,
is the square of the mean: the rest is noise, which averages out between devices. With M = sum q_i a_i^tau and
the noise W_i of device i, as matrices, a round leaves of every error e at most e' (M^2 + sum q_i^2 W_i) e.
The batches have to keep half of what full ones would take off, in every direction:

    sum q_i^2 W_i <= (I - M^2) / 2.

Where no batch is enough, since some device runs away within a round, such rounds are not to be had. It is
enough that rho <= 1 on every device, for then M^2 + sum q_i W_i <= I by the convexity of the square, and no
q_i above 1/2: where that holds, as at most rates, there is nothing to compute. Curvature is not cut here as
it is in the forecast's own steps: what a few rows overestimate only shortens rounds.

What draws of devices add, q_i (a_i^tau - M)^2, comes on top of M^2. Momentum on the devices makes rho^tau the
growth of the second moments of (z, u). That of the server, beta with a rate gamma, leaves for gamma^2 W the
room (1 - beta)/(1 + beta) B (2 (1 + beta) - B) of B = gamma (I - M), as the stationary variance of the heavy
ball says; Nesterov's step ends at B = 2 (1 + beta)/(1 + 2 beta) instead.

References
----------
Compare Ma, Bassily and Belkin, "The Power of Interpolation: Understanding the Effectiveness of SGD in Modern
Over-parametrized Learning", ICML 2018, arXiv:1712.06559, for one step on one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coopt.objectives.forecast.federation import Federation
from coopt.objectives.forecast.model import Floats
from coopt.objectives.forecast.optimiser import FAR, ServerSGD
from coopt.objectives.forecast.round_map import Ints

# Share of what full batches take off an error that noise may give back.
GIVEN_BACK = 0.5
# Batches that matter grow by this factor, until they are enough.
GROWTH = 1.25
# What is beyond it is as unstable as can be.
HUGE = 1e60
# Where momentum is a mean without bias, steps of a round whose lengths differ by less than this are alike.
ALIKE = 0.01


@dataclass(frozen=True, eq=False)
class Stability:
    """That of the rounds of a federation, at its learning rate.

    Attributes
    ----------
    federation : Federation
    single : ndarray, shape (N,)
        E[c^2] / E[c] of the curvatures c of single samples of each device that trains [curvature].
    """

    federation: Federation
    single: Floats

    def smallest(self, local_steps: int, least: Ints, most: Ints) -> Ints | None:
        """The smallest batches with which rounds of so many local steps are stable.

        Parameters
        ----------
        local_steps : int
        least, most : ndarray of int64, shape (N,)
            Batches that the devices may take.

        Returns
        -------
        ndarray of int64, shape (N,), or None
            `least` itself where that is enough; None where no batches are.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            growth = self._growth(local_steps, least)
            if self._averages and float(growth.max()) <= 1.0:
                return least
            mean = self._mean(local_steps)
            room, axes = np.linalg.eigh(self._room(mean, local_steps))
            if not room[0] > 0.0:
                return None
            return self._enough(local_steps, mean, (axes / np.sqrt(room)).T @ self._along, (least, most))

    def _enough(self, local_steps: int, mean: Floats, along: Floats, ends: tuple[Ints, Ints]) -> Ints | None:
        """The same; `along` are the eigenvectors of all devices where the room is the same everywhere."""
        own, (batches, most) = self.federation, ends
        counts = own.noise_shares * (own.factors(local_steps) * own.how.server.learning_rate) ** 2
        columns = along.transpose(1, 0, 2).reshape(along.shape[1], -1)
        while True:
            growth = self._growth(local_steps, batches)
            noise = np.minimum(growth - mean**2, HUGE) * counts[:, None]
            lost, turned = np.linalg.eigh((columns * noise.ravel()) @ columns.T)
            if lost[-1] <= 1.0:
                return batches
            if bool((batches == most).all()):
                return None
            # Those that add most along the worst direction take larger batches.
            added = np.sum(noise * (turned[:, -1] @ along) ** 2, axis=1) * (batches < most)
            raised = np.maximum(np.ceil(batches * GROWTH).astype(np.int64), batches + 1)
            batches = np.where(added >= added.max() / 2.0, np.minimum(raised, most), batches)

    @cached_property
    def _averages(self) -> bool:
        """Whether rounds are plain averages, where no device's noise counts more than can be given back."""
        own = self.federation
        counted = own.noise_shares <= GIVEN_BACK * own.shares
        return own.how.server == ServerSGD() and own.most_steps is None and bool(counted.all())

    @cached_property
    def _step(self) -> Floats:
        """Eta times the curvatures of all devices, as they were measured, shape (N, m)."""
        own = self.federation
        within = 0.0 if own.how.decays_beside else own.how.decay
        step: Floats = own.rate * (own.devices.curvatures + within)
        return step

    @cached_property
    def _along(self) -> Floats:
        """The eigenvectors of all devices in the directions that count for the loss, shape (N, k, m)."""
        loss = self.federation.loss
        values, vectors = np.linalg.eigh(loss.curvature)
        along: Floats = vectors[:, values > loss.floor].T @ self.federation.devices.vectors
        return along

    def _steps(self, local_steps: int) -> Ints:
        """Local steps of each device, shape (N,)."""
        most = self.federation.most_steps
        devices = self.single.size
        return np.full(devices, local_steps) if most is None else np.minimum(most, local_steps)

    def _mean(self, local_steps: int) -> Floats:
        """What a round leaves of an error along the eigenvectors of each device, shape (N, m)."""
        momentum, steps, x = self.federation.how.momentum, self._steps(local_steps), self._step
        if momentum == 0.0:
            left: Floats = (1.0 - x) ** steps[:, None]
            return np.clip(left, -HUGE, HUGE)
        ones = np.ones_like(x)

        def block(far: float) -> Floats:
            # z and eta u: u <- beta u + lambda z, z <- z - far u.
            return np.array([[1.0 - far * x, -far * momentum * ones], [x, momentum * ones]])

        return self._after(block, steps)

    def _growth(self, local_steps: int, batches: Ints) -> Floats:
        """What it leaves of their expected squares with such batches, shape (N, m)."""
        own, steps, x = self.federation, self._steps(local_steps), self._step
        beside = np.maximum(self.single[:, None] - own.devices.curvatures, 0.0) / batches[:, None]
        noise = own.rate**2 * own.devices.curvatures * beside
        momentum = own.how.momentum
        if momentum == 0.0:
            return np.minimum(((1.0 - x) ** 2 + noise) ** steps[:, None], HUGE)
        ones, none = np.ones_like(x), np.zeros_like(x)

        def block(far: float) -> Floats:
            # The second moments of the same, where lambda has noise: of z, of both, of eta u.
            square = np.array([x**2 + noise, 2.0 * momentum * x, momentum**2 * ones])
            cross = np.array([x, momentum * ones, none])
            model = np.array([ones, none, none]) - 2.0 * far * cross + far**2 * square
            return np.array([model, cross - far * square, square])

        return self._after(block, steps)

    def _after(self, block: Callable[[float], Floats], steps: Ints) -> Floats:
        """What the steps leave of the first part of a state, by matrices (k, k, N, m) for a step's length."""
        how = self.federation.how
        found = np.empty(self._step.shape)
        for many in np.unique(steps).tolist():
            alike = many if not how.unbiased else max(many - math.ceil(math.log(ALIKE, how.momentum)), 0)
            lengths = [how.factor(t + 1) for t in range(many - alike)]
            blocks = [np.moveaxis(block(far), (0, 1), (2, 3)) for far in [*lengths, how.factor(FAR)]]
            left = np.linalg.matrix_power(blocks[-1], alike)
            for each in reversed(blocks[:-1]):
                left = left @ each
            found[steps == many] = left[steps == many, :, 0, 0]
        return np.clip(np.nan_to_num(found, nan=HUGE, posinf=HUGE, neginf=-HUGE), -HUGE, HUGE)

    def _room(self, mean: Floats, local_steps: int) -> Floats:
        """How much noise may give back, as a form of the error in the directions that count, (k, k)."""
        own, server = self.federation, self.federation.how.server
        shares, along = own.shares * own.factors(local_steps), self._along
        columns = along.transpose(1, 0, 2).reshape(along.shape[1], -1)
        taken = (columns * (shares[:, None] * (1.0 - mean)).ravel()) @ columns.T
        beta, end = server.momentum, 2.0 * (1.0 + server.momentum)
        if server.nesterov:
            end /= 1.0 + 2.0 * beta
        step = server.learning_rate * taken
        room = 2.0 * (1.0 - beta) * (step - step @ step / end)
        if own.drawn > 0.0:
            squares = (columns * (shares[:, None] * (1.0 - mean) ** 2).ravel()) @ columns.T
            room -= own.drawn * server.learning_rate**2 * (squares - taken @ taken)
        found: Floats = GIVEN_BACK * room
        return found
