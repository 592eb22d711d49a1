"""What a plan of the grid gets within a limit: a cost budget, or a deadline with measured phones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from benchmarks.federated.data import Floats
from benchmarks.federated.federation import MODEL_BYTES, REFERENCE_SAMPLES, phones
from benchmarks.forecast.study import PILOT_BATCH, PILOT_STEPS, Measured, Pair, Study
from coopt import Budget
from coopt.adapters.system import SystemModel


class Limit(Protocol):
    """A budget that can be spent in part."""

    def rounds(self, pair: Pair, share: float = 1.0) -> int:
        """Rounds of a plan of the grid that a share of the budget allows."""
        ...

    def charge(self, measured: Measured) -> float:
        """Share of the budget that a pilot and its measurement take."""
        ...

    def too_slow(self, rows: int, directions: int) -> tuple[int, ...]:
        """Devices that are not measured."""
        ...

    def fleet(self) -> dict[str, Floats]:
        """What the fleet has of it."""
        ...

    def budget(self, share: float) -> Budget:
        """What a solver is asked with a share of the budget left."""
        ...


SHARE = 0.1


@dataclass(frozen=True, eq=False)
class CostLimit:
    """Samples, those of rounds and exchanges included."""

    study: Study
    level: float

    @property
    def cost(self) -> float:
        """All of it."""
        return self.study.federation.cost(self.level)

    def rounds(self, pair: Pair, share: float = 1.0) -> int:
        return self.study.rounds(share * self.cost, pair)

    def charge(self, measured: Measured) -> float:
        return measured.work / self.cost

    def too_slow(self, rows: int, directions: int) -> tuple[int, ...]:
        return ()

    def fleet(self) -> dict[str, Floats]:
        return {}

    def budget(self, share: float) -> Budget:
        return self.study.budget(share * self.cost)


class Phones:
    """A deadline, and devices as fast as measured phones; the largest cost limit holds as well.

    Parameters
    ----------
    study : Study
    level : float
        The deadline is what `level` times the rounds of 120 samples take with a phone of mean speed and the
        slowest link.
    seed : int
        Which phones.
    """

    def __init__(self, study: Study, level: float, seed: int = 0) -> None:
        devices = len(study.federation)
        self.study, self.level = study, level
        clock = SystemModel.from_traces(*phones(), MODEL_BYTES, devices=devices, seed=seed)
        self.throughput: Floats = clock.throughput
        self.round_time: Floats = np.broadcast_to(clock.round_time, devices)
        usual = REFERENCE_SAMPLES / float(np.mean(self.throughput)) + float(np.max(self.round_time))
        self.seconds = level * study.case.rounds * usual
        self.cost = CostLimit(study, max(study.case.levels))

    def rounds(self, pair: Pair, share: float = 1.0) -> int:
        tau, batch = pair
        slowest = float(np.max(tau * batch / self.throughput + self.round_time))
        return min(int(share * self.seconds / slowest * (1 + 1e-12)), self.cost.rounds(pair, share))

    def too_slow(self, rows: int, directions: int) -> tuple[int, ...]:
        """Phones for which measuring would take more than a tenth of the deadline."""
        seconds = (2 * directions + 4) * rows / self.throughput + (directions + 1) * self.round_time
        return tuple(np.flatnonzero(seconds > SHARE * self.seconds).tolist())

    def charge(self, measured: Measured) -> float:
        found = measured.measurement
        pilot = float(np.max(PILOT_STEPS * PILOT_BATCH / self.throughput + self.round_time))
        asked = found.measured
        samples = (2 * found.directions + 4) * found.rows[asked]
        waiting = (found.directions + 1) * self.round_time[asked]
        seconds = measured.pilot * pilot + float(np.max(samples / self.throughput[asked] + waiting))
        return max(seconds / self.seconds, self.cost.charge(measured))

    def fleet(self) -> dict[str, Floats]:
        return {"throughput": self.throughput, "round_time": self.round_time}

    def budget(self, share: float) -> Budget:
        return replace(self.cost.budget(share), time=share * self.seconds)
