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
    round: int,
    clients: npt.ArrayLike,
    samples: npt.ArrayLike,
    *,
    steps: npt.ArrayLike,
    sizes: npt.ArrayLike,
    replacement: bool = True,
) -> Ints:
    """Draw mini-batches, each afresh.

    Parameters
    ----------
    seed : int
        Seed of the whole training, at least 0.
    round : int
        Round, from 0.
    clients : array_like of int, shape (B,) or scalar
        Indices of the devices.
    samples : array_like of int, shape (B,) or scalar
        Samples that each of them holds.
    steps : array_like of int, shape (T,), (B, T) or scalar
        Local steps to draw for, from 0; step `local_steps` is that of the probe's extra batch.
    sizes : array_like of int, shape (B,) or scalar
        Samples a batch.
    replacement : bool, default True
        Whether a batch may hold a sample twice; without, `sizes` are at most `samples`.

    Returns
    -------
    numpy.ndarray of int64, shape (B, T, max(sizes))
        Positions, from 0 to samples - 1; beyond a client's own size they have no meaning, but are its own
        samples all the same. A larger batch begins with the smaller one.

    Raises
    ------
    InvalidProblemError
        If a client holds too few samples.

    Examples
    --------
    >>> small = draw_positions(0, 3, 5, 100, steps=[0, 1], sizes=4)
    >>> large = draw_positions(0, 3, [4, 5], [7, 100], steps=[0, 1], sizes=9)
    >>> small.shape, bool((small == large[1, :, :4]).all())
    ((1, 2, 4), True)
    """
    sizes, samples = np.atleast_1d(sizes), np.atleast_1d(samples)
    short = samples < (1 if replacement else sizes)
    if short.any():
        row = int(short.argmax())
        client, size, has = (int(np.broadcast_to(x, short.shape)[row]) for x in (clients, sizes, samples))
        raise InvalidProblemError(
            f"client {client} holds {has} samples and cannot draw a mini-batch of {size} "
            f"{'with' if replacement else 'without'} replacement"
        )
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, round, clients):
        key = _mix(key + GAMMA * (np.atleast_1d(np.asarray(part, dtype=np.uint64)) + np.uint64(1)))
    held = samples.astype(np.uint64)[:, None, None]
    step = np.atleast_1d(np.asarray(steps, dtype=np.uint64))[..., None] << HALF
    size = int(sizes.max())
    if replacement:
        slots: Words = np.arange(size, dtype=np.uint64)
        words = _words(key, step + slots)
        return (((words >> HALF) * held) >> HALF).astype(np.int64)
    # The order of random keys is a random order; places that a client does not have come last.
    place: Words = np.arange(int(samples.max()), dtype=np.uint64)
    words = np.where(place < held, _words(key, step + place) >> np.uint64(1), np.iinfo(np.uint64).max)
    order = np.argsort(words, axis=-1, kind="stable")[..., :size].astype(np.int64)
    return np.minimum(order, samples[:, None, None].astype(np.int64) - 1)


def _words(key: Words, counter: Words) -> Words:
    return _mix(key[:, None, None] + GAMMA * (counter + np.uint64(1)))


def _mix(word: Words) -> Words:
    word = (word ^ (word >> np.uint64(30))) * FIRST
    word = (word ^ (word >> np.uint64(27))) * SECOND
    return word ^ (word >> np.uint64(31))
