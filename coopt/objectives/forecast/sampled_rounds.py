"""Rounds in which only some devices take part, drawn anew each round.

Which devices are drawn moves the averaged model, by an amount that depends on where it is: the second moments
of (e, 1) then obey a linear map T that is no product of small ones. Its adjoint is applied to the loss, one
round after the other: <T*^K loss, start> is the expected loss. Where the server has momentum, it is a part of
what is moved.
"""

from __future__ import annotations

import numpy as np

from coopt.objectives.forecast.model import Floats
from coopt.objectives.forecast.optimiser import ServerSGD
from coopt.objectives.forecast.round_map import FullRounds, Ints, packed_places
from coopt.objectives.forecast.server_rounds import ServerRounds

# From so many rounds on the map of forms is squared, where these have at most so many entries of their own.
MANY_ROUNDS, MOST_ENTRIES = 200, 200


class SampledRounds:
    """Any number of such rounds; the state x is e, or (e, u) where the server has momentum u.

    Parameters
    ----------
    full : FullRounds or ServerRounds
        The same rounds with every device in them.
    contraction, drift : ndarray, shapes (m, m) and (m,)
        I - M and v.
    server : ServerSGD
    changes : ndarray, shape (N, m, m + 1)
        How the change that device i makes to (e, 1) differs from the average one.
    spread : ndarray, shape (N,)
        Weights with which the squares of these differences add to the second moment.
    """

    def __init__(
        self,
        full: FullRounds | ServerRounds,
        contraction: Floats,
        drift: Floats,
        server: ServerSGD,
        changes: Floats,
        spread: Floats,
    ) -> None:
        m, loss = drift.size, full.loss
        eye = np.eye(m)
        size = m if isinstance(full, FullRounds) else 2 * m
        # How an averaged change enters the state.
        self._entry = np.concatenate([server.now * eye, eye])[:size]
        move = np.eye(size + 1)
        if size > m:
            move[:m, m:size], move[m:size, m:size] = server.kept * eye, server.momentum * eye
        move[:size, :m] -= self._entry @ contraction
        move[:size, size] = -self._entry @ drift
        self._move = move
        # adjoint[(b, d), (a, c)] = sum_i w_i D_i[a, b] D_i[c, d]
        flat = changes.reshape(changes.shape[0], -1)
        products = (flat * spread[:, None]).T @ flat
        products = products.reshape(m, m + 1, m, m + 1).transpose(1, 3, 0, 2)
        self._spread = products.reshape((m + 1) ** 2, m * m)
        # Where (e, 1) is in (x, 1).
        self._known = np.ix_([*range(m), size], [*range(m), size])
        self.moments = full.moments
        self.form = np.zeros((size + 1, size + 1))
        self.form[:m, :m] = loss.curvature / 2.0
        self.form[:m, size] = self.form[size, :m] = loss.slope / 2.0
        self._form = self.form
        self._full = full
        self._sum = np.zeros((m, m))
        self._means: list[float] = []
        self._sums: list[Floats] = []
        # Of 1, 2, 4, ... rounds: what they make of a form, and the sum of what each of them meets.
        self._doubled: list[tuple[Floats, Floats]] = []

    def _met(self, form: Floats) -> Floats:
        """A form of (x, 1) as one of the averaged change."""
        met: Floats = self._entry.T @ form[:-1, :-1] @ self._entry
        return met

    def _reach(self, rounds: int) -> None:
        rows, columns, often = packed_places(self._sum.shape[0])
        while len(self._means) < rounds:
            self._sum = self._sum + self._met(self._form)
            self._sums.append(self._sum[rows, columns] * often)
            self._form = self._before(self._form)
            self._means.append(float(np.sum(self._form * self.moments)))

    def _before(self, form: Floats) -> Floats:
        """The form of (x, 1) before a round that has the mean of `form` after it."""
        moved = self._move.T @ form @ self._move
        m = self._sum.shape[0]
        moved[self._known] += (self._spread @ self._met(form).ravel()).reshape(m + 1, m + 1)
        before: Floats = (moved + moved.T) / 2.0
        return before

    def backward(self, form: Floats, rounds: int) -> tuple[Floats, Floats]:
        """What a form of (x, 1) at the end is to the noise of these rounds, packed, and to (x, 1) before."""
        rows, columns, often = packed_places(self._sum.shape[0])
        size = form.shape[0]
        if rounds >= MANY_ROUNDS and size * (size + 1) // 2 <= MOST_ENTRIES:
            whole, form = self._doubling(form, rounds)
            met = self._met(whole)
        else:
            met = np.zeros_like(self._sum)
            for _ in range(rounds):
                met += self._met(form)
                form = self._before(form)
        return met[rows, columns] * often, form

    def _doubling(self, form: Floats, rounds: int) -> tuple[Floats, Floats]:
        """The sum of the forms after each of so many rounds, and the form before all of them."""
        size = form.shape[0]
        rows, columns, _ = packed_places(size)
        if not self._doubled:
            before = np.empty((rows.size, rows.size))
            for k, (a, b) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
                one = np.zeros_like(form)
                one[a, b] = one[b, a] = 1.0
                before[:, k] = self._before(one)[rows, columns]
            self._doubled.append((before, np.eye(rows.size)))
        while 2 ** len(self._doubled) <= rounds:
            power, total = self._doubled[-1]
            self._doubled.append((power @ power, total + total @ power))
        packed, summed = form[rows, columns], np.zeros(rows.size)
        for bit, (power, total) in enumerate(self._doubled):
            if rounds >> bit & 1:
                summed, packed = summed + total @ packed, power @ packed
        found = np.zeros((2, size, size))
        found[:, rows, columns] = found[:, columns, rows] = summed, packed
        return found[0], found[1]

    def follow(self, moments: Floats, noise: Floats, rounds: int) -> tuple[Floats, Floats]:
        """F - F* after each of so many rounds, and the second moments of (x, 1) after the last."""
        m, losses = self._sum.shape[0], np.empty(rounds)
        for k in range(rounds):
            drawn = (self._spread.T @ moments[self._known].ravel()).reshape(m, m)
            moments = self._move @ moments @ self._move.T
            moments[:-1, :-1] += self._entry @ (drawn + noise) @ self._entry.T
            losses[k] = np.sum(self.form * moments)
        return losses, moments

    def mean(self, rounds: Ints) -> Floats:
        """F - F* after these numbers of rounds, but for mini-batch noise."""
        self._reach(int(rounds.max()))
        return np.array(self._means)[rounds - 1]

    def least(self, first: Ints, last: Ints) -> Floats:
        """A lower bound on the mean over ranges of rounds: whom a draw leaves out adds to the loss."""
        return self._full.least(first, last)

    def sensitivity(self, rounds: Ints) -> Floats:
        """G_K of these numbers of rounds, packed as columns."""
        self._reach(int(rounds.max()))
        return np.array([self._sums[k - 1] for k in rounds.tolist()]).T


Rounds = FullRounds | ServerRounds | SampledRounds
