"""What a planner wants to be measured before the next round, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Directions and rows of a device, from the dearest, and the share of each limit that they may take. More of
# both forecasts better where there is much to spend. Where there is little, fewer rows say nearly as much,
# and planning by a few directions is worth a fifth of it: otherwise rates and steps stay as they were given.
EFFORTS = (
    (32, 32, 32, 0.05),
    (24, 16, 16, 0.05),
    (16, 8, 2, 0.1),
    (12, 8, 2, 0.1),
    (8, 8, 2, 0.1),
    (4, 8, 2, 0.1),
    (8, 8, 2, 0.2),
    (4, 8, 2, 0.2),
)
# Share of what is left that measuring may take.
MOST_OF_THE_REST = 0.3
# Rows that a slow device may do with, and devices that may be left out, by their weight. More of them are
# left out only where nothing could be measured otherwise: a plan by most of the devices, in which the others
# count as these do, is much better than one by reports alone.
FEWEST_ROWS, LEFT_OUT = 2, 0.1
RATHER_LEFT_OUT = (LEFT_OUT, 0.2, 0.35)
# Gradients of every row beside the products: at the start, at the end, of single rows, of fresh ones.
BESIDE = 7
# Exchanges are cut off after so many times what they should take.
SLACK = 3.0


@dataclass(frozen=True, eq=False)
class MeasureRequest:
    """What is to be measured, on whom.

    Attributes
    ----------
    rows : numpy.ndarray of int64, shape (N,)
        Rows for gradient and curvature of each device; 0 where it is not to be asked.
    directions : int
        Directions, at most; each is one exchange, and there are two more.
    seed : int
        Source of the rows.
    cost, seconds : float
        What all of it should take.
    deadline : float
        Seconds after which an exchange goes on without those that have not answered.
    """

    rows: Ints
    directions: int
    seed: int
    cost: float
    seconds: float
    deadline: float

    @property
    def left_out(self) -> Ints:
        """Devices that are not to be asked."""
        return np.flatnonzero(self.rows == 0)

    @property
    def exchanges(self) -> int:
        """How often a vector as long as the model goes down and up."""
        return self.directions + 2

    def samples(self, gradients_a_product: int) -> Ints:
        """Samples that each device processes, at most, shape (N,)."""
        return self.rows * _gradients(self.directions, gradients_a_product)


def request(
    fleet: Fleet,
    active: Ints,
    *,
    left: Budget,
    total: Budget,
    gradients_a_product: int,
    seed: int,
    most_share: float = 1.0,
    most_directions: int | None = None,
) -> MeasureRequest | None:
    """The most that measuring may take of what a run may spend; None where too little is left.

    Parameters
    ----------
    fleet : Fleet
        All devices, with their speeds and costs as they are known.
    active : numpy.ndarray of int
        Those that can be asked.
    left, total : Budget
    gradients_a_product : int
        Gradients that a product with the curvature takes.
    seed : int
    most_share : float, default 1
        Share of each limit that measuring may take at most, and half as much again of what is left of it.
    most_directions : int, optional
    """
    limits = (total.cost, left.cost), (total.time, left.time)
    for left_out, (directions, most, fewest, share) in product(RATHER_LEFT_OUT, EFFORTS):
        if directions > (most_directions or directions) or share > most_share:
            continue
        # Measuring has to pay in what is left: of that it may take three times the share, and 30 % at most.
        part = min(3.0 * share, MOST_OF_THE_REST, 1.5 * most_share)
        cost, seconds = (min(share * whole, part * rest) for whole, rest in limits)
        found = _fitting(
            fleet, active, directions, most, fewest, left_out, cost, seconds, gradients_a_product, left
        )
        if found is not None:
            rows, cost, seconds = found
            each = seconds / (directions + 2)
            deadline = min(SLACK * each, left.time) if each > 0.0 else left.time
            return MeasureRequest(rows, directions, seed, cost, seconds, deadline)
    return None


def _gradients(directions: int, gradients_a_product: int) -> int:
    """Gradients of a row that are evaluated in all."""
    return gradients_a_product * (directions + 1) + BESIDE


def _fitting(
    fleet: Fleet,
    active: Ints,
    directions: int,
    most: int,
    fewest: int,
    left_out: float,
    cost: float,
    seconds: float,
    gradients_a_product: int,
    left: Budget,
) -> tuple[Ints, float, float] | None:
    """Rows of every device within a cost and a time, and what they take of both."""
    exchanges, gradients = directions + 2, _gradients(directions, gradients_a_product)
    batches = gradients_a_product * directions + 4  # and single rows, which come as one batch
    still = exchanges * fleet.round_time[active] + batches * fleet.step_time[active]
    spare = np.maximum(seconds - still, 0.0) / gradients
    with np.errstate(invalid="ignore"):
        allowed = np.nan_to_num(fleet.throughput[active] * spare, nan=0.0, posinf=np.inf)
    held = fleet.samples[active]
    if fleet.micro_batch is not None:
        # A gradient is taken of all rows at once, which memory has to hold.
        held = np.minimum(held, fleet.micro_batch[active])
    for rows in range(most, fewest - 1, -1):
        each = np.minimum(np.floor(np.minimum(allowed, rows)), held).astype(np.int64)
        each[each < np.minimum(FEWEST_ROWS, held)] = 0
        dropped = 1.0 - float(fleet.weights[active][each > 0].sum() / fleet.weights[active].sum())
        if dropped > left_out + 1e-9:
            return None
        spent = float(each @ fleet.sample_cost[active]) * gradients
        spent += float(fleet.step_cost[active][each > 0].sum()) * batches + exchanges * left.round_cost
        if spent <= cost:
            asked = each > 0
            busy = each / fleet.throughput[active] * gradients + still
            every = np.zeros(len(fleet), dtype=np.int64)
            every[active] = each
            return every, spent, float(busy[asked].max(initial=0.0))
    return None
