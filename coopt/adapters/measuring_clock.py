"""How long measuring takes a simulated fleet: some exchanges, each as long as its slowest device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coopt.adapters.system import RoundTimes, SystemModel
from coopt.online.measure_request import MeasureRequest

# The luck of exchanges is drawn from numbers of rounds that no training reaches, so many for a measurement.
FIRST, EACH = 2**40, 2**12
# Single rows, fresh ones among them, come as batches of the gradients that they take.
AT_THE_END = 4


@dataclass(frozen=True, eq=False)
class MeasuringClock:
    """Exchanges of a measurement before some round.

    Attributes
    ----------
    system : SystemModel
    request : MeasureRequest
    round : int
        Before which it is taken.
    gradients_a_product : int
    """

    system: SystemModel
    request: MeasureRequest
    round: int
    gradients_a_product: int

    def answering(self) -> npt.NDArray[np.int64]:
        """Rows of each device, 0 also for those that do not answer the first exchange in time, shape (N,)."""
        first = self._exchange(0, 1, 1)
        return np.where(first.arrived(self.request.deadline), self.request.rows, 0)

    def seconds(self, directions: int) -> float:
        """What it took with so many directions, of the devices that answered."""
        took = [self._seconds(0, 1, 1)]
        took += [
            self._seconds(k, self.gradients_a_product, self.gradients_a_product)
            for k in range(1, directions + 1)
        ]
        # The gradient again, single rows with their curvature, and as many fresh ones twice.
        took.append(self._seconds(directions + 1, 4 + self.gradients_a_product, AT_THE_END))
        return float(sum(took))

    def _exchange(self, number: int, gradients: int, steps: int) -> RoundTimes:
        return self.system.round(
            FIRST + EACH * self.round + number,
            self.request.rows * gradients,
            np.where(self.request.rows, steps, 0),
        )

    def _seconds(self, number: int, gradients: int, steps: int) -> float:
        times = self._exchange(number, gradients, steps)
        asked = self.request.rows > 0
        return min(float(np.max(times.total[asked], initial=0.0)), self.request.deadline)
