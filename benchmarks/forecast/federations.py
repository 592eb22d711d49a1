"""The federations whose plans are trained: data, devices, model, learning rate and budgets of each."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks.federated.data import Data, Floats, Ints, load
from benchmarks.federated.federation import REFERENCE_SAMPLES
from benchmarks.federated.partition import sizes, split

RIDGE = 1e-3
ROUND_COST = 12  # of each device, in samples
LOCAL_STEPS = (1, 2, 5, 10, 20, 40, 80)
BATCHES = (2, 4, 8, 16, 32, 64)
LINEAR, NETWORKS = ("softmax", "squared"), ("tanh", "relu", "conv")


@dataclass(frozen=True)
class Case:
    """A federation as it is stated; `build` draws it.

    Attributes
    ----------
    data, pool : str, int
        See `benchmarks.federated.data.load`.
    model : {"softmax", "squared", "tanh", "relu", "conv"}
        Linear with logistic or with squared loss; one hidden layer; two convolutions.
    devices, samples, spread, alpha : int, float, float, float
        See `benchmarks.federated.partition`: half of each device's samples are of one class.
    rate : float
        Learning rate times the largest curvature of linear models; the learning rate itself of networks.
    rounds : int
        Rounds of 120 samples a device that the smallest budget allows.
    levels : tuple of int
        Budgets, in multiples of the smallest.
    widths : tuple of int
        Hidden units, or channels of both convolutions and units after them.
    shuffled : bool
        Labels at random.
    """

    data: str
    model: str
    pool: int = 1
    devices: int = 10
    samples: float = 400.0
    spread: float = 0.5
    alpha: float = 0.5
    rate: float = 0.5
    rounds: int = 30
    levels: tuple[int, ...] = (1, 4, 16)
    widths: tuple[int, ...] = (32,)
    shuffled: bool = False
    seed: int = 0


@dataclass(frozen=True)
class ChangedCase(Case):
    """A federation of which one device calls each class by the name of the next.

    Attributes
    ----------
    changed : int
        The device.
    """

    changed: int = 0


@dataclass(frozen=True, eq=False)
class Federation:
    """A federation that was drawn.

    Attributes
    ----------
    x : numpy.ndarray of float32, shape (rows, features)
        Samples of all devices, one device after the other; the last feature is constant (not in images).
    y : numpy.ndarray of int64, shape (rows,)
        Their classes.
    starts, samples : numpy.ndarray of int64, shape (N,)
        First row of every device, and how many it has.
    """

    case: Case
    x: Floats
    y: Ints
    starts: Ints
    samples: Ints
    classes: int
    side: int
    channels: int
    learning_rate: float

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def weights(self) -> np.ndarray:
        """p_i, shape (N,)."""
        return self.samples / self.samples.sum()

    def cost(self, level: float) -> float:
        """A budget in samples: what `rounds` rounds of 120 samples a device cost, times `level`."""
        return level * self.case.rounds * len(self) * (REFERENCE_SAMPLES + ROUND_COST)

    def rounds(self, cost: float, local_steps: int, batch: float) -> int:
        """Rounds of `local_steps` steps and mean batch `batch` that `cost` pays for."""
        return int(cost / (len(self) * (local_steps * batch + ROUND_COST)) * (1 + 1e-12))

    def rows(self, device: int) -> slice:
        start = int(self.starts[device])
        return slice(start, start + int(self.samples[device]))


CASES: dict[str, Case] = {
    "digits, logistic": Case("digits", "softmax", samples=130),
    "digits, squared": Case("digits", "squared", samples=130),
    "MNIST, logistic": Case("mnist", "softmax", 2),
    "MNIST, squared": Case("mnist", "squared", 2),
    "CIFAR-10, logistic": Case("cifar10", "softmax", 4),
    "CIFAR-10, squared": Case("cifar10", "squared", 4),
    "activity, logistic": Case("sensors", "softmax"),
    # One phone curves eight times as much as the average: at a rate of 0.5 it would diverge.
    "activity, squared": Case("sensors", "squared", rate=0.1),
    "digits, tanh": Case("digits", "tanh", samples=130, rate=0.1),
    "digits, ReLU": Case("digits", "relu", samples=130, rate=0.1),
    "MNIST, tanh": Case("mnist", "tanh", 2, rate=0.1),
    "MNIST, ReLU": Case("mnist", "relu", 2, rate=0.1),
    "digits, convolutional": Case("digits", "conv", samples=130, rate=0.1, widths=(4, 8, 16), levels=(1, 4)),
    "CIFAR-10, convolutional": Case(
        "cifar10", "conv", 4, samples=200, rate=0.1, widths=(4, 8, 16), levels=(1, 4)
    ),
}
QUICK = {
    "digits, logistic": Case("digits", "softmax", devices=4, samples=60, rounds=4, levels=(1, 4)),
    "digits, tanh": Case(
        "digits", "tanh", devices=3, samples=40, rounds=4, levels=(1,), widths=(4,), rate=0.1
    ),
}


def _with_constant(x: Floats) -> Floats:
    rows = x.reshape(len(x), -1)
    return np.concatenate([rows, np.ones((len(rows), 1), dtype=np.float32)], axis=1)


def _learning_rate(case: Case, x: Floats) -> float:
    """`rate` over the largest curvature that the loss of a linear model can have on all samples."""
    if case.model in NETWORKS:
        return case.rate
    rows = x.astype(np.float64)
    largest = float(np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1])
    return case.rate / (largest if case.model == "squared" else 0.5 * largest)


@lru_cache(maxsize=2)
def build(case: Case) -> Federation:
    """Draw a federation."""
    data: Data = load(case.data, case.pool)
    rng = np.random.default_rng([case.seed, zlib.crc32(case.data.encode())])
    if data.owner is not None:
        hands = [np.flatnonzero(data.owner == device) for device in range(int(data.owner.max()) + 1)]
    else:
        counts = sizes(case.devices, case.samples, case.spread, rng)
        hands = split(data.y, "skew", counts, data.classes, case.alpha, rng)
    order = np.concatenate(hands)
    if case.model in LINEAR:
        x = data.flat().x[order]
    else:
        x = data.x[order].reshape(len(order), -1) if case.model == "conv" else _with_constant(data.x[order])
    y = data.y[order]
    if case.shuffled:
        y = rng.permutation(y)
    held = np.array([len(hand) for hand in hands], dtype=np.int64)
    if isinstance(case, ChangedCase):
        own = np.repeat(np.arange(len(held)), held) == case.changed
        y = np.where(own, (y + 1) % data.classes, y)
    shape = data.x.shape[1:]
    return Federation(
        case=case,
        x=np.ascontiguousarray(x),
        y=y,
        starts=np.cumsum(held) - held,
        samples=held,
        classes=data.classes,
        side=shape[-1] if len(shape) == 3 else 0,
        channels=shape[0] if len(shape) == 3 else 0,
        learning_rate=_learning_rate(case, x),
    )
