"""When data arrive on a device, and in which order the stream carries its classes.

An arrival process is a small frozen value; `counts(rounds, seed)` gives the samples that arrive before each
round. The settings of the experiments on streaming data in AdaCoOpt (IWQoS 2023) and DYNAMITE (IEEE TMC 2024,
arXiv 2310.14906) are `Smooth(3000, every=100)`, `Burst(25000, at=1000)` and `FixedCount(40000, arrivals=5)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError

Counts = npt.NDArray[np.int64]
Seed = int | np.random.Generator


def _check(name: str, value: float, low: float) -> None:
    if not np.isfinite(value) or value < low:
        raise InvalidProblemError(f"{name} = {value!r} is invalid: give a number of at least {low:g}")


class ArrivalProcess(Protocol):
    """Anything that tells how many samples arrive before each round."""

    def counts(self, rounds: int, seed: Seed) -> Counts:
        """Give the samples that arrive before each of the rounds 0 .. rounds - 1, shape ``(rounds,)``."""
        ...


@dataclass(frozen=True)
class Smooth:
    """`amount` samples every `every` rounds, the first at round `every`.

    Examples
    --------
    >>> Smooth(30, every=2).counts(6, seed=0)
    array([ 0,  0, 30,  0, 30,  0])
    """

    amount: int
    every: int = 1

    def __post_init__(self) -> None:
        _check("amount", self.amount, 0)
        _check("every", self.every, 1)

    def counts(self, rounds: int, seed: Seed) -> Counts:
        """Give the samples that arrive before each round, shape ``(rounds,)``; nothing here is random."""
        index = np.arange(rounds)
        return np.where((index > 0) & (index % self.every == 0), self.amount, 0).astype(np.int64)


@dataclass(frozen=True)
class Burst:
    """`amount` samples at once at round `at`, nothing otherwise.

    Examples
    --------
    >>> Burst(25, at=1).counts(3, seed=0)
    array([ 0, 25,  0])
    """

    amount: int
    at: int

    def __post_init__(self) -> None:
        _check("amount", self.amount, 0)
        _check("at", self.at, 0)

    def counts(self, rounds: int, seed: Seed) -> Counts:
        """Give the samples that arrive before each round, shape ``(rounds,)``; nothing here is random."""
        return np.where(np.arange(rounds) == self.at, self.amount, 0).astype(np.int64)


@dataclass(frozen=True)
class Poisson:
    """A Poisson number of samples before every round, `rate` on average.

    Examples
    --------
    >>> int(Poisson(3.0).counts(10_000, seed=0).sum())
    30122
    """

    rate: float

    def __post_init__(self) -> None:
        _check("rate", self.rate, 0)

    def counts(self, rounds: int, seed: Seed) -> Counts:
        """Give the samples that arrive before each round, shape ``(rounds,)``."""
        return np.random.default_rng(seed).poisson(self.rate, rounds).astype(np.int64)


@dataclass(frozen=True)
class FixedCount:
    """`total` samples in `arrivals` portions at rounds drawn uniformly, every split equally likely.

    Examples
    --------
    >>> counts = FixedCount(40_000, arrivals=5).counts(3_000, seed=0)
    >>> int(counts.sum()), int((counts > 0).sum())
    (40000, 5)
    """

    total: int
    arrivals: int

    def __post_init__(self) -> None:
        _check("arrivals", self.arrivals, 1)
        _check("total", self.total, self.arrivals)

    def counts(self, rounds: int, seed: Seed) -> Counts:
        """Give the samples that arrive before each round, shape ``(rounds,)``."""
        if rounds < self.arrivals:
            raise InvalidProblemError(
                f"rounds = {rounds} is too few for {self.arrivals} arrivals: give at least {self.arrivals}"
            )
        rng = np.random.default_rng(seed)
        when = rng.choice(rounds, size=self.arrivals, replace=False)
        cuts = np.sort(rng.choice(self.total - 1, size=self.arrivals - 1, replace=False) + 1)
        counts = np.zeros(rounds, dtype=np.int64)
        counts[when] = np.diff(np.concatenate(([0], cuts, [self.total])))
        return counts


@dataclass(frozen=True)
class Replay:
    """A recorded trace: entry k arrives before round k, nothing after its end.

    Examples
    --------
    >>> Replay((5, 0, 2)).counts(4, seed=0)
    array([5, 0, 2, 0])
    """

    trace: tuple[int, ...]

    def __post_init__(self) -> None:
        for index, value in enumerate(self.trace):
            _check(f"trace[{index}]", value, 0)

    def counts(self, rounds: int, seed: Seed) -> Counts:
        """Give the samples that arrive before each round, shape ``(rounds,)``; nothing here is random."""
        counts = np.zeros(rounds, dtype=np.int64)
        used = min(rounds, len(self.trace))
        counts[:used] = self.trace[:used]
        return counts


def stream_order(labels: npt.ArrayLike, drift: float, *, seed: Seed) -> Counts:
    """Order in which a stream carries the samples of a data set.

    Parameters
    ----------
    labels : array_like, shape (n,)
        Class of every sample.
    drift : float
        0 for an independent identically distributed stream, 1 for one class after the other ("continuous"
        streams); between the two the class mixture drifts from the first class to the last.
    seed : int or numpy.random.Generator
        Source of the random order.

    Returns
    -------
    numpy.ndarray, shape (n,)
        A permutation of 0 .. n - 1.

    Raises
    ------
    InvalidProblemError
        If `drift` is not in [0, 1].

    Examples
    --------
    >>> labels = [1, 0, 1, 0]
    >>> [labels[i] for i in stream_order(labels, 1.0, seed=0)]
    [0, 0, 1, 1]
    """
    if not 0 <= drift <= 1:
        raise InvalidProblemError(f"drift = {drift!r} is invalid: give a number in [0, 1]")
    values = np.asarray(labels)
    rng = np.random.default_rng(seed)
    tie = rng.random(len(values))
    classes, rank = np.unique(values, return_inverse=True)
    # A class's place in the stream, blurred by noise that grows without limit as drift goes to 0.
    place = drift * rank / max(len(classes), 1) + (1 - drift) * rng.random(len(values))
    return np.lexsort((tie, place)).astype(np.int64)
