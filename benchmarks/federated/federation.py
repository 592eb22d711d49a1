"""One experiment as a value, and the federation that it stands for: who holds what, who is how fast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks import tables
from benchmarks.federated.data import Data, DataUnavailableError, Floats, Ints, _folder, load
from benchmarks.federated.partition import sizes, split
from coopt import Budget, Fleet
from coopt.adapters.system import SystemModel

MODEL_BYTES = 1e6
# Tau times s of the published experiments; the budget is what it costs for `rounds` rounds.
REFERENCE_SAMPLES = 120


@dataclass(frozen=True)
class Instance:
    """An experiment, without its seed.

    Attributes
    ----------
    data, pool : str, int
        Data set and pooling, see `benchmarks.federated.data.load`.
    model : {"svm", "logistic", "cnn"}
        What is trained.
    devices : int
        N; the sensors bring their own.
    case, alpha : str, float
        Partition, see `benchmarks.federated.partition.mixes`.
    samples, spread : float
        Mean samples of a device, and the standard deviation of their logarithm.
    speeds : float
        Ratio of the fastest to the slowest device, drawn log-uniformly; 0 for measured phones and links.
    rounds : int
        Rounds of 120 samples a device that the cost budget allows.
    round_cost : float
        Cost of a round, in samples, per device.
    time : float
        Time budget over what these rounds take with a device of mean speed and the slowest link.
    rate : float
        Learning rate times smoothness; for "cnn" the learning rate itself.
    jitter, dropout : float
        Of the simulated clock.
    stream : tuple of str or None
        (sampler, arrivals, order) of streaming data, see `benchmarks.federated.streams`.
    widths : tuple of int
        Of "cnn", see `benchmarks.federated.models.cnn`.
    evaluate_every : int
        Rounds between evaluations.
    test : int
        Test samples.
    """

    data: str
    pool: int = 1
    model: str = "logistic"
    devices: int = 20
    case: str = "skew"
    alpha: float = 0.5
    samples: float = 400.0
    spread: float = 1.0
    speeds: float = 0.0
    rounds: int = 60
    round_cost: float = 12.0
    time: float = 1.0
    rate: float = 0.5
    jitter: float = 0.2
    dropout: float = 0.0
    stream: tuple[str, str, str] | None = None
    widths: tuple[int, int, int] = (8, 16, 32)
    evaluate_every: int = 1
    test: int = 2000


@dataclass(frozen=True, eq=False)
class Federation:
    """Data of every device, test data, clock, and what the user of a controller knows beforehand."""

    data: Data
    hands: list[Ints]
    system: SystemModel
    fleet: Fleet
    budget: Budget
    learning_rate: float


@lru_cache(maxsize=1)
def phones() -> tuple[Floats, Floats]:
    """Milliseconds per sample of measured phones, and kbit/s of measured links."""
    folder = _folder("devices")
    if folder is None:
        raise DataUnavailableError("the speeds of measured phones need COOPT_DATA")

    def column(name: str, key: str, keep: str) -> Floats:
        rows = [row for row in tables.read(folder / name) if row.get("case", "3") == keep]
        return np.array([float(row[key]) for row in rows])

    # The second most heterogeneous of four cases: the first has links of 2 kbit/s.
    return column("phone_latency.csv", "resnet_ms", "3"), column(
        "phone_tcp_kbps.csv", "tcp_down_kbps_mean", "3"
    )


def system(instance: Instance, devices: int, seed: int) -> SystemModel:
    """Draw the devices and their links."""
    luck = {"compute_jitter": instance.jitter, "link_jitter": instance.jitter, "dropout": instance.dropout}
    if not instance.speeds:
        return SystemModel.from_traces(*phones(), MODEL_BYTES, devices=devices, seed=seed, **luck)
    rng = np.random.default_rng([seed, 5])
    position = rng.permutation(devices) / max(devices - 1, 1)
    return SystemModel(10.0 * instance.speeds ** (position - 0.5), 0.4, seed=seed, **luck)


def build(instance: Instance, seed: int) -> Federation:
    """Draw a federation; the same for every method."""
    rng = np.random.default_rng([seed, 4])
    data = load(instance.data, instance.pool)
    if instance.model != "cnn":
        data = data.flat()
    if data.owner is not None:
        hands = [np.flatnonzero(data.owner == device) for device in range(int(data.owner.max()) + 1)]
    else:
        counts = sizes(instance.devices, instance.samples, instance.spread, rng)
        hands = split(data.y, instance.case, counts, data.classes, instance.alpha, rng)
    clock = system(instance, len(hands), seed)
    held = [len(hand) for hand in hands]
    fleet = Fleet(held, gradient_noise=1.0, divergence=1.0)
    work = REFERENCE_SAMPLES * len(hands)
    usual = REFERENCE_SAMPLES / float(np.mean(clock.throughput)) + float(np.max(clock.round_time))
    budget = Budget(
        cost=instance.rounds * (work + instance.round_cost * len(hands)),
        time=instance.rounds * instance.time * usual,
        round_cost=instance.round_cost * len(hands),
    )
    return Federation(data, hands, clock, fleet, budget, _learning_rate(instance, data, hands))


def _learning_rate(instance: Instance, data: Data, hands: list[Ints]) -> float:
    """`rate` over the largest curvature that the loss of any model can have on these samples."""
    if instance.model == "cnn":
        return instance.rate
    rows = data.x[np.concatenate(hands)].astype(np.float64)
    largest = float(np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1])
    return instance.rate / (2.0 * largest if instance.model == "svm" else 0.5 * largest)
