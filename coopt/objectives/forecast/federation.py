"""A local model tied to a learning rate, to weights, and to who takes part: what all plans have in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from coopt.objectives.forecast.geometric import joint
from coopt.objectives.forecast.model import Devices, Floats, LocalModel, Loss
from coopt.objectives.forecast.round_map import Ints, Rounds, Steps, rounds_of

# A curvature that a few rows overestimate would make local steps explode: it is cut to this over the rate.
LARGEST_STEP = 1.9
# For so many numbers of local steps the rounds are remembered; what the noise may take of memory [bytes].
KEPT_ROUNDS, NOISE_BYTES = 1024, 2**27

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Federation:
    """The devices that train, at one learning rate.

    Attributes
    ----------
    loss : Loss
        The loss that counts, of all devices.
    devices : Devices
        Those that train.
    step : ndarray, shape (N, m)
        eta times their curvatures.
    residuals : ndarray, shape (N, m)
        The gradients that they still have at z*, in their eigenbases.
    rate : float
        eta.
    shares : ndarray, shape (N,)
        q_i, with which they are averaged.
    noise_shares : ndarray, shape (N,)
        With which the variances of their noise are added.
    drawn : float
        The share of the variance between devices that drawing some of them adds.
    """

    loss: Loss
    devices: Devices
    step: Floats
    residuals: Floats
    rate: float
    shares: Floats
    noise_shares: Floats
    drawn: float
    _rounds: OrderedDict[int, Rounds] = field(default_factory=OrderedDict, repr=False)
    _noise: OrderedDict[int, Floats] = field(default_factory=OrderedDict, repr=False)

    @classmethod
    def of(
        cls,
        model: LocalModel,
        trained: tuple[int, ...] | None,
        rate: float,
        shares: Floats,
        noise_shares: Floats,
        drawn: float,
    ) -> Federation:
        """The federation of a model; `trained` are the devices that train, by default all."""
        devices = model.devices if trained is None else model.devices.take(trained)
        gradients = model.gradients if trained is None else model.gradients[list(trained)]
        step = np.minimum(rate * devices.curvatures, LARGEST_STEP)
        along = np.einsum("nab,na->nb", devices.vectors, gradients)
        best = np.einsum("nab,a->nb", devices.vectors, model.loss.best)
        residuals = along + step / rate * best
        return cls(model.loss, devices, step, residuals, rate, shares, noise_shares, drawn)

    def rounds(self, local_steps: int) -> Rounds:
        """Rounds of so many local steps."""

        def build() -> Rounds:
            steps = Steps.of(self.step, local_steps)
            return rounds_of(
                self.loss, self.devices, self.residuals, steps, self.rate, self.shares, self.drawn
            )

        return kept(self._rounds, local_steps, KEPT_ROUNDS, build)

    def noise(self, local_steps: int) -> Floats:
        """P_i of every device at so many local steps and a batch of one, packed; they never fall in tau."""
        most = max(NOISE_BYTES // (8 * self.step.size * (self.step.shape[1] + 1) // 2), 2)
        return kept(
            self._noise,
            local_steps,
            most,
            lambda: Steps.of(self.step, local_steps).noise(self.devices, self.noise_rates),
        )

    @cached_property
    def noise_rates(self) -> Floats:
        """What :meth:`Steps.noise` takes: scaled covariances over 1 - j_a j_b, shape (N, m, m)."""
        lost = joint(self.step[:, :, None], self.step[:, None, :])
        scaled = self.devices.covariances * (self.rate**2 * self.noise_shares)[:, None, None]
        return np.divide(scaled, lost, out=scaled, where=lost > 0.0)

    def mean(self, rounds: Ints, local_steps: int) -> Floats:
        """F - F* after these numbers of rounds, but for mini-batch noise, shape (k,)."""
        return self.rounds(local_steps).mean(rounds)

    def weights(self, rounds: Ints, local_steps: int, noise_of: int | None = None) -> Floats:
        """What batches of one add at these numbers of rounds, shape (N, k).

        With `noise_of` fewer local steps than `local_steps` whose noise is taken instead: a lower bound.
        """
        noise = self.noise(local_steps if noise_of is None else noise_of)
        found: Floats = np.maximum(noise @ self.rounds(local_steps).sensitivity(rounds), 0.0)
        return found


def kept(known: OrderedDict[K, T], key: K, most: int, build: Callable[[], T]) -> T:
    """What is known under a key, or is built now; of more than `most`, the one unused for longest goes."""
    if key in known:
        known.move_to_end(key)
        return known[key]
    made = build()
    known[key] = made
    if len(known) > most:
        known.popitem(last=False)
    return made
