"""Fewer local steps for devices that would hold up the others even with their smallest batches.

All devices take the same local steps, and time limits are met by smaller batches. Where the smallest batch of
a slow device is large, it holds up everybody: then it takes as many steps as fit in the round of the others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from coopt.problem.fleet import Fleet
from coopt.problem.limits import parts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# A device has steps of its own if with its smallest batch it takes so many times as long as the usual one.
HOLDS_UP = 2.0
MOST_SLOW = 0.5  # weight of all that have


def step_seconds(fleet: Fleet, batch_sizes: Ints) -> Floats:
    """Seconds of a local step on every device, shape (N,)."""
    still = fleet.step_time
    if fleet.micro_batch is not None:
        still = still * parts(fleet.micro_batch, batch_sizes)
    return np.asarray(batch_sizes / fleet.throughput + still, dtype=np.float64)


def holding_up(fleet: Fleet, active: Ints, local_steps: int, batch_sizes: Ints) -> Mask:
    """Which devices hold up the others even with their smallest batches, judged by the round before.

    None where they have half of the weight or more: then the round is as long as it is.
    """
    slow = np.zeros(len(fleet), dtype=bool)
    lower, _ = fleet.batch_range()
    usual = float(np.median((local_steps * step_seconds(fleet, batch_sizes) + fleet.round_time)[active]))
    one = step_seconds(fleet, lower)
    # Fewer steps help where it is the steps that last: a slow link stays as it is.
    helps = one + fleet.round_time <= HOLDS_UP * usual
    slow[active] = (helps & (local_steps * one + fleet.round_time > HOLDS_UP * usual))[active]
    return slow if fleet.weights[slow].sum() < MOST_SLOW * fleet.weights[active].sum() else slow & False


def with_one_step(fleet: Fleet, slow: Mask) -> Fleet:
    """The fleet with slow devices that need the time of one step, whatever the others do: to plan theirs."""
    if not slow.any():
        return fleet
    lower, _ = fleet.batch_range()
    return replace(
        fleet,
        throughput=np.where(slow, np.inf, fleet.throughput),
        step_time=np.where(slow, 0.0, fleet.step_time),
        round_time=fleet.round_time + np.where(slow, step_seconds(fleet, lower), 0.0),
    )


def own_steps(
    fleet: Fleet, active: Ints, slow: Mask, local_steps: int, batch_sizes: Ints
) -> tuple[Ints, Ints]:
    """The local steps and batches of a round in which slow devices do what fits in the time of the others."""
    steps = np.full(len(fleet), local_steps, dtype=np.int64)
    if not slow.any():
        return steps, batch_sizes
    others = active[~slow[active]]
    lower, _ = fleet.batch_range()
    ends = float(
        np.max((local_steps * step_seconds(fleet, batch_sizes) + fleet.round_time)[others], initial=0.0)
    )
    room = np.maximum(ends - fleet.round_time, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        fit = np.nan_to_num(np.floor(room / step_seconds(fleet, lower)), nan=1.0, posinf=local_steps)
        larger = fleet.throughput * (room / local_steps - fleet.step_time)
    own = np.clip(fit, 1, local_steps).astype(np.int64)
    steps[slow] = own[slow]
    most = fleet.rounded_down(
        np.where(own < local_steps, 0.0, np.nan_to_num(larger, nan=0.0, posinf=2.0**52))
    )
    return steps, np.where(slow, np.minimum(batch_sizes, most), batch_sizes)
