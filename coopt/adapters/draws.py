"""Which samples a client's mini-batches hold: a function of (seed, round, client, step) and nothing else.

Whatever runs the training, in whatever order and on whatever machine, then draws the same mini-batches. The
numbers are those of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA
2014), read at a counter made of step and place in the batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

# The published constants of SplitMix64.
GAMMA, FIRST, SECOND = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
HALF = np.uint64(32)


def draw_positions(
    seed: int,
    round: int,  # noqa: A002
    clients: npt.ArrayLike,
    samples: npt.ArrayLike,
    *,
    steps: npt.ArrayLike,
    size: int,
    replacement: bool = True,
) -> Ints:
    """Draw mini-batches, each afresh.

    Parameters
    ----------
    seed : int
        Seed of the whole training, at least 0.
    round : int
        Round, from 0.
    clients : array_like of int, shape (B,)
        Indices of the devices.
    samples : array_like of int, shape (B,)
        Samples that each of them holds.
    steps : array_like of int, shape (T,)
        Local steps to draw for, from 0; step `local_steps` is the one of the probe's extra batch.
    size : int
        Samples a batch.
    replacement : bool, default True
        Whether a batch may hold a sample twice; without, `size` is at most the smallest of `samples`.

    Returns
    -------
    numpy.ndarray of int64, shape (B, T, size)
        Positions, from 0 to samples - 1. A larger batch begins with the smaller one.

    Raises
    ------
    InvalidProblemError
        If a client holds too few samples.

    Examples
    --------
    >>> small = draw_positions(0, 3, [5], [100], steps=[0, 1], size=4)
    >>> large = draw_positions(0, 3, [4, 5], [7, 100], steps=[0, 1], size=9)
    >>> small.shape, bool((small == large[1, :, :4]).all())
    ((1, 2, 4), True)
    """
    fewest = int(np.min(samples))
    if fewest < 1 or (size > fewest and not replacement):
        need = 1 if replacement else size
        raise InvalidProblemError(
            f"a client that holds {fewest} samples cannot draw a mini-batch of {size} "
            f"{'with' if replacement else 'without'} replacement: it needs at least {need}"
        )
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, round, clients):
        key = _mix(key + GAMMA * (np.atleast_1d(np.asarray(part, dtype=np.uint64)) + np.uint64(1)))
    held = np.atleast_1d(np.asarray(samples, dtype=np.uint64))[:, None, None]
    step = np.atleast_1d(np.asarray(steps, dtype=np.uint64))[:, None] << HALF
    if replacement:
        slots: Words = np.arange(size, dtype=np.uint64)
        words = _words(key, step + slots)
        return (((words >> HALF) * held) >> HALF).astype(np.int64)
    # The order of random keys is a random order; places that a client does not have come last.
    place: Words = np.arange(int(held.max()), dtype=np.uint64)
    words = np.where(place < held, _words(key, step + place) >> np.uint64(1), np.iinfo(np.uint64).max)
    return np.argsort(words, axis=-1, kind="stable")[..., :size].astype(np.int64)


def _words(key: Words, counter: Words) -> Words:
    return _mix(key[:, None, None] + GAMMA * (counter + np.uint64(1)))


def _mix(word: Words) -> Words:
    word = (word ^ (word >> np.uint64(30))) * FIRST
    word = (word ^ (word >> np.uint64(27))) * SECOND
    return word ^ (word >> np.uint64(31))
