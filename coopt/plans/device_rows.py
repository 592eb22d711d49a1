"""What a plan asks of each device, as rows of a table."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coopt.problem import limits
from coopt.problem.device_steps import at_device_steps
from coopt.problem.problem import Problem


class Rounds(Protocol):
    """Rounds that are all alike: a plan, or one phase of it."""

    @property
    def rounds(self) -> int:
        """K."""
        ...

    @property
    def local_steps(self) -> int:
        """Tau."""
        ...

    @property
    def batch_sizes(self) -> NDArray[np.int64]:
        """s_i, shape (N,)."""
        ...


def device_rows(
    problem: Problem, plan: Rounds, count: int | None = None, device_steps: NDArray[np.int64] | None = None
) -> list[dict[str, Any]]:
    """One flat dict a device, named where the fleet names it; the first `count` where that is given.

    ``local_steps`` is in it where devices take steps of their own.

    ``cost`` and ``seconds`` are those of all rounds, without the server's ``round_cost``; where only some
    devices take part in a round, they are those of a device that takes part in each.
    """
    problem = at_device_steps(problem, plan.local_steps, device_steps)
    fleet, batches = problem.fleet, plan.batch_sizes
    step = fleet.sample_cost * batches + fleet.step_cost
    cost = plan.rounds * (plan.local_steps * step + fleet.round_cost)
    seconds = limits.device_times(problem, plan.rounds, plan.local_steps, batches)
    names = fleet.names or tuple(map(str, range(len(fleet))))
    columns = (batches, fleet.samples, *fleet.batch_range(), cost, seconds)
    rows = [
        {
            "device": name,
            "batch_size": batch,
            "samples": samples,
            "smallest_batch": low,
            "largest_batch": high,
            "cost": spent,
            "seconds": taken,
        }
        for name, batch, samples, low, high, spent, taken in zip(
            names[:count], *(column[:count].tolist() for column in columns), strict=True
        )
    ]
    if device_steps is None:
        return rows
    return [row | {"local_steps": n} for row, n in zip(rows, device_steps[:count].tolist(), strict=True)]
