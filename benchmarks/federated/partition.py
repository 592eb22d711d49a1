"""Who holds what: devices' class mixes and sizes, dealt from one data set.

Why not the partitioners of flwr-datasets: its releases need rich below 14 or numpy below 2, which the other
pins exclude, and they split the whole set where most cases here need given sizes as well as a given mix.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CASES = ("iid", "label", "full", "half", "skew", "dirichlet")


def sizes(devices: int, mean: float, spread: float, rng: np.random.Generator) -> Ints:
    """Samples of each device: lognormal with the given mean and standard deviation of the logarithm."""
    drawn = np.exp(rng.normal(0.0, spread, devices))
    return np.maximum(np.round(mean * drawn / drawn.mean()), 20).astype(np.int64)


def mixes(case: str, devices: int, classes: int, alpha: float, rng: np.random.Generator) -> Floats:
    """Share of each class on each device, shape (devices, classes).

    Parameters
    ----------
    case : str
        "iid": all classes alike. "label": one class a device. "half": the first half of the devices shares
        the first half of the classes evenly, the others hold one class each (Wang et al. 2019, case 4).
        "skew": a share `alpha` of one class, the rest all classes alike, so that 0 is "iid" and 1 is
        "label". "dirichlet": drawn from Dirichlet(alpha, ..., alpha).
    devices, classes : int
        How many.
    alpha : float
        Parameter of "skew" and "dirichlet".
    rng : numpy.random.Generator
        Source of "dirichlet".
    """
    even = np.full((devices, classes), 1 / classes)
    own = np.eye(classes)[np.arange(devices) % classes]
    if case in ("iid", "full"):
        return even
    if case == "label":
        return own
    if case == "skew":
        return (1 - alpha) * even + alpha * own
    if case == "dirichlet":
        return rng.dirichlet(np.full(classes, alpha), devices)
    if case != "half":
        raise ValueError(f"case = {case!r} is unknown: choose one of {', '.join(CASES)}")
    first, low = devices // 2, classes // 2
    shared = np.where(np.arange(classes) < low, 1 / low, 0.0)
    single = np.eye(classes)[low + np.arange(devices - first) % (classes - low)]
    return np.concatenate([np.tile(shared, (first, 1)), single])


def deal(labels: Ints, shares: Floats, counts: Ints, rng: np.random.Generator) -> list[Ints]:
    """Deal samples to devices: each gets `counts[i]` of them with the classes in shares `shares[i]`.

    A class that runs out is dealt again from its start, so devices share samples only where there are too
    few.
    """
    pools = [rng.permutation(np.flatnonzero(labels == c)) for c in range(shares.shape[1])]
    used = [0] * len(pools)
    hands = []
    for share, count in zip(shares, counts, strict=True):
        hand = []
        for c, wanted in enumerate(rng.multinomial(count, share / share.sum())):
            place = (used[c] + np.arange(wanted)) % len(pools[c])
            used[c] += wanted
            hand.append(pools[c][place])
        hands.append(rng.permutation(np.concatenate(hand)))
    return hands


def split(
    labels: Ints, case: str, counts: Ints, classes: int, alpha: float, rng: np.random.Generator
) -> list[Ints]:
    """Indices of the samples of every device; "full" gives all devices the same ones."""
    if case == "full":
        same = rng.permutation(len(labels))[: int(counts.max())]
        return [same for _ in counts]
    return deal(labels, mixes(case, len(counts), classes, alpha, rng), counts, rng)
