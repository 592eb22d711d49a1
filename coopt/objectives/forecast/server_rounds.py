"""Rounds in which the server has a learning rate or momentum, or devices do: blocks of two by two.

The averaged change of a round is D = -(I - M) e - v + noise, and the server's momentum u and model e become

    u <- beta u + D,    e <- e + a D + c u,

with (a, c) = (gamma, gamma beta) for the heavy ball and (gamma (1 + beta), gamma beta^2) for Nesterov's step,
where u is the momentum before. M is symmetric, so in its eigenbasis every component of e goes with its own
component of u: a matrix S of two by two for each, whose eigenvalues may be complex or beyond the unit circle.
So nothing moves in one direction, and values are computed at every number of rounds, by doubling. What noise
adds is a sum of squares, and still never falls with more rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coopt.objectives.forecast.model import Floats, Loss
from coopt.objectives.forecast.optimiser import ServerSGD
from coopt.objectives.forecast.round_map import CHUNK, Ints, packed_places, second_moments


@dataclass(frozen=True)
class ServerRounds:
    """Rounds in which every device takes part, in the eigenbasis of M.

    Attributes
    ----------
    loss : Loss
    vectors : ndarray, shape (m, m)
        Eigenvectors of M, as columns.
    blocks : ndarray, shape (2, 2, m)
        S of every component, on (e, u).
    entry : ndarray, shape (2,)
        How a change enters e and u.
    drift : ndarray, shape (m,)
        v in the eigenbasis.
    """

    loss: Loss
    vectors: Floats
    blocks: Floats
    entry: Floats
    drift: Floats

    @classmethod
    def of(cls, loss: Loss, contraction: Floats, drift: Floats, server: ServerSGD) -> ServerRounds:
        """Rounds with I - M = `contraction` and v = `drift`."""
        if not np.isfinite(contraction).all():
            # Forecasts beyond float64 are of no interest, but have to be told from numbers.
            contraction = np.diag(np.full(drift.size, np.finfo(np.float64).max))
        step, vectors = np.linalg.eigh(contraction)
        ones = np.ones_like(step)
        blocks = np.array([[ones - server.now * step, server.kept * ones], [-step, server.momentum * ones]])
        return cls(loss, vectors, blocks, np.array([server.now, 1.0]), drift @ vectors)

    @property
    def origin(self) -> Floats:
        """(e, u) before the first round, shape (2 m,)."""
        return np.concatenate([-self.loss.best, np.zeros_like(self.loss.best)])

    @property
    def form(self) -> Floats:
        """The loss as a form of (e, u), shape (2 m, 2 m)."""
        m = self.loss.best.size
        form = np.zeros((2 * m, 2 * m))
        form[:m, :m] = self.loss.curvature / 2.0
        return form

    @property
    def moments(self) -> Floats:
        """Second moments of (e, u, 1) before the first round."""
        size = 2 * self.loss.best.size
        return second_moments(self.origin, np.zeros((size, size)))

    def mean(self, rounds: Ints) -> Floats:
        """F - F* after these numbers of rounds, but for mini-batch noise."""
        values = np.empty(rounds.size)
        for begin in range(0, rounds.size, CHUNK):
            part = rounds[begin : begin + CHUNK]
            state = np.repeat(self._turned(self.origin)[None], part.size, axis=0)
            with np.errstate(over="ignore", invalid="ignore"):
                away = self._moved(state, part)[:, 0] @ self.vectors.T
                values[begin : begin + CHUNK] = self.loss.at(away)
        return values

    def least(self, first: Ints, last: Ints) -> Floats:
        """A lower bound on the mean over ranges of rounds: exact for one, else what no model is below."""
        bound = np.full(first.size, self.loss.lowest)
        single = first == last
        if single.any():
            bound[single] = self.mean(first[single])
        return bound

    def onward(self, state: Floats, rounds: int) -> Floats:
        """(e, u) after so many rounds that start from `state`."""
        with np.errstate(over="ignore", invalid="ignore"):
            moved = self._moved(self._turned(state)[None], np.array([rounds]))[0]
            end: Floats = (moved @ self.vectors.T).ravel()
        return end

    def backward(self, form: Floats, rounds: int) -> tuple[Floats, Floats]:
        """What a form of (e, u) at the end is to the noise of these rounds, packed, and to (e, u) before."""
        turned = self._both(form, self.vectors)
        with np.errstate(over="ignore", invalid="ignore"):
            sums, left = self._sums(turned, np.array([rounds]))
            before = self._both(left[0], self.vectors.T)
            m = self.drift.size
            whole = before.transpose(0, 2, 1, 3).reshape(2 * m, 2 * m)
            return self._met(sums)[:, 0], (whole + whole.T) / 2.0

    def sensitivity(self, rounds: Ints) -> Floats:
        """G_K of these numbers of rounds, packed as columns."""
        turned = self._both(self.form, self.vectors)
        chunks = (rounds[begin : begin + CHUNK] for begin in range(0, rounds.size, CHUNK))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.concatenate([self._met(self._sums(turned, chunk)[0]) for chunk in chunks], axis=1)

    def follow(self, moments: Floats, noise: Floats, rounds: int) -> tuple[Floats, Floats]:
        """F - F* after each of so many rounds, and the second moments of (e, u, 1) after the last."""
        m, vectors = self.drift.size, self.vectors
        mean = self._turned(moments[:-1, -1])
        spread = moments[:-1, :-1] - np.outer(moments[:-1, -1], moments[:-1, -1])
        covariance = self._both(spread, vectors)
        added = np.einsum("i,j,ab->ijab", self.entry, self.entry, vectors.T @ noise @ vectors)
        curvature = vectors.T @ self.loss.curvature @ vectors / 2.0
        means, noises = np.empty((rounds, m)), np.empty(rounds)
        across = self.blocks.transpose(1, 0, 2)
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(rounds):
                mean = self._step(mean)
                covariance = _between(across, covariance) + added
                means[k], noises[k] = mean[0], np.sum(curvature * covariance[0, 0])
            turned = self._both(covariance, vectors.T).transpose(0, 2, 1, 3).reshape(2 * m, 2 * m)
            after = second_moments((mean @ vectors.T).ravel(), turned)
            return self.loss.at(means @ vectors.T) + noises, after

    def _turned(self, state: Floats) -> Floats:
        """(e, u) in the eigenbasis, shape (2, m)."""
        turned: Floats = state.reshape(2, -1) @ self.vectors
        return turned

    @staticmethod
    def _both(form: Floats, vectors: Floats) -> Floats:
        """The four blocks of a form in another basis, shape (2, 2, m, m)."""
        m = vectors.shape[0]
        blocks = form if form.ndim == 4 else form.reshape(2, m, 2, m).transpose(0, 2, 1, 3)
        turned: Floats = vectors.T @ blocks @ vectors
        return turned

    def _step(self, state: Floats) -> Floats:
        """One round without noise, of states of shape (..., 2, m)."""
        moved: Floats = np.einsum("ija,...ja->...ia", self.blocks, state) - self.entry[:, None] * self.drift
        return moved

    def _moved(self, state: Floats, rounds: Ints) -> Floats:
        """States of shape (k, 2, m) after so many rounds each."""
        power, shift = self.blocks, -self.entry[:, None] * self.drift
        left = rounds.copy()
        while left.any():
            odd = left % 2 == 1
            if odd.any():
                state[odd] = np.einsum("ija,kja->kia", power, state[odd]) + shift
            shift = np.einsum("ija,ja->ia", power, shift) + shift
            power = np.einsum("ija,jla->ila", power, power)
            left //= 2
        return state

    def _sums(self, form: Floats, rounds: Ints) -> tuple[Floats, Floats]:
        """Sums of S^k' A S^k over the rounds, and A after all of them, shapes (k, 2, 2, m, m)."""
        m = self.drift.size
        found, ends = np.zeros((rounds.size, 2, 2, m, m)), np.repeat(form[None], rounds.size, axis=0)
        power, doubled = self.blocks, form
        left = rounds.copy()
        while left.any():
            odd = left % 2 == 1
            if odd.any():
                found[odd] = doubled + _between(power, found[odd])
                ends[odd] = _between(power, ends[odd])
            doubled = doubled + _between(power, doubled)
            power = np.einsum("ija,jla->ila", power, power)
            left //= 2
        return found, ends

    def _met(self, sums: Floats) -> Floats:
        """What noise that enters meets, packed as columns."""
        met = np.einsum("i,kijab,j->kab", self.entry, sums, self.entry)
        matrices = self.vectors @ met @ self.vectors.T
        rows, columns, often = packed_places(self.drift.size)
        packed: Floats = (matrices[:, rows, columns] * often).T
        return packed


def _between(power: Floats, form: Floats) -> Floats:
    """S' A S where every entry of A, of shape (..., 2, 2, m, m), has the S of its row and of its column."""
    half = np.einsum("ika,...ijab->...kjab", power, form)
    whole: Floats = np.einsum("...kjab,jlb->...klab", half, power)
    return whole
