"""A local model tied to a learning rate, to weights, and to who takes part: what all plans have in common."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from coopt.objectives.forecast.geometric import joint, total
from coopt.objectives.forecast.model import Devices, Floats, LocalModel, Loss
from coopt.objectives.forecast.momentum import MomentumSteps
from coopt.objectives.forecast.optimiser import LinearSteps
from coopt.objectives.forecast.round_map import FullRounds, Ints, Steps
from coopt.objectives.forecast.sampled_rounds import MOST_ENTRIES, Rounds, SampledRounds
from coopt.objectives.forecast.server_rounds import ServerRounds

# A curvature that a few rows overestimate would make local steps explode: it is cut to this over the rate.
LARGEST_STEP = 1.9
# What the rounds of different numbers of local steps may take of memory, and the noise [bytes].
ROUNDS_BYTES, NOISE_BYTES = 2**26, 2**27
# Numbers of local steps for which noise that no batch removes is remembered: one vector each.
MOST_LASTING = 256

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
    pull : ndarray, shape (N, m)
        What weights that decay beside the momentum add to each step at z*, in their eigenbases.
    rate : float
        eta.
    shares : ndarray, shape (N,)
        q_i, with which they are averaged.
    noise_shares : ndarray, shape (N,)
        With which the variances of their noise are added.
    drawn : float
        The share of the variance between devices that drawing some of them adds.
    how : LinearSteps
        What devices and server do with gradients and changes.
    lasting : ndarray, shape (N,)
        Variance along every direction of the noise of a step that no batch removes, with the shares with
        which it is added [gradient^2].
    most_steps : ndarray of int64, shape (N,), or None
        Local steps that a device takes at most. Where they are unequal, changes are averaged as FedNova does:
        multiplied by tau_eff / tau_i, with tau_eff = sum q_i tau_i.
    """

    loss: Loss
    devices: Devices
    step: Floats
    residuals: Floats
    pull: Floats
    rate: float
    shares: Floats
    noise_shares: Floats
    drawn: float
    how: LinearSteps
    lasting: Floats
    most_steps: Ints | None = None
    _rounds: OrderedDict[int, Rounds] = field(default_factory=OrderedDict, repr=False)
    _noise: OrderedDict[int, Floats] = field(default_factory=OrderedDict, repr=False)
    _lasting: OrderedDict[int, Floats] = field(default_factory=OrderedDict, repr=False)
    # Rounds and noise are asked for one after the other.
    _last: OrderedDict[int, Steps | MomentumSteps] = field(default_factory=OrderedDict, repr=False)

    @classmethod
    def of(
        cls,
        model: LocalModel,
        trained: tuple[int, ...] | None,
        rate: float,
        shares: Floats,
        noise_shares: Floats,
        drawn: float,
        how: LinearSteps,
        lasting: Floats,
        most_steps: Ints | None = None,
    ) -> Federation:
        """The federation of a model; `trained` are the devices that train, by default all."""
        devices = model.devices if trained is None else model.devices.take(trained)
        gradients = model.gradients if trained is None else model.gradients[list(trained)]
        # Weights that decay through the gradient are a curvature more, in the steps and not in the loss.
        within = 0.0 if how.decays_beside else how.decay
        step = np.minimum(rate * (devices.curvatures + within), LARGEST_STEP * how.stretch)
        along = np.einsum("nab,na->nb", devices.vectors, gradients)
        best = np.einsum("nab,a->nb", devices.vectors, model.loss.best)
        if within > 0.0 and model.point is not None:
            along += within * np.einsum("nab,a->nb", devices.vectors, model.point)
        residuals = along + step / rate * best
        pull = np.zeros_like(residuals)
        if how.decays_beside and model.point is not None:
            pull = how.decay * np.einsum("nab,a->nb", devices.vectors, model.point + model.loss.best)
        return cls(
            loss=model.loss,
            devices=devices,
            step=step,
            residuals=residuals,
            pull=pull,
            rate=rate,
            shares=shares,
            noise_shares=noise_shares,
            drawn=drawn,
            how=how,
            lasting=lasting,
            most_steps=most_steps,
        )

    def rounds(self, local_steps: int) -> Rounds:
        """Rounds of so many local steps."""
        m = self.loss.best.size
        # Where devices are drawn, a map of second moments is kept, a matrix of m^2 x m^2, and its squares.
        numbers = m * (m + 3) if self.drawn == 0.0 else (m + 1) ** 2 * m**2 + 16 * MOST_ENTRIES**2
        return kept(
            self._rounds,
            local_steps,
            max(ROUNDS_BYTES // (8 * numbers), 2),
            lambda: self._new_rounds(local_steps),
        )

    def _new_rounds(self, local_steps: int) -> Rounds:
        devices, steps = self.devices, self._steps(local_steps)
        shares = self.shares * self.factors(local_steps)
        contraction = steps.contraction(devices, shares)
        moves = self.rate * steps.summed * self.residuals
        if isinstance(steps, MomentumSteps):
            moves = moves + self.rate * steps.held * self.pull
        drift = devices.columns @ (shares[:, None] * moves).ravel()
        full: FullRounds | ServerRounds
        if self.how.plain and not self._overshoots(contraction):
            full = FullRounds.of(self.loss, contraction, drift)
        else:
            full = ServerRounds.of(self.loss, contraction, drift, self.how.server)
        if self.drawn == 0.0:
            return full
        vectors = devices.vectors
        pulls = np.einsum("nab,nb->na", vectors, moves)
        own = (vectors * steps.decayed[:, None, :]) @ vectors.transpose(0, 2, 1)
        changes = np.concatenate([contraction - own, (drift - pulls)[:, :, None]], axis=2)
        return SampledRounds(full, contraction, drift, self.how.server, changes, self.drawn * shares)

    def _steps(self, local_steps: int) -> Steps | MomentumSteps:
        return kept(self._last, local_steps, 1, lambda: self._new_steps(local_steps))

    def _new_steps(self, local_steps: int) -> Steps | MomentumSteps:
        if self.most_steps is None:
            if self.how.momentum == 0.0:
                return Steps.of(self.step, local_steps)
            return MomentumSteps.of(self.step, local_steps, self.how, self.rate)
        own = np.minimum(self.most_steps, local_steps)
        if self.how.momentum == 0.0:
            return Steps.of(self.step, own[:, None])
        return MomentumSteps.of_each(self.step, own, self.how, self.rate)

    def factors(self, local_steps: int) -> Floats:
        """By what the changes of devices are multiplied, so that few steps count as much as many, (N,)."""
        if self.most_steps is None:
            return np.ones_like(self.shares)
        lengths = self.how.lengths(np.minimum(self.most_steps, local_steps))
        factors: Floats = float(self.shares @ lengths) / lengths
        return factors

    def _overshoots(self, contraction: Floats) -> bool:
        """Whether some direction of I - M is not below 2: changes of few steps that count more can be."""
        if self.most_steps is None or not np.isfinite(contraction).all():
            return False
        return bool(np.linalg.eigvalsh(contraction)[-1] >= 2.0)

    def noise(self, local_steps: int) -> Floats:
        """P_i of every device at so many local steps and a batch of one, packed; they never fall in tau."""
        most = max(NOISE_BYTES // (8 * self.step.size * (self.step.shape[1] + 1) // 2), 2)
        return kept(
            self._noise,
            local_steps,
            most,
            lambda: self._own_noise(local_steps, self.noise_rates),
        )

    def lasting_noise(self, local_steps: int) -> Floats:
        """The covariance that noise which no batch removes adds to a round, packed; zeros without any."""
        if not self.lasting.any():
            m = self.loss.best.size
            return np.zeros(m * (m + 1) // 2)
        spread = np.broadcast_to(np.eye(self.loss.best.size), self.devices.covariances.shape)
        return kept(
            self._lasting,
            local_steps,
            MOST_LASTING,
            lambda: self._own_noise(local_steps, self._noise_rates(spread, self.lasting)).sum(axis=0),
        )

    def _own_noise(self, local_steps: int, rates: Floats) -> Floats:
        if self.most_steps is not None:
            rates = rates * self.factors(local_steps)[:, None, None] ** 2
        return self._steps(local_steps).noise(self.devices, rates)

    @cached_property
    def noise_rates(self) -> Floats:
        """What the noise of steps takes: scaled covariances, without momentum over 1 - j_a j_b, (N, m, m)."""
        return self._noise_rates(self.devices.covariances, self.noise_shares)

    def _noise_rates(self, covariances: Floats, shares: Floats) -> Floats:
        scaled: Floats = covariances * (self.rate**2 * shares)[:, None, None]
        if self.how.momentum > 0.0:
            return scaled
        lost = joint(self.step[:, :, None], self.step[:, None, :])
        return np.divide(scaled, lost, out=scaled, where=lost > 0.0)

    @property
    def noise_grows(self) -> bool:
        """Whether the noise of a round never falls with more local steps."""
        return not self.how.unbiased

    def mean(self, rounds: Ints, local_steps: int) -> Floats:
        """F - F* after these numbers of rounds, but for all noise, shape (k,)."""
        return self.rounds(local_steps).mean(rounds)

    def least(self, rounds: int, first: int, last: float, enough: float = -math.inf) -> Floats:
        """Lower bounds on the mean after K = 1, ..., `rounds` rounds of `first` to `last` local steps.

        What a device does to one component, e - S (x e + eta r) with x = eta lambda, is bilinear in e and in
        S, the sum of the powers of 1 - x, which grows with the steps: its extremes are at the ends of both.
        So e stays in a box from round to round, and a convex loss lies above its tangent in the middle. With
        many steps devices come close to models of their own, and the box is small. With momentum, or a rate
        of the server, nothing of this holds, and the bounds are -inf.

        Parameters
        ----------
        rounds : int
        first, last : int
            1 <= first <= last; `last` may be inf.
        enough : float
            A smaller bound ends the work: those after it are -inf.
        """
        m, shares = self.loss.best.size, self.shares[:, None]
        columns, pull = self.devices.columns, self.rate * self.residuals
        sizes = np.abs(columns)
        low, high = _sums(self.step, first), _sums(self.step, last)
        swings = self.step > 1.0
        if swings.any():
            reach = np.abs(1.0 - self.step[swings]) ** first
            low[swings], high[swings] = np.array([1.0 - reach, 1.0 + reach]) / self.step[swings]
        bounds = np.full(rounds, -math.inf)
        if not self.how.plain or not np.isfinite(high).all():
            return bounds
        middle, half = -self.loss.best, np.zeros(m)
        for k in range(rounds):
            own, spread = (
                (left.T @ right).reshape(-1, m) for left, right in ((columns, middle), (sizes, half))
            )
            ends = [
                away - summed * (self.step * away + pull)
                for away in (own - spread, own + spread)
                for summed in (low, high)
            ]
            least, most = np.minimum.reduce(ends), np.maximum.reduce(ends)
            middle = columns @ (shares * (least + most) / 2.0).ravel()
            half = sizes @ (shares * (most - least) / 2.0).ravel()
            slope = self.loss.curvature @ middle + self.loss.slope
            bounds[k] = float(self.loss.at(middle[None])[0]) - float(np.abs(slope) @ half)
            if bounds[k] < enough:
                break
        return bounds

    def left(self, rounds: Ints, local_steps: int, noise_of: int | None = None) -> Floats:
        """What noise that no batch removes adds after these numbers of rounds, shape (k,).

        It never falls with more rounds; `noise_of` as for :meth:`weights`.
        """
        if not self.lasting.any():
            return np.zeros(rounds.size)
        noise = self.lasting_noise(local_steps if noise_of is None else noise_of)
        found: Floats = np.maximum(noise @ self.rounds(local_steps).sensitivity(rounds), 0.0)
        return found

    def full(self, rounds: Ints, local_steps: int) -> Floats:
        """F - F* after these numbers of rounds, but for the noise of batches, shape (k,)."""
        full: Floats = self.mean(rounds, local_steps) + self.left(rounds, local_steps)
        return full

    def weights(self, rounds: Ints, local_steps: int, noise_of: int | None = None) -> Floats:
        """What batches of one add at these numbers of rounds, shape (N, k).

        With `noise_of` fewer local steps than `local_steps` whose noise is taken instead: a lower bound.
        """
        noise = self.noise(local_steps if noise_of is None else noise_of)
        found: Floats = np.maximum(noise @ self.rounds(local_steps).sensitivity(rounds), 0.0)
        return found


def _sums(step: Floats, local_steps: float) -> Floats:
    """sum_{j<n} (1 - step)^j of any number of steps, infinitely many among them."""
    if local_steps < math.inf:
        return total(step, local_steps)
    with np.errstate(divide="ignore"):
        return 1.0 / step


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
