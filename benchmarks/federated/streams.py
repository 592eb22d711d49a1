"""Data that arrive while training runs, by the clock: whoever runs more rounds does not see more data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.federated.data import Ints
from coopt.streaming import Burst, Fifo, FixedCount, RandomReplacement, Reservoir, Smooth, stream_order
from coopt.streaming.buffers import Buffer

# The published settings on a time axis of 60 parts: 3,000 rounds with a burst at round 1,000, smooth arrivals
# every 100 or 150 rounds, five random arrivals.
PARTS, BURST_AT, SMOOTH_EVERY, RANDOM_ARRIVALS = 60, 20, 3, 5
FIRST, CAPACITY = 0.2, 0.25  # of all that ever arrives on a device
BUFFERS: dict[str, type[Buffer]] = {"reservoir": Reservoir, "random": RandomReplacement, "fifo": Fifo}


def counts(arrivals: str, total: int, seed: Ints) -> Ints:
    """Samples that arrive in each part of the time, `total` in all."""
    rng = np.random.default_rng(seed)
    if arrivals == "burst":
        return Burst(total, BURST_AT).counts(PARTS, rng)
    if arrivals == "random":
        return FixedCount(total, RANDOM_ARRIVALS).counts(PARTS, rng)
    times = (PARTS - 1) // SMOOTH_EVERY
    found = Smooth(total // times, SMOOTH_EVERY).counts(PARTS, rng)
    found[-1] += total - found.sum()
    return found


class Stream:
    """What every device holds, round by round.

    Parameters
    ----------
    setting : tuple of str
        Buffer ("reservoir", "random", "fifo"), arrivals ("smooth", "burst", "random") and order ("iid", or
        "ordered": one class after the other on every device).
    hands : list of numpy.ndarray
        Everything that ever arrives on each device.
    labels : numpy.ndarray
        Classes, by sample.
    progress : callable
        Share of the time budget that has passed.
    seed : int
        Source of all of it.
    """

    def __init__(
        self,
        setting: tuple[str, str, str],
        hands: list[Ints],
        labels: Ints,
        progress: Callable[[], float],
        seed: int,
    ) -> None:
        sampler, arrivals, order = setting
        self.progress = progress
        self.part = 0
        self.buffers, self.waiting, self.schedule = [], [], []
        for device, hand in enumerate(hands):
            key = np.array([seed, 6, device])
            path = hand[
                stream_order(labels[hand], float(order == "ordered"), seed=np.random.default_rng(key))
            ]
            first = max(2, round(FIRST * len(path)))
            capacity = max(first, round(CAPACITY * len(path)))
            buffer = BUFFERS[sampler](capacity, seed=np.random.default_rng(key + 1))
            buffer.insert(path[:first])
            self.buffers.append(buffer)
            self.waiting.append(path[first:])
            self.schedule.append(np.cumsum(counts(arrivals, len(path) - first, key + 2)))

    def __call__(self, _round: int) -> list[Ints]:
        """Let arrive what the clock says, and give what the buffers hold."""
        now = min(int(PARTS * self.progress()), PARTS - 1)
        for buffer, path, until in zip(self.buffers, self.waiting, self.schedule, strict=True):
            done = int(until[self.part - 1]) if self.part else 0
            buffer.insert(path[done : int(until[now])])
        self.part = max(self.part, now + 1)
        return [buffer.items for buffer in self.buffers]
